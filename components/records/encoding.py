"""Arrow columns to serialized tf.Examples, a column at a time: the bytes of a row are the joint of its columns' bytes.

Guarantee: what is written parses to the message that tfx-bsl's encoder writes for the same rows. Its bytes are in the
random order of a map, these are the same every time, the features by name. All values of a column become bytes at once,
in numpy; what stands before a value (tags, lengths, the column's name) depends on its length only and is made once for
each length; Arrow joins the columns. That takes a quarter of the time that an object for every row takes.

    encode(pa.table({"x": pa.array([1.5, None], pa.float32())}))        # large_binary [2]

The format: https://protobuf.dev/programming-guides/encoding, and `tensorflow/core/example/feature.proto`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_BYTES = pa.large_binary()
_NOTHING = -1
"""Stands for the length of a missing value."""
_FIRST = 0x0A
"""Tag of field 1 with a length: an Example's features, a map's entry and its key, a list's values."""
_VALUE = 0x12
"""Tag of field 2 with a length: the value of a map's entry."""
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 0x0A, 0x12, 0x1A
"""Tags of the three kinds of a Feature."""

_Lengths = npt.NDArray[np.int64]


def encode(rows: pa.Table | pa.RecordBatch) -> pa.LargeBinaryArray:
    """Encodes rows.

    Args:
        rows: columns of single values (null is a feature without a kind) or of lists of them (so is a null list; an
            empty one is a feature with a kind and no value). Values are float32, integers up to int64, strings or
            binary.

    Returns:
        A serialized tf.Example a row.

    Raises:
        TypeError: a column has another type.
        ValueError: a list holds a null.
    """
    if not rows.num_rows:
        return pa.array([], _BYTES)
    places = sorted(range(rows.num_columns), key=lambda place: str(rows.schema.names[place]))
    parts: list[Any] = []
    lengths = np.zeros(rows.num_rows, np.int64)
    for place in places:
        name = rows.schema.names[place]
        column = _column(name, rows.column(place))
        before, sizes = _by_length(column.lengths, lambda length, of=column: of.before(length))
        lengths += sizes + column.lengths.clip(0)
        parts += [before, column.payload]
    head, _ = _by_length(lengths, lambda length: _headed(_FIRST, length))
    return pc.binary_join_element_wise(head, *parts, pa.scalar(b"", _BYTES))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Column:
    """The values of a column as bytes."""

    name: bytes
    kind: int
    """Tag of its list."""
    lengths: _Lengths
    """Bytes of each row's values, `_NOTHING` where it is missing."""
    payload: pa.LargeBinaryArray
    """Those bytes."""
    is_one_text: bool
    """The payload is one text as it is, without its tag and length."""

    def before(self, length: int) -> bytes:
        """Returns what stands before the values that take `length` bytes."""
        key = _headed(_FIRST, len(self.name)) + self.name
        if length == _NOTHING:
            feature = _headed(_VALUE, 0)
            return _headed(_FIRST, len(key) + len(feature)) + key + feature
        packed = self.kind != _BYTES_LIST and length > 0
        inner = _headed(_FIRST, length) if packed or self.is_one_text else b""
        inner = _headed(self.kind, len(inner) + length) + inner
        inner = _headed(_VALUE, len(inner) + length) + inner
        return _headed(_FIRST, len(key) + len(inner) + length) + key + inner


def _headed(tag: int, length: int) -> bytes:
    """Returns a tag and the length of what follows."""
    made = bytearray([tag])
    while length > 0x7F:
        made.append(length & 0x7F | 0x80)
        length >>= 7
    made.append(length)
    return bytes(made)


def _by_length(lengths: _Lengths, make: Any) -> tuple[Any, _Lengths]:
    """Makes bytes of each row's length, once for each length there is.

    Returns:
        large_binary [rows] (a scalar where all are the same), and how long each is.
    """
    encoded = pa.array(lengths).dictionary_encode()
    made: Sequence[bytes] = [make(length) for length in encoded.dictionary.to_pylist()]
    sizes = np.array([len(bytes_) for bytes_ in made], np.int64)[encoded.indices.to_numpy()]
    if len(made) == 1:
        return pa.scalar(made[0], _BYTES), sizes
    return pa.array(made, _BYTES).take(encoded.indices), sizes


