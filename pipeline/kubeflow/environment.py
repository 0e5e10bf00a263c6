"""The part of an environment that is a Kubeflow cluster: image, places, and what each node gets; all mistakes at once.

Nothing here imports TensorFlow or TFX. `refusals` says before anything is compiled why a problem in this environment
could not run on a cluster; `Kubeflow.node` gives what one node gets: the built-in settings of its kind, the
environment's `defaults` over them, and over those what `nodes` says of it.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from components.entrypoint.translate import local_path
from evergreen.errors import Problem
from evergreen.settings import Section
from pipeline.beam import Beam, BeamRunner

Cpu = Annotated[str, pydantic.Field(pattern=r"^(\d+(\.\d+)?|\d+m)$")]
"""Cores in Kubernetes' notation: "2", "0.5", "500m"."""
Memory = Annotated[str, pydantic.Field(pattern=r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""Bytes in Kubernetes' notation: "2Gi", "512Mi", "4G"."""
Name = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
"""The name of an object in Kubernetes."""
Folder = Annotated[str, pydantic.Field(pattern=r"^/[^\s:]+$")]
"""An absolute path in the container."""
Seconds = Annotated[int, pydantic.Field(ge=1)]
REMOTE = ("gs://", "s3://", "minio://")
"""The schemes of a pipeline root that Kubeflow's launcher knows."""


class SecretKey(Section):
    """A value inside a Kubernetes secret."""

    secret: Name
    """The secret's name."""
    key: Annotated[str, pydantic.Field(min_length=1)]
    """The key in it."""


class SecretVolume(Section):
    """A Kubernetes secret as files."""

    secret: Name
    """The secret's name."""
    mount: Folder
    """The folder in which its keys are files."""


class Volume(Section):
    """A persistent volume."""

    claim: Name
    """The name of the claim; several nodes at once need ReadWriteMany."""
    mount: Folder
    """The folder at which it shows."""


class Toleration(Section):
    """A taint that does not keep a node's pod away from a machine."""

    key: str | None = None
    """The taint's key; every key where it is left out."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value counts."""
    value: str | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; every effect where it is left out."""
    seconds: Annotated[int, pydantic.Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated."""


class Gpu(Section):
    """Accelerators of one pod."""

    count: Annotated[int, pydantic.Field(ge=0, le=64)] = 1
    """How many."""
    type: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """The name of the resource in Kubernetes."""


class Retry(Section):
    """What happens after a fault; bad input and a gate's refusal are told again at once."""

    attempts: Annotated[int, pydantic.Field(ge=0, le=10)] = 2
    """Attempts after the first."""
    wait: Seconds = 30
    """Seconds before the second attempt."""
    factor: Annotated[int, pydantic.Field(ge=1, le=10)] = 2
    """How much longer each wait is than the one before."""


class Node(Section):
    """What the pod of a node gets; what is left out comes from the level above."""

    cpu: Cpu | None = None
    """Cores that are kept for it."""
    cpu_limit: Cpu | None = None
    """Cores that it may use; without one, what the machine has to spare."""
    memory: Memory | None = None
    """Memory that is kept for it."""
    memory_limit: Memory | None = None
    """Memory at which it is killed; as much as is kept for it where it is left out."""
    gpu: Gpu | None = None
    """Accelerators."""
    shm: Memory | None = None
    """Size of /dev/shm, in memory that counts."""
    retry: Retry | None = None
    """What happens after a fault."""
    timeout: Seconds | None = None
    """Seconds after which an attempt is stopped."""
    caching: bool | None = None
    """Whether Kubeflow may take the outputs of an earlier run with the same inputs, parameters and image."""
    node_selector: dict[str, str] | None = None
    """Labels that the machine must have."""
    tolerations: list[Toleration] | None = None
    """Taints that do not keep it away."""
    env: dict[Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str | SecretKey] | None = None
    """Environment variables; a secret's value as {secret, key}. They add to those of the level above."""
    secrets: list[SecretVolume] | None = None
    """Secrets as files. They add to those of the level above."""
    volumes: list[Volume] | None = None
    """Persistent volumes. They add to those of the level above."""

    def over(self, below: Node) -> Node:
        """Returns these settings over those of the level above."""
        merged = {name: _merged(getattr(below, name), getattr(self, name)) for name in type(self).model_fields}
        return Node.model_construct(**merged)


def _merged(below: Any, above: Any) -> Any:
    if above is None or below is None:
        return below if above is None else above
    if isinstance(above, dict) and isinstance(below, dict):
        return {**below, **above}
    if isinstance(above, list) and isinstance(below, list):
        return [*below, *(item for item in above if item not in below)]
    return above


class Webhook(Section):
    """An incoming webhook in Slack's form."""

    url: str | SecretKey
    """Its address; one that holds a token belongs in a secret: {secret, key}."""


class Mail(Section):
    """Mail through an SMTP server."""

    host: str
    """The server."""
    port: Annotated[int, pydantic.Field(ge=1, le=65535)] = 25
    """Its port; STARTTLS is used where the server offers it."""
    sender: str
    """The address in From."""
    to: Annotated[list[str], pydantic.Field(min_length=1)]
    """The addresses in To."""
    user: SecretKey | None = None
    """The user, where the server asks for one."""
    password: SecretKey | None = None
    """The password."""


class Notify(Section):
    """Who is told how a run ended."""

    when: Literal["always", "failure"] = "always"
    """Which runs are told of."""
    webhook: Webhook | None = None
    """An incoming webhook in Slack's form."""
    mail: Mail | None = None
    """Mail through an SMTP server."""


class Kubeflow(Section):
    """A cluster with Kubeflow Pipelines."""

    image: Annotated[str, pydantic.Field(min_length=1)]
    """The image of every node, by digest: name@sha256:..."""
    allow_tag: bool = False
    """Whether the image may be named by a tag, which may mean another image tomorrow; caching is off then."""
    variant: Literal["cpu", "gpu"] = "cpu"
    """Which of the project's images it is; the GPU one gives Trainer and Tuner a GPU each."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    pull_secrets: list[Name] = pydantic.Field(default=[])
    """Secrets of the image's registry."""
    pipeline_root: str | None = None
    """Where the outputs of the nodes go: minio://, s3:// or gs://; what the cluster says where it is left out."""
    data_root: str | None = None
    """What a relative `data.path` of the problem is relative to: a folder in a volume, or gs://."""
    service_account: Name | None = None
    """The Kubernetes service account of the runs."""
    volumes: list[Volume] = pydantic.Field(default=[])
    """Volumes that every node gets: data, registry."""
    defaults: Node = Node()
    """What every node gets."""
    nodes: dict[str, Node] = pydantic.Field(default={})
    """What single nodes get, by their id; `Notify` is the exit step."""
    notify: Notify | None = None
    """Who is told how a run ended; nobody, and no exit step, where it is left out."""
    api: str = "http://ml-pipeline.kubeflow:8888"
    """Kubeflow Pipelines' API as the pods see it; the exit step asks it which node failed."""
    page: str | None = None
    """The address of Kubeflow's pages, for links in notifications."""

    def node(self, node_id: str) -> Node:
        """Returns everything that the node gets.

        Args:
            node_id: the id of a node, or `NOTIFY`.
        """
        built_in = _BUILT_IN.get(node_id, _MIDDLE).over(_ANY)
        if self.variant == "gpu" and node_id in ACCELERATED:
            built_in = Node(gpu=Gpu()).over(built_in)
        here = Node(volumes=self.volumes) if node_id != NOTIFY or self.volumes else Node()
        merged = self.nodes.get(node_id, Node()).over(self.defaults.over(here.over(built_in)))
        return Node(caching=False).over(merged) if self.allow_tag or node_id == NOTIFY else merged


LOCAL_RUNNER = "DirectRunner"
"""The Beam runner whose work is done in the node's own pod."""
SHARED = "gs://"
"""The scheme of places that Beam's workers on other machines open as the node's pod does."""
NOTIFY = "Notify"
"""The id of the exit step."""
ACCELERATED = ("Trainer", "Tuner")
"""The nodes that use a GPU."""

_ANY = Node(retry=Retry(), timeout=6 * 3600, caching=True)
_SMALL = Node(cpu="250m", memory="2Gi")
_MIDDLE = Node(cpu="500m", memory="4Gi")
_BUILT_IN: Mapping[str, Node] = {
    "ExampleGen": Node(caching=False).over(_MIDDLE),
    "SchemaGen": _SMALL,
    "ImportSchemaGen": _SMALL,
    "Champion": Node(caching=False).over(_SMALL),
    "Trainer": Node(cpu="1", memory="6Gi", timeout=24 * 3600),
    "Tuner": Node(cpu="1", memory="6Gi", timeout=72 * 3600),
    "InfraValidator": Node(caching=False).over(_MIDDLE),
    "Pusher": Node(caching=False).over(_SMALL),
    "Report": Node(caching=False).over(_SMALL),
    NOTIFY: Node(cpu="100m", memory="256Mi", timeout=900, caching=False),
}


# --- secrets ---------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"(?i)(^|_)(password|passwd|passphrase|secret|token|credentials?|(api|access|private|secret|account)_?key)$"
)
_SECRET_VALUES = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    re.compile(r"hooks\.slack\.com/(services|workflows|triggers)/"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."),
    re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]+@"),
)


