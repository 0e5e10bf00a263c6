#!/bin/sh
# Pins what the images hold, with hashes: the run-time part of requirements.in at the versions of requirements.lock.
#
# cpu.lock has TensorFlow without CUDA, gpu.lock with NVIDIA's libraries, tools.lock what builds (uv, an SBOM maker).
set -eu

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() {
    .venv/bin/uv pip compile --python-version 3.10 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --no-annotate --no-header --quiet --constraint "$work/versions" "$@"
}

grep -E '^[a-z0-9._-]+==' requirements.lock | sed 's/ *\\$//' >"$work/versions"
sed '/^# tools$/,$d' requirements.in >"$work/run-time"
sed 's/^tensorflow==/tensorflow-cpu==/' "$work/run-time" >"$work/cpu.in"
sed 's/^tensorflow==/tensorflow[and-cuda]==/' "$work/run-time" >"$work/gpu.in"
# What asks for `tensorflow` is content with tensorflow-cpu, which has the same modules.
echo "tensorflow ; python_version < '3'" >"$work/overrides"
compile --override "$work/overrides" "$@" "$work/cpu.in" -o image/cpu.lock
compile "$@" "$work/gpu.in" -o image/gpu.lock
compile "$@" image/tools.in -o image/tools.lock
