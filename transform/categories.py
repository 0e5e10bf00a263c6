"""Values to ids of categories: as they are, by vocabulary, by hash, by what means true, or by combination.

Ids are int64, [batch], or [batch, width] with every category of a row once; `columns.NO_CATEGORY` is none.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import schema_inference

from evergreen import settings
from transform import columns, numbers


def identity(feature: settings.Identity, column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """Takes integers as categories."""
    return sized(_once(_digit(_values(column, feature.max_values), feature.size)), feature.size)


def of_integers(column: tf.Tensor, size: int) -> tf.Tensor:
    """Takes integers [batch] as categories; what is outside of [0, size) is none."""
    return sized(_digit(column, size), size)


def vocabulary(feature: settings.Vocabulary, column: tf.Tensor | tf.SparseTensor, *, file: str) -> tf.Tensor:
    """Numbers the values by frequency, then the buckets for values that the vocabulary lacks.

    Args:
        feature: How many values get a number.
        column: Strings or integers.
        file: Name of the vocabulary among the assets of the transform graph.
    """
    values = _values(column, feature.max_values, feature.separator)
    ids = tft.compute_and_apply_vocabulary(
        columns.as_terms(columns.present(values)),
        top_k=feature.top_k,
        frequency_threshold=feature.min_frequency if feature.min_frequency > 1 else None,
        num_oov_buckets=feature.out_of_vocabulary,
        vocab_filename=file,
    )
    size = tft.get_num_buckets_for_transformed_feature(ids)
    if values.shape.rank == 1:
        return sized(columns.to_dense(ids, missing=columns.NO_CATEGORY), size)
    dense = tf.sparse.to_dense(ids, default_value=tf.constant(columns.NO_CATEGORY, tf.int64))
    return sized(_once(tf.ensure_shape(dense, values.shape)), size)


def hashed(feature: settings.Hash, column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """Puts strings or integers into buckets."""
    values = _values(column, feature.max_values, feature.separator)
    return sized(_once(bucket(values, feature.buckets)), feature.buckets)


def boolean(feature: settings.Boolean, column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """Makes false 0 and true 1."""
    dense = columns.to_dense(column)
    if dense.dtype.is_floating:
        whole = tf.math.is_finite(dense) & tf.equal(dense, tf.round(dense)) & (tf.abs(dense) < 2.0**24)
        written = tf.where(whole, tf.strings.as_string(tf.cast(tf.where(whole, dense, 0.0), tf.int64)), "")
    else:
        written = dense if dense.dtype == tf.string else tf.strings.as_string(dense)
    word = tf.strings.lower(tf.strings.strip(written))
    ids = tf.fill(tf.shape(word), tf.cast(columns.NO_CATEGORY, tf.int64))
    for value, words in enumerate((feature.false, feature.true)):
        # "1.0" is how a column of integers with holes is often written.
        meant = functools.reduce(operator.or_, [tf.equal(word, known) for known in _spellings(words)])
        ids = tf.where(meant, tf.cast(value, tf.int64), ids)
    return sized(ids, 2)


def cross(feature: settings.Cross, inputs: Mapping[str, Any]) -> tf.Tensor:
    """Numbers the cells in mixed radix, the first part the slowest: weekday * 24 + hour.

    One part out of its range would alias a cell of another row (hour 24 of Monday is hour 0 of Tuesday), therefore
    the whole cross is no category then.
    """
    cell: tf.Tensor = tf.constant(0, tf.int64)
    size = 1
    valid: tf.Tensor = tf.constant(True)
    for part in feature.parts:
        digit = _side(part, columns.to_dense(inputs[part.column]))
        valid = valid & (digit != columns.NO_CATEGORY)
        cell = cell * part.cells + digit
        size *= part.cells
    if feature.buckets is not None:
        cell, size = bucket(cell, feature.buckets), feature.buckets
    return sized(tf.where(valid, cell, tf.cast(columns.NO_CATEGORY, tf.int64)), size)


def bucket(values: tf.Tensor, buckets: int) -> tf.Tensor:
    """Hashes strings or integers of any shape into buckets; a missing value is in none."""
    terms = values if values.dtype == tf.string else tf.strings.as_string(values)
    ids = tf.strings.to_hash_bucket_fast(terms, buckets)
    return tf.where(columns.is_present(values), ids, tf.cast(columns.NO_CATEGORY, tf.int64))


def sized(ids: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Writes the number of categories into the transformed schema, as an int domain."""
    lowest = tf.constant(columns.NO_CATEGORY, tf.int64)
    schema_inference.set_tensor_schema_override(ids, lowest, tf.cast(size, tf.int64) - 1)
    return ids


def _values(column: tf.Tensor | tf.SparseTensor, width: int, separator: str | None = None) -> tf.Tensor:
    """Takes the values that count: [batch] where it is one a row, else [batch, width]."""
    if separator is not None:
        values = columns.split(columns.to_dense(column), separator, width)
        return values[:, 0] if width == 1 else values
    return columns.to_dense(column) if width == 1 else columns.to_matrix(column, width)


def _once(ids: tf.Tensor) -> tf.Tensor:
    return ids if ids.shape.rank == 1 else columns.distinct(ids)


def _digit(column: tf.Tensor, size: int) -> tf.Tensor:
    """Keeps ids in [0, size) and makes everything else `NO_CATEGORY`."""
    return tf.where((column >= 0) & (column < size), column, tf.cast(columns.NO_CATEGORY, tf.int64))


def _side(part: settings.CrossPart, column: tf.Tensor) -> tf.Tensor:
    if part.size is not None:
        return _digit(column, part.size)
    if part.buckets is not None:
        return bucket(column, part.buckets)
    return numbers.intervals(column, quantiles=part.quantiles, boundaries=part.boundaries)


def _spellings(words: list[str]) -> list[str]:
    plain = [word.strip().lower() for word in words]
    return [*plain, *(f"{word}.0" for word in plain if word.isdecimal())]
