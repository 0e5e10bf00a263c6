#!/bin/sh
# Builds the project's image from the Dockerfile without a Docker engine, and writes it out as an archive.
#
#   sh image/build.sh
#   VARIANT=gpu sh image/build.sh
#
# In image/out: evergreen-cpu.tar, an OCI archive; evergreen-cpu.name, the image by its digest, as a compiled pipeline
# names it; evergreen-cpu.cdx.json, the packages in it (CycloneDX).
# NAME and TAG name the image (localhost/evergreen, the revision); BASE names the base image and is made by
# image/base.sh where it is left out. Needs buildah; a base of its own also root and debootstrap.
# What is not our code is an image of its own (NAME-runtime), made when its part of the Dockerfile, a lock or the base
# changed: a change of code then copies no packages.
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

build() {
    # shellcheck disable=SC2086 # no certificates, no word
    buildah build --quiet --layers --isolation chroot --network host $trusted \
        --build-arg BASE="$BASE" --build-arg VARIANT="$VARIANT" "$@" . >/dev/null
}

mkdir -p "$OUT"
began=$(date +%s)
made_of=$( (sed '/^# --- our own wheel/,$d' Dockerfile; cat "image/$VARIANT.lock" image/tools.lock
    buildah inspect --type image --format '{{.FromImageID}}' "$BASE") | sha256sum | cut -c 1-12)
runtime=$NAME-runtime:$VARIANT-$made_of
buildah inspect --type image "$runtime" >/dev/null 2>&1 || build --target runtime --tag "$runtime"
build --build-arg RUNTIME="$runtime" --build-arg REVISION="$revision" --build-arg LOCK="$lock" --tag "$NAME:$TAG"
built=$(date +%s)

# An archive that gives the image its digest for a name: a node that loads it has what a push would have made. Its layers
# are not compressed, which would take longer than all the rest.
archive=$OUT/evergreen-$VARIANT.tar
layout=$OUT/.$VARIANT
rm -rf "$layout" "$archive"
buildah push --quiet --disable-compression --format oci "$NAME:$TAG" "dir:$layout"
rm "$layout/version"
manifest=$(sha256sum "$layout/manifest.json" | cut -d ' ' -f 1)
size=$(stat -c %s "$layout/manifest.json")
mv "$layout/manifest.json" "$layout/$manifest"
image=$NAME@sha256:$manifest
printf '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
cat >"$layout/index.json" <<INDEX
{"schemaVersion": 2, "manifests": [{
  "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:$manifest", "size": $size,
  "annotations": {"io.containerd.image.name": "$image"}
}]}
INDEX
tar -cf "$archive" -C "$layout" --transform 's|^\./\([0-9a-f]\{64\}\)$|blobs/sha256/\1|' .
rm -rf "$layout"
container=$(buildah from "$NAME:$TAG")
root=$(buildah mount "$container")
cp "$root/usr/share/sbom/evergreen.cdx.json" "$OUT/evergreen-$VARIANT.cdx.json"
size=$(du -sm "$root" | cut -f 1)
buildah rm "$container" >/dev/null
printf '%s\n' "$image" >"$OUT/evergreen-$VARIANT.name"
echo "$image ($TAG): $size MiB, built in $((built - began)) s; $archive written in $(($(date +%s) - built)) s"
