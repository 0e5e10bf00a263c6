from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from evergreen.errors import BadInput
from pipeline import nodes
from pipeline.beam import Beam
from pipeline.config import load_environment
from pipeline.kubeflow.environment import NOTIFY, Kubeflow, is_secret, placed, refusals

DIGEST = "registry.example/evergreen@sha256:" + "a" * 64
EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "environments" / "cluster.yaml"
NODES = nodes.names(curated_schema=True)
SOUND = {
    "image": DIGEST,
    "data_root": "/mnt/data",
    "pipeline_root": "minio://mlpipeline/v2/artifacts",
    "volumes": [{"claim": "data", "mount": "/mnt/data"}, {"claim": "registry", "mount": "/mnt/registry"}],
}


def cluster(**changes) -> Kubeflow:
    return Kubeflow.model_validate(SOUND | changes)


def refused(*, registry="/mnt/registry", data="data/span-{SPAN}/*.csv", schema=None, beam=None, **changes) -> list[str]:
    environment = cluster(**changes)
    found = refusals(
        environment,
        beam=Beam.model_validate(beam or {}),
        registry=registry,
        data_path=placed(data, environment),
        schema_path=schema,
        node_ids=NODES,
        file="cluster.yaml",
    )
    return [str(problem) for problem in found]


def test_a_sound_environment_is_not_refused():
    assert refused() == []
    assert refused(registry="gs://bucket/registry", data="gs://bucket/data/span-{SPAN}/*", volumes=[]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"registry": "runs/registry"}, "which is gone when the pod ends"),
        ({"registry": "/var/registry"}, "which is gone when the pod ends"),
        ({"registry": "/mnt/registry-of-another"}, "which is gone when the pod ends"),
        ({"data_root": None}, "which a pod does not have"),
        ({"data": "/home/me/data/*.csv"}, "which a pod does not have"),
        ({"image": "registry.example/evergreen:1.2"}, "an image by its digest"),
        ({"image": "registry.example/evergreen@sha256:abc"}, "an image by its digest"),
        ({"nodes": {"Trainer": {"gpu": {"count": 1}}}}, "with the CPU image"),
        ({"nodes": {"Trainor": {"cpu": "1"}}}, "no node of that name"),
        ({"pipeline_root": "/mnt/registry/artifacts"}, "Kubeflow's launcher knows"),
        ({"registry": "/mnt/data/registry", "data": "/mnt/data/registry/span-{SPAN}/*"}, "one lies in the other"),
        ({"registry": "gs://b/x/registry", "pipeline_root": "gs://b/x"}, "one lies in the other"),
        ({"schema": "/home/me/schema.pbtxt"}, "relative to the project"),
        ({"defaults": {"env": {"DB_PASSWORD": "geheim"}}}, "in plain text"),
        ({"nodes": {"Trainer": {"env": {"URL": "https://me:geheim@host/"}}}}, "in plain text"),
        ({"notify": {"webhook": {"url": "https://hooks.slack.com/services/T/B/x"}}}, "in plain text"),
        ({"notify": {"when": "always"}}, "nobody to tell"),
        (
            {"notify": {"mail": {"host": "h", "sender": "s", "to": ["t"], "user": {"secret": "s", "key": "u"}}}},
            "without a password",
        ),
        ({"defaults": {"volumes": [{"claim": "more", "mount": "/mnt/data/more"}]}}, "lie in one another"),
        ({"defaults": {"secrets": [{"secret": "s", "mount": "/mnt/data"}]}}, "lie in one another"),
        ({"defaults": {"volumes": [{"claim": "data", "mount": "/mnt/twice"}]}}, "mounted twice"),
    ],
)
def test_what_cannot_run_is_refused(changes, words):
    found = refused(**changes)
    assert len(found) >= 1
    assert any(words in problem for problem in found), found


def test_everything_is_told_at_once():
    found = refused(
        registry="runs/registry",
        data_root=None,
        image="evergreen:latest",
        nodes={"Trainer": {"gpu": {"count": 2}, "env": {"API_KEY": "geheim"}}},
    )
    words = ("gone when the pod ends", "a pod does not have", "by its digest", "CPU image", "plain text")
    assert [sum(word in problem for problem in found) for word in words] == [1] * 5


def test_a_tag_is_taken_when_it_is_allowed_and_turns_caching_off():
    assert refused(image="evergreen:1", allow_tag=True) == []
    assert cluster().node("Trainer").caching is True
    assert cluster(image="evergreen:1", allow_tag=True).node("Trainer").caching is False


def test_caching_is_off_where_something_outside_decides():
    off = {name for name in NODES if not cluster().node(name).caching}
    assert off == {"ExampleGen", "Champion", "Pusher"}


def test_gpus_are_for_training_on_the_gpu_image_only():
    assert all(cluster().node(name).gpu is None for name in NODES)
    with_gpu = {name for name in NODES if cluster(variant="gpu").node(name).gpu}
    assert with_gpu == {"Trainer"}


