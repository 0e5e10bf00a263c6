"""What open-source Kubeflow Pipelines holds a pipeline to but does not check, or says only when the run has failed.

`check` takes the documents of a compiled pipeline and returns every problem at once. Each rule is a function of its
own; `RULES` lists them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evergreen.errors import BadInput, Problem
from pipeline.kubeflow.environment import REMOTE, is_pinned, is_secret

Json = dict[str, Any]

_ID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_PIPELINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,126}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{\{\$(\.[^{}]*)?\}\}")
_PLATFORM_KEYS = frozenset(
    {
        "activeDeadlineSeconds",
        "configMapAsEnv",
        "configMapAsVolume",
        "emptyDirMounts",
        "enabledSharedMemory",
        "fieldPathAsEnv",
        "genericEphemeralVolume",
        "imagePullPolicy",
        "imagePullSecret",
        "nodeAffinity",
        "nodeSelector",
        "podAffinity",
        "podMetadata",
        "pvcMount",
        "secretAsEnv",
        "secretAsVolume",
        "tolerations",
    }
)
_LASTING = ("registry", "push_destination")
"""Parameters that name a place which has to outlive the pod."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A compiled pipeline."""

    spec: Json
    platform: Json
    """What the platform specification says, by executor."""
    allow_tag: bool

    def dags(self) -> Iterator[tuple[str, Json, Json]]:
        """Yields name, component and tasks of each DAG; the outermost is called root."""
        named = {"root": self.spec.get("root", {}), **self.spec.get("components", {})}
        for name, component in named.items():
            if "dag" in component:
                yield name, component, component["dag"].get("tasks", {})

    def tasks(self) -> Iterator[tuple[str, Json]]:
        """Yields id and task of all DAGs."""
        for _, _, tasks in self.dags():
            yield from tasks.items()

    def component(self, task: Json) -> Json:
        """Returns the component that a task runs."""
        return dict(self.spec.get("components", {}).get(task.get("componentRef", {}).get("name", ""), {}))

    def executors(self) -> Json:
        """Returns the executors by their labels."""
        return dict(self.spec.get("deploymentSpec", {}).get("executors", {}))

    def containers(self) -> Iterator[tuple[str, Json]]:
        """Yields label and container of each executor that has one."""
        for label, executor in self.executors().items():
            if "container" in executor:
                yield label, executor["container"]


def read(path: Path) -> list[Json]:
    """Returns the documents of a compiled pipeline.

    Raises:
        BadInput: when the file cannot be read or is no YAML; Kubeflow 2.16 would hang on it.
    """
    try:
        return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]
    except FileNotFoundError as error:
        raise BadInput(
            [
                Problem(
                    where=str(path),
                    found="no such file",
                    expected="a compiled pipeline",
                    action="Write it with `python kubeflow_runner.py compile`.",
                )
            ]
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            [
                Problem(
                    where=str(path),
                    found=" ".join(str(error).split()),
                    expected="YAML",
                    action="Compile the pipeline anew.",
                )
            ]
        ) from error


def check(documents: Sequence[Any], *, allow_tag: bool = False) -> list[Problem]:
    """Returns everything that is wrong with a compiled pipeline.

    Args:
        documents: the pipeline specification and, after it, the platform specification.
        allow_tag: whether images may be named by a tag.
    """
    if not documents or not all(isinstance(document, dict) for document in documents) or len(documents) > 2:
        return [
            Problem(
                where="the file",
                found=f"{len(documents)} documents",
                expected="a pipeline specification, and after it at most a platform specification",
                action="Compile the pipeline anew.",
            )
        ]
    spec, platform = documents[0], documents[1] if len(documents) == 2 else {}
    shape = list(_shape(spec))
    if shape:
        return shape
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    compiled = Compiled(
        spec=spec, platform=kubernetes.get("deploymentSpec", {}).get("executors", {}), allow_tag=allow_tag
    )
    return [problem for rule in RULES for problem in rule(compiled)]