def is_secret(name: str, value: str) -> bool:
    """Says whether a value looks like a secret, by its name or by itself.

    Args:
        name: the name of the variable or parameter; "" where there is none.
        value: what it holds.
    """
    return bool(value) and (bool(_SECRET_NAME.search(name)) or any(p.search(value) for p in _SECRET_VALUES))


# --- what cannot run -------------------------------------------------------------------------------------------------


def refusals(
    cluster: Kubeflow,
    *,
    beam: Beam,
    registry: str,
    data_path: str,
    schema_path: str | None,
    node_ids: Sequence[str],
    file: str,
) -> list[Problem]:
    """Returns why the pipeline could not run in this environment, everything at once.

    Args:
        cluster: the environment's cluster.
        beam: the environment's Beam.
        registry: the environment's registry.
        data_path: the problem's data path, as `placed` gives it.
        schema_path: the problem's curated schema.
        node_ids: the nodes of the DAG.
        file: the environment's file, for the words.
    """
    found = [
        *_image(cluster, file),
        *_unknown_nodes(cluster, node_ids, file),
        *_accelerators(cluster, node_ids, file),
        *_places(cluster, registry=registry, data_path=data_path, schema_path=schema_path, file=file),
        *_mounts(cluster, node_ids, file),
        *_secrets(cluster, file),
        *_nobody(cluster, file),
        *_workers(beam, cluster, file=file),
    ]
    return list(dict.fromkeys(found))


