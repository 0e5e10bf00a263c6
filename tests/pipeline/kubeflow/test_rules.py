"""Every rule with a specification that breaks it, and nothing else wrong with it."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from evergreen.errors import BadInput
from pipeline.kubeflow import rules

DIGEST = "registry.example/evergreen@sha256:" + "a" * 64
_CONTAINER = {
    "image": DIGEST,
    "command": ["python", "-m", "components.entrypoint"],
    "args": ["--json_serialized_invocation_args", "{{$}}"],
    "resources": {"cpuRequest": 0.5, "memoryRequest": 1.0, "memoryLimit": 1.0},
}
_TYPE = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}
_SPEC = {
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.16.0",
    "pipelineInfo": {"name": "humidity"},
    "defaultPipelineRoot": "minio://mlpipeline/v2/artifacts",
    "root": {
        "inputDefinitions": {"parameters": {"push": {"parameterType": "BOOLEAN", "defaultValue": True}}},
        "dag": {
            "tasks": {
                "Champion": {
                    "taskInfo": {"name": "Champion"},
                    "componentRef": {"name": "Champion"},
                    "inputs": {"parameters": {"registry": {"runtimeValue": {"constant": "/mnt/registry"}}}},
                    "retryPolicy": {
                        "maxRetryCount": 2,
                        "backoffDuration": "30s",
                        "backoffFactor": 2.0,
                        "backoffMaxDuration": "9000s",
                    },
                },
                "Pusher": {
                    "taskInfo": {"name": "Pusher"},
                    "componentRef": {"name": "Pusher"},
                    "dependentTasks": ["Champion"],
                    "inputs": {
                        "artifacts": {
                            "model": {
                                "taskOutputArtifact": {"producerTask": "Champion", "outputArtifactKey": "champion"}
                            }
                        },
                        "parameters": {"push": {"componentInputParameter": "push"}},
                    },
                },
            }
        },
    },
    "components": {
        "Champion": {
            "executorLabel": "Champion_executor",
            "inputDefinitions": {"parameters": {"registry": {"parameterType": "STRING"}}},
            "outputDefinitions": {"artifacts": {"champion": _TYPE}},
        },
        "Pusher": {
            "executorLabel": "Pusher_executor",
            "inputDefinitions": {
                "artifacts": {"model": _TYPE},
                "parameters": {"push": {"parameterType": "BOOLEAN"}},
            },
        },
    },
    "deploymentSpec": {
        "executors": {"Champion_executor": {"container": _CONTAINER}, "Pusher_executor": {"container": _CONTAINER}}
    },
}
_MOUNTS = {"pvcMount": [{"constant": "registry", "mountPath": "/mnt/registry"}]}


class Document:
    """A sound compiled pipeline with its parts at hand, to be spoiled."""

    def __init__(self) -> None:
        # Through JSON, so that no two executors share a container.
        self.spec = json.loads(json.dumps(_SPEC))
        self.platform = {"Champion_executor": copy.deepcopy(_MOUNTS), "Pusher_executor": copy.deepcopy(_MOUNTS)}
        self.tasks = self.spec["root"]["dag"]["tasks"]
        self.executors = self.spec["deploymentSpec"]["executors"]
        self.container = self.executors["Champion_executor"]["container"]

    def documents(self) -> list:
        return [self.spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": self.platform}}}}]

    def problems(self, **options) -> list[str]:
        return [str(problem) for problem in rules.check(self.documents(), **options)]


@pytest.fixture
def document():
    return Document()


def schema_version(d):
    d.spec["schemaVersion"] = "2.0.0"


def resolver(d):
    d.executors["Champion_executor"] = {"resolver": {"outputArtifactQueries": {}}}


def custom_job(d):
    d.executors["Champion_executor"] = {"customJob": {"customJob": {}}}


def lifecycle(d):
    d.container["lifecycle"] = {"preCacheCheck": {"command": ["python"]}}


def no_default(d):
    del d.spec["root"]["inputDefinitions"]["parameters"]["push"]["defaultValue"]


def pipeline_name(d):
    d.spec["pipelineInfo"]["name"] = "Humidity_1"


def node_id(d):
    d.tasks["Champion_1"] = d.tasks.pop("Champion")
    d.tasks["Pusher"]["dependentTasks"] = ["Champion_1"]
    d.tasks["Pusher"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["producerTask"] = "Champion_1"


def no_component(d):
    d.tasks["Champion"]["componentRef"]["name"] = "Resolver"
    d.tasks["Champion"]["inputs"] = {}
    d.tasks["Pusher"]["inputs"].pop("artifacts")


def no_executor(d):
    d.spec["components"]["Champion"]["executorLabel"] = "nobody"
    d.tasks["Champion"]["inputs"] = {}


def platform_of_nobody(d):
    d.platform["Trainer_executor"] = {}


def no_producer(d):
    d.tasks["Pusher"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["producerTask"] = "Champion_task"


def no_output(d):
    d.tasks["Pusher"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["outputArtifactKey"] = "model"


def no_dependency(d):
    d.tasks["Pusher"]["dependentTasks"].append("Trainer")


def no_parameter(d):
    d.tasks["Pusher"]["inputs"]["parameters"]["push"]["componentInputParameter"] = "publish"


def circle(d):
    d.tasks["Champion"]["dependentTasks"] = ["Pusher"]


def no_type(d):
    d.spec["components"]["Champion"]["outputDefinitions"]["artifacts"]["champion"] = {"artifactType": {}}


def no_resources(d):
    del d.container["resources"]["memoryLimit"]


def accelerator(d):
    d.container["resources"]["accelerator"] = {"count": "1"}


def retry_without_end(d):
    del d.tasks["Champion"]["retryPolicy"]["backoffMaxDuration"]


def tag(d):
    d.container["image"] = "registry.example/evergreen:1"


def secret_in_env(d):
    d.container["env"] = [{"name": "DB_PASSWORD", "value": "geheim"}]


def secret_in_args(d):
    d.container["args"] += ["--api_key", "geheim"]


def secret_in_parameter(d):
    d.tasks["Champion"]["inputs"]["parameters"]["version"] = {"runtimeValue": {"constant": "AKIAIOSFODNN7EXAMPLE"}}


def secret_inside_a_parameter(d):
    constant = '{"a": [{"storage": {"access_key": "geheim"}}]}'
    d.tasks["Champion"]["inputs"]["parameters"]["context"] = {"runtimeValue": {"constant": constant}}


def registry_in_the_pod(d):
    d.tasks["Champion"]["inputs"]["parameters"]["registry"]["runtimeValue"]["constant"] = "/app/runs/registry"


def registry_not_mounted_here(d):
    d.platform["Champion_executor"] = {}


def mounts_twice(d):
    d.platform["Champion_executor"]["secretAsVolume"] = [{"secretName": "s", "mountPath": "/mnt/registry"}]


def mount_relative(d):
    d.platform["Champion_executor"]["pvcMount"].append({"constant": "more", "mountPath": "more"})


def unknown_platform_key(d):
    d.platform["Champion_executor"]["nodeSelectors"] = {}


def pipeline_root(d):
    d.spec["defaultPipelineRoot"] = "/mnt/artifacts"


def argo_braces(d):
    d.tasks["Champion"]["inputs"]["parameters"]["version"] = {"runtimeValue": {"constant": "{{workflow.name}}"}}


def unknown_field(d):
    d.spec["schemaVersions"] = "2.1.0"


BROKEN = {
    schema_version: "the only one that the API server takes",
    resolver: "runs no resolver",
    custom_job: "runs no resolver and no custom job",
    lifecycle: "a lifecycle hook",
    no_default: "no default",
    pipeline_name: "lower-case letters",
    node_id: "letters, digits and hyphens",
    no_component: "without an executor",
    no_executor: "without an executor",
    platform_of_nobody: "no executor of that label",
    no_producer: "which nobody produces",
    no_output: "which nobody produces",
    no_dependency: "no node Trainer",
    no_parameter: "which the DAG does not have",
    circle: "a circle: Champion -> Pusher",
    no_type: "an artifact without a type",
    no_resources: "no memoryLimit",
    accelerator: "a type and a count",
    retry_without_end: "never retries",
    tag: "an image by its digest",
    secret_in_env: "in plain text",
    secret_in_args: "in plain text",
    secret_in_parameter: "in plain text",
    secret_inside_a_parameter: "in plain text",
    registry_in_the_pod: "gone when the pod ends",
    registry_not_mounted_here: "gone when the pod ends",
    mounts_twice: "each once",
    mount_relative: "absolute paths",
    unknown_platform_key: "unknown keys nodeSelectors",
    pipeline_root: "defaultPipelineRoot",
    argo_braces: "no double braces",
    unknown_field: "schemaVersions",
}


def test_a_sound_pipeline_keeps_every_rule(document):
    assert document.problems() == []


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_a_rule_finds_what_breaks_it_and_nothing_else(document, spoil):
    spoil(document)
    problems = document.problems()
    assert len(problems) == 1, problems
    assert BROKEN[spoil] in problems[0]


def test_everything_is_told_at_once(document):
    for spoil in (schema_version, lifecycle, no_default, no_resources, tag, secret_in_env, pipeline_root):
        spoil(document)
    assert len(document.problems()) == 7


def test_a_tag_may_be_allowed(document):
    tag(document)
    assert document.problems(allow_tag=True) == []


def test_the_placeholders_of_kubeflow_are_no_braces_of_argo(document):
    given = document.tasks["Champion"]["inputs"]["parameters"]
    given["run_id"] = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert document.problems() == []


def test_gs_needs_no_volume(document):
    document.tasks["Champion"]["inputs"]["parameters"]["registry"]["runtimeValue"]["constant"] = "gs://bucket/registry"
    document.platform.clear()
    assert document.problems() == []


@pytest.mark.parametrize("documents", [[], ["text"], [{}, {}, {}]])
def test_what_is_no_pipeline_is_told(documents):
    assert len(rules.check(documents)) == 1


def test_reading_tells_what_is_wrong_with_the_file(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        rules.read(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2")
    with pytest.raises(BadInput, match="line 2"):
        rules.read(broken)


def test_reading_returns_both_documents(document, tmp_path):
    path = tmp_path / "sound.yaml"
    path.write_text(yaml.safe_dump_all(document.documents()))
    assert rules.read(path) == document.documents()