def _column(name: str, column: Any) -> _Column:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _of_lists(name, array)
    kind = _kind(name, array.type)
    missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if kind == _BYTES_LIST:
        payload = array.cast(_BYTES).fill_null(b"")
        lengths = np.diff(_offsets(payload))
    else:
        ends, data = _numbers(array.drop_null() if array.null_count else array, kind)
        if missing is not None:
            # A row without a value ends where the one before it does.
            ends = ends[np.concatenate([[0], np.cumsum(~missing)])]
        payload, lengths = _binary(ends, data), np.diff(ends)
    if missing is not None:
        lengths[missing] = _NOTHING
    is_one_text = kind == _BYTES_LIST
    return _Column(name=name.encode(), kind=kind, lengths=lengths, payload=payload, is_one_text=is_one_text)


def _of_lists(name: str, lists: Any) -> _Column:
    """Takes a column of lists: the bytes of neighbouring values lie side by side already."""
    values = lists.flatten()
    if values.null_count:
        raise ValueError(f"column {name!r} has a list with a null in it")
    kind = _kind(name, values.type)
    if kind == _BYTES_LIST:
        texts = values.cast(_BYTES)
        before, _ = _by_length(np.diff(_offsets(texts)), lambda length: _headed(_FIRST, length))
        texts = pc.binary_join_element_wise(before, texts, pa.scalar(b"", _BYTES)) if len(texts) else texts
        ends, data = _offsets(texts), texts.buffers()[2]
    else:
        ends, data = _numbers(values, kind)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    ends = ends[np.concatenate([[0], np.cumsum(counts)])]
    lengths = np.diff(ends)
    if lists.null_count:
        lengths[lists.is_null().to_numpy(zero_copy_only=False)] = _NOTHING
    return _Column(name=name.encode(), kind=kind, lengths=lengths, payload=_binary(ends, data), is_one_text=False)


def _kind(name: str, type_: Any) -> int:
    if type_ == pa.float32():
        return _FLOAT_LIST
    if pa.types.is_signed_integer(type_):
        return _INT64_LIST
    if any(is_text(type_) for is_text in _TEXTS):
        return _BYTES_LIST
    raise TypeError(f"column {name!r} is of type {type_}, which a tf.Example does not have")


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def _numbers(values: pa.Array, kind: int) -> tuple[_Lengths, pa.Buffer]:
    """Returns where the bytes of each number end (int64 [values + 1], from 0) and the bytes."""
    if kind == _FLOAT_LIST:
        bits = values.to_numpy(zero_copy_only=False).astype("<f4", copy=False)
        return np.arange(len(values) + 1, dtype=np.int64) * 4, pa.py_buffer(np.ascontiguousarray(bits))
    return _varints(values.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64))


def _varints(numbers: npt.NDArray[np.uint64]) -> tuple[_Lengths, pa.Buffer]:
    """Writes numbers with seven bits a byte, the lowest first; all but the last byte have their highest bit set."""
    width = max(1, -(-int(numbers.max(initial=0)).bit_length() // 7))
    made = np.empty((len(numbers), width), np.uint8)
    sizes = np.ones(len(numbers), np.int64)
    for byte in range(width):
        rest = numbers >> np.uint64(7 * byte)
        more = rest > 0x7F
        made[:, byte] = (rest & np.uint64(0x7F)).astype(np.uint8) | (more.astype(np.uint8) << 7)
        sizes += more
    flat = made.ravel() if (sizes == width).all() else made[np.arange(width) < sizes[:, None]]
    return np.concatenate([[0], np.cumsum(sizes)]), pa.py_buffer(flat)


def _offsets(texts: pa.LargeBinaryArray) -> _Lengths:
    """Returns where the bytes of each text end, as int64 [texts + 1]; the array's buffers belong to them."""
    if not len(texts):
        return np.zeros(1, np.int64)
    return np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, texts.offset * 8)


def _binary(ends: _Lengths, data: pa.Buffer | None) -> pa.LargeBinaryArray:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends)), data or pa.py_buffer(b"")]
    return pa.LargeBinaryArray.from_buffers(_BYTES, len(ends) - 1, buffers)
