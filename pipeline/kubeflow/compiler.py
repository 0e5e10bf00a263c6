"""Compiles the pipeline for plain open-source Kubeflow Pipelines: one file, the same bytes for the same input.

TFX's own compiler makes the specification; what follows repairs and completes it, each step a function of its own over
plain JSON. The file holds two YAML documents: the pipeline specification, and the Kubernetes platform specification
with what the first cannot say (volumes, secrets, node selectors, tolerations, timeouts).

    text = compile_pipeline(config, environment, file="configs/environments/cluster.yaml")
"""

from __future__ import annotations

import contextlib
import json
import logging
import posixpath
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from components.entrypoint import mismatch
from components.entrypoint.parameters import PARAMETERS, Parameter
from evergreen.errors import BadInput, Problem
from pipeline import nodes
from pipeline.config import Config, Environment
from pipeline.kubeflow import rules
from pipeline.kubeflow.environment import (
    LOCAL_RUNNER,
    NOTIFY,
    SHARED,
    Kubeflow,
    Node,
    SecretKey,
    placed,
    refusals,
)

Json = dict[str, Any]

TFX_DAG = "tfx-dag"
"""The inner DAG with the pipeline's nodes, where there is an exit step; TFX's name for it."""
ENTRYPOINT = ("python", "-m", "components.entrypoint")
NOTES = ".runs"
"""The folder beside the models in the registry where failing nodes leave their reasons."""
_WEBHOOK = "NOTIFY_WEBHOOK"
_SMTP_USER, _SMTP_PASSWORD = "NOTIFY_SMTP_USER", "NOTIFY_SMTP_PASSWORD"
_TYPES = {str: "STRING", int: "NUMBER_INTEGER", bool: "BOOLEAN"}


_KNOWN = {"Pusher": ("context.run_id=@run_id", "context.image=@image")}
"""What the entrypoint puts into a node's properties out of its own knowledge."""


def compile_pipeline(config: Config, environment: Environment, *, file: str) -> str:
    """Returns the compiled pipeline, two YAML documents.

    Args:
        config: the problem.
        environment: where it runs; its `kubeflow` part says how.
        file: the environment's file, for the words of what is wrong.

    Raises:
        BadInput: with every reason why it could not run on the cluster.
    """
    cluster = environment.kubeflow
    if cluster is None:
        raise BadInput(
            [
                Problem(
                    where=file,
                    found="no cluster in this environment",
                    expected="a key `kubeflow` with at least the image",
                    action="Start from configs/environments/cluster.yaml.",
                )
            ]
        )
    config = _placed(config, cluster)
    problems = refusals(
        cluster,
        beam=environment.beam,
        registry=environment.registry,
        data_path=config.data.path,
        schema_path=config.schema_path,
        node_ids=nodes.names(curated_schema=config.schema_path is not None, tuner=config.tuning is not None),
        file=file,
    )
    if problems:
        raise BadInput(problems)
    spec = _tfx_spec(config, environment, cluster)
    platform = _complete(spec, config, environment, cluster)
    documents = [spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}}]
    problems = rules.check(documents, allow_tag=cluster.allow_tag)
    if problems:
        raise BadInput(problems)
    return _text(documents)


def with_image(environment: Environment, image: str | None) -> Environment:
    """Returns the environment with another image; as it is where there is none."""
    if image is None or environment.kubeflow is None:
        return environment
    cluster = environment.kubeflow.model_copy(update={"image": image})
    return environment.model_copy(update={"kubeflow": cluster})


def _placed(config: Config, cluster: Kubeflow) -> Config:
    data = config.data.model_copy(update={"path": placed(config.data.path, cluster)})
    return config.model_copy(update={"data": data})


# --- TFX's part ------------------------------------------------------------------------------------------------------


