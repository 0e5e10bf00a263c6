"""Numbers: cleaned, filled and scaled, put into intervals or on a circle; never NaN or infinite, whatever comes in.

Work is done in float64, because sums and squares of honest float32 values overflow, and whole numbers past 2^24 lose
digits in float32. Everything learned (means, medians, limits of intervals) is learned of the train split.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_transform as tft

from evergreen import settings
from transform import columns

_MEDIAN_ERROR = 0.001
_QUANTILE_ERROR = 0.001
_NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Unscaled:
    """A column that is to be filled and scaled with all others at once: `scaled` makes float32 [batch] of it."""

    numbers: tf.Tensor
    """float64 [batch]; NaN is missing."""
    scale: settings.Scale
    """To mean 0 and deviation 1 (0 for a constant column), to [0, 1], or not at all."""
    median: bool = False
    """Whether the train split's median takes the place of a missing number, instead of its mean."""


def numeric(feature: settings.Numeric, column: tf.Tensor) -> list[tf.Tensor | Unscaled]:
    """Makes the feature's number, and where it is asked for the indicator of a missing one, float32 [batch]."""
    source = given = columns.to_float(column, tf.float64)
    if feature.missing == "constant":
        given = tf.where(tf.math.is_nan(source), tf.constant(feature.constant, tf.float64), source)
    numbers = _cleaned(given, feature)
    outputs: list[tf.Tensor | Unscaled] = [Unscaled(numbers, feature.scale, median=feature.missing == "median")]
    if feature.indicator:
        known = numbers if given is source else _cleaned(source, feature)
        outputs.append(tf.cast(tf.math.is_nan(known), tf.float32))
    return outputs


def _cleaned(numbers: tf.Tensor, feature: settings.Numeric) -> tf.Tensor:
    """Returns the numbers within the limits, or their logarithms; NaN where there is none."""
    return _logarithm(_clipped(numbers, feature.clip), feature.log)


def scaled(given: Sequence[Unscaled]) -> list[tf.Tensor]:
    """Fills what is missing and scales; what that takes is learned of all columns in one matrix.

    An analyzer of a matrix costs what one of a column does, most of it for its stages in Beam and its place in the
    graph: a table of hundreds of numbers would take minutes for analyzers of their own. It is applied column by column,
    because tf.Transform walks from each output to the inputs that it depends on.

    Returns:
        float32 [batch] for each column, all finite.
    """
    if not given:
        return []
    matrix = tf.stack([column.numbers for column in given], axis=1)
    z_score, min_max = ([n for n, column in enumerate(given) if column.scale == s] for s in ("z_score", "min_max"))
    medians = [n for n, column in enumerate(given) if column.median]
    zeros = tf.zeros([len(given)], matrix.dtype)
    mean = columns.finite_or_zero(_learned(_mean, matrix, list(range(len(given))), others=zeros))
    filling = columns.finite_or_zero(_learned(_median, matrix, medians, others=mean))
    # A column without any value has infinities here, above for the low and below for the high.
    low = _learned(_min, matrix, min_max, others=zeros)
    width = _learned(_max, matrix, min_max, others=zeros + 1.0) - low
    center = tf.where([column.scale == "z_score" for column in given], mean, low)
    width = tf.maximum(_learned(_deviation, matrix, z_score, others=width), 0.0)
    learned = zip(*(tf.unstack(statistic) for statistic in (filling, center, width)), strict=True)
    largest = tf.constant(tf.float32.max, matrix.dtype)  # one for all columns
    limits = -largest, largest
    return [_scaled(column.numbers, of_column, limits) for column, of_column in zip(given, learned, strict=True)]


def _scaled(numbers: tf.Tensor, learned: tuple[tf.Tensor, ...], limits: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Returns a column filled and scaled by what was learned of it, as float32 between the limits."""
    filling, center, width = learned
    filled = tf.where(tf.math.is_nan(numbers), filling, numbers)
    return tf.cast(tf.clip_by_value(tf.math.divide_no_nan(filled - center, width), *limits), tf.float32)


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


def _learned(
    statistic: Callable[[tf.Tensor], tf.Tensor], matrix: tf.Tensor, positions: list[int], *, others: tf.Tensor
) -> tf.Tensor:
    """Returns a statistic of the columns at some positions, float64 [width], and the `others` at the other ones."""
    if not positions:
        return others
    # The analyzers answer a scalar for a matrix of one column.
    found = tf.reshape(statistic(tf.gather(matrix, positions, axis=1)), [len(positions)])
    return tf.tensor_scatter_nd_update(others, [[position] for position in positions], found)


def _mean(matrix: tf.Tensor) -> tf.Tensor:
    return tft.mean(matrix, reduce_instance_dims=False)


def _deviation(matrix: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(columns.finite_or_zero(tft.var(matrix, reduce_instance_dims=False)))


def _min(matrix: tf.Tensor) -> tf.Tensor:
    infinite = tf.constant(math.inf, matrix.dtype)
    return tft.min(tf.where(tf.math.is_nan(matrix), infinite, matrix), reduce_instance_dims=False)


def _max(matrix: tf.Tensor) -> tf.Tensor:
    return -_min(-matrix)


def _median(matrix: tf.Tensor) -> tf.Tensor:
    # One analyzer a column: that of a matrix fails where a column has no value at all.
    numbers = [columns.present(column).values for column in tf.unstack(matrix, axis=1)]
    return tf.cast(tf.stack([tft.quantiles(some, 2, _MEDIAN_ERROR)[0, 0] for some in numbers]), tf.float64)
