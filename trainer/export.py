"""The SavedModel: Transform's graph and the Keras model as one, asked by tf.Example or by named columns.

Signatures:

* `serving_default`: `examples`, serialized tf.Examples, string [batch];
* `raw`: one input a raw column that a feature reads, [batch], in the schema's type and named by
  `evergreen.signatures.input_names`, which is the column's name; missing is NaN, the smallest int64 or "". A column of
  which a feature reads several values a row is [batch, n], with missing values behind a row's last one;
* `transform_features`: `examples` to the transformed features.

The first two answer {"prediction": float32 [batch]} for a regression, {"prediction": class [batch], "probability":
float32 [batch] of the second class} for two classes, and {"prediction": class [batch], "probabilities": float32
[batch, classes]} for more. The label is never needed, and what a tf.Example lacks is missing, not an error: one
incomplete example does not fail the others of its batch. The folder can be moved and copied as it is.

Beside it in `assets.extra` lie the requests that TensorFlow Serving warms up with, and `input_example.json`: the body
of a request to its REST API (`:predict`) with one row that the schema admits, and what the model answers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.saved import saved_transform_io_v2

from evergreen import settings, signatures
from trainer import features as features_lib
from transform import columns

Tensors = dict[str, tf.Tensor]
_WARMUP = "assets.extra/tf_serving_warmup_requests"
INPUT_EXAMPLE = "assets.extra/input_example.json"
"""An input example in the SavedModel's folder."""
_WARMUP_ROWS = (1, 32)
"""Sizes of the batches that a server warms up with."""
WEIGHTS = "weights_by_path"
"""Attribute of the exported module: every weight by its path in the Keras model, which a warm start looks up."""


def export(
    folder: str,
    model: keras.Model,
    transform: tft.TFTransformOutput,
    features: features_lib.Features,
    config: settings.Preprocessing,
) -> None:
    """Writes the SavedModel.

    Args:
        folder: Where to; it is a complete SavedModel only after this returns.
        model: The trained model, built without a distribution strategy.
        transform: The transform graph that the model was trained behind.
        features: Its columns.
        config: Which raw columns the features read.
    """
    graph = saved_transform_io_v2.SavedModelLoader(transform.transform_savedmodel_dir)
    spec = raw_spec(transform, config)
    names = signatures.input_names(spec)
    optional = {name: _optional(feature) for name, feature in spec.items()}

    def transform_raw(raw: Mapping[str, tf.Tensor | tf.SparseTensor]) -> Tensors:
        transformed = graph.apply_transform_model(dict(raw))
        return {name: transformed[name] for name in features.names}

    def transform_features(examples: tf.Tensor) -> Tensors:
        return transform_raw(tf.io.parse_example(examples, optional))

    def serving_default(examples: tf.Tensor) -> Tensors:
        return answer(model(transform_features(examples), training=False), features)

    def raw(inputs: Mapping[str, tf.Tensor]) -> Tensors:
        shaped = {column: _as_in_schema(inputs[names[column]], spec[column]) for column in spec}
        return answer(model(transform_raw(shaped), training=False), features)

    # Tracking what the transform graph has loaded saves the vocabularies with the model (tf.Transform's own Keras layer
    # does it so, but as a Keras 2 model it is traced once more for a signature that nobody calls, which takes most of
    # the time of an export). Of the Keras model only the weights are tracked: the signatures carry its graph.
    module = tf.Module()
    module.transform = vars(graph)
    setattr(module, WEIGHTS, {weight.path: weight.value for weight in model.weights})
    examples = tf.TensorSpec([None], tf.string, name="examples")
    listed = settings.listed_columns(config.features)
    columns_spec = {
        names[column]: tf.TensorSpec([None, None] if column in listed else [None], feature.dtype, name=names[column])
        for column, feature in spec.items()
    }
    served = {
        "serving_default": _traced(serving_default, examples),
        "raw": _traced(raw, columns_spec),
        "transform_features": _traced(transform_features, examples),
    }
    tf.saved_model.save(module, folder, signatures=served)
    signatures.write_inputs(folder, names)
    _write_warmup(folder, columns_spec)
    row = {names[column]: _admitted(transform.raw_metadata.schema, column, spec[column].dtype) for column in spec}
    _write_example(folder, columns_spec, row, served["raw"])


