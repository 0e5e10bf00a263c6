#!/bin/sh
# Makes .venv hold exactly what requirements.lock says, on Python 3.10; does nothing when it already does.
#
# The stamp is a copy of the lock (and the project's folder, for a virtual environment cannot be moved). It is removed
# before anything is touched and written last, so that an interrupted set-up is seen and made again. Contents are
# compared, not times: a checkout changes those.
set -eu

cd "$(dirname "$0")/.."
PROJECT=$(pwd -P)
LOCK=requirements.lock
VENV=.venv
STAMP=$VENV/.installed.lock
FOLDER=$VENV/.installed.in
LOG=$VENV/setup.log
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

ready() {
    [ -x $VENV/bin/python ] && cmp -s $LOCK $STAMP && [ "$(cat $FOLDER 2>/dev/null)" = "$PROJECT" ]
}

say() { printf '%s\n' "$*" >&2; }

# Runs a command with its output in the log and the seconds on the screen; on failure says what the log ends with.
step() {
    title=$1
    shift
    start=$(date +%s)
    "$@" >>$LOG 2>&1 &
    pid=$!
    # A background command of a script ignores Ctrl-C: it is stopped from here.
    trap 'kill $pid 2>/dev/null; say ""; say "Set-up was interrupted; the same command makes it again."; exit 130' \
        INT TERM HUP
    [ -t 2 ] || say "  $title ..."
    while kill -0 $pid 2>/dev/null; do
        if [ -t 2 ]; then printf '\r  %s ... %d s ' "$title" $(($(date +%s) - start)) >&2; fi
        sleep 0.2
    done
    status=0
    wait $pid || status=$?
    trap - INT TERM HUP
    if [ -t 2 ]; then printf '\r' >&2; fi
    if [ $status -ne 0 ]; then
        say "  $title: failed. The log ($LOG) ends with:"
        tail -n 15 $LOG | sed 's/^/    /' >&2
        command -v c++ >/dev/null 2>&1 || say "Some packages are compiled: install a C++ compiler (Debian: apt install g++)."
        say "Set-up needs the package registry: when the connection or the disk is repaired, the same command does it anew."
        exit 1
    fi
    say "  $title: $(($(date +%s) - start)) s   "
}

# Prints the lines of the lock that pin the package $1, with their hashes.
pinned() {
    awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' $LOCK
}

# pip's own settings of registry and certificates hold for uv as well, which does not read them.
pip_settings() {
    index=$($VENV/bin/python -m pip config get global.index-url 2>/dev/null || true)
    index=${PIP_INDEX_URL:-$index}
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$index"; fi
    certificates=$($VENV/bin/python -m pip config get global.cert 2>/dev/null || true)
    certificates=${PIP_CERT:-$certificates}
    if [ -n "$certificates" ] && [ -z "${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE="$certificates"; fi
}

create() {
    python=$(sh scripts/find-python.sh)
    if ! (cd / && "$python" -E -s -c 'import ensurepip') 2>/dev/null; then
        say "$python has no ensurepip: install it (Debian and Ubuntu: apt install python3.10-venv) or name another" \
            "Python 3.10 with PYTHON=/path/to/python3.10."
        exit 2
    fi
    say "Setting up $VENV with $("$python" -V 2>&1) from $python (once; about 3 GB)"
    rm -rf $VENV
    mkdir $VENV
    step "virtual environment" "$python" -m venv $VENV
}

install() {
    pip_settings
    if ! $VENV/bin/uv --version 2>/dev/null | grep -qF " $(pinned uv | sed -n 's/^uv==\([^ ]*\).*/\1/p')"; then
        pinned uv >$VENV/uv.lock
        step "installer" $VENV/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps \
            --require-hashes --only-binary :all: -r $VENV/uv.lock
    fi
    step "$(grep -c '^[a-z0-9._-]*==' $LOCK) packages of $LOCK" \
        $VENV/bin/uv pip sync --compile-bytecode --no-config --python $VENV/bin/python --require-hashes --build-constraints $LOCK $LOCK
    # Our packages for every process of this Python, Beam's workers included; nothing is copied or built.
    for site in $VENV/lib/python3.10/site-packages; do echo "$PROJECT" >"$site/evergreen-project.pth"; done
}

if ready; then exit 0; fi

# One set-up at a time; who waited finds it done.
if command -v flock >/dev/null 2>&1; then
    exec 9<scripts/setup-venv.sh
    flock 9
    if ready; then exit 0; fi
fi

began=$(date +%s)
if [ -e $VENV ] && ! [ -f $VENV/pyvenv.cfg ] && ! [ -f $LOG ]; then
    say "$PROJECT/$VENV is there and is no virtual environment: move it away, then type the command again."
    exit 2
fi
if [ -x $VENV/bin/python ] && [ -f $STAMP ] && [ "$(cat $FOLDER 2>/dev/null)" = "$PROJECT" ]; then
    say "$LOCK has changed: bringing $VENV up to date"
    rm -f $STAMP
else
    create
fi
install
printf '%s\n' "$PROJECT" >$FOLDER
cp $LOCK $STAMP.tmp
mv $STAMP.tmp $STAMP
say "$VENV is ready after $(($(date +%s) - began)) s."
