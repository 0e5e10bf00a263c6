"""Decoded columns on local disk, a record of fixed width for each row, mapped into memory: a batch is one gather.

    records = spill(batches, spec, budget=2**34)      # None where they do not fit
    records.take(tf.constant([5, 3, 8]))              # {name: [3] or [3, length]}

All columns of a row lie side by side, so that a random row costs one page of the disk, or none when the system still
has it in memory. The file has no name any more once it is mapped: nothing is left behind, however the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_SPARED = 1 << 30
"""Bytes that the disk keeps free."""
_ROWS_AT_ONCE = 1 << 16
"""Rows that are put together before they are written."""


Spec = Mapping[str, tf.io.FixedLenFeature]
"""Type and length of each column."""


class Records:
    """Rows in a file that is mapped into memory."""

    def __init__(self, path: str, spec: Spec) -> None:
        """Maps a file of records that is not empty; its name is not needed any more after that.

        Args:
            path: a local file.
            spec: of the columns of a record.
        """
        self._layout = _layout(spec)
        self._path = path
        self.rows = os.path.getsize(path) // self._layout.itemsize
        self._bytes = tf.raw_ops.ImmutableConst(
            dtype=tf.uint8, shape=[self.rows, self._layout.itemsize], memory_region_name=path
        )

    def arrays(self) -> Any:
        """Returns all columns, [rows, length] by name, while the file has its name."""
        return np.memmap(self._path, self._layout, mode="r")

    def take(self, chosen: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns of rows by their numbers."""
        return self._unpacked(tf.gather(self._bytes, chosen))

    def cut(self, begin: tf.Tensor, end: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns of the rows from one number up to another."""
        return self._unpacked(self._bytes[begin:end])

    def _unpacked(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = {}
        for name, (kind, begin, *_) in (self._layout.fields or {}).items():
            cells = tf.reshape(records[:, begin : begin + kind.itemsize], [-1, *kind.shape, kind.base.itemsize])
            columns[name] = tf.bitcast(cells, tf.as_dtype(kind.base))
        return columns


def spill(batches: Iterable[Mapping[str, npt.NDArray[Any]]], spec: Spec, *, budget: int) -> Records | None:
    """Writes batches of columns to a file in the folder for temporary files (TMPDIR).

    Args:
        batches: the columns of some rows each, [rows] or [rows, length].
        spec: types and lengths of the columns.
        budget: bytes that the file may have at the most.

    Returns:
        The rows; None where there are none, or where they fit neither the budget nor the disk.
    """
    handle, path = tempfile.mkstemp(prefix="evergreen-columns-")
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            for batch in batches:
                records = _records(batch, spec)
                too_large = file.tell() + records.nbytes > budget
                if too_large or shutil.disk_usage(path).free < records.nbytes + _SPARED:
                    return None
                file.write(records.data)
        # The kernel looks at a mapped file's pages when it is asked for them: the name can go.
        return Records(path, spec) if os.path.getsize(path) else None
    finally:
        os.remove(path)


def write(file: int, columns: Mapping[str, npt.NDArray[Any]], spec: Spec) -> None:
    """Writes columns to an open file, for `Records` to map.

    Args:
        file: a descriptor; it stays open.
        columns: [rows] or [rows, length].
        spec: types and lengths of the columns.
    """
    rows = len(next(iter(columns.values())))
    with os.fdopen(os.dup(file), "wb") as out:
        for begin in range(0, rows, _ROWS_AT_ONCE):
            chunk = {name: values[begin : begin + _ROWS_AT_ONCE] for name, values in columns.items()}
            out.write(_records(chunk, spec).data)


def _layout(spec: Spec) -> np.dtype[Any]:
    return np.dtype([(name, kind.dtype.as_numpy_dtype, tuple(kind.shape)) for name, kind in spec.items()])


def _records(columns: Mapping[str, npt.NDArray[Any]], spec: Spec) -> npt.NDArray[Any]:
    records = np.empty(len(next(iter(columns.values()))), _layout(spec))
    for name, values in columns.items():
        records[name] = values
    return records