def _tfx_spec(config: Config, environment: Environment, cluster: Kubeflow) -> Json:
    with _quiet():
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as tfx_runner

        from pipeline.pipeline import create_pipeline

        runner_config = tfx_runner.KubeflowV2DagRunnerConfig(
            default_image=cluster.image,
            default_commands=list(ENTRYPOINT),
            use_pipeline_spec_2_1=True,
        )
        runner = tfx_runner.KubeflowV2DagRunner(runner_config)
        job = runner.run(create_pipeline(config, environment), write_out=False)
    return dict(job["pipelineSpec"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the screen what the libraries log and warn about one another."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- ours ------------------------------------------------------------------------------------------------------------


def _complete(spec: Json, config: Config, environment: Environment, cluster: Kubeflow) -> Json:
    """Completes the specification in place; returns the platform's executors."""
    node_ids = sorted(spec["root"]["dag"]["tasks"])
    parameters = [parameter for parameter in PARAMETERS if parameter.node in node_ids]
    notes, code = posixpath.join(environment.registry, NOTES), mismatch.code_digest()
    for node_id in node_ids:
        bound = [parameter for parameter in parameters if parameter.node == node_id]
        _bind(spec, bound)
        _complete_node(spec, node_id, bound, cluster.node(node_id), notes=notes, code=code)
        _reach_workers(spec, node_id, cluster)
    if cluster.pipeline_root:
        spec["defaultPipelineRoot"] = cluster.pipeline_root
    platform = {_label(spec, node_id): _platform(cluster.node(node_id), cluster) for node_id in node_ids}
    if cluster.notify is not None:
        _wrap(spec, parameters)
        _add_exit_step(spec, config.name, node_ids, cluster, notes=notes)
        platform[_label(spec, NOTIFY)] = _platform(_with_notify_secrets(cluster), cluster)
    if parameters:
        definitions = {parameter.name: _definition(parameter) for parameter in parameters}
        spec["root"]["inputDefinitions"] = {"parameters": definitions}
    return platform


def _definition(parameter: Parameter) -> Json:
    return {
        "parameterType": _TYPES[type(parameter.default)],
        "defaultValue": parameter.default,
        "description": parameter.description,
        "isOptional": True,
    }


def _bind(spec: Json, parameters: Sequence[Parameter]) -> None:
    """Gives the parameters to their nodes."""
    for parameter in parameters:
        inputs = spec["components"][parameter.node].setdefault("inputDefinitions", {})
        inputs.setdefault("parameters", {})[parameter.name] = {"parameterType": _TYPES[type(parameter.default)]}
        task = spec["root"]["dag"]["tasks"][parameter.node]
        given = task.setdefault("inputs", {}).setdefault("parameters", {})
        given[parameter.name] = {"componentInputParameter": parameter.name}


def _complete_node(
    spec: Json, node_id: str, bound: Sequence[Parameter], settings: Node, *, notes: str, code: str
) -> None:
    task, component = spec["root"]["dag"]["tasks"][node_id], spec["components"][node_id]
    container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    container["args"] = [
        *_with_inputs_spec(container["args"], component.get("inputDefinitions", {})),
        *("--task", node_id),
        *("--outputs", ",".join(sorted(component.get("outputDefinitions", {}).get("artifacts", {})))),
        *("--code", code),
        *("--notes", notes),
        *(("--image", container["image"]) if node_id in _KNOWN else ()),
        *(word for parameter in bound for word in ("--bind", f"{parameter.target}={parameter.name}")),
        *(word for binding in _KNOWN.get(node_id, ()) for word in ("--bind", binding)),
    ]
    _resources(container, settings)
    _behaviour(task, settings)


def _reach_workers(spec: Json, node_id: str, cluster: Kubeflow) -> None:
    """Lets Beam's workers on other machines have the image, where nothing else is said, and open the artifacts."""
    container = spec["deploymentSpec"]["executors"][_label(spec, node_id)]["container"]
    runner = next((word for word in container["args"] if word.startswith("--runner=")), f"--runner={LOCAL_RUNNER}")
    if runner == f"--runner={LOCAL_RUNNER}":
        return
    nobody, ours = "--sdk_container_image=none", f"--sdk_container_image={cluster.image}"
    container["args"] = [ours if word == nobody else word for word in container["args"]]
    container["args"] += ["--keep", SHARED]


def _with_inputs_spec(arguments: Sequence[str], definitions: Json) -> list[str]:
    """Returns TFX's arguments with the input definitions as they are now."""
    result = list(arguments)
    result[result.index("--json_serialized_inputs_spec_args") + 1] = json.dumps(definitions, sort_keys=True)
    return result


def _resources(container: Json, settings: Node) -> None:
    """Writes resources and plain environment variables into the container."""
    memory = settings.memory
    resources: Json = {}
    for key, cores in (("cpuRequest", settings.cpu), ("cpuLimit", settings.cpu_limit)):
        if cores is not None:
            resources[key] = _cores(cores)
    for key, size in (("memoryRequest", memory), ("memoryLimit", settings.memory_limit or memory)):
        if size is not None:
            resources[key] = _gigabytes(size)
    if settings.gpu is not None and settings.gpu.count:
        resources["accelerator"] = {"type": settings.gpu.type, "count": str(settings.gpu.count)}
    container["resources"] = resources
    plain = {name: value for name, value in (settings.env or {}).items() if isinstance(value, str)}
    if plain:
        container["env"] = [{"name": name, "value": plain[name]} for name in sorted(plain)]


def _behaviour(task: Json, settings: Node) -> None:
    """Writes caching and retries into the task."""
    task["cachingOptions"] = {"enableCache": bool(settings.caching)}
    retry, timeout = settings.retry, settings.timeout
    if retry is None or not retry.attempts:
        return
    waits = sum(retry.wait * retry.factor**attempt for attempt in range(retry.attempts))
    # Argo counts this from the start of the first attempt, and never retries where it is 0 or left out.
    longest = (timeout or 0) * (retry.attempts + 1) + waits + 3600
    task["retryPolicy"] = {
        "maxRetryCount": retry.attempts,
        "backoffDuration": f"{retry.wait}s",
        "backoffFactor": retry.factor,
        "backoffMaxDuration": f"{longest}s",
    }


def _platform(settings: Node, cluster: Kubeflow) -> Json:
    """Returns what the platform specification says of one executor."""
    secret_env = {name: value for name, value in (settings.env or {}).items() if isinstance(value, SecretKey)}
    parts: Json = {
        "imagePullPolicy": cluster.pull_policy,
        "imagePullSecret": [{"secretName": name} for name in cluster.pull_secrets],
        "activeDeadlineSeconds": str(settings.timeout) if settings.timeout else None,
        "pvcMount": [{"constant": volume.claim, "mountPath": volume.mount} for volume in settings.volumes or []],
        "secretAsVolume": [
            {"secretName": volume.secret, "mountPath": volume.mount, "optional": False}
            for volume in settings.secrets or []
        ],
        "secretAsEnv": [
            {"secretName": value.secret, "keyToEnv": [{"secretKey": value.key, "envVar": name}]}
            for name, value in sorted(secret_env.items())
        ],
        "nodeSelector": {"labels": dict(settings.node_selector)} if settings.node_selector else None,
        "tolerations": [
            {
                key: value
                for key, value in {
                    "key": toleration.key,
                    "operator": toleration.operator,
                    "value": toleration.value,
                    "effect": toleration.effect,
                    "tolerationSeconds": None if toleration.seconds is None else str(toleration.seconds),
                }.items()
                if value is not None
            }
            for toleration in settings.tolerations or []
        ],
        "emptyDirMounts": [
            {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": settings.shm}  # noqa: S108
        ]
        if settings.shm
        else [],
    }
    return {key: value for key, value in parts.items() if value}


# --- the exit step ---------------------------------------------------------------------------------------------------


def _wrap(spec: Json, parameters: Sequence[Parameter]) -> None:
    """Moves the nodes into an inner DAG, so that the exit step runs when it has ended, however it has."""
    inner: Json = {"dag": spec["root"]["dag"]}
    outer: Json = {"componentRef": {"name": TFX_DAG}, "taskInfo": {"name": TFX_DAG}}
    if parameters:
        types = {parameter.name: {"parameterType": _TYPES[type(parameter.default)]} for parameter in parameters}
        inner["inputDefinitions"] = {"parameters": types}
        outer["inputs"] = {"parameters": {name: {"componentInputParameter": name} for name in types}}
    spec["components"][TFX_DAG] = inner
    spec["root"] = {"dag": {"tasks": {TFX_DAG: outer}}}


def _add_exit_step(spec: Json, name: str, node_ids: Sequence[str], cluster: Kubeflow, *, notes: str) -> None:
    settings = cluster.node(NOTIFY)
    label = f"{NOTIFY}_executor"
    container: Json = {
        "image": cluster.image,
        "command": [*ENTRYPOINT[:-1], f"{ENTRYPOINT[-1]}.notify"],
        "args": [*_notify_arguments(name, node_ids, cluster), "--notes", notes],
    }
    _resources(container, _with_notify_secrets(cluster))
    spec["deploymentSpec"]["executors"][label] = {"container": container}
    spec["components"][NOTIFY] = {
        "executorLabel": label,
        "inputDefinitions": {
            "parameters": {
                "status": {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
                "run_id": {"parameterType": "STRING"},
                "run_name": {"parameterType": "STRING"},
            }
        },
    }
    task: Json = {
        "componentRef": {"name": NOTIFY},
        "taskInfo": {"name": NOTIFY},
        "dependentTasks": [TFX_DAG],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
        "inputs": {
            "parameters": {
                "status": {"taskFinalStatus": {"producerTask": TFX_DAG}},
                "run_id": {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}},
                "run_name": {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}},
            }
        },
    }
    _behaviour(task, settings)
    spec["root"]["dag"]["tasks"][NOTIFY] = task


def _notify_arguments(name: str, node_ids: Sequence[str], cluster: Kubeflow) -> list[str]:
    notify = cluster.notify
    assert notify is not None
    words = {
        "--status": "{{$.inputs.parameters['status']}}",
        "--run_id": "{{$.inputs.parameters['run_id']}}",
        "--run_name": "{{$.inputs.parameters['run_name']}}",
        "--pipeline": name,
        "--nodes": ",".join(node_ids),
        "--api": cluster.api,
        "--page": cluster.page or "",
        "--outputs": cluster.pipeline_root or "",
        "--on": notify.when,
    }
    if notify.webhook is not None:
        words["--webhook_env"] = _WEBHOOK
    if notify.mail is not None:
        mail = notify.mail
        words.update({"--smtp": f"{mail.host}:{mail.port}", "--mail_from": mail.sender, "--mail_to": ",".join(mail.to)})
        if mail.user is not None:
            words.update({"--smtp_user_env": _SMTP_USER, "--smtp_password_env": _SMTP_PASSWORD})
    return [word for pair in words.items() for word in pair]


def _with_notify_secrets(cluster: Kubeflow) -> Node:
    """Returns the exit step's settings with the addresses that it needs as environment variables."""
    notify, env = cluster.notify, {}
    if notify and notify.webhook:
        env[_WEBHOOK] = notify.webhook.url
    if notify and notify.mail and notify.mail.user and notify.mail.password:
        env.update({_SMTP_USER: notify.mail.user, _SMTP_PASSWORD: notify.mail.password})
    return Node(env=env).over(cluster.node(NOTIFY))


def _label(spec: Json, node_id: str) -> str:
    return str(spec["components"][node_id]["executorLabel"])


# --- quantities and text ---------------------------------------------------------------------------------------------

_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _cores(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _gigabytes(quantity: str) -> float:
    unit = next((unit for unit in ("Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T") if quantity.endswith(unit)), "")
    return round(float(quantity.removesuffix(unit)) * _UNITS.get(unit, 1) / 1e9, 9)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such; the same object twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature of the base
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _text(documents: Sequence[Json]) -> str:
    dumped = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=120, default_flow_style=False)
    return f"# Written by `python kubeflow_runner.py compile`; do not edit.\n{dumped}"