def placed(data_path: str, cluster: Kubeflow) -> str:
    """Returns the problem's data path as the pods see it."""
    if cluster.data_root is None or "://" in data_path or data_path.startswith("/"):
        return data_path
    return posixpath.join(cluster.data_root, data_path)


def is_pinned(image: str) -> bool:
    """Says whether an image is named by its digest."""
    return re.search(r"@sha256:[0-9a-f]{64}$", image) is not None


def _image(cluster: Kubeflow, file: str) -> Iterator[Problem]:
    if not is_pinned(cluster.image) and not cluster.allow_tag:
        yield Problem(
            where=f"{file}, kubeflow.image",
            found=cluster.image,
            expected="an image by its digest (name@sha256:...), so that every pod of every run has the same one",
            action="Take the digest that the push printed, or say allow_tag: true.",
        )


def _unknown_nodes(cluster: Kubeflow, node_ids: Sequence[str], file: str) -> Iterator[Problem]:
    for name in cluster.nodes:
        if name not in (*node_ids, NOTIFY, *_BUILT_IN):
            yield Problem(
                where=f"{file}, kubeflow.nodes.{name}",
                found="no node of that name",
                expected=f"one of {', '.join([*node_ids, NOTIFY])}",
                action="Correct the name.",
            )


def _accelerators(cluster: Kubeflow, node_ids: Sequence[str], file: str) -> Iterator[Problem]:
    if cluster.variant == "gpu":
        return
    for name in node_ids:
        gpu = cluster.node(name).gpu
        if gpu is not None and gpu.count:
            yield Problem(
                where=f"{file}, kubeflow.nodes.{name}.gpu",
                found=f"{gpu.count} x {gpu.type} with the CPU image",
                expected="an image in which TensorFlow can use them",
                action="Name the GPU image and say variant: gpu, or leave the GPUs out.",
            )


