#!/usr/bin/env bash
# Everything a change must pass; continuous integration runs this file.
#
#   bash tools/check.sh          check, stop at the first stage that fails, with its status
#   bash tools/check.sh --fix    first format, and mend what ruff can mend
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stage() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '== %s\n' "$name"
    "$@" || status=$?
    if [ "$status" -ne 0 ]; then
        printf '== %s: failed with status %d after %d s\n' "$name" "$status" $((SECONDS - start))
        exit "$status"
    fi
    printf '== %s: %d s\n' "$name" $((SECONDS - start))
}

case "${1:-}" in
"" | --fix) ;;
*)
    printf 'error: check.sh knows only --fix, not %s\n' "$1" >&2
    exit 2
    ;;
esac

stage "install" bash tools/install.sh dev
python=.venv/bin/python
if [ "${1:-}" = --fix ]; then
    stage "ruff check --fix" "$python" -m ruff check --fix --exit-zero --quiet
    stage "ruff format" "$python" -m ruff format
fi
stage "ruff format --check" "$python" -m ruff format --check
stage "ruff check" "$python" -m ruff check
stage "pyright" "$python" -m pyright
# A process for each core, up to four (each holds torch), one thread in each.
cores=$(getconf _NPROCESSORS_ONLN)
stage "pytest" env OMP_NUM_THREADS=1 "$python" -m pytest -q -n $((cores < 4 ? cores : 4)) --dist loadfile
