"""Upload, run, watch, list, and the verbs over them, against a small Kubeflow on loopback."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.entrypoint import parameters
from evergreen.errors import BadInput
from pipeline.display import PlainDisplay, State
from pipeline.kubeflow import cli, client
from pipeline.kubeflow.api import Access, Conflict, NotFound, connect, find_endpoint
from tests.pipeline.kubeflow.server import Fault, KubeflowServer, VirtualClock

ROOT = Path(__file__).resolve().parents[3]
PARAMETERS = {
    "span": {"parameterType": "STRING", "defaultValue": ""},
    "steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 100},
    "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.1},
    "push": {"parameterType": "BOOLEAN", "defaultValue": True},
    "tags": {"parameterType": "LIST", "isOptional": True},
    "labels": {"parameterType": "STRUCT", "isOptional": True},
}


def task(component, *, after=(), **artifacts):
    inputs = {name: {"taskOutputArtifact": {"producerTask": producer}} for name, producer in artifacts.items()}
    return {"componentRef": {"name": component}, "dependentTasks": list(after), "inputs": {"artifacts": inputs}}


SPEC = {
    "pipelineInfo": {"name": "humidity"},
    "schemaVersion": "2.1.0",
    "components": {
        "comp-dag": {
            "dag": {
                "tasks": {
                    "Pusher": task("comp-c", model="Trainer"),
                    "Trainer": task("comp-b", examples="ExampleGen"),
                    "ExampleGen": task("comp-a"),
                }
            }
        }
    },
    "root": {
        "inputDefinitions": {"parameters": PARAMETERS},
        "dag": {"tasks": {"Notify": task("comp-n", after=["tfx-dag"]), "tfx-dag": task("comp-dag")}},
    },
}
PLATFORM = {"platforms": {"kubernetes": {"deploymentSpec": {}}}}


def compiled(tmp_path, spec=None, name="pipeline.yaml"):
    path = tmp_path / name
    path.write_text(yaml.safe_dump_all([spec or SPEC, PLATFORM]))
    return path


@pytest.fixture
def package(tmp_path):
    return client.read_package(compiled(tmp_path))


@pytest.fixture
def server():
    with KubeflowServer(VirtualClock()) as running:
        yield running


@pytest.fixture
def api(server):
    return connect(
        find_endpoint(Access(endpoint=server.url, ui="https://kfp.example/"), environ={}), clock=server.clock
    )


# --- the compiled pipeline -------------------------------------------------------------------------------------------


def test_nodes_come_in_the_order_in_which_they_run(package):
    assert package.name == "humidity"
    assert package.nodes == ["ExampleGen", "Trainer", "Pusher", "Notify"]


def test_kubeflow_wraps_a_specification_with_its_platform():
    assert client.nodes_of({"pipeline_spec": SPEC, "platform_spec": PLATFORM})[0] == "ExampleGen"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "no pipeline specification"),
        (b"a: [", "flow"),
        (b"\xff\xfe\x00", "decode"),
        (b"name: humidity\n", "no pipeline specification"),
        (b"- a\n- b\n", "no pipeline specification"),
    ],
)
def test_what_is_no_compiled_pipeline_never_reaches_kubeflow(tmp_path, content, words):
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        client.read_package(path)


def test_parameters_get_their_types(package):
    given = {"span": "7", "steps": "12", "rate": "1e-3", "push": "False", "tags": '["a"]', "labels": '{"k": 1}'}
    assert package.arguments(given) == {
        "span": "7",
        "steps": 12,
        "rate": 0.001,
        "push": False,
        "tags": ["a"],
        "labels": {"k": 1},
    }


def test_every_wrong_parameter_is_told_at_once(tmp_path):
    spec = json.loads(json.dumps(SPEC))
    spec["root"]["inputDefinitions"]["parameters"]["note"] = {"parameterType": "STRING"}
    package = client.read_package(compiled(tmp_path, spec))
    given = {"step": "1", "steps": "1.5", "rate": "nan", "push": "yes", "tags": '{"k": 1}', "labels": "["}
    with pytest.raises(BadInput) as caught:
        package.arguments(given)
    assert [problem.where.split()[-1] for problem in caught.value.problems] == [*given, "note"]
    assert "Did you mean 'steps'?" in str(caught.value)


def test_a_wrong_value_of_our_own_parameters_never_reaches_kubeflow(tmp_path):
    spec = json.loads(json.dumps(SPEC))
    ours = {
        name: {"parameterType": kind, "description": described[name]}
        for described in [{parameter.name: parameter.description for parameter in parameters.PARAMETERS}]
        for name, kind in (("tune", "STRING"), ("spans", "STRING"), ("window", "NUMBER_INTEGER"))
    }
    spec["root"]["inputDefinitions"]["parameters"] = {**ours, "train_steps": {"parameterType": "NUMBER_INTEGER"}}
    package = client.read_package(compiled(tmp_path, spec))
    with pytest.raises(BadInput) as caught:
        # The last one has the name of ours, and is somebody else's.
        package.arguments({"tune": "twice", "spans": "5-2", "window": "-1", "train_steps": "-1"})
    assert [problem.where for problem in caught.value.problems] == ["--param spans", "--param window", "--param tune"]


# --- versions --------------------------------------------------------------------------------------------------------


def test_an_unchanged_pipeline_is_uploaded_once(server, api, package):
    first = client.upload(api, package)
    again = client.upload(api, package)
    assert (first.new, again.new) == (True, False)
    assert first.version_id == again.version_id
    assert first.name == package.digest[:12]
    (version,) = server.tables["versions"].values()
    assert version["pipeline_spec"] == SPEC
    assert first.link == f"https://kfp.example/#/pipelines/details/{first.pipeline_id}/version/{first.version_id}"


def test_a_changed_pipeline_is_another_version_of_the_same(server, api, package, tmp_path):
    first = client.upload(api, package)
    changed = client.read_package(compiled(tmp_path, {**SPEC, "sdkVersion": "2"}))
    second = client.upload(api, changed)
    assert second.pipeline_id == first.pipeline_id
    assert second.version_id != first.version_id
    assert len(server.tables["pipelines"]) == 1


def test_a_name_of_a_version_belongs_to_its_content(api, package, tmp_path):
    first = client.upload(api, package, version="release-1")
    assert client.upload(api, package, version="release-1").version_id == first.version_id
    changed = client.read_package(compiled(tmp_path, {**SPEC, "sdkVersion": "2"}))
    with pytest.raises(Conflict, match="release-1"):
        client.upload(api, changed, version="release-1")


@pytest.mark.parametrize(
    "lost", ["POST /pipelines", "POST /pipelines/upload_version", "POST /experiments", "POST /runs"]
)
@pytest.mark.parametrize("status", [0, 502])
def test_a_lost_answer_makes_nothing_twice(server, api, package, lost, status):
    server.faults = [Fault(lost, after=True, status=status)]
    version = client.upload(api, package)
    run = client.start(api, version, experiment_name="humidity", parameters={})
    assert server.faults == []
    assert [len(server.tables[name]) for name in ("pipelines", "versions", "experiments", "runs")] == [1, 1, 1, 1]
    assert list(server.tables["runs"]) == [run.run_id]


@pytest.mark.parametrize("name", ["a+b", "50%", "100%25", "a b", 'a"b', "ä/ö", "{}"])
def test_any_name_is_found_again(server, api, package, name):
    first = client.upload(api, package, version=name)
    assert client.upload(api, package, version=name).version_id == first.version_id
    assert client.experiment(api, name) == client.experiment(api, name)
    assert len(server.tables["experiments"]) == 1


def test_an_experiment_that_somebody_else_makes_meanwhile_is_taken(server, api):
    taken = client.experiment(api, "humidity")
    # The first look does not see it yet.
    server.faults = [Fault("GET /experiments", status=200, body=b"{}")]
    assert client.experiment(api, "humidity") == taken


# --- runs ------------------------------------------------------------------------------------------------------------


def started(api, package, **options):
    version = client.upload(api, package)
    return client.start(api, version, experiment_name="humidity", parameters={}, **options)


def detail(name, state, start=0, end=0):
    def stamp(second):
        return f"2026-11-21T09:0{second // 60}:{second % 60:02}Z" if second else "1970-01-01T00:00:00Z"

    return {"display_name": name, "state": state, "start_time": stamp(start), "end_time": stamp(end)}


def test_a_run_is_started_as_asked_for(server, api, package):
    version = client.upload(api, package)
    run = client.start(
        api,
        version,
        experiment_name="backfill",
        parameters={"push": False},
        name="by hand",
        service_account="runner",
        pipeline_root="s3://b/r",
    )
    made = server.tables["runs"][run.run_id]
    assert made["display_name"].startswith("by hand 2026-11-21 09:02:00 ")
    assert made["runtime_config"] == {"parameters": {"push": False}, "pipeline_root": "s3://b/r"}
    assert made["service_account"] == "runner"
    assert made["pipeline_version_reference"]["pipeline_version_id"] == version.version_id
    (experiment,) = server.tables["experiments"].values()
    assert (experiment["display_name"], experiment["experiment_id"]) == ("backfill", made["experiment_id"])
    assert run.link == f"https://kfp.example/#/runs/details/{run.run_id}"


@pytest.mark.parametrize(
    ("details", "state"),
    [
        ([], State.WAITING),
        ([("Trainer-driver", "RUNNING")], State.RUNNING),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "PENDING")], State.RUNNING),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "RUNNING")], State.RUNNING),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "SUCCEEDED")], State.DONE),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "SKIPPED")], State.CACHED),
        ([("Trainer-driver", "SKIPPED"), ("Trainer", "SKIPPED")], State.SKIPPED),
        ([("Trainer-driver", "FAILED")], State.FAILED),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "FAILED")], State.FAILED),
        ([("Trainer-driver", "SUCCEEDED"), ("Trainer", "CANCELED")], State.FAILED),
        ([("executor", "RUNNING"), ("root", "RUNNING")], State.WAITING),
    ],
)
def test_state_of_a_node_out_of_its_two_pods(server, api, package, details, state):
    run = started(api, package)
    server.tables["runs"][run.run_id]["run_details"] = {"task_details": [detail(*item) for item in details]}
    (node,) = client.get_run(api, run.run_id, ["Trainer"]).nodes
    assert node.state is state


def test_a_run_is_watched_to_its_end(server, api, package, capsys):
    run = started(api, package)
    record = server.tables["runs"][run.run_id]
    done = [detail("ExampleGen-driver", "SUCCEEDED", 1, 2), detail("ExampleGen", "SUCCEEDED", 60, 90)]
    scenes = [
        ("PENDING", None),
        ("RUNNING", [detail("ExampleGen-driver", "RUNNING", 1)]),
        ("RUNNING", [*done, detail("Trainer", "RUNNING", 91)]),
        ("RUNNING", [*done, detail("Trainer", "SUCCEEDED", 91, 100), detail("Pusher-driver", "SUCCEEDED", 1, 2)]),
        (
            "SUCCEEDED",
            [
                *done,
                detail("Trainer", "SUCCEEDED", 91, 100),
                detail("Pusher-driver", "SUCCEEDED", 1, 2),
                detail("Pusher", "SKIPPED"),
                detail("Notify", "SUCCEEDED", 101, 103),
            ],
        ),
    ]

    def next_scene(_):
        state, details = scenes.pop(0) if len(scenes) > 1 else scenes[0]
        record.update(state=state, run_details={"task_details": details}, finished_at="2026-11-21T09:05:00Z")

    server.clock.on_advance.append(next_scene)
    ended = client.watch(api, run.run_id, package.nodes, display=PlainDisplay(sys.stdout))
    assert capsys.readouterr().out.splitlines() == [
        "ExampleGen: running",
        "ExampleGen: done in 30.0 s",
        "Trainer: running",
        "Trainer: done in 9.0 s",
        "Pusher: running",
        "Pusher: unchanged",
        "Notify: running",
        "Notify: done in 2.0 s",
    ]
    assert (ended.state, ended.seconds, ended.failed()) == ("SUCCEEDED", 180.0, [])


def test_a_node_that_is_reported_after_the_run_is_waited_for_and_one_that_never_is_is_not(server, api, package):
    run = started(api, package)
    record = server.tables["runs"][run.run_id]
    record.update(state="SUCCEEDED", run_details={"task_details": [detail("Notify", "RUNNING", 1)]})
    late = [detail("Notify", "SUCCEEDED", 1, 8)]
    server.clock.on_advance.append(lambda _: record.update(run_details={"task_details": late}))
    ended = client.watch(api, run.run_id, ["Notify"], display=PlainDisplay(sys.stdout), timeout_seconds=1)
    assert [node.state for node in ended.nodes] == [State.DONE]
    late[0]["state"] = "RUNNING"
    ended = client.watch(api, run.run_id, ["Notify"], display=PlainDisplay(sys.stdout))
    assert [node.state for node in ended.nodes] == [State.RUNNING]


def test_waiting_ends_when_its_time_is_over_and_says_how_to_go_on(api, package):
    run = started(api, package)
    with pytest.raises(client.WaitedTooLong, match=f"status {run.run_id}"):
        client.watch(api, run.run_id, package.nodes, display=PlainDisplay(sys.stdout), timeout_seconds=30)


def test_a_watch_outlives_passing_faults(server, api, package):
    run = started(api, package)
    server.faults = [Fault("GET /runs/", times=2, status=503), Fault("GET /runs/")]
    server.clock.on_advance.append(lambda _: server.tables["runs"][run.run_id].update(state="FAILED"))
    assert client.watch(api, run.run_id, (), display=PlainDisplay(sys.stdout)).state == "FAILED"


def test_runs_are_listed_newest_first_page_by_page(package):
    with KubeflowServer(VirtualClock(), page=2) as server:
        api = connect(find_endpoint(Access(endpoint=server.url), environ={}), clock=server.clock)
        ids = []
        for _ in range(5):
            server.clock.advance(60)
            ids.append(started(api, package).run_id)
        assert [run.run_id for run in client.list_runs(api, limit=4)] == ids[:0:-1]
        assert len(client.list_runs(api, experiment_name="humidity")) == 5
        with pytest.raises(BadInput, match="one of humidity"):
            client.list_runs(api, experiment_name="humidty")


def test_a_run_that_is_not_there(api):
    with pytest.raises(NotFound):
        client.get_run(api, "no-such-run")


# --- verbs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verb(server, tmp_path, monkeypatch):
    """Returns a function that gives a command line and returns the exit code."""
    monkeypatch.setenv("KFP_ENDPOINT", server.url)
    for name in ("KFP_TOKEN", "KFP_UI", "KFP_NAMESPACE", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    path = str(compiled(tmp_path, name="verbs.yaml"))

    def give(*words):
        parser = argparse.ArgumentParser()
        cli.add_verbs(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
        arguments = [*words, "--package", path] if words[0] in ("run", "schedule") else words
        options = parser.parse_args(arguments)
        return options.do(options, clock=server.clock)

    return give


def test_run_says_what_it_did_and_ends_as_the_run_does(server, verb, capsys):
    server.clock.on_advance.append(
        lambda _: [
            run.update(state="FAILED", finished_at="2026-11-21T09:03:00Z", error={"message": "exit code 2"})
            or run.update(run_details={"task_details": [detail("Trainer", "FAILED", 1, 3)]})
            for run in server.tables["runs"].values()
        ]
    )
    assert verb("run", "--param", "push=false") == 1
    (run,) = server.tables["runs"].values()
    said = capsys.readouterr()
    assert f"{server.url}/#/runs/details/{run['run_id']}" in said.out
    assert "Trainer: failed" in said.out
    assert "ended as FAILED at Trainer after 60 s" in said.err
    assert "exit code 2" in said.err
    assert f"pipeline/runid={run['run_id']}" in said.err
    assert run["runtime_config"]["parameters"] == {"push": False}


def test_run_without_waiting_answers_programs(server, verb, capsys):
    assert verb("run", "--no-wait", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"]["run_id"] in server.tables["runs"]
    assert answer["version"]["new"] is True


def test_schedule_explains_itself_and_unschedule_ends_it(server, verb, capsys):
    assert verb("schedule", "--cron", "0 6 * * MON-FRI", "--name", "work") == 0
    said = capsys.readouterr().out
    assert "Schedule work is at work: at 06:00, on Monday to Friday." in said
    assert "Next: 2026-11-23 06:00:00, 2026-11-24 06:00:00, 2026-11-25 06:00:00 (UTC)" in said
    (made,) = server.recurring()
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * MON-FRI"
    assert verb("schedule", "--cron", "0 6 * * MON-FRI", "--name", "work") == 0
    assert "nothing had to be changed" in capsys.readouterr().out
    assert verb("schedule", "--interval", "90m", "--name", "work") == 0
    assert "every 90 minutes" in capsys.readouterr().out
    assert verb("runs") == 0
    assert "schedule work: every 90 minutes, on" in capsys.readouterr().out
    assert verb("unschedule", "work") == 0
    assert server.recurring() == []


def test_a_wrong_time_is_told_before_kubeflow_is_asked(server, verb):
    with pytest.raises(BadInput, match="outside of 0 to 23"):
        verb("schedule", "--cron", "0 24 * * *")
    assert server.requests == []


def test_a_wrong_parameter_is_told_before_kubeflow_is_asked(server, verb):
    with pytest.raises(BadInput, match="NAME=VALUE"):
        verb("run", "--param", "push")
    with pytest.raises(BadInput, match="does not have"):
        verb("run", "--param", "psh=1")
    assert server.requests == []


def test_status_shows_the_latest_run_with_the_nodes_of_its_pipeline(server, verb, capsys):
    verb("run", "--no-wait")
    (run,) = server.tables["runs"].values()
    run.update(state="RUNNING", run_details={"task_details": [detail("ExampleGen", "SUCCEEDED", 1, 11)]})
    capsys.readouterr()
    assert verb("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": RUNNING")
    assert [line.split() for line in lines[1:5]] == [
        ["ExampleGen", "done", "10", "s"],
        ["Trainer", "waiting"],
        ["Pusher", "waiting"],
        ["Notify", "waiting"],
    ]


def test_status_without_any_run(verb):
    with pytest.raises(BadInput, match="no run at all"):
        verb("status")


def test_the_token_comes_out_of_a_file(server, verb, tmp_path):
    server.token = "t0ken"
    (tmp_path / "token").write_text("t0ken\n")
    assert verb("runs", "--token-file", str(tmp_path / "token")) == 0
    with pytest.raises(BadInput, match="No such file"):
        verb("runs", "--token-file", str(tmp_path / "none"))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("6h", 21600), ("1d", 86400)])
def test_times(text, seconds):
    assert cli._duration(text) == seconds
    with pytest.raises(argparse.ArgumentTypeError):
        cli._duration(text + "x")


def test_the_command_line_loads_nothing_before_a_verb_needs_it():
    code = (
        "import argparse, sys\n"
        "from pipeline.kubeflow import cli\n"
        "parser = argparse.ArgumentParser()\n"
        "cli.add_verbs(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))\n"
        "parser.format_help()\n"
        "print(sorted({'kfp', 'kfp_server_api', 'tfx', 'tensorflow', 'yaml', 'pydantic', 'rich'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_real_command_line_has_the_verbs_and_tells_a_mistake_without_a_traceback(tmp_path):
    command = [sys.executable, "kubeflow_runner.py", "runs", "--endpoint", "127.0.0.1:8888"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "Write http://127.0.0.1:8888" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_without_a_package_the_pipeline_is_compiled_and_its_environment_counts(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KFP_ENDPOINT", server.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    common = argparse.ArgumentParser(add_help=False)
    for name in ("config", "environment", "image"):
        common.add_argument(f"--{name}")
    parser = argparse.ArgumentParser()
    cli.add_verbs(parser.add_subparsers(), common)
    options = parser.parse_args(
        [
            "run",
            "--no-wait",
            "--json",
            "--config",
            str(ROOT / "configs" / "humidity.yaml"),
            "--environment",
            str(ROOT / "configs" / "environments" / "cluster.yaml"),
            "--image",
            "registry.example/evergreen@sha256:" + "1" * 64,
            "--param",
            "push=false",
        ]
    )
    assert options.do(options, clock=server.clock) == 0
    # Compiling says nothing where a program reads.
    assert json.loads(capsys.readouterr().out)["version"]["new"]
    (version,) = server.tables["versions"].values()
    executors = version["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {item["container"]["image"].rpartition(":")[2] for item in executors} == {"1" * 64}
    (run,) = server.tables["runs"].values()
    assert run["service_account"] == "pipeline-runner"
    assert run["runtime_config"]["parameters"] == {"push": False}
    nodes = client.nodes_of(version["pipeline_spec"])
    assert nodes.index("ExampleGen") < nodes.index("Trainer") < nodes.index("Pusher") < nodes.index("Notify")
