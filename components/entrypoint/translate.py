"""Between the launcher of Kubeflow Pipelines and TFX: what the one writes is made what the other reads, and back.

Pure functions over the JSON of both sides, so that each repair has its test. The launcher downloads a node's inputs
and uploads its outputs, but tells the node remote URIs, leaves out the inputs' types and adds outputs of its own; TFX
needs types, knows no `minio://`, fails on outputs that it did not declare and writes nulls that the launcher refuses.
"""

from __future__ import annotations

import copy
import itertools
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

LOCAL_ROOTS = {"minio://": "minio/", "s3://": "s3/", "gs://": "gcs/"}
"""Where the launcher keeps what lies under each scheme, below the container's root."""

REMOTE_URI = "remote_uri"
"""The property of an input that says where it lies for others than this pod."""
_OF_THE_BACKEND = ("display_name", "store_session_info")
"""Metadata that Kubeflow Pipelines adds to an artifact, and that no component wrote."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def local_path(uri: str, *, root: str = "/", kept: Sequence[str] = ()) -> str:
    """Returns the local path at which the launcher keeps `uri`; a URI of another scheme comes back as it is.

    Args:
        uri: where an artifact lies.
        root: the container's root, under which the launcher keeps its files.
        kept: schemes that stay, for Beam's workers on other machines open the artifacts themselves.
    """
    for scheme, folder in LOCAL_ROOTS.items():
        if uri.startswith(scheme) and scheme not in kept:
            return posixpath.join(root, folder) + uri.removeprefix(scheme)
    return uri


def to_tfx(
    executor_input: Json,
    inputs_spec: Json,
    *,
    declared_outputs: Sequence[str],
    root: str = "/",
    kept: Sequence[str] = (),
) -> Json:
    """Returns the executor input as TFX reads it.

    Args:
        executor_input: what the launcher put in the place of `{{$}}`.
        inputs_spec: the component's `inputDefinitions`, which knows the types of the inputs.
        declared_outputs: the outputs that the component declares; others are the launcher's own.
        root: the container's root, under which the launcher keeps its files.
        kept: see `local_path`.
    """
    result = copy.deepcopy(executor_input)
    types = inputs_spec.get("artifacts", {})
    inputs = result.get("inputs", {}).get("artifacts", {})
    for key, artifact in _artifacts(inputs):
        if not any((artifact.get("type") or {}).values()) and key in types:
            artifact["type"] = types[key]["artifactType"]
        remote = artifact.get("uri", "")
        artifact["uri"] = local_path(remote, root=root, kept=kept)
        artifact["metadata"] = {**_plain_metadata(artifact.get("metadata") or {}), REMOTE_URI: remote}
    outputs = result.get("outputs", {}).get("artifacts", {})
    for key in [key for key in outputs if key not in declared_outputs]:
        del outputs[key]
    for _, artifact in _artifacts(outputs):
        artifact["uri"] = local_path(artifact.get("uri", ""), root=root, kept=kept)
    return result


def is_local(translated: Json) -> bool:
    """Says whether the executor input that `to_tfx` made leads to nothing but this machine's own files."""
    inputs = translated.get("inputs", {})
    artifacts = [*_artifacts(inputs.get("artifacts", {})), *_artifacts(translated["outputs"].get("artifacts", {}))]
    places = [artifact.get("uri", "") for _, artifact in artifacts]
    return not any("://" in str(value) for value in [*places, *inputs.get("parameterValues", {}).values()])


def to_launcher(executor_output: Json, executor_input: Json, *, root: str = "/") -> Json:
    """Returns TFX's output metadata as the launcher reads it.

    Args:
        executor_output: what TFX wrote, with local paths.
        executor_input: what the launcher gave, with remote URIs.
        root: the container's root.
    """
    roots = _remote_roots(executor_input, root)
    given = executor_input.get("outputs", {}).get("artifacts", {})
    result = copy.deepcopy(executor_output)
    artifacts: Json = {}
    for key, listed in result.get("artifacts", {}).items():
        if key not in given:
            continue
        kept = []
        for artifact, before in zip(listed.get("artifacts", []), given[key].get("artifacts", []), strict=False):
            metadata = _without_nulls(artifact.get("metadata") or {})
            # The launcher merges these two fields and refuses what it does not know.
            kept.append({"uri": before["uri"], "metadata": _with_remote_uris(metadata, roots)})
        artifacts[key] = {"artifacts": kept}
    values = _without_nulls(result.get("parameterValues") or {})
    return {"artifacts": artifacts, **({"parameterValues": values} if values else {})}


