"""Warm start: the weights of the model that is serving now, where they still mean the same.

A weight is carried over when the serving model was made by the same configuration of features and model behind the
same vocabularies, and has a weight of that path and shape. With anything else changed, training starts cold and says
why: a weight that meant something else yesterday must not decide what the new configuration is worth. Whatever cannot
be read is a reason to start cold, never to fail.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf import trackable_object_graph_pb2

from evergreen import settings
from trainer import export
from transform import preprocessing

_FILE = "assets.extra/meaning.json"


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

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON."""
        return dataclasses.asdict(self)


def meaning(config: settings.TrainerConfig, transform: tft.TFTransformOutput) -> dict[str, Any]:
    """Collects what the weights stand for: features, kind and size of the model, and the terms of each vocabulary."""
    vocabularies = {
        name: _digest(transform.vocabulary_file_by_name(preprocessing.vocabulary_name(name)))
        for name, feature in config.preprocessing.features.items()
        if isinstance(feature, settings.Vocabulary)
    }
    if config.preprocessing.label.task is not settings.Task.REGRESSION:
        column = config.preprocessing.label.column
        vocabularies["the label"] = _digest(
            transform.vocabulary_file_by_name(preprocessing.label_vocabulary_name(column))
        )
    return {
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "model": config.model.model_dump(mode="json"),
        "vocabularies": vocabularies,
    }


def write_meaning(saved_model: str, meant: dict[str, Any]) -> None:
    """Writes the meaning of its weights into a SavedModel, for the warm start of the next run."""
    path = os.path.join(saved_model, _FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(meant, indent=1, sort_keys=True))


def start(model: keras.Model, base_model: str | None, meant: dict[str, Any]) -> Report:
    """Carries the weights of a SavedModel over into a model that was just built.

    Args:
        model: The model to train; changed in place.
        base_model: The folder of the serving SavedModel; it need not exist.
        meant: What the weights of `model` stand for.

    Returns:
        What was carried over, or why nothing was.
    """
    if not base_model or not tf.io.gfile.exists(base_model):
        return Report(started=False, reason="no model is serving yet")
    try:
        changed = _changed(base_model, meant)
        if changed:
            return Report(started=False, reason=f"changed since the serving model: {changed}")
        return _carry(model, base_model)
    except Exception as error:  # noqa: BLE001  a model that cannot be read must not fail the run
        return Report(started=False, reason=f"the serving model cannot be read: {type(error).__name__}: {error}")


def _changed(base_model: str, meant: dict[str, Any]) -> str:
    path = os.path.join(base_model, _FILE)
    if not tf.io.gfile.exists(path):
        return "everything, for it does not say what its weights mean"
    with tf.io.gfile.GFile(path) as file:
        before = json.load(file)
    now = json.loads(json.dumps(meant))
    return ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))


def _carry(model: keras.Model, base_model: str) -> Report:
    before = _weights(base_model)
    carried, initialized = [], []
    for weight in model.weights:
        value = before.get(weight.path)
        if value is None or value.shape != tuple(weight.shape) or not np.isfinite(value).all():
            initialized.append(weight.path)
            continue
        weight.assign(value)
        carried.append(weight.path)
    return Report(
        started=bool(carried), reason=f"from {base_model}", carried=tuple(carried), initialized=tuple(initialized)
    )


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
