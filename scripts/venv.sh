#!/bin/sh
# Make .venv with KrakenTX and what it needs inside; say in one line what is missing on this machine.
#   scripts/venv.sh [EXTRA [FOLDER]]     EXTRA: an extra of setup.cfg, such as dev; FOLDER: another one than .venv
# Needs a network the first time only: make runs it again only when setup.cfg has changed.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
extra=${1:-}
venv=${2:-.venv}

fail() {
    echo "error: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "$python is not on this machine; install it (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version 2>&1) is too old; KrakenTX needs 3.10 or newer (name another one: make PYTHON=python3.11)"

# One that was moved, or whose python is gone, is made anew.
if [ -e "$venv" ] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments: venv or pip is missing (Debian: apt-get install python3-venv)"
    echo "making a virtual environment in $venv"
    "$python" -m venv "$venv" || fail "no virtual environment could be made in $(pwd)/$venv"
fi

log=$venv/install.log
printf 'installing KrakenTX into %s (about a minute the first time) ' "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check --editable ".${extra:+[$extra]}" >"$log" 2>&1 &
pip=$!
trap 'kill $pip 2>/dev/null; exit 130' INT TERM
while kill -0 $pip 2>/dev/null; do
    if [ -t 1 ]; then printf .; fi
    sleep 1
done
if ! wait $pip; then
    echo "failed"
    tail -n 15 "$log" >&2
    fail "pip could not install everything; its whole story is in $log"
fi
echo "done"
