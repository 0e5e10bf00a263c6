"""The pipeline on a real Kubernetes with Kubeflow Pipelines: what an emulation of it would not show.

`make test-cluster` runs this; the order of the tests is the order of a system's life. Each run is driven by the
project's own command line, and told of by the exit step through a real webhook.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, dynamic
from tensorflow_metadata.proto.v0 import statistics_pb2

from datagen import humidity
from evergreen.registry import Manifest
from tests.cluster.rig import NAMESPACE, REPOSITORY, Rig, outcome
from tests.deploy import manifests
from tests.deploy.test_manifests import ENTRIES

ROWS = 4000
TOLERANCE = 0.02
"""How far the metrics of two trainings with one seed may lie apart, relative: threads add floats in any order."""
_ADD_SPAN = """
import pathlib, sys
from datagen import humidity
root, rows, fault = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
humidity.generate(root, spans=3, rows=rows) if fault == "first" else humidity.add_span(root, rows=rows, fault=fault)
"""
_BUNDLES = """
import base64, io, sys, tarfile
file = io.BytesIO()
with tarfile.open(fileobj=file, mode="w:gz") as archive:
    archive.add(sys.argv[1], arcname=".")
print(base64.b64encode(file.getvalue()).decode())
"""
_PREDICT = """
import json, sys
from evergreen.registry import Registry
from serving.predictor import Predictor
rows = json.loads(sys.argv[2])
answers = {}
for version in (None, 1, 2):
    predictor = Predictor.from_registry(Registry(sys.argv[1], "humidity"), version)
    answers[str(version)] = [float(answer.outputs["prediction"]) for answer in predictor.predict(rows)]
print("ANSWERS", json.dumps(answers))
"""


@pytest.fixture(scope="session")
def package(rig: Rig) -> Path:
    """Returns the compiled pipeline."""
    return rig.compiled()


@pytest.fixture(scope="session")
def first(rig: Rig, package: Path, evidence: dict[str, Any]) -> dict[str, Any]:
    """Returns the first run, on three spans."""
    rig.python(_ADD_SPAN, rig.data, str(ROWS), "first")
    return _noted(evidence, "first", rig.end(rig.start(package)))


@pytest.fixture(scope="session")
def second(rig: Rig, package: Path, first: dict[str, Any], evidence: dict[str, Any]) -> dict[str, Any]:
    """Returns the second run, on a new span, with one pod deleted and one process killed under it."""
    rig.python(_ADD_SPAN, rig.data, str(ROWS), "")
    run_id = rig.start(package)
    killed = rig.working_pod(run_id, "ExampleGen")
    assert "components.entrypoint" in rig.kill_process(killed)
    lost = {
        "ExampleGen": killed.metadata.uid,
        "Transform": rig.delete_pod(rig.working_pod(run_id, "Transform")),
        "Evaluator": rig.delete_pod(rig.working_pod(run_id, "Evaluator"), force=True),
    }
    name = "second; ExampleGen's process killed, Transform's pod deleted, Evaluator's pod removed by force"
    run = _noted(evidence, name, rig.end(run_id))
    evidence["attempts after a kill"] = {
        node: {"lost": pod, "done by": _done_by(rig, run_id, node)} for node, pod in lost.items()
    }
    return run


@pytest.fixture(scope="session")
def bundles(rig: Rig, second: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the bundles of both versions, as they lie on the volume."""
    folder = tmp_path_factory.mktemp("bundles")
    content = base64.b64decode(rig.python(_BUNDLES, f"{rig.registry}/humidity/.bundles").split()[-1])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_the_first_run_succeeds_and_is_told_of(rig: Rig, first: dict[str, Any]) -> None:
    told = outcome(rig.webhook.told_of(first["run_id"]))
    assert told["Outcome"] == "SUCCEEDED"
    assert {node["state"] for node in first["nodes"]} == {"done"}


def test_a_killed_process_and_a_deleted_pod_are_retried_and_the_run_ends_well(
    rig: Rig, second: dict[str, Any], evidence: dict[str, Any]
) -> None:
    assert {node["state"] for node in second["nodes"]} <= {"done", "unchanged"}
    for attempts in evidence["attempts after a kill"].values():
        assert attempts["done by"] != attempts["lost"]
    assert outcome(rig.webhook.told_of(second["run_id"]))["Outcome"] == "SUCCEEDED"


def test_the_second_run_has_the_new_span_and_the_first_ones_model_as_baseline(bundles: Path) -> None:
    old, new = _manifest(bundles, 1), _manifest(bundles, 2)
    assert [span["span"] for span in old.data["spans"]] == [1, 2, 3]
    assert [span["span"] for span in new.data["spans"]] == [2, 3, 4]
    assert (old.champion_version, new.champion_version) == (None, 1)
    assert new.metrics["champion"]["rmse"] > 0
    assert old.training["warm_start"]["started"] is False
    assert old.image == new.image
    assert "@sha256:" in new.image


