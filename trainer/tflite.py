"""The network as TensorFlow Lite, quantised, beside the SavedModel: its size, and what it costs in the metrics.

It takes the transformed columns ([batch] or [batch, n], named as `evergreen.signatures` names them) and answers the
Keras model's output, by the signature `serving_default`; Transform's vocabularies have no operations there. `float16`
stores weights in half the space and computes in float32. `int8` stores the weights of large matrices in a quarter and
quantises what flows between them as it comes (dynamic range): ranges fixed beforehand from examples put one-hot columns
and wide sums onto one scale, and the error was as large as the spread of the answers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from evergreen import signatures
from trainer import features as features_lib

FOLDER = "assets.extra"
"""Where the files go in the SavedModel's folder: `float16.tflite`, `int8.tflite`."""
_OUTPUT = "output"


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
        kinds: of `float16` and `int8`.
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
    with tempfile.TemporaryDirectory() as scratch:
        _save(model, features, scratch)
        for kind in kinds:
            content = _convert(scratch, kind)
            path = os.path.join(folder, FOLDER, f"{kind}.tflite")
            tf.io.gfile.makedirs(os.path.dirname(path))
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(content)
            found[kind] = {
                "file": f"{FOLDER}/{kind}.tflite",
                "bytes": len(content),
                "saved_model_bytes": whole,
                "metrics": _compare(model, content, signatures.input_names(features.names), batches, metrics),
            }
    return found


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


def _convert(saved_model: str, kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
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
