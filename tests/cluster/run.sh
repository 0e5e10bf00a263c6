#!/bin/sh
# The tests on a real cluster, unattended.
#
#   sh tests/cluster/run.sh [pytest's arguments]
#   sh tests/cluster/run.sh startup                   no tests: what a naive image costs, and ours
#   sh tests/cluster/run.sh -m flink                  a node whose Beam work an Apache Flink outside the cluster does
#
# With KFP_ENDPOINT, KUBECONFIG and EVERGREEN_IMAGE (an image by digest that the cluster can pull) they run on the cluster
# that these name; its namespace of runs has ReadWriteMany claims `data` and `registry`. Otherwise CLUSTER is a program
# that keeps a cluster on this machine (../shared/cluster/cluster): it is brought up, given the image (built where there
# is none for this revision) and the claims, and taken down at the end.
set -eu

cd "$(dirname "$0")/../.."
if [ -z "${KFP_ENDPOINT:-}" ]; then
    CLUSTER=${CLUSTER:-../shared/cluster/cluster}
    [ -x "$CLUSTER" ] || { echo "No cluster: set KFP_ENDPOINT, KUBECONFIG and EVERGREEN_IMAGE, or CLUSTER." >&2; exit 2; }
    if [ -z "${EVERGREEN_IMAGE:-}" ]; then
        sh image/build.sh
        EVERGREEN_IMAGE=$(cat image/out/evergreen-cpu.name)
        archive=image/out/evergreen-cpu.tar
    fi
    trap '"$CLUSTER" down' EXIT
    trap 'exit 130' INT TERM HUP
    kept=${CLUSTER_HOME:-$HOME/.cache/evergreen-cluster}
    # Argo keeps a pod until it has seen how it ended, so that a deleted one is a failed attempt and retried.
    export ARGO_POD_STATUS_CAPTURE_FINALIZER=true
    "$CLUSTER" up
    # What left at once is noted without the time of its start, which the program then takes for a running one.
    for noted in "$kept"/run/*.pid; do
        read -r pid start <"$noted" || true
        [ -n "$start" ] || [ -d "/proc/$pid" ] || rm "$noted"
    done
    "$CLUSTER" up
    [ -z "${archive:-}" ] || "$CLUSTER" load "$archive"
    for claim in data registry artifacts; do "$CLUSTER" volume "$claim" 10; done
    export EVERGREEN_VOLUMES="$kept/var/volumes"
    KFP_ENDPOINT=http://127.0.0.1:8888
    KUBECONFIG=$kept/pki/admin.kubeconfig
fi
export KFP_ENDPOINT KUBECONFIG EVERGREEN_IMAGE
if [ "${1:-}" = startup ]; then
    .venv/bin/python -m tests.cluster.startup
else
    .venv/bin/python -m pytest tests/cluster --durations=0 "$@"
fi
