#!/bin/sh
# Prints the path of a Python 3.10 that runs; exits 2 with one sentence where there is none.
#
# The lock is made for 3.10, and 3.10 is seldom the first on the path. A version manager's shim may exist and still
# fail, so every candidate is run, from another folder than this one, before it is believed.
# PYTHON names one to take instead: PYTHON=/opt/python3.10/bin/python make run
set -eu

MANAGED="${PYENV_ROOT:-$HOME/.pyenv}/versions ${HOME}/.local/share/uv/python ${HOME}/.asdf/installs/python
${HOME}/.local/share/mise/installs/python ${CONDA_PREFIX:-/nonexistent}"

# Prints the real path of the interpreter $1 when it is a CPython 3.10 that can make encrypted connections.
resolve() {
    (cd / && "$1" -E -s -c '
import sys
if sys.version_info[:2] == (3, 10) and sys.implementation.name == "cpython":
    import ssl, venv
    print(getattr(sys, "_base_executable", sys.executable))
') 2>/dev/null | grep .
}

candidates() {
    # An interpreter named by the user, then what is on the path, then where version managers keep theirs.
    echo python3.10
    for folder in $MANAGED; do
        # A glob that matches nothing stays as it is and fails when it is run.
        for python in "$folder"/3.10*/bin/python "$folder"/cpython-3.10*/bin/python3.10; do
            echo "$python"
        done
    done
    for folder in /usr/bin /usr/local/bin /opt/homebrew/bin "$HOME/.local/bin"; do
        echo "$folder/python3.10"
    done
    echo "${CONDA_PREFIX:-/nonexistent}/bin/python"
    echo python3
    echo python
    if command -v uv >/dev/null 2>&1; then
        (cd / && uv python find --no-python-downloads 3.10 2>/dev/null) || true
    fi
}

if [ -n "${PYTHON:-}" ]; then
    resolve "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON is not a working Python 3.10; name another one or leave PYTHON out." >&2
    exit 2
fi

candidates | while read -r candidate; do
    # The loop is a subshell: its exit status 7 says that one was found.
    if resolve "$candidate"; then exit 7; fi
done && found=0 || found=$?
[ "$found" = 7 ] && exit 0

echo "No Python 3.10 was found: install one with 'pyenv install 3.10', 'uv python install 3.10' or your system's" \
    "package manager (python3.10 and python3.10-venv), or name one with PYTHON=/path/to/python3.10." >&2
exit 2
