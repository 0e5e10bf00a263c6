"""Dense and sparse columns made alike: shape [batch] or [batch, width], with one marker of "missing" for each type."""

from __future__ import annotations

import tensorflow as tf

WEIGHT = "_sample_weight"
"""The column of the rows' weights among the transformed ones, float32 [batch]; there when weights are asked for."""
NO_CATEGORY = -1
"""The id of a missing or out-of-range value: no category at all, so an all-zero one-hot vector. It is told apart from
every real cell, and leaves the width of the model's input at the number of real cells."""

_MISSING = {tf.float32: float("nan"), tf.int64: tf.int64.min, tf.string: ""}


def missing_value(dtype: tf.DType) -> float | int | str:
    """Returns what stands for a missing value in a dense column: NaN, the smallest int64 or the empty string."""
    value: float | int | str = _MISSING[dtype]
    return value


def to_dense(column: tf.Tensor | tf.SparseTensor, *, missing: float | int | str | None = None) -> tf.Tensor:
    """Makes a column one value a row.

    Args:
        column: Dense [batch] or [batch, n], or sparse [batch, n]; the first value of a row counts.
        missing: What rows without a value get; the type's own marker by default.

    Returns:
        A dense tensor of shape [batch] and the column's dtype.
    """
    if not isinstance(column, tf.SparseTensor):
        if column.shape.rank == 1:
            return column
        # One operation instead of four: a table has hundreds of columns, and every server loads them.
        return tf.squeeze(column, axis=1) if column.shape[1] == 1 else column[:, 0]
    first = tf.sparse.retain(column, tf.equal(column.indices[:, 1], 0))
    narrow = tf.SparseTensor(first.indices, first.values, tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)]))
    default = missing_value(column.dtype) if missing is None else missing
    dense = tf.sparse.to_dense(narrow, default_value=tf.constant(default, column.dtype))
    return tf.reshape(dense, [-1])


def to_matrix(column: tf.Tensor | tf.SparseTensor, width: int) -> tf.Tensor:
    """Makes a column `width` values a row: the first ones, and the marker of "missing" behind them.

    Args:
        column: Dense [batch] or [batch, n], or sparse [batch, n].
        width: How many values of a row count.

    Returns:
        A dense tensor of shape [batch, width] and the column's dtype.
    """
    missing = tf.constant(missing_value(column.dtype), column.dtype)
    if isinstance(column, tf.SparseTensor):
        kept = tf.sparse.retain(column, column.indices[:, 1] < width)
        shape = tf.stack([column.dense_shape[0], tf.constant(width, tf.int64)])
        dense = tf.sparse.to_dense(tf.SparseTensor(kept.indices, kept.values, shape), default_value=missing)
        return tf.ensure_shape(dense, [None, width])
    matrix = column[:, tf.newaxis] if column.shape.rank == 1 else column[:, :width]
    lacking = width - tf.shape(matrix)[1]
    return tf.ensure_shape(tf.pad(matrix, [[0, 0], [0, lacking]], constant_values=missing), [None, width])


def split(column: tf.Tensor, separator: str, width: int) -> tf.Tensor:
    """Takes texts [batch] apart where the separator stands: string [batch, width], "" behind a row's last value."""
    values = tf.strings.split(column, separator)
    values = values.with_values(tf.strings.strip(values.values))
    return tf.ensure_shape(values.to_tensor(default_value="", shape=[None, width]), [None, width])


def to_float(column: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Makes a dense number column float32 or float64 [batch], with NaN for everything that is missing or infinite."""
    numbers = tf.cast(column, dtype)
    usable = tf.math.is_finite(numbers)
    if not column.dtype.is_floating:  # the marker of a float is NaN, which is not finite
        usable &= is_present(column)
    return tf.where(usable, numbers, tf.constant(float("nan"), dtype))


def is_present(column: tf.Tensor) -> tf.Tensor:
    """Tells, bool [batch], which values of a dense column are not the marker of "missing"."""
    if column.dtype.is_floating:
        return tf.logical_not(tf.math.is_nan(column))
    return tf.not_equal(column, tf.constant(missing_value(column.dtype), column.dtype))


def present(column: tf.Tensor) -> tf.SparseTensor:
    """Leaves the missing values of a dense column out, as the analyzers of tf.Transform like it.

    Args:
        column: [batch] or [batch, width].

    Returns:
        Sparse [batch, 1] or [batch, width].
    """
    matrix = column[:, tf.newaxis] if column.shape.rank == 1 else column
    places = tf.where(is_present(matrix))
    return tf.SparseTensor(places, tf.gather_nd(matrix, places), tf.shape(matrix, out_type=tf.int64))


def distinct(ids: tf.Tensor) -> tf.Tensor:
    """Leaves every category of a row [batch, width] once, the largest first; `NO_CATEGORY` in place of the others."""
    ordered = tf.sort(ids, axis=1, direction="DESCENDING")
    again = tf.pad(tf.equal(ordered[:, 1:], ordered[:, :-1]), [[0, 0], [1, 0]])
    return tf.where(again, tf.cast(NO_CATEGORY, ids.dtype), ordered)


def as_terms(column: tf.SparseTensor) -> tf.SparseTensor:
    """Writes integers out, for a vocabulary's terms.

    tf.Transform can number integers too, but shares its lookup tables by name: one process could not trace a
    vocabulary of strings and then one of integers.
    """
    if column.dtype == tf.string:
        return column
    return tf.SparseTensor(column.indices, tf.strings.as_string(column.values), column.dense_shape)


def finite_or_zero(number: tf.Tensor) -> tf.Tensor:
    """Replaces the statistic of a column without any value by 0."""
    return tf.where(tf.math.is_finite(number), number, tf.zeros_like(number))
