"""Runs the pipeline on the cluster twice, as a naive image would and as ours does, and prints where the seconds go.

    python -m tests.cluster.startup            # with KFP_ENDPOINT, KUBECONFIG and EVERGREEN_IMAGE (see run.sh)

Naive is: no byte code, TFX loaded whole, and an interpreter that takes itself apart at its end. Printed are each node's
container at work, and the whole run, in which KFP's drivers, Argo's waits and the start of pods have their share too.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipeline import nodes
from tests.cluster.rig import NAMESPACE, Rig, opened

ROWS = 4000
DATA = """
import pathlib, sys
from datagen import humidity
humidity.generate(pathlib.Path(sys.argv[1]), spans=3, rows=int(sys.argv[2]))
"""
_ENTRYPOINT = ["python", "-m", "components.entrypoint"]
_NAIVE = "import sys; from components.entrypoint.__main__ import main; sys.exit(main(sys.argv[1:]))"
# The image itself says that none is written.
_NO_BYTE_CODE = {"name": "PYTHONPYCACHEPREFIX", "value": "/nowhere"}


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds of one run."""

    whole: float
    work: dict[str, float]
    """Of each node, from the start of its container to the end."""


def naive(package: Path) -> Path:
    """Writes the pipeline as a naive image would run it."""
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if container["command"] == _ENTRYPOINT:
            container["command"] = ["python", "-c", _NAIVE]
            container["args"].append("--eager")
            container["env"] = [*container.get("env", []), _NO_BYTE_CODE]
    path = package.with_name("naive.yaml")
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return path


def measured(rig: Rig, package: Path) -> Spent:
    """Runs a pipeline to its end without publishing, and says where the seconds went."""
    run = rig.end(rig.start(package, "push=false"))
    began, ended = (datetime.datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at"))
    work = {}
    for node in nodes.names(curated_schema=True):
        states = [_main(pod).terminated for pod in rig.pods_of(run["run_id"], node)]
        work[node] = sum((state.finished_at - state.started_at).total_seconds() for state in states)
    return Spent((ended - began).total_seconds(), work)


def _main(pod: Any) -> Any:
    return next(status.state for status in pod.status.container_statuses if status.name == "main")


def main() -> int:
    """Runs both and prints the table."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as rig:
        rig.python(DATA, rig.data, str(ROWS))
        package = rig.compiled()
        before, after = (measured(rig, each) for each in (naive(package), package))
    print(f"{NAMESPACE}, {rig.image}, {ROWS} rows a span\n\n| | a naive image | ours |\n|---|---|---|")
    for node, seconds in before.work.items():
        print(f"| {node} | {seconds:.0f} s | {after.work[node]:.0f} s |")
    print(f"| all nodes | {sum(before.work.values()):.0f} s | {sum(after.work.values()):.0f} s |")
    print(f"| the run | {before.whole:.0f} s | {after.whole:.0f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
