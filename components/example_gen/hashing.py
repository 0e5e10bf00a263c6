"""One number for each row that depends on its values only.

Guarantees: the same values in columns of the same names and types give the same number, on every machine and in every
release, whatever the order of the columns; a missing value counts for nothing, so that a column that is missing
altogether changes no number. Copies of a row therefore never end up in two splits, and a row stays in its split when
the file around it changes.

The serialized tf.Example would not do: its features are a map, which the encoder writes in any order.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

Hashes = npt.NDArray[np.uint64]


def row_hashes(rows: pa.Table) -> Hashes:
    """Hashes every row.

    Args:
        rows: columns of float32, int64 and string, or lists of them, whose order counts; a list of one value is that
            value.

    Returns:
        uint64 of shape [rows]; every bit of it depends on every value.
    """
    total = np.zeros(rows.num_rows, np.uint64)
    for name in rows.column_names:
        column = rows.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        # Sums are the same in any order of the columns; the salt tells the columns apart.
        if pa.types.is_large_list(column.type):
            total += _of_lists(column, name)
            continue
        hashes = _mixed(_numbers(column) ^ _salt(name))
        if column.null_count:
            hashes[column.is_null().to_numpy(zero_copy_only=False)] = 0
        total += hashes
    return _mixed(total)


def _of_lists(column: pa.Array, name: str) -> Hashes:
    """Hashes lists: each value with its position; 0 for a missing list."""
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    positions = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    hashes = _mixed(_numbers(column.flatten()) ^ _salt(name))
    # The first value hashes as a single one does; the others depend on where they stand.
    hashes = np.where(positions == 0, hashes, _mixed(hashes + positions.astype(np.uint64)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    return sums[ends] - sums[ends - lengths]


def _numbers(column: pa.Array) -> Hashes:
    """Gives every value a number of 64 bits; that of a null means nothing."""
    if pa.types.is_string(column.type):
        return _of_strings(column)
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        # Minus zero equals zero and has other bits.
        return (values.astype(np.float32) + np.float32(0.0)).view(np.uint32).astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _of_strings(column: pa.Array) -> Hashes:
    encoded: Any = column.dictionary_encode()
    distinct = encoded.dictionary.cast(pa.binary()).to_numpy(zero_copy_only=False)
    if not len(distinct):
        return np.zeros(len(column), np.uint64)
    # FarmHash's fingerprint, in C++ and the same for ever.
    hashes = tf.strings.to_hash_bucket_fast(distinct, 2**63 - 1).numpy().view(np.uint64)
    return hashes[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]


def _salt(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def _mixed(numbers: Hashes) -> Hashes:
    """Spreads every bit over all 64 (the finalizer of SplitMix64)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
