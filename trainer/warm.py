"""Warm start: the weights of the model that is serving now, where they still mean the same.

A weight is carried over when the serving model was made by the same configuration of the model, and has a weight of
that path and shape. Rows of a weight that stand for columns follow them: where a feature came, went or is configured
otherwise, the rows of the others keep what was learned, and its own begin anew; where a vocabulary has changed, each
row follows its term. With the model itself, the label or the weighting of rows changed, training starts cold and says
why: a weight that meant something else yesterday must not decide what the new configuration is worth. Whatever cannot
be read is a reason to start cold, never to fail.
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
_BY_ROWS = ("linear", "deep", "wide_deep")
"""The kinds of model in which rows stand for columns; a cross network's matrices mix them in both directions."""
_STANDS_FOR_NO_COLUMN = re.compile(r"(wide|hidden_1)/bias|(hidden_(?!1/)\d+|deep)/(kernel|bias)")
"""Paths of the weights behind the first layer: they mean the same whatever columns there are."""


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
    features: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """The features that `came`, `went` or `changed`."""

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
        # In the order of the model's first matrix, which a file with sorted keys would lose.
        "columns": {
            "numeric": list(features.numeric),
            "categories": [list(item) for item in features.categories.items()],
        },
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
        now = _as_read(meant)
        changed = _changed(before, now)
        if changed:
            return Report(started=False, reason=f"changed since the serving model: {changed}")
        return _carry(model, base_model, before, now, transform)
    except Exception as error:  # noqa: BLE001  a model that cannot be read must not fail the run
        return Report(started=False, reason=f"the serving model cannot be read: {type(error).__name__}: {error}")


def _read_meaning(base_model: str) -> dict[str, Any]:
    path = os.path.join(base_model, _FILE)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        before = _as_read(json.load(file))
    # What an earlier release did not know yet has its default there.
    before["model"] = settings.Model.model_validate(before["model"]).model_dump(mode="json")
    before["preprocessing"] = settings.Preprocessing.model_validate(before["preprocessing"]).model_dump(mode="json")
    return before


def _as_read(meant: dict[str, Any]) -> dict[str, Any]:
    """Returns what comes back from a file, the columns' sizes by name in their order."""
    read: dict[str, Any] = json.loads(json.dumps(meant))
    categories = read.get("columns", {}).get("categories")
    if isinstance(categories, dict):  # of an earlier release, which lost the order: rows cannot be told by it
        del read["columns"]
    elif categories is not None:
        read["columns"]["categories"] = dict(categories)
    return read


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Names what keeps the weights from being carried over."""
    if not before:
        return "everything, for it does not say what its weights mean"
    changed = {"model"} if before.get("model") != now["model"] else set()
    features, vocabularies = _changed_features(before, now), _changed_vocabularies(before, now)
    by_rows = now["model"]["kind"] in _BY_ROWS and not now["model"]["function"] and "columns" in before
    if _without_features(before) != _without_features(now) or (any(features.values()) and not by_rows):
        changed.add("preprocessing")
    if vocabularies and (_LABEL in vocabularies or not by_rows):
        changed.add("vocabularies")
    # Other columns count their categories themselves: theirs change with the configuration, or with the boundaries.
    moved = vocabularies or any(features.values())
    if not moved and "columns" in before and before["columns"] != now["columns"]:
        changed.add("columns")
    return ", ".join(sorted(changed))


def _without_features(meant: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meant["preprocessing"].items() if key != "features"}


def _changed_features(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    was, is_ = before["preprocessing"]["features"], now["preprocessing"]["features"]
    return {
        "came": tuple(sorted(is_.keys() - was.keys())),
        "went": tuple(sorted(was.keys() - is_.keys())),
        "changed": tuple(sorted(name for name in is_.keys() & was.keys() if is_[name] != was[name])),
    }


def _changed_vocabularies(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Names the vocabularies that hold other terms than before, of features that are as they were."""
    names = before["vocabularies"].keys() & now["vocabularies"].keys()
    other = {name for names in _changed_features(before, now).values() for name in names}
    return {name for name in names - other if before["vocabularies"][name] != now["vocabularies"][name]}


