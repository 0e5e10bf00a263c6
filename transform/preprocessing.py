"""Raw columns to model inputs, driven by the configuration: the same graph at training and at serving, with no skew.

Every feature becomes one dense column of shape [batch], whatever the schema makes of the raw one (dense or sparse):

* numeric: float32, scaled with what the train split says of it; a missing, NaN or infinite value becomes the mean of
  the train split, which is 0 under `z_score`;
* identity, vocabulary and cross: one int64 category id, or `NO_CATEGORY` where there is none.

Why ids and not the one-hot vectors: `weekday` x `hour` is one number a row on disk instead of 168, decodes that much
faster, and the first layer of the model expands a whole batch at once (`trainer/model.py`). So the four columns of the
humidity problem are 3 columns on disk and 170 inputs of the model. How many categories a column has travels in the
int domain of the transformed schema, where `trainer/features.py` reads it.

The label passes through as float32 for a regression (the model scales inside and answers in the label's own units); a
class label becomes the id of its class. At serving the label is not fed and nothing needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import schema_inference

from evergreen import errors, settings
from transform import columns

NO_CATEGORY = -1
"""The id of a missing or out-of-range value: no category at all, so an all-zero one-hot vector. It is told apart from
every real cell, and leaves the width of the model's input at the number of real cells."""

_SCHEMA_TYPES = {tf.float32: "FLOAT", tf.int64: "INT", tf.string: "BYTES"}


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turns the raw columns into features and label; Transform traces it once for the train split and for serving.

    Args:
        inputs: Raw columns by name, float32, int64 or string; dense [batch] or [batch, 1], or sparse [batch, n] of
            which the first value of a row counts. Missing is: absent from a sparse column, NaN or infinite, the
            smallest int64, or "".
        custom_config: `settings.Preprocessing` as JSON.

    Returns:
        One dense column of shape [batch] for each feature (float32, or int64 ids) and for the label.

    Raises:
        BadInput: when columns are missing or of a type that the feature's kind cannot use, all of them at once.
    """
    config = settings.Preprocessing.model_validate(custom_config)
    problems = _problems(inputs, config)
    if problems:
        raise errors.BadInput(problems)
    outputs = {name: _feature(name, feature, inputs) for name, feature in config.features.items()}
    outputs[config.label.column] = _label(config.label, inputs[config.label.column])
    return outputs


def vocabulary_name(feature: str) -> str:
    """Names the vocabulary of a feature among the assets of the transform graph."""
    return f"vocabulary_{feature}"


def label_vocabulary_name(column: str) -> str:
    """Names the vocabulary of a class label among the assets of the transform graph."""
    return f"classes_{column}"


def _feature(name: str, feature: settings.Feature, inputs: Mapping[str, Any]) -> tf.Tensor:
    if isinstance(feature, settings.Cross):
        return _cross(feature, inputs)
    column = columns.to_dense(inputs[feature.column or name])
    if isinstance(feature, settings.Numeric):
        return _numeric(column, feature.scale)
    if isinstance(feature, settings.Identity):
        return _with_size(_digit(column, feature.size), feature.size)
    return _vocabulary(name, feature, column)


def _numeric(column: tf.Tensor, scale: str) -> tf.Tensor:
    """Scales a column and puts the train split's mean where a number is missing, float32 [batch]."""
    numbers = columns.to_float(column)
    present = columns.present(numbers)
    if scale == "z_score":
        scaled = tft.scale_to_z_score(present)
        return columns.to_dense(scaled, missing=0.0)
    mean = columns.finite_or_zero(tft.mean(present))
    filled = tf.where(tf.math.is_finite(numbers), numbers, mean)
    if scale == "none":
        return filled
    low = tft.min(present)
    return tf.math.divide_no_nan(filled - low, tft.max(present) - low)


def _digit(column: tf.Tensor, size: int) -> tf.Tensor:
    """Keeps ids in [0, size) and makes everything else `NO_CATEGORY`, int64 [batch]."""
    return tf.where((column >= 0) & (column < size), column, tf.cast(NO_CATEGORY, tf.int64))


