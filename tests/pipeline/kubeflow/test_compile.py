"""The compiled file: what is in it, that it is the same every time, and what Kubeflow's own code says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.entrypoint import mismatch
from pipeline.config import Environment
from pipeline.kubeflow import backend, compiler

REPOSITORY = Path(__file__).resolve().parents[3]
DIGEST = "registry.example/evergreen@sha256:" + "a" * 64
ENVIRONMENT = {
    "registry": "/mnt/registry",
    "kubeflow": {
        "image": DIGEST,
        "variant": "gpu",
        "pipeline_root": "minio://mlpipeline/v2/artifacts",
        "data_root": "/mnt/data",
        "pull_secrets": ["registry"],
        "volumes": [{"claim": "data", "mount": "/mnt/data"}, {"claim": "registry", "mount": "/mnt/registry"}],
        "defaults": {"env": {"LANG": "C.UTF-8"}, "retry": {"attempts": 3, "wait": 10, "factor": 2}, "timeout": 600},
        "nodes": {
            "Trainer": {
                "cpu": "1500m",
                "cpu_limit": "4",
                "memory": "2Gi",
                "memory_limit": "3Gi",
                "gpu": {"count": 2, "type": "nvidia.com/gpu"},
                "shm": "1Gi",
                "node_selector": {"pool": "gpu"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "seconds": 30}],
                "env": {"HF_TOKEN": {"secret": "hub", "key": "token"}},
                "secrets": [{"secret": "certificates", "mount": "/etc/certificates"}],
            },
            "StatisticsGen": {"caching": False},
            "Pusher": {"retry": {"attempts": 0}},
        },
        "notify": {
            "when": "failure",
            "webhook": {"url": {"secret": "notify", "key": "url"}},
            "mail": {"host": "mail.example", "port": 587, "sender": "e@x.example", "to": ["a@x.example"]},
        },
    },
}
NODES = {
    "ExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "Champion",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "Pusher",
}


def command(*words: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "kubeflow_runner.py", *words],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def environment_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("environment") / "cluster.yaml"
    path.write_text(yaml.safe_dump(ENVIRONMENT))
    return path


@pytest.fixture(scope="module")
def compiled(environment_file):
    path = environment_file.parent / "one.yaml"
    ended = command(
        *("compile", "--environment", str(environment_file), "--output", str(path), "--no-backend"), PYTHONHASHSEED="1"
    )
    assert ended.returncode == 0, ended.stderr
    return path


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled.read_text()))


@pytest.fixture(scope="module")
def spec(documents):
    return documents[0]


@pytest.fixture(scope="module")
def platform(documents):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec) -> dict:
    return spec["components"]["tfx-dag"]["dag"]["tasks"]


def container(spec, node) -> dict:
    return spec["deploymentSpec"]["executors"][f"{node}_executor"]["container"]


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(compiled, environment_file):
    again = environment_file.parent / "two.yaml"
    ended = command(
        *("compile", "--environment", str(environment_file), "--output", str(again), "--no-backend"), PYTHONHASHSEED="2"
    )
    assert ended.returncode == 0, ended.stderr
    assert again.read_bytes() == compiled.read_bytes()


@pytest.mark.slow
def test_two_documents_and_every_node(documents, spec, platform):
    assert len(documents) == 2
    assert spec["schemaVersion"] == "2.1.0"
    assert spec["defaultPipelineRoot"] == "minio://mlpipeline/v2/artifacts"
    assert set(tasks(spec)) == NODES
    assert set(platform) == {f"{node}_executor" for node in NODES | {"Notify"}}


@pytest.mark.slow
def test_every_step_has_image_resources_retries_and_caching_as_configured(spec, platform):
    for node in NODES | {"Notify"}:
        step = container(spec, node)
        assert step["image"] == DIGEST
        assert {"cpuRequest", "memoryRequest", "memoryLimit"} <= set(step["resources"])
        assert {"name": "LANG", "value": "C.UTF-8"} in step["env"]
        assert platform[f"{node}_executor"]["activeDeadlineSeconds"] == "600"
        assert platform[f"{node}_executor"]["imagePullSecret"] == [{"secretName": "registry"}]
    cached = {node for node in NODES if tasks(spec)[node]["cachingOptions"]["enableCache"]}
    assert cached == NODES - {"ExampleGen", "Champion", "Pusher", "StatisticsGen"}
    assert "retryPolicy" not in tasks(spec)["Pusher"]
    policy = tasks(spec)["Trainer"]["retryPolicy"]
    assert (policy["maxRetryCount"], policy["backoffDuration"], policy["backoffFactor"]) == (3, "10s", 2)
    # Argo counts from the start of the first attempt: four attempts of 600 s and waits of 10, 20 and 40 s fit in.
    assert int(policy["backoffMaxDuration"].removesuffix("s")) >= 4 * 600 + 70


@pytest.mark.slow
def test_what_one_node_is_given_reaches_it_and_no_other(spec, platform):
    trainer = container(spec, "Trainer")["resources"]
    assert trainer == {
        "cpuRequest": 1.5,
        "cpuLimit": 4.0,
        "memoryRequest": 2.147483648,
        "memoryLimit": 3.221225472,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert all("accelerator" not in container(spec, node)["resources"] for node in NODES - {"Trainer"})
    mine = platform["Trainer_executor"]
    assert mine["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert mine["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": "30"}
    ]
    assert mine["secretAsEnv"] == [{"secretName": "hub", "keyToEnv": [{"secretKey": "token", "envVar": "HF_TOKEN"}]}]
    assert mine["secretAsVolume"] == [
        {"secretName": "certificates", "mountPath": "/etc/certificates", "optional": False}
    ]
    assert mine["emptyDirMounts"][0]["sizeLimit"] == "1Gi"
    assert [mount["constant"] for mount in mine["pvcMount"]] == ["data", "registry"]
    assert not {"nodeSelector", "tolerations", "secretAsEnv", "emptyDirMounts"} & set(platform["Champion_executor"])


@pytest.mark.slow
def test_parameters_have_defaults_and_a_way_to_their_node(spec):
    defined = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: parameter["defaultValue"] for name, parameter in defined.items()} == {
        "spans": "",
        "window": 0,
        "train_steps": 0,
        "push": True,
    }
    outer = spec["root"]["dag"]["tasks"]["tfx-dag"]["inputs"]["parameters"]
    assert set(outer) == set(spec["components"]["tfx-dag"]["inputDefinitions"]["parameters"]) == set(defined)
    for name, node in (
        ("spans", "ExampleGen"),
        ("window", "ExampleGen"),
        ("train_steps", "Trainer"),
        ("push", "Pusher"),
    ):
        assert tasks(spec)[node]["inputs"]["parameters"][name] == {"componentInputParameter": name}
        arguments = container(spec, node)["args"]
        assert any(word.endswith(f"={name}") for word in arguments)
        definitions = arguments[arguments.index("--json_serialized_inputs_spec_args") + 1]
        assert name in json.loads(definitions)["parameters"]


def test_every_node_carries_the_digest_of_the_code_that_it_was_compiled_with(spec):
    for node in NODES:
        arguments = container(spec, node)["args"]
        assert arguments[arguments.index("--code") + 1] == mismatch.code_digest()


@pytest.mark.slow
def test_a_node_with_a_beam_runner_of_its_own_and_a_search_that_a_run_may_ask_for(tmp_path):
    flink = {"runner": "PortableRunner", "options": {"job_endpoint": "flink:8099", "parallelism": 4}}
    environment = {**ENVIRONMENT, "beam": {"nodes": {"Evaluator": flink}}}
    environment["kubeflow"] = {**ENVIRONMENT["kubeflow"], "pipeline_root": "gs://bucket/root"}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(environment))
    problem = yaml.safe_load((REPOSITORY / "configs" / "humidity.yaml").read_text())
    problem["tuning"] = {"space": {"model.dropout": {"kind": "float", "min": 0.0, "max": 0.5}}}
    (tmp_path / "problem.yaml").write_text(yaml.safe_dump(problem))
    ended = command(
        *("compile", "--config", str(tmp_path / "problem.yaml"), "--environment", str(tmp_path / "cluster.yaml")),
        *("--output", str(tmp_path / "p.yaml"), "--no-backend"),
    )
    assert ended.returncode == 0, ended.stderr
    spec = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    evaluator, statistics = container(spec, "Evaluator")["args"], container(spec, "StatisticsGen")["args"]
    assert {"--runner=PortableRunner", "--parallelism=4", f"--sdk_container_image={DIGEST}"} <= set(evaluator)
    assert evaluator[evaluator.index("--keep") + 1] == "gs://"
    assert "--runner=DirectRunner" in statistics
    assert "--keep" not in statistics
    assert tasks(spec)["Tuner"]["inputs"]["parameters"]["tune"] == {"componentInputParameter": "tune"}
    assert "custom_config.tuning.when=tune" in container(spec, "Tuner")["args"]
    assert container(spec, "Tuner")["resources"]["accelerator"] == {"type": "nvidia.com/gpu", "count": "1"}


@pytest.mark.slow
def test_the_data_are_where_the_cluster_has_them(spec):
    data = json.loads(tasks(spec)["ExampleGen"]["inputs"]["parameters"]["data"]["runtimeValue"]["constant"])
    assert data["path"].startswith("/mnt/data/data/humidity/")


@pytest.mark.slow
def test_the_exit_step_runs_always_and_gets_the_secret_as_such(spec, platform):
    task = spec["root"]["dag"]["tasks"]["Notify"]
    assert task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert task["dependentTasks"] == ["tfx-dag"]
    assert task["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "tfx-dag"}}
    arguments = container(spec, "Notify")["args"]
    assert arguments[arguments.index("--smtp") + 1] == "mail.example:587"
    assert arguments[arguments.index("--on") + 1] == "failure"
    assert platform["Notify_executor"]["secretAsEnv"] == [
        {"secretName": "notify", "keyToEnv": [{"secretKey": "url", "envVar": "NOTIFY_WEBHOOK"}]}
    ]


def test_another_image_on_the_command_line():
    environment = Environment.model_validate(ENVIRONMENT)
    other = "registry.example/evergreen@sha256:" + "b" * 64
    assert compiler.with_image(environment, other).kubeflow.image == other
    assert compiler.with_image(environment, None) is environment
    assert compiler.with_image(Environment(), other) == Environment()


def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path):
    environment = tmp_path / "cluster.yaml"
    environment.write_text(
        yaml.safe_dump({"kubeflow": {"image": "evergreen:latest", "nodes": {"Trainer": {"gpu": {"count": 1}}}}})
    )
    ended = command("compile", "--environment", str(environment), "--output", str(tmp_path / "p.yaml"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("4 problems:")
    for words in ("digest", "CPU image", "gone when the pod ends", "a pod does not have"):
        assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "p.yaml").exists()


def test_checking_what_is_no_pipeline(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2")
    ended = command("check", str(broken))
    assert ended.returncode == 2
    assert "line 2" in ended.stderr


# --- Kubeflow's own code ---------------------------------------------------------------------------------------------

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Kubeflow's own code needs Go to be built")


@pytest.fixture(scope="module")
def workflow(compiled):
    path = compiled.parent / "workflow.yaml"
    verdict = backend.check(compiled, workflow=path)
    assert verdict.checked, verdict.words
    assert verdict.problems == ()
    return yaml.safe_load(path.read_text())


@needs_go
@pytest.mark.slow
def test_kubeflow_takes_it_and_makes_of_it_what_was_meant(workflow):
    templates = {template["name"]: template for template in workflow["spec"]["templates"]}
    retry = templates["retry-system-container-impl"]["retryStrategy"]
    assert retry["limit"] == "{{inputs.parameters.retry-max-count}}"
    inner = next(task for task in templates["root"]["dag"]["tasks"] if task["name"] == "tfx-dag")
    assert inner["hooks"]["exit"]["template"] == "exit-hook-root-Notify"
    names = {task["name"] for task in templates["tfx-dag"]["dag"]["tasks"]}
    assert names == NODES | {f"{node}-driver" for node in NODES}
    trainer = next(task for task in templates["tfx-dag"]["dag"]["tasks"] if task["name"] == "Trainer")
    given = {parameter["name"]: parameter.get("value") for parameter in trainer["arguments"]["parameters"]}
    assert given["retry-max-count"] == "3"
    assert given["retry-backoff-duration"] == "10"
    assert int(given["retry-backoff-max-duration"]) > 0


def no_default(spec):
    del spec["root"]["inputDefinitions"]["parameters"]["push"]["defaultValue"]
    del spec["root"]["inputDefinitions"]["parameters"]["push"]["isOptional"]


def resolver(spec):
    spec["deploymentSpec"]["executors"]["Champion_executor"] = {"resolver": {}}


def unknown_field(spec):
    spec["root"]["dags"] = {}


def other_version(spec):
    spec["schemaVersion"] = "2.0.0"


@needs_go
@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_default, "is not optional, yet has neither default value nor user provided value"),
        (resolver, "non-container and non-importer executor not implemented"),
        (unknown_field, "unknown"),
        (other_version, "KFP only supports schema version 2.1.0"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_kubeflow_refuses_what_it_cannot_run(compiled, tmp_path, spoil, words):
    first, second = yaml.safe_load_all(compiled.read_text())
    spoil(first)
    path = tmp_path / "spoiled.yaml"
    path.write_text(yaml.safe_dump_all([first, second]))
    verdict = backend.check(path)
    assert verdict.checked
    assert words in verdict.problems[0].found


@needs_go
@pytest.mark.slow
def test_kubeflow_refuses_what_is_no_yaml_instead_of_looping(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1\nb: 2")
    verdict = backend.check(path)
    assert "not YAML" in verdict.problems[0].found


def test_without_go_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    verdict = backend.check(tmp_path / "p.yaml")
    assert not verdict.checked
    assert "no Go" in verdict.words
    assert verdict.problems == ()