def _carry(
    model: keras.Model,
    base_model: str,
    before: dict[str, Any],
    now: dict[str, Any],
    transform: tft.TFTransformOutput,
) -> Report:
    features = {kind: names for kind, names in _changed_features(before, now).items() if names}
    rows, told = _Rows(before, now), {}
    for name in sorted(_changed_vocabularies(before, now)):
        file = preprocessing.vocabulary_name(name)
        told[name] = rows.match(name, _terms(os.path.join(base_model, "assets", file)), _terms_now(transform, file))
    weights = _weights(base_model)
    carried, initialized = [], []
    for weight in model.weights:
        value = weights.get(weight.path)
        if value is not None and (told or features):
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
        features=features,
    )


class _Rows:
    """Which row of a weight of the serving model is which row now; -1 is none."""

    def __init__(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        self._numeric: list[str] = now["columns"]["numeric"]
        self._before: dict[str, int] = before["columns"]["categories"]
        self._now: dict[str, int] = now["columns"]["categories"]
        self._border: int = now["model"]["one_hot_up_to"]
        self._offsets = _offsets(before["columns"], self._border)
        kept = _kept_columns(before, now)
        for name in self._offsets.keys() - kept:
            del self._offsets[name]
        self._ids = {
            name: np.where(np.arange(size) < self._before.get(name, 0), np.arange(size), -1)
            if name in kept
            else np.full(size, -1)
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
        if _STANDS_FOR_NO_COLUMN.fullmatch(path):
            return value
        rows = self._of(path)
        if rows is None or len(rows) != len(fresh) or value.shape[1:] != fresh.shape[1:] or (rows < 0).all():
            return None
        known = (rows >= 0) & (rows < len(value))
        return np.where(known[:, None], value[np.where(known, rows, 0)], fresh)

    def _of(self, path: str) -> Any | None:
        """Returns the map of a weight's rows, or None for one of no column that is known."""
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
        parts = [np.array([self._offsets.get(name, -1) for name in self._numeric], np.int64)]
        for name, size in self._now.items():
            if size > self._border:
                continue
            ids, one_hot = self._ids[name], name in self._offsets and self._before[name] <= self._border
            parts.append(np.where(ids >= 0, ids + self._offsets[name], -1) if one_hot else np.full(size, -1))
        for name in self._large(self._now) if embedded else []:
            wide = model_lib.embedding_width(self._now[name])
            same = name in self._offsets and name in self._large(self._before)
            same = same and wide == model_lib.embedding_width(self._before[name])
            parts.append(self._offsets[name] + np.arange(wide) if same else np.full(wide, -1))
        return np.concatenate(parts)


def _offsets(columns: dict[str, Any], border: int) -> dict[str, int]:
    """Where each column begins in the first matrix, the embeddings' outputs behind all others."""
    found, width = {}, 0
    widths = dict.fromkeys(columns["numeric"], 1)
    widths |= {name: size for name, size in columns["categories"].items() if size <= border}
    widths |= {name: model_lib.embedding_width(size) for name, size in columns["categories"].items() if size > border}
    for name, wide in widths.items():
        found[name] = width
        width += wide
    return found


def _kept_columns(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Names the transformed columns of the features that are as they were, and of the same type."""
    features = settings.Preprocessing.model_validate(now["preprocessing"]).features
    other = {name for names in _changed_features(before, now).values() for name in names}
    kept = {
        column
        for name, feature in features.items()
        if name not in other
        for column in settings.output_columns(name, feature)
    }
    was, is_ = before["columns"], now["columns"]
    numeric = set(was["numeric"]) & set(is_["numeric"])
    return kept & (numeric | (was["categories"].keys() & is_["categories"].keys()))


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
