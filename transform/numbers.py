"""Numbers: cleaned, filled and scaled, put into intervals or on a circle; never NaN or infinite, whatever comes in.

Work is done in float64, because sums and squares of honest float32 values overflow, and whole numbers past 2^24 lose
digits in float32. Everything learned (means, medians, limits of intervals) is learned of the train split.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_transform as tft

from evergreen import settings
from transform import columns

_MEDIAN_ERROR = 0.001
_QUANTILE_ERROR = 0.001
_NAN = float("nan")


def numeric(feature: settings.Numeric, column: tf.Tensor) -> list[tf.Tensor]:
    """Makes the feature's number, and where it is asked for the indicator of a missing one; each float32 [batch]."""
    given = columns.to_float(column, tf.float64)
    if feature.missing == "constant":
        given = tf.where(tf.math.is_nan(given), tf.constant(feature.constant, tf.float64), given)
    numbers = _logarithm(_clipped(given, feature.clip), feature.log)
    outputs = [scaled(numbers, feature.scale, median=feature.missing == "median")]
    if feature.indicator:
        source = columns.to_float(column, tf.float64)
        missing = tf.math.is_nan(_logarithm(_clipped(source, feature.clip), feature.log))
        outputs.append(tf.cast(missing, tf.float32))
    return outputs


def scaled(numbers: tf.Tensor, scale: settings.Scale, *, median: bool = False) -> tf.Tensor:
    """Fills what is missing and scales.

    Args:
        numbers: float64 [batch]; NaN is missing.
        scale: To mean 0 and deviation 1 (0 for a constant column), to [0, 1], or not at all.
        median: Whether the train split's median takes the place of a missing number, instead of its mean.

    Returns:
        float32 [batch], all finite.
    """
    present = columns.present(numbers)
    mean = columns.finite_or_zero(tft.mean(present))
    filling = columns.finite_or_zero(_median(present.values)) if median else mean
    filled = tf.where(tf.math.is_nan(numbers), filling, numbers)
    if scale == "z_score":
        deviation = tf.sqrt(columns.finite_or_zero(tft.var(present)))
        filled = tf.math.divide_no_nan(filled - mean, deviation)
    elif scale == "min_max":
        low, high = tft.min(present), tft.max(present)
        width = tf.where(high > low, high - low, tf.zeros_like(high))  # without any value low is above high
        filled = tf.math.divide_no_nan(filled - low, width)
    return _as_float32(filled)


def intervals(column: tf.Tensor, *, quantiles: int | None, boundaries: list[float] | None) -> tf.Tensor:
    """Numbers the interval that each value falls into, int64 [batch]; `NO_CATEGORY` where there is none.

    Args:
        column: Numbers [batch].
        quantiles: How many intervals of about equal numbers of rows, learned.
        boundaries: The limits, given; a value on a limit belongs to the interval above.
    """
    # Compared as the column is held: 0.7 of a float32 column is below 0.7 of float64.
    dtype = tf.float32 if column.dtype.is_floating else tf.float64
    numbers = columns.to_float(column, dtype)
    if boundaries is not None:
        limits = tf.constant(boundaries, dtype)
    else:
        present = columns.present(numbers).values
        limits = tf.cast(tf.reshape(tft.quantiles(present, quantiles, _QUANTILE_ERROR), [-1]), dtype)
    ids = tf.searchsorted(limits, numbers, side="right", out_type=tf.int64)
    return tf.where(tf.math.is_nan(numbers), tf.cast(columns.NO_CATEGORY, tf.int64), ids)


def circle(numbers: tf.Tensor, period: float) -> list[tf.Tensor]:
    """Makes sine and cosine of numbers that come round, float32 [batch] each; both are 0 where the number is missing.

    Args:
        numbers: float64 [batch]; NaN is missing.
        period: After how much the number means the same again.
    """
    turns = tf.math.floormod(numbers, tf.constant(period, tf.float64)) / period
    angle = turns * (2.0 * math.pi)
    missing = tf.math.is_nan(angle)
    return [
        tf.cast(tf.where(missing, tf.zeros_like(angle), part), tf.float32) for part in (tf.sin(angle), tf.cos(angle))
    ]


def _clipped(numbers: tf.Tensor, clip: settings.Clip) -> tf.Tensor:
    if clip.min is not None:
        numbers = tf.where(numbers < clip.min, tf.constant(clip.min, tf.float64), numbers)
    if clip.max is not None:
        numbers = tf.where(numbers > clip.max, tf.constant(clip.max, tf.float64), numbers)
    return numbers


def _logarithm(numbers: tf.Tensor, log: str) -> tf.Tensor:
    if log == "none":
        return numbers
    argument = numbers if log == "log" else numbers + 1.0
    some = argument > 0.0
    result = tf.math.log(tf.where(some, argument, tf.ones_like(argument)))
    return tf.where(some, result, tf.constant(_NAN, tf.float64))


def _median(present: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reshape(tft.quantiles(present, 2, _MEDIAN_ERROR), [-1])[0], tf.float64)


def _as_float32(numbers: tf.Tensor) -> tf.Tensor:
    largest = tf.float32.max
    return tf.cast(tf.clip_by_value(numbers, -largest, largest), tf.float32)
