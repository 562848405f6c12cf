#!/usr/bin/env bash
# Samples one held-out scene with the nano model, plain and turbo, and writes the pictures and the
# figures to out/demo/. Needs no GPU. Further arguments go to `turbo4d generate` and win:
#
#   bash tools/demo.sh --scene 3 --plan fast
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/install.sh
.venv/bin/turbo4d generate --model nano --plan balanced --scene 0 --steps 20 --compare \
    --out out/demo --force "$@"
