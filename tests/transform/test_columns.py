"""Dense and sparse columns come out alike."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from transform import columns


def test_dense_columns_of_either_rank_become_one_value_a_row() -> None:
    assert columns.to_dense(tf.constant([[1.0], [2.0]])).numpy().tolist() == [1.0, 2.0]
    assert columns.to_dense(tf.constant([1.0, 2.0])).numpy().tolist() == [1.0, 2.0]


def test_the_first_value_of_a_sparse_row_counts_and_an_empty_row_is_missing() -> None:
    column = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], tf.constant([7, 8, 9], tf.int64), [4, 2])
    lowest = int(tf.int64.min)
    assert columns.to_dense(column).numpy().tolist() == [7, lowest, 9, lowest]
    assert columns.to_dense(column, missing=-1).numpy().tolist() == [7, -1, 9, -1]


def test_a_sparse_column_without_any_value_keeps_its_rows() -> None:
    column = tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.constant([], tf.string), [3, 0])
    assert columns.to_dense(column).numpy().tolist() == [b"", b"", b""]


def test_markers_of_missing_are_left_out_of_what_is_present() -> None:
    for dense, expected in (
        (tf.constant([1.0, np.nan, np.inf]), [1.0, np.inf]),
        (tf.constant([5, int(tf.int64.min)], tf.int64), [5]),
        (tf.constant(["a", "", "b"]), [b"a", b"b"]),
    ):
        sparse = columns.present(dense)
        assert sparse.values.numpy().tolist() == expected
        assert sparse.dense_shape.numpy().tolist() == [len(dense), 1]
        np.testing.assert_array_equal(columns.to_dense(sparse).numpy(), dense.numpy())


def test_missing_and_infinite_numbers_become_nan() -> None:
    numbers = columns.to_float(tf.constant([3, int(tf.int64.min)], tf.int64)).numpy()
    np.testing.assert_array_equal(numbers, np.float32([3, np.nan]))
    np.testing.assert_array_equal(
        columns.to_float(tf.constant([np.inf, -np.inf, np.nan, 1.0])).numpy(), np.float32([np.nan, np.nan, np.nan, 1])
    )