def _places(
    cluster: Kubeflow, *, registry: str, data_path: str, schema_path: str | None, file: str
) -> Iterator[Problem]:
    mounts = [volume.mount for volume in cluster.volumes]
    outlives = f"gs://, or a folder in a volume ({', '.join(mounts) or 'there is none'})"
    if not _outlives(registry, mounts):
        yield Problem(
            where=f"{file}, registry",
            found=f"{registry}, which is gone when the pod ends",
            expected=outlives,
            action="Mount the registry's claim under kubeflow.volumes and name a folder in it.",
        )
    if not _outlives(data_path, mounts):
        yield Problem(
            where=f"{file}, kubeflow.data_root",
            found=f"data at {data_path}, which a pod does not have",
            expected=outlives,
            action="Say in kubeflow.data_root where the data lie in the pods, or give data.path in full.",
        )
    root = cluster.pipeline_root
    if root is not None and not root.startswith(REMOTE):
        yield Problem(
            where=f"{file}, kubeflow.pipeline_root",
            found=root,
            expected=f"a root that Kubeflow's launcher knows: {', '.join(REMOTE)}",
            action="Correct it, or leave it out for the cluster's own.",
        )
    if schema_path is not None and (schema_path.startswith("/") or ".." in schema_path.split("/")):
        yield Problem(
            where="schema",
            found=schema_path,
            expected="a path relative to the project: the image has the project's schemas/",
            action="Put the schema under schemas/.",
        )
    writers = {"registry": registry, "kubeflow.pipeline_root": root or ""}
    data = data_path.split("{", 1)[0].split("*", 1)[0]
    for one, other in (
        ("registry", "kubeflow.pipeline_root"),
        ("registry", "data.path"),
        ("kubeflow.pipeline_root", "data.path"),
    ):
        first, second = writers[one], {**writers, "data.path": data}[other]
        if first and second and (_within(first, second) or _within(second, first)):
            yield Problem(
                where=f"{file}, {one}",
                found=f"{first}, and {other} at {second}: one lies in the other",
                expected="places that no two nodes write or read in one another",
                action="Give each a folder of its own.",
            )


def _outlives(path: str, mounts: Sequence[str]) -> bool:
    return path.startswith("gs://") or any(_within(path, mount) for mount in mounts)


def _within(path: str, folder: str) -> bool:
    return posixpath.normpath(path) == posixpath.normpath(folder) or path.startswith(folder.rstrip("/") + "/")


def _mounts(cluster: Kubeflow, node_ids: Sequence[str], file: str) -> Iterator[Problem]:
    for name in (*node_ids, NOTIFY):
        settings = cluster.node(name)
        volumes = [(volume.mount, volume.claim) for volume in settings.volumes or []]
        secrets = [(volume.mount, volume.secret) for volume in settings.secrets or []]
        mounts = sorted({*volumes, *secrets})
        for (one, first), (other, second) in itertools.pairwise(mounts):
            if _within(other, one):
                yield Problem(
                    where=f"{file}, kubeflow.volumes",
                    found=f"{first} at {one} and {second} at {other}",
                    expected="folders that do not lie in one another",
                    action="Mount each at a folder of its own.",
                )
        names = [what for _, what in mounts]
        for what in sorted({what for what in names if names.count(what) > 1}):
            yield Problem(
                where=f"{file}, kubeflow.volumes",
                found=f"{what} mounted twice in {name}",
                expected="every claim and secret once: Kubeflow names the pod's volumes by them",
                action="Mount it once, at a folder above both.",
            )


