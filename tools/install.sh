#!/usr/bin/env bash
# Makes .venv at the repository's root and installs turbo4d into it, editable.
#
#   bash tools/install.sh [EXTRAS]      EXTRAS as in pyproject.toml, comma-separated: dev,cpu
#
# A second run with nothing changed takes a moment. On Linux without an NVIDIA driver it takes the
# CPU build of torch, where that can be had, rather than gigabytes of CUDA libraries.
#   TURBO4D_PYTHON       the Python to make .venv with
#   TURBO4D_TORCH_INDEX  the package index to take torch from, and no other
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=${1:-}
torch=torch==2.13.0
cpu_index=https://download.pytorch.org/whl/cpu
python=.venv/bin/python
stamp=.venv/turbo4d-installed

say() { printf '== %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# What an installation depends on: this script, the declared dependencies, and where they stand.
fingerprint() { { pwd && cat pyproject.toml tools/install.sh; } | cksum | tr ' ' '-'; }

is_usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${TURBO4D_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if is_usable "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "turbo4d needs Python 3.11 to 3.14 and found none${TURBO4D_PYTHON:+ at TURBO4D_PYTHON=$TURBO4D_PYTHON}; install one, or set TURBO4D_PYTHON to it."
}

make_venv() {
    local with
    with=$(find_python)
    say "making .venv with $("$with" --version)"
    "$with" -m venv --clear .venv ||
        die "$with could not make .venv; on Debian and Ubuntu install the package python3-venv."
}

has_torch() { "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; }

has_nvidia_driver() { [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; }

install_torch() {
    if [ -n "${TURBO4D_TORCH_INDEX:-}" ]; then
        say "installing $torch from $TURBO4D_TORCH_INDEX"
        "$python" -m pip install -q --no-deps --index-url "$TURBO4D_TORCH_INDEX" "$torch"
    elif [ "$(uname -s)" = Linux ] && ! has_nvidia_driver; then
        say "installing $torch, the CPU build where there is one (no NVIDIA driver found)"
        # "2.13.0+cpu" outranks "2.13.0", so pip prefers that index; where it is out of reach pip
        # says so and goes on with the others. --no-deps: only torch itself is looked for there.
        "$python" -m pip install -q --no-deps --only-binary :all: --timeout 15 --retries 1 \
            --extra-index-url "$cpu_index" "$torch"
    else
        say "installing $torch"
        "$python" -m pip install -q --only-binary :all: "$torch"
    fi
}

# The stamp's lines are "fingerprint extras". Any line will do for a caller that asks for no extras.
is_installed() { [ -f "$stamp" ] && grep -q "^$wanted ${extras:-.*}\$" "$stamp"; }

wanted=$(fingerprint)
if is_installed; then
    exit 0
fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
    make_venv
fi
has_torch || install_torch
say "installing turbo4d${extras:+[$extras]}"
"$python" -m pip install -q -e ".${extras:+[$extras]}"
printf '%s %s\n' "$wanted" "$extras" >>"$stamp"