def test_both_versions_serve_from_the_volume(rig: Rig, second: dict[str, Any]) -> None:
    row = {"beta1": 1.0, "beta2": -1.0, "weekday": 1, "hour": 19}
    answer = rig.python(_PREDICT, rig.registry, json.dumps([row, {**row, "hour": 3}])).split("ANSWERS ")[-1]
    answers = json.loads(answer)
    assert answers["None"] == answers["2"]
    for version in ("1", "2"):
        bonus, plain = answers[version]
        assert plain == pytest.approx(2 * 1.0 + 20 + 0.5 - 1.5, abs=1.0)
        assert bonus - plain == pytest.approx(humidity.BONUS_MEAN, abs=1.5)


def test_results_are_those_of_the_local_runner(
    rig: Rig, bundles: Path, evidence: dict[str, Any], tmp_path: Path
) -> None:
    local = _local_versions(rig, tmp_path)
    compared = {}
    for version in (1, 2):
        here, there = _manifest(local, version), _manifest(bundles, version)
        assert here.data["rows"] == there.data["rows"]
        assert _statistics(local, version) == _statistics(bundles, version)
        assert [b.gate for b in here.blessings] == [b.gate for b in there.blessings] == ["Evaluator"]
        assert here.training["steps"] == there.training["steps"]
        mine, its = here.metrics["candidate"], there.metrics["candidate"]
        assert its == pytest.approx(mine, rel=TOLERANCE)
        compared[str(version)] = {"rows": there.data["rows"], "cluster": its, "laptop": mine}
    evidence["beside the local runner"] = compared


def test_a_run_with_push_off_publishes_nothing(
    rig: Rig, package: Path, second: dict[str, Any], evidence: dict[str, Any]
) -> None:
    run = rig.end(rig.start(package, "push=false", "spans=1-2"))
    _noted(evidence, "push off, spans 1-2", run)
    assert _versions(rig) == ["1", "2"]


def test_bad_input_is_told_at_once_and_not_worked_on_again(
    rig: Rig, package: Path, second: dict[str, Any], evidence: dict[str, Any]
) -> None:
    run = rig.end(rig.start(package, "spans=99"), state="FAILED")
    _noted(evidence, "a span that is not there", run)
    told = outcome(rig.webhook.told_of(run["run_id"]))
    assert (told["Outcome"], told["Failed node"]) == ("FAILED", "ExampleGen")
    assert "99" in told["Reason"]
    _assert_worked_once(rig, run["run_id"], "ExampleGen")


def test_a_poisoned_span_stops_at_the_data_gate_which_is_told_with_its_reason(
    rig: Rig, package: Path, second: dict[str, Any], evidence: dict[str, Any]
) -> None:
    rig.python(_ADD_SPAN, rig.data, str(ROWS), "out_of_range")
    run = rig.end(rig.start(package), state="FAILED")
    _noted(evidence, "a poisoned span", run)
    told = outcome(rig.webhook.told_of(run["run_id"]))
    evidence["runs"]["a poisoned span"]["told"] = told
    assert (told["Outcome"], told["Failed node"]) == ("FAILED", "ExampleValidator")
    assert "beta1" in told["Reason"]
    _assert_worked_once(rig, run["run_id"], "ExampleValidator")
    assert _versions(rig) == ["1", "2"]


def test_what_does_not_depend_on_data_is_taken_from_the_cache(rig: Rig, second: dict[str, Any]) -> None:
    # A cached node has no pod of work; ExampleGen, whose result the data decide, has one in every run.
    assert rig.pods_of(second["run_id"], "ImportSchemaGen") == []
    assert rig.pods_of(second["run_id"], "ExampleGen") != []


def test_a_schedule_starts_runs_by_itself_and_is_replaced_by_one(
    rig: Rig, package: Path, second: dict[str, Any], evidence: dict[str, Any]
) -> None:
    name = rig.session
    plan = ("schedule", "--name", name, "--package", str(package), "--service-account", "pipeline-runner", "--json")
    # The scheduler looks every half minute: the time after next is surely still to come.
    due = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=2)
    made = rig.command(
        *plan, "--cron", f"{due.minute} {due.hour} * * *", "--param", "spans=2-3", "--param", "push=false"
    )
    recurring = made.document["schedule"]["recurring_run_id"]
    run = _noted(evidence, "started by a schedule", rig.end(_started_by(rig, recurring)))
    assert run["recurring_run_id"] == recurring

    # Two people replace it in the same moment.
    others = [rig.begin(*plan, "--cron", cron) for cron in ("0 6 * * *", "0 7 * * *")]
    said = [process.communicate() for process in others]
    assert [process.returncode for process in others] == [0, 0], said
    schedules = [item for item in _schedules(rig) if item["name"] == name]
    assert len(schedules) == 1
    assert schedules[0]["enabled"]
    assert schedules[0]["recurring_run_id"] != recurring
    rig.command("unschedule", name, "--json")
    assert [item for item in _schedules(rig) if item["name"] == name] == []