def _secrets(cluster: Kubeflow, file: str) -> Iterator[Problem]:
    levels = {"kubeflow.defaults": cluster.defaults, **{f"kubeflow.nodes.{n}": s for n, s in cluster.nodes.items()}}
    for level, settings in levels.items():
        for name, value in (settings.env or {}).items():
            if isinstance(value, str) and is_secret(name, value):
                yield _in_plain_text(f"{file}, {level}.env.{name}")
    webhook = cluster.notify.webhook if cluster.notify else None
    if webhook and isinstance(webhook.url, str) and is_secret("", webhook.url):
        yield _in_plain_text(f"{file}, kubeflow.notify.webhook.url")


def _in_plain_text(where: str) -> Problem:
    return Problem(
        where=where,
        found="what looks like a secret, in plain text",
        expected="the name of a Kubernetes secret and the key in it",
        action="Put the value into a secret and write {secret: name, key: key} here.",
    )


def _nobody(cluster: Kubeflow, file: str) -> Iterator[Problem]:
    notify = cluster.notify
    if notify and notify.webhook is None and notify.mail is None:
        yield Problem(
            where=f"{file}, kubeflow.notify",
            found="nobody to tell",
            expected="a webhook, mail, or both",
            action="Add one of them, or remove the key.",
        )
    if notify and notify.mail and (notify.mail.user is None) != (notify.mail.password is None):
        yield Problem(
            where=f"{file}, kubeflow.notify.mail",
            found="a user without a password, or a password without a user",
            expected="both or neither",
            action="Add the other one.",
        )


# --- Beam's workers --------------------------------------------------------------------------------------------------

_NEEDED: Mapping[str, Sequence[Sequence[str]]] = {
    "DataflowRunner": (("project",), ("region",), ("temp_location",)),
    "FlinkRunner": (("flink_master",),),
    "PortableRunner": (("job_endpoint",),),
    "SparkRunner": (("spark_master_url", "spark_rest_url"),),
}
"""The options without which a runner does not know where to work; of several, one is enough."""


def _workers(beam: Beam, cluster: Kubeflow, *, file: str) -> Iterator[Problem]:
    """Says what keeps a runner's workers, which are not in the node's pod, from their work."""
    sections: dict[str, BeamRunner] = {"beam": beam, **{f"beam.nodes.{name}": one for name, one in beam.nodes.items()}}
    for name, section in sections.items():
        if section.runner == LOCAL_RUNNER:
            continue
        for options in _NEEDED[section.runner]:
            if not set(options) & section.options.keys():
                yield Problem(
                    where=f"{file}, {name}.options",
                    found=f"no {' or '.join(options)} for the {section.runner}",
                    expected="where it works",
                    action=f"Add {options[0]}.",
                )
        root = cluster.pipeline_root or "the cluster's own"
        if not root.startswith(SHARED) and not _kept_on_a_volume(root, name.rpartition(".")[2], cluster):
            yield Problem(
                where=f"{file}, kubeflow.pipeline_root",
                found=f"{root}, with {name}.runner {section.runner}, whose workers open the artifacts themselves",
                expected=f"a place that every machine reaches and TensorFlow can open: {SHARED}; or a volume that the "
                "workers have too, at the folder in which the pod keeps what lies under that root (/minio, /s3)",
                action="Give a bucket or mount such a volume, or take the DirectRunner.",
            )


def _kept_on_a_volume(root: str, node: str, cluster: Kubeflow) -> bool:
    """Says whether the launcher's copies of the artifacts lie on a volume of the node; "beam" is every node."""
    volumes = [*cluster.volumes, *(cluster.defaults.volumes or [])] if node == "beam" else cluster.node(node).volumes
    return any(_within(local_path(root), volume.mount) for volume in volumes or [])
