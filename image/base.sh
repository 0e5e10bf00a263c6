#!/bin/sh
# Makes the base image where no registry is in reach: Debian 12 by debootstrap, with a Python 3.10 of this machine in it.
#
#   sh image/base.sh NAME        an image NAME in buildah's store, for `--build-arg BASE=NAME`
#
# Where python:3.10-slim-bookworm can be pulled nothing of this is needed. Needs root, buildah and debootstrap.
# MIRROR names Debian's mirror; PYTHON the interpreter, else scripts/find-python.sh finds one.
set -eu

cd "$(dirname "$0")/.."
NAME=${1:?the name of the image}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
PREFIX=$(dirname "$(dirname "$(sh scripts/find-python.sh)")")
# What the extension modules of Python link to, and the certificates.
LIBRARIES=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
root=$work/root

debootstrap --variant=minbase --include=$LIBRARIES bookworm "$root" "$MIRROR" >"$work/log" 2>&1 ||
    { tail -n 15 "$work/log" >&2; exit 1; }

# Python finds its library beside its executable, wherever that is. What others installed into it stays behind.
mkdir -p "$root/usr/local/bin" "$root/usr/local/lib" "$root/usr/local/include"
cp -a "$PREFIX/bin/python3.10" "$root/usr/local/bin/"
ln -s python3.10 "$root/usr/local/bin/python3"
ln -s python3.10 "$root/usr/local/bin/python"
cp -a "$PREFIX/include/python3.10" "$root/usr/local/include/"
cp -a "$PREFIX"/lib/libpython3.10.so* "$root/usr/local/lib/" 2>/dev/null || true
(cd "$PREFIX/lib" && tar -cf - --exclude='python3.10/site-packages/*' --exclude='__pycache__' --exclude='python3.10/test' \
    --exclude='python3.10/idlelib' --exclude='python3.10/tkinter' --exclude='python3.10/turtledemo' --exclude='*.a' \
    --exclude='python3.10/lib2to3/tests' --exclude='python3.10/lib-dynload/_tkinter*' python3.10) |
    tar -xf - -C "$root/usr/local/lib"
chroot "$root" ldconfig
chroot "$root" /usr/local/bin/python -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib/python3.10 \
    >/dev/null || true # lib2to3 carries files of Python 2
chroot "$root" /usr/local/bin/python -c 'import bz2, ctypes, lzma, readline, sqlite3, ssl, uuid, venv, zlib'

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/etc/resolv.conf "$root"/etc/hostname
echo "deb $MIRROR bookworm main" >"$root/etc/apt/sources.list"

container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 \
    --label org.opencontainers.image.title="Debian 12 with $("$PREFIX/bin/python3.10" -V)" --cmd python "$container"
buildah commit --quiet --rm "$container" "$NAME"
