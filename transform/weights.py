"""How much each row counts in training: by a column of the table, by the age of its span, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from evergreen import settings
from transform import columns


def weight(config: settings.Preprocessing, inputs: Mapping[str, Any]) -> tf.Tensor:
    """Makes the rows' weights.

    Args:
        config: With `weights`.
        inputs: Raw columns by name.

    Returns:
        float32 [batch], not negative, of mean 1 over the train split.
    """
    assert config.weights is not None
    weights = _by_column(inputs[config.weights.column]) if config.weights.column else None
    if config.weights.half_life_spans is not None:
        recency = _by_recency(inputs[config.span_column or ""], config.weights.half_life_spans)
        weights = recency if weights is None else weights * recency
        weights = tf.math.divide_no_nan(weights, tft.mean(weights))
    return tf.cast(tf.clip_by_value(weights, 0.0, tf.float32.max), tf.float32)


def _by_column(column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """Scales a column to a mean of 1, float64 [batch]; a missing weight is 1, which is the mean, a negative one 0."""
    given = columns.to_float(columns.to_dense(column), tf.float64)
    given = tf.where(given < 0.0, tf.zeros_like(given), given)
    mean = columns.finite_or_zero(tft.mean(columns.present(given)))
    return tf.where(tf.math.is_nan(given), tf.ones_like(given), tf.math.divide_no_nan(given, mean))


def _by_recency(column: tf.Tensor | tf.SparseTensor, half_life: float) -> tf.Tensor:
    """Halves the weight with every `half_life` spans behind the newest of the train split, float64 [batch]."""
    span = columns.to_dense(column)
    newest = tft.max(columns.present(span))
    known = columns.is_present(span)
    age = tf.where(known, tf.maximum(newest - span, 0), tf.zeros_like(span))
    return tf.pow(tf.constant(0.5, tf.float64), tf.cast(age, tf.float64) / half_life)
