"""Columns into matrices by type, and out of them again."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer import grouping

SPEC = {
    "a": tf.io.FixedLenFeature([], tf.float32),
    "ids": tf.io.FixedLenFeature([3], tf.int64),
    "k": tf.io.FixedLenFeature([], tf.int64),
    "b": tf.io.FixedLenFeature([], tf.float32),
    "float32": tf.io.FixedLenFeature([2], tf.float32),
}
COLUMNS = {
    "a": np.arange(4, dtype=np.float32),
    "ids": np.arange(12).reshape(4, 3),
    "k": np.arange(4) + 100,
    "b": np.arange(4, dtype=np.float32) / 2,
    "float32": np.ones((4, 2), np.float32),
}


def test_what_is_packed_is_unpacked() -> None:
    groups = grouping.Groups(SPEC)
    matrices = groups.pack(COLUMNS)
    assert sorted(values.shape for values in matrices.values()) == [(4, 1), (4, 2), (4, 2), (4, 3)]
    assert {group: values.shape[1] for group, values in matrices.items()} == {
        group: feature.shape[0] for group, feature in groups.spec().items()
    }
    found = groups.unpack({group: tf.constant(values) for group, values in matrices.items()})
    assert found.keys() == COLUMNS.keys()
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(groups.column(matrices, name), values)