def missing_outputs(
    executor_input: Json, *, declared_outputs: Iterable[str], root: str = "/", kept: Sequence[str] = ()
) -> list[str]:
    """Returns `key: path` of each declared output with no file in it; those of a scheme in `kept` are not looked at.

    The launcher only warns of such an output, uploads nothing and records it: a consumer would get an empty folder.
    """
    outputs = executor_input.get("outputs", {}).get("artifacts", {})
    declared = set(declared_outputs)
    uris = [(key, local_path(artifact.get("uri", ""), root=root, kept=kept)) for key, artifact in _artifacts(outputs)]
    looked_at = [(key, Path(uri)) for key, uri in uris if key in declared and not uri.startswith(tuple(kept))]
    return [f"{key}: {path}" for key, path in looked_at if not _has_files(path)]


def run_id(executor_input: Json, *, task: str) -> str:
    """Returns the id of the run, or "" where the URIs do not tell: <root>/<pipeline>/<run>/<task>/.../<output>."""
    outputs = executor_input.get("outputs", {}).get("artifacts", {})
    for _, artifact in _artifacts(outputs):
        parts = artifact.get("uri", "").split("/")
        for run, node in itertools.pairwise(parts):
            if node == task and _UUID.fullmatch(run):
                return str(run)
    return ""


def bind(executor_input: Json, bindings: Iterable[str], *, known: Mapping[str, Any]) -> Json:
    """Returns the executor input with parameters of the run put into execution properties.

    Args:
        executor_input: what the launcher gave.
        bindings: each `property=parameter`, `property.key=parameter` (into a property that is a JSON object) or
            `property.key=@name` (out of `known`). The value "" or 0 leaves the property as it was compiled; the
            parameter itself is taken out, for the executor does not know it.
        known: what this process knows, by name.
    """
    result = copy.deepcopy(executor_input)
    values = result.setdefault("inputs", {}).setdefault("parameterValues", {})
    parsed = [binding.split("=", 1) for binding in bindings]
    given = {source: known.get(source[1:]) if source.startswith("@") else values.get(source) for _, source in parsed}
    for _, source in parsed:
        values.pop(source, None)
    for target, source in parsed:
        value = given[source]
        if value is None or (value in ("", 0) and not isinstance(value, bool)):
            continue
        name, *path = target.split(".")
        values[name] = _put(values.get(name), path, _whole(value))
    return result


def _put(before: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        # TFX's properties have no booleans.
        return int(value) if isinstance(value, bool) else value
    document = json.loads(before or "{}")
    *way, last = path
    inner = document
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return json.dumps(document, sort_keys=True)


def _whole(value: Any) -> Any:
    """Returns a number of JSON without a fraction as an integer; the launcher's numbers are all doubles."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _artifacts(lists: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for key, listed in lists.items():
        for artifact in listed.get("artifacts", []):
            yield key, artifact


def _plain_metadata(metadata: Json) -> Json:
    plain = {key: _unwrapped(value) for key, value in metadata.items() if key not in _OF_THE_BACKEND}
    return {key: value for key, value in plain.items() if value is not None}


def _unwrapped(value: Any) -> Any:
    """Returns a value without the wrapping in which ML Metadata keeps what is not a scalar."""
    if isinstance(value, dict) and set(value) in ({"struct"}, {"list"}):
        return next(iter(value.values()))
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value


def _remote_roots(executor_input: Json, root: str) -> dict[str, str]:
    """Returns the remote root of each local one that the node's artifacts lie under, bucket by bucket."""
    roots: dict[str, str] = {}
    for side in ("inputs", "outputs"):
        for _, artifact in _artifacts(executor_input.get(side, {}).get("artifacts", {})):
            scheme, separator, rest = artifact.get("uri", "").partition("://")
            if separator and f"{scheme}://" in LOCAL_ROOTS:
                bucket = rest.split("/", 1)[0]
                remote = f"{scheme}://{bucket}/"
                roots[local_path(remote, root=root)] = remote
    return roots


def _with_remote_uris(value: Any, roots: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_remote_uris(inner, roots) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_remote_uris(inner, roots) for inner in value]
    if isinstance(value, str):
        for local, remote in roots.items():
            value = value.replace(local, remote)
    return value


def _has_files(path: Path) -> bool:
    if not path.is_dir():
        return path.exists()
    return any(inner.is_file() for inner in path.rglob("*"))
