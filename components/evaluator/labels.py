"""The label column of a split, and the classes of a model: read in C++, never a Python object for each row."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tfx.utils import io_utils

from components.records import frames
from transform import preprocessing

_BATCH = 4096
"""Rows that are parsed at once."""

Classes = tuple[str, ...] | tuple[int, ...]


def read(split_uris: Sequence[str], *, column: str, is_float: bool, is_int: bool) -> pa.Array:
    """Reads one column of the tf.Examples of a split; rows without a (finite) value are left out.

    Args:
        split_uris: folders of TFRecord files, gzipped where their name ends so.
        column: the feature to read; nothing else is decoded.
        is_float: whether it is a float_list.
        is_int: whether it is an int64_list; a bytes_list where neither is said.

    Returns:
        float32, int64 or string values, one a row.
    """
    dtype = tf.float32 if is_float else tf.int64 if is_int else tf.string
    spec = {column: tf.io.RaggedFeature(dtype)}
    parse = tf.function(
        lambda batch: _first(tf.io.parse_example(batch, spec)[column]),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    # One file after the other: interleaving small records costs four times what it saves.
    parts: list[npt.NDArray[np.generic]] = [
        parse(batch).numpy()
        for file in _files(split_uris)
        for batch in frames.from_record(file, 0, compression="GZIP" if file.endswith(".gz") else "").batch(_BATCH)
    ]
    if dtype == tf.string:
        return pa.concat_arrays([pa.array(part, pa.binary()) for part in parts] or [pa.array([], pa.binary())]).cast(
            pa.string()
        )
    values = np.concatenate(parts) if parts else np.array([], dtype.as_numpy_dtype)
    return pa.array(values[np.isfinite(values)] if is_float else values)


def of_trained(values: pa.Array) -> Classes:
    """Returns the classes that a label column shows, in ascending order: the order that the trainer gives them."""
    return tuple(sorted(pc.unique(values).to_pylist()))


def of_model(model_dir: str, *, column: str, is_int: bool) -> Classes:
    """Returns the classes that a SavedModel carries among its assets; none where it carries none.

    Args:
        model_dir: the SavedModel.
        column: the raw label column.
        is_int: whether the label is a whole number.
    """
    path = os.path.join(model_dir, "assets", preprocessing.label_vocabulary_name(column))
    if not tf.io.gfile.exists(path):
        return ()
    words = [line for line in tf.io.gfile.GFile(path, "rb").read().split(b"\n") if line]
    return tuple(sorted(int(word) for word in words)) if is_int else tuple(sorted(word.decode() for word in words))


def _first(values: tf.RaggedTensor) -> tf.Tensor:
    """Returns the first value of every row that has one."""
    return values[:, :1].flat_values


def _files(split_uris: Sequence[str]) -> list[str]:
    return [file for uri in split_uris for file in sorted(tf.io.gfile.glob(io_utils.all_files_pattern(uri)))]