def test_a_node_can_leave_its_gpu_out():
    assert cluster(variant="gpu", nodes={"Trainer": {"gpu": {"count": 0}}}).node("Trainer").gpu.count == 0


def test_every_node_has_resources_retries_and_a_timeout():
    for name in (*NODES, NOTIFY):
        settings = cluster().node(name)
        assert settings.cpu
        assert settings.memory
        assert settings.retry.attempts == 2
        assert settings.timeout


def test_a_node_says_more_than_the_defaults_and_these_more_than_what_is_built_in():
    settings = cluster(
        defaults={"cpu": "2", "env": {"A": "1", "B": "1"}, "timeout": 60},
        nodes={"Trainer": {"cpu": "4", "env": {"B": "2"}, "volumes": [{"claim": "scratch", "mount": "/scratch"}]}},
    )
    trainer, champion = settings.node("Trainer"), settings.node("Champion")
    assert (trainer.cpu, champion.cpu, trainer.timeout) == ("4", "2", 60)
    assert (trainer.env, champion.env) == ({"A": "1", "B": "2"}, {"A": "1", "B": "1"})
    assert [volume.claim for volume in trainer.volumes] == ["data", "registry", "scratch"]
    assert [volume.claim for volume in champion.volumes] == ["data", "registry"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"defaults": {"cpu": "a lot"}},
        {"defaults": {"memory": "4 GB"}},
        {"volumes": [{"claim": "Data", "mount": "/mnt"}]},
        {"volumes": [{"claim": "data", "mount": "mnt"}]},
        {"defaults": {"env": {"1A": "x"}}},
        {"nodes": {"Trainer": {"cpus": "1"}}},
    ],
)
def test_a_wrong_shape_is_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        cluster(**wrong)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("PASSWORD", "x", True),
        ("aws_secret_access_key", "x", True),
        ("HF_TOKEN", "x", True),
        ("TOKEN_FILE", "/var/token", False),
        ("TOKENIZER", "bert", False),
        ("A", "AKIAIOSFODNN7EXAMPLE", True),
        ("A", "-----BEGIN RSA PRIVATE KEY-----", True),
        ("A", "postgresql://me:geheim@db/x", True),
        ("A", "postgresql://db/x", False),
        ("PASSWORD", "", False),
    ],
)
def test_what_looks_like_a_secret(name, value, secret):
    assert is_secret(name, value) is secret


def test_the_example_environment_reads():
    environment = load_environment(EXAMPLE)
    assert environment.kubeflow.notify.webhook.url.secret == "notify"
    found = refusals(
        environment.kubeflow,
        beam=environment.beam,
        registry=environment.registry,
        data_path=placed("data/humidity/span-{SPAN}/*.csv", environment.kubeflow),
        schema_path="schemas/humidity/schema.pbtxt",
        node_ids=NODES,
        file="cluster.yaml",
    )
    assert found == []


def test_a_mistake_in_the_file_is_told_with_line_and_key(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("kubeflow:\n  image: x\n  nodes:\n    Trainer: {memoryy: 1Gi}\n")
    with pytest.raises(BadInput) as caught:
        load_environment(path)
    (problem,) = caught.value.problems
    assert "line 4, kubeflow.nodes.Trainer.memoryy" in problem.where
    assert "Did you mean 'memory'?" in problem.action


@pytest.mark.parametrize(
    ("runner", "options", "missing"),
    [
        ("DataflowRunner", {"project": "p"}, ["no region", "no temp_location"]),
        ("FlinkRunner", {}, ["no flink_master"]),
        ("PortableRunner", {"job_endpoint": "flink:8099"}, []),
        ("SparkRunner", {}, ["no spark_master_url or spark_rest_url"]),
    ],
)
def test_a_runner_on_other_machines_needs_to_know_where_and_a_place_that_they_reach(runner, options, missing):
    beam = {"nodes": {"Evaluator": {"runner": runner, "options": options}}}
    found = refused(beam=beam)
    assert len(found) == len(missing) + 1
    assert all(any(words in problem for problem in found) for words in [*missing, "kubeflow.pipeline_root"])
    assert all("beam.nodes.Evaluator" in problem for problem in found)
    assert len(refused(beam=beam, pipeline_root="gs://bucket/root")) == len(missing)
    # The launcher keeps what lies under minio:// in /minio: on a volume there the workers see the same files.
    shared = {"volumes": [*SOUND["volumes"], {"claim": "artifacts", "mount": "/minio"}]}
    assert len(refused(beam=beam, pipeline_root="minio://bucket/root", **shared)) == len(missing)
    assert len(refused(beam=beam, pipeline_root="s3://bucket/root", **shared)) == len(missing) + 1
    of_the_node = {"nodes": {"Evaluator": {"volumes": [{"claim": "artifacts", "mount": "/minio"}]}}}
    assert len(refused(beam=beam, pipeline_root="minio://bucket/root", **of_the_node)) == len(missing)
    everywhere = {"runner": runner, "options": options}
    assert len(refused(beam=everywhere, pipeline_root="minio://bucket/root", **of_the_node)) == len(missing) + 1