def _cross(cross: settings.Cross, inputs: Mapping[str, Any]) -> tf.Tensor:
    """Numbers the cells in mixed radix, the first part the slowest: weekday * 24 + hour.

    One part out of its range would alias a cell of another row (hour 24 of Monday is hour 0 of Tuesday), therefore
    the whole cross is `NO_CATEGORY` then.
    """
    cell: tf.Tensor = tf.constant(0, tf.int64)
    size = 1
    valid: tf.Tensor = tf.constant(True)
    for part in cross.parts:
        digit = _digit(columns.to_dense(inputs[part.column]), part.size)
        valid = valid & (digit != NO_CATEGORY)
        cell = cell * part.size + digit
        size *= part.size
    return _with_size(tf.where(valid, cell, tf.cast(NO_CATEGORY, tf.int64)), size)


def _vocabulary(name: str, feature: settings.Vocabulary, column: tf.Tensor) -> tf.Tensor:
    """Numbers the values by frequency, then the buckets for values that the vocabulary lacks, int64 [batch]."""
    ids = tft.compute_and_apply_vocabulary(
        columns.as_terms(columns.present(column)),
        top_k=feature.top_k,
        frequency_threshold=feature.min_frequency if feature.min_frequency > 1 else None,
        num_oov_buckets=feature.out_of_vocabulary,
        vocab_filename=vocabulary_name(name),
    )
    size = tft.get_num_buckets_for_transformed_feature(ids)
    return _with_size(columns.to_dense(ids, missing=NO_CATEGORY), size)


def _with_size(ids: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Writes the number of categories into the transformed schema, as an int domain."""
    schema_inference.set_tensor_schema_override(ids, tf.constant(NO_CATEGORY, tf.int64), tf.cast(size, tf.int64) - 1)
    return ids


def _label(label: settings.Label, column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    dense = columns.to_dense(column)
    if label.task is settings.Task.REGRESSION:
        return columns.to_float(dense)
    ids = tft.compute_and_apply_vocabulary(
        columns.as_terms(columns.present(dense)),
        num_oov_buckets=0,
        default_value=NO_CATEGORY,
        vocab_filename=label_vocabulary_name(label.column),
    )
    return columns.to_dense(ids, missing=NO_CATEGORY)


def _problems(inputs: Mapping[str, Any], config: settings.Preprocessing) -> list[errors.Problem]:
    wanted = [
        (f"features.{name}", column, _allowed(feature))
        for name, feature in config.features.items()
        for column in settings.raw_columns(name, feature)
    ]
    numeric = {tf.float32, tf.int64}
    regression = config.label.task is settings.Task.REGRESSION
    wanted.append(("label", config.label.column, numeric if regression else {tf.int64, tf.string}))
    problems = [problem for where, column, allowed in wanted if (problem := _problem(inputs, where, column, allowed))]
    if config.label.column in config.features:
        problems.append(_name_of_label(config.label.column))
    return problems


def _allowed(feature: settings.Feature) -> set[tf.DType]:
    if isinstance(feature, settings.Numeric):
        return {tf.float32, tf.int64}
    if isinstance(feature, settings.Vocabulary):
        return {tf.int64, tf.string}
    return {tf.int64}


def _problem(inputs: Mapping[str, Any], where: str, column: str, allowed: set[tf.DType]) -> errors.Problem | None:
    types = " or ".join(sorted(_SCHEMA_TYPES[dtype] for dtype in allowed))
    if column not in inputs:
        return errors.Problem(
            where=where,
            found=f"column {column!r}, which the schema lacks",
            expected=f"one of {', '.join(sorted(inputs))}",
            action="Correct the name in the configuration or add the column to the schema.",
        )
    if inputs[column].dtype not in allowed:
        return errors.Problem(
            where=where,
            found=f"column {column!r} of type {_SCHEMA_TYPES.get(inputs[column].dtype, inputs[column].dtype.name)}",
            expected=types,
            action="Choose another kind of feature or correct the type in the schema.",
        )
    return None


def _name_of_label(column: str) -> errors.Problem:
    return errors.Problem(
        where=f"features.{column}",
        found="a feature with the name of the label",
        expected="another name",
        action="Rename the feature.",
    )
