"""Where records begin in a TFRecord file, from any byte on: so that a large file is read by several workers.

A record is its length (8 bytes), that length's checksum (4), its bytes, and their checksum (4). Nothing marks where one
begins, but a length whose checksum is right, and behind whose record another one follows or the file ends, is found by
chance once in 2^64 places. A record belongs to the range that its first byte lies in.

Guarantee: of adjacent ranges every record is read once; if a damaged length at the border of two ranges made records
fall between them, that is `Damaged`, for each reader checks that the next range begins where its own ended.

    for batch in read(path, start=64 << 20, end=128 << 20, rows=4096): ...       # string tensors [n]
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

FRAME = 16
"""Bytes of a record beside its own."""
_HEAD = struct.Struct("<QI")
_WINDOW = 1 << 20
_BUFFER = 4 << 20


class Damaged(Exception):
    """The lengths of a file do not lead from record to record; `at` is where they end."""

    def __init__(self, path: str, at: int) -> None:
        super().__init__(f"{path}: no record begins at byte {at:,}")
        self.path = path
        self.at = at


def masked(data: bytes) -> int:
    """Returns TFRecord's checksum of bytes."""
    checksum: int = google_crc32c.value(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read(path: str, *, start: int, end: int | None, rows: int) -> Iterator[tf.Tensor]:
    """Reads the records of a range of a plain file.

    Args:
        path: of the file.
        start: any byte of it.
        end: one behind the last byte in which a record may begin; None for the end of the file.
        rows: of a batch at the most.

    Yields:
        Batches of records, string [n], n > 0.

    Raises:
        Damaged: records fall between this range and the next one.
        tf.errors.OpError: a record's checksum is wrong, or the file ends within one.
    """
    first = next_record(path, start)
    if first is None or (end is not None and first >= end):
        return
    # Not read ahead: what one thread allocates and another frees stays in pieces, 100 MB and more after a large file.
    for batch in from_record(path, first).batch(rows):
        ends = first + np.cumsum(tf.strings.length(batch).numpy().astype(np.int64) + FRAME)
        first = int(ends[-1])
        if end is None or first < end:
            yield batch
            continue
        # The record that begins before the end is the last one.
        count = int(np.searchsorted(ends, end)) + 1
        yield batch[:count]
        reached = int(ends[count - 1])
        if next_record(path, end) != (None if reached == _size(path) else reached):
            raise Damaged(path, reached)
        return


def from_record(path: str, start: int, *, compression: str = "") -> tf.data.Dataset:
    """Returns the records of a file from one whose first byte is known; one scalar string each.

    Args:
        path: of the file.
        start: the record's first byte; 0 in a compressed file.
        compression: TFRecord's name of it; nothing for a plain file.
    """
    # Not `tf.data.TFRecordDataset`, which is an interleave of files: 20 ms to start, and twice the time a record.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type=compression,
        buffer_size=_BUFFER,
        byte_offsets=tf.constant([start] if start else [], tf.int64),
    )
    options = tf.data.Options()
    # What rewrites a dataset's graph forgets the offsets (TensorFlow 2.16); there is nothing to rewrite or to tune.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_warm_start = False
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).with_options(options)


def next_record(path: str, start: int) -> int | None:
    """Finds the first record that begins at `start` or behind it; None where there is none."""
    if not start:
        return 0 if _size(path) else None
    size = _size(path)
    with _opened(path) as file:
        for begin in range(start, size, _WINDOW):
            file.seek(begin)
            window = file.read(_WINDOW + _HEAD.size - 1)
            for place in _plausible(window, size - begin):
                if _is_record(file, begin + place, size):
                    return begin + place
    return None


def records_before(path: str, end: int) -> int:
    """Counts the records of a plain file that begin before `end`, by their lengths alone."""
    count = at = 0
    with _opened(path) as file:
        while at < end:
            file.seek(at)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size or masked(head[:8]) != _HEAD.unpack(head)[1]:
                break
            count += 1
            at += _HEAD.unpack(head)[0] + FRAME
    return count


def _plausible(window: bytes, left: int) -> list[int]:
    """Returns the places at which a length stands that the file has room for."""
    places = len(window) - _HEAD.size + 1
    if places <= 0:
        return []
    data = np.frombuffer(window, np.uint8)
    lengths = np.zeros(places, np.uint64)
    for byte in range(8):
        lengths |= data[byte : byte + places].astype(np.uint64) << np.uint64(8 * byte)
    room = (left - FRAME - np.arange(places, dtype=np.int64)).clip(-1)
    return np.flatnonzero((lengths <= room.clip(0).astype(np.uint64)) & (room >= 0)).tolist()


def _is_record(file: Any, at: int, size: int) -> bool:
    length = _length(file, at)
    if length is None:
        return False
    behind = at + length + FRAME
    return behind == size or _length(file, behind) is not None


def _length(file: Any, at: int) -> int | None:
    """Returns the length that stands at a place; None if its checksum says that it is none."""
    file.seek(at)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    return int(length) if masked(head[:8]) == checksum else None


def _opened(path: str) -> Any:
    return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb")


def _size(path: str) -> int:
    return int(tf.io.gfile.stat(path).length) if "://" in path else os.stat(path).st_size
