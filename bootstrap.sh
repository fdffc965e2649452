#!/bin/sh
# Install this project into .venv with the known-good versions of constraints.txt.
# Usage: ./bootstrap.sh [REQUIREMENT], where REQUIREMENT is . or .[dev]. PYTHON chooses the
# interpreter. Needs nothing but Python >= 3.10; as root on Debian or Ubuntu not even venv.
set -eu
cd "$(dirname "$0")"

find_python() {
    for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "bootstrap.sh: no Python >= 3.10 found; install one, or name it: make PYTHON=/path/to/python" >&2
    exit 1
}

make_venv() {
    "$1" -m venv .venv 2>/dev/null && return
    rm -rf .venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # Debian ships Python without ensurepip.
        apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv
        "$1" -m venv .venv && return
    fi
    "$1" -m virtualenv .venv 2>/dev/null && return
    echo "bootstrap.sh: $1 cannot make a virtual environment; install it first:" >&2
    echo "    sudo apt-get install python3-venv    # Debian, Ubuntu" >&2
    exit 1
}

python=$(find_python)
[ -x .venv/bin/pip ] || make_venv "$python"
.venv/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
    --constraint constraints.txt --editable "${1:-.}"