def _write_example(
    folder: str, columns_spec: Mapping[str, tf.TensorSpec], row: Mapping[str, Any], served: Callable[..., Tensors]
) -> None:
    """Writes a row and its answer, by the names and in the shapes of TensorFlow Serving's REST API."""
    inputs = {name: [row[name]] if len(spec.shape) == 1 else [[row[name]]] for name, spec in columns_spec.items()}
    answers = served(**{name: tf.constant(inputs[name], spec.dtype) for name, spec in columns_spec.items()})
    outputs = {name: [_plain(value) for value in values.numpy().tolist()] for name, values in answers.items()}
    with tf.io.gfile.GFile(os.path.join(folder, INPUT_EXAMPLE), "w") as file:
        document = {"signature_name": "raw", "inputs": inputs}
        file.write(json.dumps({"request": document, "response": {"outputs": outputs}}, indent=1) + "\n")


def _plain(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _admitted(schema: schema_pb2.Schema, column: str, dtype: tf.DType) -> Any:
    """Returns a value that the schema admits: in the middle of a domain, or its first word; 0 or a letter without."""
    feature = next(feature for feature in schema.feature if feature.name == column)
    if dtype == tf.string:
        shared = {domain.name: domain for domain in schema.string_domain}
        domain = shared.get(feature.domain, feature.string_domain)
        return domain.value[0] if domain.value else "a"
    domain = feature.int_domain if dtype == tf.int64 else feature.float_domain
    limits = [getattr(domain, end) for end in ("min", "max") if domain.HasField(end)]
    finite = [limit for limit in limits if math.isfinite(limit)]
    middle = sum(finite) / max(1, len(finite))
    return int(middle) if dtype == tf.int64 else middle


def _write_warmup(folder: str, columns_spec: Mapping[str, tf.TensorSpec]) -> None:
    """Writes the requests that TensorFlow Serving answers before it counts as ready: rows of missing values.

    The first request of a shape pays for what is set up lazily; it should not be a user's.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = os.path.join(folder, _WARMUP)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for rows in _WARMUP_ROWS:
            empty = tf.train.Example().SerializeToString()
            inputs = {"serving_default": {"examples": tf.constant([empty] * rows)}, "raw": {}}
            for name, spec in columns_spec.items():
                missing = tf.constant(columns.missing_value(spec.dtype), spec.dtype)
                inputs["raw"][name] = tf.fill([rows] + [1] * (len(spec.shape) - 1), missing)
            for signature, tensors in inputs.items():
                request = predict_pb2.PredictRequest()
                request.model_spec.signature_name = signature
                for name, tensor in tensors.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString())


def raw_spec(
    transform: tft.TFTransformOutput, config: settings.Preprocessing
) -> dict[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]:
    """Tells how the raw columns that the features read are parsed; the label is not among them."""
    spec = transform.raw_feature_spec()
    used = {column for name, feature in config.features.items() for column in settings.raw_columns(name, feature)}
    return {column: spec[column] for column in sorted(used)}


def answer(outputs: tf.Tensor, features: features_lib.Features) -> Tensors:
    """Turns the Keras model's output into what the signatures answer.

    Args:
        outputs: float32 [batch, 1], or [batch, classes] for more than two classes.
        features: The classes, if any.
    """
    if not features.classes:
        return {"prediction": tf.reshape(outputs, [-1])}
    classes = tf.constant(features.classes, tf.int64 if isinstance(features.classes[0], int) else tf.string)
    if len(features.classes) > 2:
        return {"prediction": tf.gather(classes, tf.argmax(outputs, axis=-1)), "probabilities": outputs}
    probability = tf.reshape(outputs, [-1])
    return {"prediction": tf.gather(classes, tf.cast(probability >= 0.5, tf.int64)), "probability": probability}


def _traced(function: Callable[..., Tensors], spec: Any) -> Any:
    # No Python condition depends on a tensor here, and AutoGraph takes seconds to read Keras and tf.Transform for one.
    return tf.function(function, autograph=False).get_concrete_function(spec)


def _as_in_schema(column: tf.Tensor, feature: tf.io.FixedLenFeature | tf.io.VarLenFeature) -> tf.Tensor:
    """Gives a column [batch] or [batch, n] the form that the transform graph was traced with."""
    if isinstance(feature, tf.io.FixedLenFeature):
        if column.shape.rank == 1 and feature.shape in ([], [1], (), (1,)):
            # The one case of most tables: hundreds of columns of a dozen operations each take seconds to load.
            return tf.expand_dims(column, 1) if feature.shape else column
        values = columns.to_matrix(column, feature.shape[0] if feature.shape else 1)
        return tf.reshape(values, [-1, *feature.shape])
    return columns.present(column)


def _optional(feature: tf.io.FixedLenFeature | tf.io.VarLenFeature) -> tf.io.FixedLenFeature | tf.io.VarLenFeature:
    """Lets a dense column be absent: the marker of its type takes its place."""
    if not isinstance(feature, tf.io.FixedLenFeature):
        return feature
    return tf.io.FixedLenFeature(feature.shape, feature.dtype, columns.missing_value(feature.dtype))