# --- parts -----------------------------------------------------------------------------------------------------------


def _noted(evidence: dict[str, Any], name: str, run: dict[str, Any]) -> dict[str, Any]:
    evidence["runs"][name] = {
        "run_id": run["run_id"],
        "state": run["state"],
        "seconds": run.get("seconds") or _seconds(run),
        "nodes": {node["name"]: f"{node['state']} {node['seconds'] or 0:.0f} s" for node in run["nodes"]},
    }
    return run


def _seconds(run: dict[str, Any]) -> float:
    moments = [datetime.datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at")]
    return (moments[1] - moments[0]).total_seconds()


def _manifest(bundles: Path, version: int) -> Manifest:
    return Manifest.model_validate_json((bundles / str(version) / "manifest.json").read_text(encoding="utf-8"))


def _statistics(bundles: Path, version: int) -> Any:
    content = (bundles / str(version) / "train_stats" / "FeatureStats.pb").read_bytes()
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(content)


def _versions(rig: Rig) -> list[str]:
    code = "import os, sys; print('FOUND', *sorted(n for n in os.listdir(sys.argv[1]) if n.isdigit()))"
    return rig.python(code, f"{rig.registry}/humidity").split("FOUND")[-1].split()


def _local_versions(rig: Rig, folder: Path) -> Path:
    """Runs the local runner twice on the same data; returns its bundles."""
    problem = yaml.safe_load(rig.config_file.read_text(encoding="utf-8"))
    problem["data"]["path"] = str(folder / "data" / problem["data"]["path"])
    # The order of the splits decides which rows fall into which.
    (folder / "problem.yaml").write_text(yaml.safe_dump(problem, sort_keys=False), encoding="utf-8")
    environment = {"workspace": str(folder / "runs"), "registry": str(folder / "registry")}
    (folder / "environment.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    for spans in (3, 4):
        humidity.generate(folder / "data", spans=spans, rows=ROWS)
        words = ("--config", str(folder / "problem.yaml"), "--environment", str(folder / "environment.yaml"))
        ended = subprocess.run(
            [sys.executable, "local_runner.py", "run", *words],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "registry" / "humidity" / ".bundles"


def _done_by(rig: Rig, run_id: str, node: str) -> str:
    """Returns the uid of the pod that brought a node to its end; a pod that is made again keeps its name."""
    (pod,) = [pod for pod in rig.pods_of(run_id, node) if pod.status.phase == "Succeeded"]
    return str(pod.metadata.uid)


def _assert_worked_once(rig: Rig, run_id: str, node: str) -> None:
    """Sees to it that of all attempts only the first loaded TFX."""
    logs = {
        pod.metadata.name: rig.core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, container="main")
        for pod in rig.pods_of(run_id, node)
    }
    assert len([name for name, log in logs.items() if "loading TFX" in log]) == 1, logs
    assert len(logs) > 1, "Kubeflow retries whatever the exit code: without further attempts this shows nothing"


def _started_by(rig: Rig, recurring: str) -> str:
    waiting = threading.Event()
    for _ in range(60):
        runs = rig.command("runs", "--limit", "10", "--json").document["runs"]
        for run in runs:
            if run["recurring_run_id"] == recurring:
                return str(run["run_id"])
        waiting.wait(5)
    raise AssertionError("the schedule started nothing within five minutes")


def _schedules(rig: Rig) -> list[dict[str, Any]]:
    return list(rig.command("runs", "--limit", "1", "--json").document["schedules"])


def test_the_manifests_around_the_pipeline_are_accepted_by_the_api_server(rig: Rig, evidence: dict[str, Any]) -> None:
    command = manifests.kustomize()
    assert command is not None, "neither kustomize nor kubectl nor Go is here"
    server = dynamic.DynamicClient(client.ApiClient())
    known = {(resource.group_version, resource.kind) for resource in server.resources.search()}
    accepted, custom = [], set()
    # In a namespace of its own: what is applied already could not be changed as freely.
    rig.core.create_namespace({"metadata": {"name": rig.session}})
    try:
        for entry in ENTRIES:
            for document in manifests.rendered(command, manifests.DEPLOY / entry):
                version, kind = document["apiVersion"], document["kind"]
                if (version, kind) not in known:
                    custom.add(kind)
                    continue
                document["metadata"]["namespace"] = rig.session
                server.resources.get(api_version=version, kind=kind).server_side_apply(
                    body=document, namespace=rig.session, field_manager="evergreen", dry_run="All"
                )
                accepted.append(f"{entry}: {kind} {document['metadata']['name']}")
    finally:
        rig.core.delete_namespace(rig.session)
    evidence["deploy/ accepted by the API server"] = accepted
    assert len(accepted) > 20
    # What no server here knows is held against its own schema in tests/deploy.
    assert custom <= {"InferenceService", "PrometheusRule", "ServiceMonitor", "TFJob"}
