"""Dense and sparse columns made alike: shape [batch], with one marker of "missing" for each type."""

from __future__ import annotations

import tensorflow as tf

_MISSING = {tf.float32: float("nan"), tf.int64: tf.int64.min, tf.string: ""}


def missing_value(dtype: tf.DType) -> float | int | str:
    """Returns what stands for a missing value in a dense column: NaN, the smallest int64 or the empty string."""
    value: float | int | str = _MISSING[dtype]
    return value


def to_dense(column: tf.Tensor | tf.SparseTensor, *, missing: float | int | str | None = None) -> tf.Tensor:
    """Makes a column one value a row.

    Args:
        column: Dense [batch] or [batch, 1], or sparse [batch, n]; the first value of a sparse row counts.
        missing: What rows without a value get; the type's own marker by default.

    Returns:
        A dense tensor of shape [batch] and the column's dtype.
    """
    if not isinstance(column, tf.SparseTensor):
        return tf.reshape(column, [-1])
    first = tf.sparse.retain(column, tf.equal(column.indices[:, 1], 0))
    narrow = tf.SparseTensor(first.indices, first.values, tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)]))
    default = missing_value(column.dtype) if missing is None else missing
    dense = tf.sparse.to_dense(narrow, default_value=tf.constant(default, column.dtype))
    return tf.reshape(dense, [-1])


def to_float(column: tf.Tensor) -> tf.Tensor:
    """Makes a dense number column float32 [batch] with NaN for everything that is missing or infinite."""
    numbers = tf.cast(column, tf.float32)
    usable = tf.math.is_finite(numbers) & is_present(column)
    return tf.where(usable, numbers, tf.constant(float("nan")))


def is_present(column: tf.Tensor) -> tf.Tensor:
    """Tells, bool [batch], which values of a dense column are not the marker of "missing"."""
    if column.dtype.is_floating:
        return tf.logical_not(tf.math.is_nan(column))
    return tf.not_equal(column, tf.constant(missing_value(column.dtype), column.dtype))


def present(column: tf.Tensor) -> tf.SparseTensor:
    """Leaves the missing values of a dense column out: sparse [batch, 1], as the analyzers of tf.Transform like it."""
    rows = tf.where(is_present(column))
    indices = tf.concat([rows, tf.zeros_like(rows)], axis=1)
    shape = tf.stack([tf.size(column, out_type=tf.int64), tf.constant(1, tf.int64)])
    return tf.SparseTensor(indices, tf.gather(column, rows[:, 0]), shape)


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
