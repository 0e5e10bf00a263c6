#!/bin/sh
# Builds the project's image from the Dockerfile without a Docker engine, and writes it out as an archive.
#
#   sh image/build.sh                     # image/out/evergreen-cpu.tar, image/out/evergreen-cpu.cdx.json
#   VARIANT=gpu sh image/build.sh
#
# NAME and TAG name the image (localhost/evergreen, the revision); BASE names the base image and is made by
# image/base.sh where it is left out. Needs buildah; a base of its own also root and debootstrap.
set -eu

cd "$(dirname "$0")/.."
VARIANT=${VARIANT:-cpu}
NAME=${NAME:-localhost/evergreen}
OUT=${OUT:-image/out}
revision=$(git rev-parse HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-modified
TAG=${TAG:-$(printf '%.12s' "$revision")-$VARIANT}
lock=$(sha256sum "image/$VARIANT.lock" | cut -d ' ' -f 1)

command -v buildah >/dev/null 2>&1 || { echo "buildah is not here: apt install buildah" >&2; exit 2; }
if [ -z "${BASE:-}" ]; then
    BASE=localhost/evergreen-base:3.10-bookworm
    buildah inspect --type image "$BASE" >/dev/null 2>&1 || sh image/base.sh "$BASE"
fi
# Where the way out goes through a proxy with a certificate of its own, the build has to trust it as this machine does.
certificates=${SSL_CERT_FILE:-}
trusted=$([ -z "$certificates" ] || echo "--volume $certificates:/etc/ssl/certs/ca-certificates.crt:ro")

mkdir -p "$OUT"
began=$(date +%s)
# shellcheck disable=SC2086 # no certificates, no word
buildah build --quiet --layers --isolation chroot --network host $trusted \
    --build-arg BASE="$BASE" --build-arg VARIANT="$VARIANT" --build-arg REVISION="$revision" --build-arg LOCK="$lock" \
    --tag "$NAME:$TAG" .
built=$(date +%s)

archive=$OUT/evergreen-$VARIANT.tar
rm -f "$archive"
buildah push --quiet "$NAME:$TAG" "docker-archive:$archive:$NAME:$TAG"
container=$(buildah from "$NAME:$TAG")
root=$(buildah mount "$container")
cp "$root/usr/share/sbom/evergreen.cdx.json" "$OUT/evergreen-$VARIANT.cdx.json"
size=$(du -sm "$root" | cut -f 1)
buildah rm "$container" >/dev/null
printf '%s\n' "$NAME:$TAG" >"$OUT/evergreen-$VARIANT.name"
echo "$NAME:$TAG: $size MiB, built in $((built - began)) s; $archive ($(($(wc -c <"$archive") / 1048576)) MiB)" \
    "written in $(($(date +%s) - built)) s"
