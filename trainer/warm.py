"""Warm start: the weights of the model that is serving now, where they still mean the same.

A weight is carried over when the serving model was made by the same configuration of features and model, and has a
weight of that path and shape. Where a vocabulary has changed, the weights' rows are matched by the terms that they
stand for: a term that stayed keeps what was learned of it, a new one begins anew. With anything else changed, training
starts cold and says why: a weight that meant something else yesterday must not decide what the new configuration is
worth. Whatever cannot be read is a reason to start cold, never to fail.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf import trackable_object_graph_pb2

from evergreen import settings
from trainer import export
from trainer import features as features_lib
from trainer import model as model_lib
from transform import preprocessing

_FILE = "assets.extra/meaning.json"
_LABEL = "the label"
_BY_TERM = ("linear", "deep", "wide_deep")
"""The kinds of model in which rows stand for terms; a cross network's matrices mix them in both directions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a warm start did, for training.json."""

    started: bool
    reason: str
    """Why nothing was carried over, or from where it was."""
    carried: tuple[str, ...] = ()
    """Paths of the weights that were carried over."""
    initialized: tuple[str, ...] = ()
    """Paths of the weights that start anew."""
    vocabularies: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    """Of each vocabulary that changed, how many terms stayed, came and went."""

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON."""
        return dataclasses.asdict(self)


def meaning(
    config: settings.TrainerConfig, transform: tft.TFTransformOutput, features: features_lib.Features
) -> dict[str, Any]:
    """Collects what the weights stand for: features, kind and size of the model, and the terms of each vocabulary."""
    vocabularies = {
        name: _digest(transform.vocabulary_file_by_name(preprocessing.vocabulary_name(name)))
        for name, feature in config.preprocessing.features.items()
        if isinstance(feature, settings.Vocabulary)
    }
    if config.preprocessing.label.task is not settings.Task.REGRESSION:
        column = config.preprocessing.label.column
        vocabularies[_LABEL] = _digest(transform.vocabulary_file_by_name(preprocessing.label_vocabulary_name(column)))
    return {
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "model": config.model.model_dump(mode="json"),
        "vocabularies": vocabularies,
        "columns": {"numeric": list(features.numeric), "categories": dict(features.categories)},
    }


def write_meaning(saved_model: str, meant: dict[str, Any]) -> None:
    """Writes the meaning of its weights into a SavedModel, for the warm start of the next run."""
    path = os.path.join(saved_model, _FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(meant, indent=1, sort_keys=True))


def start(
    model: keras.Model, base_model: str | None, meant: dict[str, Any], transform: tft.TFTransformOutput
) -> Report:
    """Carries the weights of a SavedModel over into a model that was just built.

    Args:
        model: The model to train; changed in place.
        base_model: The folder of the serving SavedModel; it need not exist.
        meant: What the weights of `model` stand for.
        transform: The transform graph that it is trained behind.

    Returns:
        What was carried over, or why nothing was.
    """
    if not base_model or not tf.io.gfile.exists(base_model):
        return Report(started=False, reason="no model is serving yet")
    try:
        before = _read_meaning(base_model)
        changed = _changed(before, meant)
        if changed:
            return Report(started=False, reason=f"changed since the serving model: {changed}")
        return _carry(model, base_model, before, json.loads(json.dumps(meant)), transform)
    except Exception as error:  # noqa: BLE001  a model that cannot be read must not fail the run
        return Report(started=False, reason=f"the serving model cannot be read: {type(error).__name__}: {error}")


def _read_meaning(base_model: str) -> dict[str, Any]:
    path = os.path.join(base_model, _FILE)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        before: dict[str, Any] = json.load(file)
    # What an earlier release did not know yet has its default there.
    before["model"] = settings.Model.model_validate(before["model"]).model_dump(mode="json")
    before["preprocessing"] = settings.Preprocessing.model_validate(before["preprocessing"]).model_dump(mode="json")
    return before


def _changed(before: dict[str, Any], meant: dict[str, Any]) -> str:
    """Names what keeps the weights from being carried over."""
    if not before:
        return "everything, for it does not say what its weights mean"
    now = json.loads(json.dumps(meant))
    changed = {key for key in ("preprocessing", "model") if before.get(key) != now[key]}
    vocabularies = _changed_vocabularies(before, now)
    by_term = now["model"]["kind"] in _BY_TERM and not now["model"]["function"] and "columns" in before
    if vocabularies and (_LABEL in vocabularies or not by_term):
        changed.add("vocabularies")
    # Other columns count their categories themselves: theirs change with the configuration, or with the boundaries.
    if not vocabularies and "columns" in before and before["columns"] != now["columns"]:
        changed.add("columns")
    return ", ".join(sorted(changed))


def _changed_vocabularies(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    names = before["vocabularies"].keys() | now["vocabularies"].keys()
    return {name for name in names if before["vocabularies"].get(name) != now["vocabularies"].get(name)}


def _carry(
    model: keras.Model,
    base_model: str,
    before: dict[str, Any],
    now: dict[str, Any],
    transform: tft.TFTransformOutput,
) -> Report:
    rows, told = _Rows(before, now), {}
    for name in sorted(_changed_vocabularies(before, now)):
        file = preprocessing.vocabulary_name(name)
        told[name] = rows.match(name, _terms(os.path.join(base_model, "assets", file)), _terms_now(transform, file))
    weights = _weights(base_model)
    carried, initialized = [], []
    for weight in model.weights:
        value = weights.get(weight.path)
        if value is not None and told:
            value = rows.moved(weight.path, value, weight.numpy())
        if value is None or value.shape != tuple(weight.shape) or not np.isfinite(value).all():
            initialized.append(weight.path)
            continue
        weight.assign(value)
        carried.append(weight.path)
    return Report(
        started=bool(carried),
        reason=f"from {base_model}",
        carried=tuple(carried),
        initialized=tuple(initialized),
        vocabularies=told,
    )


class _Rows:
    """Which row of a weight of the serving model is which row now; -1 is none."""

    def __init__(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        self._numeric: list[str] = now["columns"]["numeric"]
        self._before: dict[str, int] = before["columns"]["categories"]
        self._now: dict[str, int] = now["columns"]["categories"]
        self._border: int = now["model"]["one_hot_up_to"]
        self._ids = {
            name: np.where(np.arange(size) < self._before.get(name, 0), np.arange(size), -1)
            for name, size in self._now.items()
        }

    def match(self, name: str, terms_before: list[bytes], terms: list[bytes]) -> dict[str, int]:
        """Matches the ids of a vocabulary by their terms, and the buckets behind them by their place."""
        place = {term: id_ for id_, term in enumerate(terms_before)}
        size = self._now[name]
        ids = np.full(size, -1)
        ids[: len(terms)] = [place.get(term, -1) for term in terms]
        buckets = np.arange(len(terms), size) - len(terms) + len(terms_before)
        ids[len(terms) :] = np.where(buckets < self._before[name], buckets, -1)
        self._ids[name] = ids
        stayed = int((ids[: len(terms)] >= 0).sum())
        return {"stayed": stayed, "came": len(terms) - stayed, "went": len(terms_before) - stayed}

    def moved(self, path: str, value: Any, fresh: Any) -> Any:
        """Returns a weight of the serving model with its rows in their places of now, `fresh` where there is none."""
        rows = self._of(path)
        if rows is None:
            return value
        if len(rows) != len(fresh) or value.shape[1:] != fresh.shape[1:]:
            return None
        known = (rows >= 0) & (rows < len(value))
        return np.where(known[:, None], value[np.where(known, rows, 0)], fresh)

    def _of(self, path: str) -> Any | None:
        """Returns the map of a weight's rows, or None for a weight whose rows stand for no columns."""
        if path in ("wide/kernel", "hidden_1/kernel"):
            return self._of_matrix(embedded=path == "hidden_1/kernel")
        for name in self._large(self._now):
            legal = re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_")
            if path in (f"{legal}_embedding/embeddings", f"{legal}_wide/embeddings"):
                return self._ids[name]
        return None

    def _large(self, sizes: dict[str, int]) -> list[str]:
        return [name for name, size in sizes.items() if size > self._border]

    def _of_matrix(self, *, embedded: bool) -> Any:
        """The rows of the first matrix: numbers, one-hot columns, then, for the deep part, the embeddings' outputs."""
        offsets, width = self._offsets()
        parts = [np.arange(len(self._numeric))]
        for name, size in self._now.items():
            if size > self._border:
                continue
            ids = self._ids[name]
            parts.append(np.where(ids >= 0, ids + offsets[name], -1) if name in offsets else np.full(size, -1))
        for name in self._large(self._now) if embedded else []:
            wide = model_lib.embedding_width(self._now[name])
            same = name in self._large(self._before) and wide == model_lib.embedding_width(self._before[name])
            parts.append(width + np.arange(wide) if same else np.full(wide, -1))
            if name in self._large(self._before):
                width += model_lib.embedding_width(self._before[name])
        return np.concatenate(parts)

    def _offsets(self) -> tuple[dict[str, int], int]:
        """Where each one-hot column began in the serving model's matrix, and the matrix's width."""
        offsets, width = {}, len(self._numeric)
        for name, size in self._before.items():
            if size <= self._border:
                offsets[name] = width
                width += size
        return offsets, width


def _terms(path: str) -> list[bytes]:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read().splitlines()


def _terms_now(transform: tft.TFTransformOutput, file: str) -> list[bytes]:
    terms: list[bytes] = list(transform.vocabulary_by_name(file))
    return terms


def _weights(saved_model: str) -> dict[str, np.ndarray[Any, Any]]:
    """Reads the weights out of the variables' file alone; no function is loaded."""
    reader = tf.train.load_checkpoint(os.path.join(saved_model, tf.saved_model.VARIABLES_DIRECTORY, "variables"))
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    nodes = graph.nodes
    root = {child.local_name: child.node_id for child in nodes[0].children}
    return {
        child.local_name: reader.get_tensor(nodes[child.node_id].attributes[0].checkpoint_key)
        for child in nodes[root[export.WEIGHTS]].children
        if nodes[child.node_id].attributes
    }


def _digest(path: str | None) -> str:
    if path is None:
        return ""
    with tf.io.gfile.GFile(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
