"""The network as TensorFlow Lite, quantised, beside the SavedModel: its size, and what it costs in the metrics.

It takes the transformed columns ([batch] or [batch, n], named as `evergreen.signatures` names them) and answers the
Keras model's output, by the signature `serving_default`; Transform's vocabularies have no operations there. `float16`
stores weights in half the space and computes in float32. `int8` stores the weights of large matrices in a quarter and
quantises what flows between them as it comes (dynamic range). `int8_calibrated` computes in whole numbers, for devices
that have nothing else, with ranges that are fixed beforehand by rows of the eval split; inputs and output stay as they
are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from evergreen import signatures
from trainer import features as features_lib
from trainer import model as model_lib

FOLDER = "assets.extra"
"""Where the files go in the SavedModel's folder: `float16.tflite`, `int8.tflite`, `int8_calibrated.tflite`."""
CALIBRATED = "int8_calibrated"
_OUTPUT = "output"
_CALIBRATING_ROWS = 2048
"""Rows whose ranges decide the scales."""


def export(
    folder: str,
    model: keras.Model,
    features: features_lib.Features,
    *,
    kinds: Sequence[str],
    batches: tf.data.Dataset,
    metrics: Callable[[], Sequence[keras.metrics.Metric]],
) -> dict[str, Any]:
    """Writes the variants and measures them.

    Args:
        folder: the SavedModel's.
        model: the trained model, without a strategy.
        features: its columns.
        kinds: of `float16`, `int8` and `int8_calibrated`.
        batches: one pass of the eval split: (inputs, label) or (inputs, label, weights).
        metrics: gives the metrics of the task, new ones with each call.

    Returns:
        By kind `file`, `bytes`, `saved_model_bytes` (everything that is needed to serve the SavedModel) and `metrics`:
        by name the value of the Keras model, of the variant, and their difference.
    """
    found: dict[str, Any] = {}
    if not kinds:
        return found
    whole = _size(folder)
    names = signatures.input_names(features.names)
    with tempfile.TemporaryDirectory() as scratch:
        _save(_comparing(model), features, scratch)
        for kind in kinds:
            content = _convert(scratch, kind, lambda: _some_rows(batches, names))
            path = os.path.join(folder, FOLDER, f"{kind}.tflite")
            tf.io.gfile.makedirs(os.path.dirname(path))
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(content)
            found[kind] = {
                "file": f"{FOLDER}/{kind}.tflite",
                "bytes": len(content),
                "saved_model_bytes": whole,
                "metrics": _compare(model, content, names, batches, metrics),
            }
    return found


def _comparing(model: keras.Model) -> keras.Model:
    """Returns the network with one-hot columns by comparison; quantised, they would be wrong otherwise."""
    if not any(isinstance(layer, model_lib.OneHot) for layer in model.layers):
        return model

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        return type(layer).from_config({**config, "comparing": True} if isinstance(layer, model_lib.OneHot) else config)

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def _some_rows(batches: Iterable[tuple[Any, ...]], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yields inputs by their names in the variant, a few hundred rows at a time."""
    inputs, *_ = next(iter(batches))
    for begin in range(0, _CALIBRATING_ROWS, 256):
        some = {names[name]: np.asarray(values)[begin : begin + 256] for name, values in inputs.items()}
        if len(next(iter(some.values()))):
            yield some


def _save(model: keras.Model, features: features_lib.Features, folder: str) -> None:
    """Writes the network alone as a SavedModel, which is what the converter reads without a Keras of its own."""
    names = signatures.input_names(features.names)

    def network(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {_OUTPUT: model({name: inputs[names[name]] for name in names}, training=False)}

    shapes = {name: [None, features.lengths[name]] if name in features.lengths else [None] for name in names}
    spec = {
        names[name]: tf.TensorSpec(shape, tf.float32 if name in features.numeric else tf.int64, name=names[name])
        for name, shape in shapes.items()
    }
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    traced = tf.function(network, autograph=False).get_concrete_function(spec)
    tf.saved_model.save(module, folder, signatures=traced)


def _convert(saved_model: str, kind: str, rows: Callable[[], Iterator[dict[str, Any]]]) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == CALIBRATED:
        converter.representative_dataset = rows
    content: bytes = converter.convert()
    return content


def _compare(
    model: keras.Model,
    content: bytes,
    names: Mapping[str, str],
    batches: Iterable[tuple[Any, ...]],
    metrics: Callable[[], Sequence[keras.metrics.Metric]],
) -> dict[str, dict[str, float]]:
    run = tf.lite.Interpreter(model_content=content).get_signature_runner()
    of_keras, of_variant = metrics(), metrics()
    for batch in batches:
        inputs, label, weights = keras.utils.unpack_x_y_sample_weight(batch)
        arrays = {names[name]: np.asarray(values) for name, values in inputs.items()}
        for told, scores in ((of_keras, model(inputs, training=False)), (of_variant, run(**arrays)[_OUTPUT])):
            for metric in told:
                metric.update_state(label, scores, weights)
    return {
        one.name: {
            "keras": float(one.result()),
            "tflite": float(other.result()),
            "difference": float(other.result()) - float(one.result()),
        }
        for one, other in zip(of_keras, of_variant, strict=True)
    }


def _size(folder: str) -> int:
    paths = (os.path.join(root, name) for root, _, names in tf.io.gfile.walk(folder) for name in names)
    return sum(tf.io.gfile.stat(path).length for path in paths)