def _shape(spec: Json) -> Iterator[Problem]:
    """Parses the specification strictly, as the API server does."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        yield Problem(
            where="the pipeline specification",
            found=" ".join(str(error).split()),
            expected="the fields and types of Kubeflow's PipelineSpec",
            action="Correct the field, or compile the pipeline anew.",
        )


# --- the rules -------------------------------------------------------------------------------------------------------


def _schema_version(compiled: Compiled) -> Iterator[Problem]:
    version = compiled.spec.get("schemaVersion")
    if version != "2.1.0":
        yield Problem(
            where="schemaVersion",
            found=repr(version),
            expected="2.1.0, the only one that the API server takes",
            action="Compile with use_pipeline_spec_2_1.",
        )


def _executor_kinds(compiled: Compiled) -> Iterator[Problem]:
    for label, executor in compiled.executors().items():
        kinds = sorted(set(executor) - {"container", "importer"})
        if kinds or not executor:
            yield Problem(
                where=f"executor {label}",
                found=", ".join(kinds) or "nothing to execute",
                expected="a container: open-source Kubeflow runs no resolver and no custom job",
                action="Make the node a component with an executor (Champion takes the place of a Resolver).",
            )


def _lifecycle(compiled: Compiled) -> Iterator[Problem]:
    for label, container in compiled.containers():
        if "lifecycle" in container:
            yield Problem(
                where=f"executor {label}",
                found="a lifecycle hook, which nothing reads: spans and versions would stay unresolved",
                expected="a container without one",
                action="Resolve them in the executor, as ExampleGen here does, rather than in TFX's driver.",
            )


def _defaults(compiled: Compiled) -> Iterator[Problem]:
    parameters = compiled.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    for name, parameter in parameters.items():
        if "defaultValue" not in parameter:
            yield Problem(
                where=f"parameter {name}",
                found="no default",
                expected="a default, so that a scheduled run needs nobody",
                action="Write defaultValue into the specification.",
            )


def _names(compiled: Compiled) -> Iterator[Problem]:
    name = compiled.spec.get("pipelineInfo", {}).get("name", "")
    if not _PIPELINE_NAME.fullmatch(name):
        yield Problem(
            where="pipelineInfo.name",
            found=repr(name),
            expected="lower-case letters, digits and hyphens",
            action="Rename the pipeline.",
        )
    ids = {*(task for task, _ in compiled.tasks()), *compiled.spec.get("components", {})}
    for identifier in sorted(ids):
        if not _ID.fullmatch(identifier):
            yield Problem(
                where=f"node {identifier}",
                found=repr(identifier),
                expected="letters, digits and hyphens, at most 63: it becomes the name of a task in Argo",
                action="Give the node another id.",
            )


def _references(compiled: Compiled) -> Iterator[Problem]:
    executors = compiled.executors()
    for task_id, task in compiled.tasks():
        component = compiled.component(task)
        label = component.get("executorLabel")
        if not component or ("dag" not in component and label not in executors):
            yield Problem(
                where=f"node {task_id}",
                found=f"component {task.get('componentRef', {}).get('name')!r} without an executor",
                expected="a component that is a DAG or has an executor",
                action="Compile the pipeline anew.",
            )
    for label in sorted(set(compiled.platform) - set(executors)):
        yield Problem(
            where=f"platform executor {label}",
            found="no executor of that label",
            expected=f"one of {', '.join(sorted(executors))}",
            action="Correct the label: its volumes and limits would reach nobody.",
        )


def _producers(compiled: Compiled) -> Iterator[Problem]:
    for dag, component, tasks in compiled.dags():
        inputs = component.get("inputDefinitions", {}).get("parameters", {})
        for task_id, task in tasks.items():
            for wanted, found, expected in _missing(compiled, task, tasks, inputs):
                yield Problem(
                    where=f"node {task_id} in {dag}, {wanted}",
                    found=found,
                    expected=expected,
                    action="Wire it to an output that there is.",
                )
        if circle := _circle(tasks):
            yield Problem(
                where=dag,
                found=f"a circle: {' -> '.join(circle)}",
                expected="an order in which the nodes can run",
                action="Cut one of the edges.",
            )


def _missing(compiled: Compiled, task: Json, tasks: Json, inputs: Json) -> Iterator[tuple[str, str, str]]:
    for dependency in task.get("dependentTasks", []):
        if dependency not in tasks:
            yield "dependentTasks", f"no node {dependency}", f"one of {', '.join(sorted(tasks))}"
    for kind, source, key in (
        ("artifacts", "taskOutputArtifact", "outputArtifactKey"),
        ("parameters", "taskOutputParameter", "outputParameterKey"),
    ):
        for name, given in task.get("inputs", {}).get(kind, {}).items():
            if source in given:
                producer = given[source].get("producerTask", "")
                output = given[source].get(key, "")
                made = compiled.component(tasks.get(producer, {})).get("outputDefinitions", {}).get(kind, {})
                if output not in made:
                    yield f"input {name}", f"{producer}.{output}, which nobody produces", "an output of a node"
            parameter = given.get("componentInputParameter")
            if parameter is not None and parameter not in inputs:
                yield f"input {name}", f"parameter {parameter}, which the DAG does not have", "a parameter of the DAG"


def _upstream(task: Json) -> set[str]:
    given = [
        *task.get("inputs", {}).get("artifacts", {}).values(),
        *task.get("inputs", {}).get("parameters", {}).values(),
    ]
    sources = [item[key]["producerTask"] for item in given for key in item if key.startswith("taskOutput")]
    return {*task.get("dependentTasks", []), *sources}


def _circle(tasks: Json) -> list[str]:
    left = {name: _upstream(task) & set(tasks) for name, task in tasks.items()}
    while ready := [name for name, upstream in left.items() if not upstream & set(left)]:
        for name in ready:
            del left[name]
    return sorted(left)


def _types(compiled: Compiled) -> Iterator[Problem]:
    for name, component in compiled.spec.get("components", {}).items():
        for side in ("inputDefinitions", "outputDefinitions"):
            for key, artifact in component.get(side, {}).get("artifacts", {}).items():
                if not any(artifact.get("artifactType", {}).get(kind) for kind in ("instanceSchema", "schemaTitle")):
                    yield Problem(
                        where=f"component {name}, {key}",
                        found="an artifact without a type",
                        expected="a type: TFX makes the artifact by it",
                        action="Declare the channel with a type of tfx.types.standard_artifacts.",
                    )


def _resources(compiled: Compiled) -> Iterator[Problem]:
    for label, container in compiled.containers():
        resources = container.get("resources", {})
        missing = [key for key in ("cpuRequest", "memoryRequest", "memoryLimit") if not resources.get(key)]
        if missing:
            yield Problem(
                where=f"executor {label}",
                found=f"no {', '.join(missing)}",
                expected="CPU and memory on every step: without them one step starves or kills its neighbours",
                action="Set cpu and memory under kubeflow.defaults.",
            )
        accelerator = resources.get("accelerator")
        if accelerator is not None and not (accelerator.get("type") and int(accelerator.get("count", 0))):
            yield Problem(
                where=f"executor {label}",
                found=f"an accelerator {accelerator}",
                expected="a type and a count",
                action="Correct gpu in the environment.",
            )


def _retries(compiled: Compiled) -> Iterator[Problem]:
    for task_id, task in compiled.tasks():
        policy = task.get("retryPolicy")
        if policy is None or not policy.get("maxRetryCount"):
            continue
        if not _seconds(policy.get("backoffDuration")) or not _seconds(policy.get("backoffMaxDuration")):
            yield Problem(
                where=f"node {task_id}",
                found=f"retries with {policy}",
                expected="backoffDuration and backoffMaxDuration above 0: Argo counts the latter from the first start "
                "and without it never retries",
                action="Write both.",
            )


def _seconds(duration: Any) -> float:
    found = re.fullmatch(r"(\d+(\.\d+)?)s", str(duration))
    return float(found[1]) if found else 0.0


def _images(compiled: Compiled) -> Iterator[Problem]:
    for label, container in compiled.containers():
        image = str(container.get("image", ""))
        if not image or not (compiled.allow_tag or is_pinned(image)):
            yield Problem(
                where=f"executor {label}",
                found=image or "no image",
                expected="an image by its digest (name@sha256:...)",
                action="Name the digest, or allow a tag explicitly.",
            )


def _secrets(compiled: Compiled) -> Iterator[Problem]:
    for label, container in compiled.containers():
        texts = [(variable.get("name", ""), str(variable.get("value", ""))) for variable in container.get("env", [])]
        words = [str(word) for word in (*container.get("command", []), *container.get("args", []))]
        # What follows `--password` is one, whatever it looks like; names of variables are not.
        texts += [(flag.lstrip("-"), word) for flag, word in zip(["", *words], words, strict=False)]
        yield from _told_secrets(f"executor {label}", texts)
    for task_id, task in compiled.tasks():
        given = task.get("inputs", {}).get("parameters", {})
        constants = [(name, value.get("runtimeValue", {}).get("constant")) for name, value in given.items()]
        yield from _told_secrets(f"node {task_id}", [(name, text) for name, text in constants if isinstance(text, str)])


def _told_secrets(where: str, texts: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    for name, text in texts:
        if is_secret(name, text) or any(is_secret(key, value) for key, value in _inner(text)):
            yield Problem(
                where=f"{where}, {name}" if name else where,
                found="what looks like a secret, in plain text",
                expected="a Kubernetes secret: whoever sees the pipeline sees this",
                action="Give it as a secret in the environment.",
            )


def _inner(text: str) -> Iterator[tuple[str, str]]:
    """Yields the named strings of a constant that is a JSON object."""
    if not text.startswith("{"):
        return
    try:
        document = json.loads(text)
    except ValueError:
        return
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from ((key, inner) for key, inner in value.items() if isinstance(inner, str))
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else [])


def _lasting(compiled: Compiled) -> Iterator[Problem]:
    for task_id, task in compiled.tasks():
        label = compiled.component(task).get("executorLabel", "")
        mounts = [mount.get("mountPath", "") for mount in compiled.platform.get(label, {}).get("pvcMount", [])]
        for name, given in task.get("inputs", {}).get("parameters", {}).items():
            place = given.get("runtimeValue", {}).get("constant")
            if name not in _LASTING or not isinstance(place, str) or place.startswith("gs://"):
                continue
            if not any(place == mount or place.startswith(f"{mount.rstrip('/')}/") for mount in mounts if mount):
                yield Problem(
                    where=f"node {task_id}, {name}",
                    found=f"{place}, which is gone when the pod ends",
                    expected=f"gs://, or a folder in a volume of the node ({', '.join(mounts) or 'there is none'})",
                    action="Mount a claim there: outside of a node's output artifacts nothing survives.",
                )


def _mounts(compiled: Compiled) -> Iterator[Problem]:
    for label, settings in compiled.platform.items():
        unknown = sorted(set(settings) - _PLATFORM_KEYS)
        if unknown:
            yield Problem(
                where=f"platform executor {label}",
                found=f"unknown keys {', '.join(unknown)}",
                expected="keys of Kubeflow's KubernetesExecutorConfig",
                action="Correct them: the driver would fail on them, pod by pod.",
            )
        paths = [
            str(mount.get("mountPath", ""))
            for key in ("pvcMount", "secretAsVolume", "configMapAsVolume", "emptyDirMounts")
            for mount in settings.get(key, [])
        ]
        wrong = [path for path in paths if not path.startswith("/") or paths.count(path) > 1]
        if wrong:
            yield Problem(
                where=f"platform executor {label}",
                found=f"mounts at {', '.join(sorted(set(wrong)))}",
                expected="absolute paths, each once",
                action="Correct the mounts.",
            )


def _root(compiled: Compiled) -> Iterator[Problem]:
    root = compiled.spec.get("defaultPipelineRoot")
    if root is not None and not str(root).startswith(REMOTE):
        yield Problem(
            where="defaultPipelineRoot",
            found=str(root),
            expected=f"one of {', '.join(REMOTE)}",
            action="Correct pipeline_root in the environment.",
        )


def _templates(compiled: Compiled) -> Iterator[Problem]:
    """Looks for double braces, in which Argo would look for a variable of its own."""
    for task_id, task in compiled.tasks():
        for name, given in task.get("inputs", {}).get("parameters", {}).items():
            text = given.get("runtimeValue", {}).get("constant")
            if isinstance(text, str) and "{{" in _PLACEHOLDER.sub("", text):
                yield Problem(
                    where=f"node {task_id}, {name}",
                    found="{{ in its value",
                    expected="no double braces: Argo replaces what stands in them",
                    action="Write the value without them.",
                )


RULES: Sequence[Callable[[Compiled], Iterator[Problem]]] = (
    _schema_version,
    _executor_kinds,
    _lifecycle,
    _defaults,
    _names,
    _references,
    _producers,
    _types,
    _resources,
    _retries,
    _images,
    _secrets,
    _lasting,
    _mounts,
    _root,
    _templates,
)


def summary(documents: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line on what the file holds."""
    spec = documents[0]
    compiled = Compiled(spec=dict(spec), platform={}, allow_tag=True)
    steps = sum(1 for _ in compiled.containers())
    parameters = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    given = ", ".join(f"{name}={json.dumps(value.get('defaultValue'))}" for name, value in sorted(parameters.items()))
    return f"{spec['pipelineInfo']['name']}: {steps} steps; parameters {given or 'none'}"
