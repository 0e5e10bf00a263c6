"""Runs the pipeline on the cluster twice, as a naive image would and as ours does, and prints where the seconds go.

    python -m tests.cluster.startup            # with KFP_ENDPOINT, KUBECONFIG and EVERGREEN_IMAGE (see run.sh)

Naive is: no byte code, TFX loaded whole, and an interpreter that takes itself apart at its end. Nothing is cached.
Printed are each node's container at work, and the whole run: how long a container of ours was at work in it, how long
only KFP's drivers were, and how long none, which is Argo's and Kubernetes' way from one pod to the next.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import tempfile
from collections.abc import Iterable, Iterator
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
_Span = tuple[float, float]
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
    ours: float
    """While which a container of ours was at work, or several."""
    drivers: float
    """While which only KFP's drivers were."""

    @property
    def between(self) -> float:
        """While which no container was at work."""
        return self.whole - self.ours - self.drivers


def uncached(package: Path) -> list[Any]:
    """Returns the documents of a pipeline, no step of which is spared."""
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    specification = documents[0]
    for component in (specification["root"], *specification["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("cachingOptions", None)
    return documents


def ours(package: Path) -> Path:
    """Writes the pipeline as the image runs it."""
    return _written(uncached(package), package.with_name("ours.yaml"))


def naive(package: Path) -> Path:
    """Writes the pipeline as a naive image would run it."""
    documents = uncached(package)
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if container["command"] == _ENTRYPOINT:
            container["command"] = ["python", "-c", _NAIVE]
            container["args"].append("--eager")
            container["env"] = [*container.get("env", []), dict(_NO_BYTE_CODE)]
    return _written(documents, package.with_name("naive.yaml"))


def _written(documents: list[Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return path


def measured(rig: Rig, package: Path) -> Spent:
    """Runs a pipeline to its end without publishing, and says where the seconds went."""
    run = rig.end(rig.start(package, "push=false"))
    began, ended = (datetime.datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at"))
    pods = rig.pods_of(run["run_id"])
    at_work = [_span(pod) for pod in pods if _main(pod.spec.containers).image == rig.image]
    work = {}
    for node in nodes.names(curated_schema=True):
        spans = [_span(pod) for pod in rig.pods_of(run["run_id"], node)]
        work[node] = sum(end - start for start, end in spans)
    busy = _covered(at_work)
    return Spent(
        whole=(ended - began).total_seconds(),
        work=work,
        ours=busy,
        drivers=_covered([_span(pod) for pod in pods]) - busy,
    )


def _span(pod: Any) -> _Span:
    """Returns when a pod's container began and ended."""
    state = _main(pod.status.container_statuses).state.terminated
    return state.started_at.timestamp(), state.finished_at.timestamp()


def _main(containers: Iterable[Any]) -> Any:
    return next(container for container in containers if container.name == "main")


def _covered(spans: list[_Span]) -> float:
    """Returns how long at least one of the spans lasted."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(spans):
        covered += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return covered


def _rows(*runs: Spent) -> Iterator[tuple[str, list[float]]]:
    for node in runs[0].work:
        yield node, [run.work[node] for run in runs]
    yield "all nodes", [sum(run.work.values()) for run in runs]
    yield "the run", [run.whole for run in runs]
    yield "of it: a container of ours at work", [run.ours for run in runs]
    yield "only a driver of KFP's", [run.drivers for run in runs]
    yield "none", [run.between for run in runs]


def main() -> int:
    """Runs both and prints the table."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as rig:
        rig.python(DATA, rig.data, str(ROWS))
        package = rig.compiled()
        before, after = (measured(rig, each) for each in (naive(package), ours(package)))
    print(f"{NAMESPACE}, {rig.image}, {ROWS} rows a span\n\n| | a naive image | ours |\n|---|---|---|")
    for title, values in _rows(before, after):
        print(f"| {title} | {' | '.join(f'{seconds:.0f} s' for seconds in values)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
