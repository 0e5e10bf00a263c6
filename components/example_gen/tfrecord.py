"""TFRecord files of tf.Examples, plain or gzip: whole batches through TensorFlow's and tfx_bsl's C++, and what is bad.

Guarantees: every record is a row or a line of the quarantine with its number and reason; a record whose checksum fails
costs that record only; where the frame itself is broken nothing that follows can be told apart, and that is a problem
of the file which names the record. Only a batch with a bad record is looked at record by record.

    inspected = inspect(file, data, columns)
    for batch in read(path, types, start=64 << 20, length=64 << 20): ...
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from google.protobuf import message
from tfx_bsl.coders import example_coder

from components.example_gen import inspection, source, typed
from components.example_gen.inspection import Column, Inspected, Unreadable
from components.example_gen.table import TEXT_SHOWN, BadLine, ColumnType
from components.records import frames
from evergreen import settings, spans
from evergreen.errors import Problem

BATCH = 4096
SAMPLED = 1000
"""Records that the columns are found in."""
MAX_RECORD = 256 << 20
"""Bytes after which a record is not believed to be one."""
_KINDS = {"float_list": ColumnType.FLOAT, "int64_list": ColumnType.INT, "bytes_list": ColumnType.STRING}
_NO_EXAMPLE = "no tf.Example"


class _Broken(Exception):
    """The frame of a record is damaged; what follows cannot be found."""

    def __init__(self, number: int, found: str) -> None:
        super().__init__(found)
        self.number = number
        self.found = found


@dataclasses.dataclass(frozen=True)
class _Record:
    number: int
    """From 1 within the range that is read."""
    data: bytes
    sound: bool
    """Whether its checksum is right."""


def inspect(file: spans.DataFile, data: settings.Data, columns: Mapping[str, Column] | None) -> Inspected:
    """Looks at a file's first records.

    Args:
        file: the file.
        data: unused; all inspections take the same.
        columns: what the schema says of each column; None without a schema.

    Returns:
        The features of these records with their types; or the problems, each of which rules the whole file out.
    """
    del data
    examples: list[Any] = []
    seen = 0
    try:
        head = source.head_of_file(file.path)
        if not head:
            return Inspected(file=file, problems=[inspection.empty(file)])
        for record in _records(file.path):
            seen += 1
            example = _parsed(record.data) if record.sound else None
            examples += [] if example is None else [example]
            if seen == SAMPLED:
                break
    except _Broken as error:
        if not seen:
            return Inspected(file=file, problems=[_no_tfrecord(file, head, error)])
        # Whoever reads the file meets it again, with all that is before it.
    except OSError as error:
        problem = inspection.damaged(file.path, error) if seen or file.size else inspection.unreadable(file, error)
        return Inspected(file=file, problems=[problem])
    if not seen:
        return Inspected(file=file, problems=[inspection.empty(file)])
    if not examples:
        return Inspected(file=file, problems=[_no_examples(file, seen)])
    kinds = _kinds(examples)
    problems = []
    if columns is not None:
        # A feature that these records lack may well come later.
        optional = {name: dataclasses.replace(column, optional=True) for name, column in columns.items()}
        problems = list(inspection.column_problems(file.path, list(kinds), optional, "the schema"))
    names = {name: "no value" if kind is None else f"{kind.words} in most records" for name, kind in kinds.items()}
    seekable = source.compression(head) is None
    return Inspected(file=file, problems=problems, header=list(kinds), kinds=kinds, type_names=names, seekable=seekable)


def _kinds(examples: Sequence[Any]) -> dict[str, ColumnType | None]:
    """Finds the kind of list that each feature mostly has; None without any value."""
    counts: dict[str, Counter[ColumnType]] = {}
    for example in examples:
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind")
            counts.setdefault(name, Counter()).update([] if kind is None else [_KINDS[kind]])
    return {name: found.most_common(1)[0][0] if found else None for name, found in sorted(counts.items())}


def _no_tfrecord(file: spans.DataFile, head: bytes, error: _Broken) -> Problem:
    return Problem(
        where=file.path,
        found=inspection.format_of(head) or f"no TFRecord file ({error.found}; it begins with {head!r})",
        expected="a TFRecord file of tf.Examples, as data.format says",
        action="Set data.format to what the files are, or correct data.path if it takes in a file that is not meant.",
    )


def _no_examples(file: spans.DataFile, seen: int) -> Problem:
    return Problem(
        where=file.path,
        found=f"{_NO_EXAMPLE} in the first {seen:,} records",
        expected="serialized tf.Examples",
        action="Write every record as a tf.Example.",
    )


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Some records."""

    rows: pa.Table
    """Good rows with all columns."""
    bad: list[BadLine]
    """Records that are none, by their numbers in the file."""
    numbers: Callable[[Sequence[int]], list[int]]
    """Gives the numbers in the file of rows by their positions."""


def read(path: str, types: Mapping[str, ColumnType], *, start: int = 0, length: int | None = None) -> Iterator[Batch]:
    """Reads a file, or the records that begin in a range of a plain one.

    Args:
        path: the file.
        types: the type of each column.
        start: any byte of the file; 0 for one that is compressed.
        length: of the range; None for all that follows.

    Yields:
        All records, as rows or as bad ones.

    Raises:
        Unreadable: the file is damaged, or has a feature that is not in `types`.
    """
    decoder = example_coder.ExamplesToRecordBatchDecoder()

    @functools.cache
    def before() -> int:
        # Whoever reads a range does not know how many records are before it, and seldom needs to.
        return frames.records_before(path, start) if start else 0

    for sound, sound_numbers, unsound in _batches(path, start, None if length is None else start + length):
        bad = [BadLine(line=r.number, reason="its checksum is wrong", text=_shown(r.data)) for r in unsound]
        decoded, numbers, undecodable = _decoded(decoder, sound, sound_numbers, types)
        bad += undecodable
        rows, kept = _nothing(types), np.zeros(0, np.int64)
        if decoded is not None:
            if unknown := sorted(set(decoded.column_names) - set(types)):
                raise Unreadable(_unknown(path, unknown, before() + int(numbers[0]), before() + int(numbers[-1])))
            absent = {name: pa.nulls(decoded.num_rows, type_.arrow) for name, type_ in types.items()}
            present = {name: decoded.column(name) for name in decoded.column_names}
            rows, faults, good = typed.conformed(pa.table({**absent, **present}), types, first=0)
            bad += [dataclasses.replace(fault, line=int(numbers[fault.line])) for fault in faults]
            kept = numbers[good]
        yield Batch(
            rows=rows,
            bad=[
                dataclasses.replace(line, line=before() + line.line) for line in sorted(bad, key=lambda line: line.line)
            ],
            numbers=lambda positions, kept=kept: [before() + int(kept[row]) for row in positions],  # type: ignore[misc]
        )


def _nothing(types: Mapping[str, ColumnType]) -> pa.Table:
    return pa.table({name: pa.array([], type_.arrow) for name, type_ in types.items()})


def _unknown(path: str, names: Sequence[str], first: int, last: int) -> Problem:
    return Problem(
        where=path,
        found=f"feature {', '.join(map(repr, names[:5]))} within records {first:,} to {last:,}",
        expected=f"the features of the schema (without one, of the first {SAMPLED:,} records of the files)",
        action="Add it to the schema, or write the records without it.",
    )


_Batch = tuple[list[bytes], npt.NDArray[np.int64], list[_Record]]
"""Sound records, their numbers from 1 within the range, and those with a wrong checksum."""


def _batches(path: str, start: int, end: int | None) -> Iterator[_Batch]:
    """Yields records; in C++ as long as all is well."""
    kind = {"gzip": "GZIP", None: ""}.get(source.compression(source.head_of_file(path)))
    number = 1
    misled: frames.Damaged | None = None
    if kind is not None:
        try:
            for batch in _serialized(path, kind, start, end):
                yield batch, np.arange(number, number + len(batch), dtype=np.int64), []
                number += len(batch)
            return
        except tf.errors.OpError:
            # What is wrong, and where, is found below.
            pass
        except frames.Damaged as damage:
            misled = damage
    records: list[_Record] = []
    try:
        for record in _records(path, start, end):
            if record.number < number:
                continue
            records.append(record)
            if len(records) == BATCH:
                yield _parted(records)
                records = []
    except _Broken as error:
        raise Unreadable(_broken(path, error)) from error
    except OSError as error:
        raise Unreadable(inspection.damaged(path, error)) from error
    if records:
        yield _parted(records)
    if misled:
        # No length is damaged: so the next range's reader took what is within a record for one.
        raise Unreadable(_not_to_be_cut(path, misled))


def _not_to_be_cut(path: str, misled: frames.Damaged) -> Problem:
    return Problem(
        where=f"{path}, byte {misled.at:,}",
        found="a record that holds a TFRecord file itself, so that the large file cannot be read in ranges",
        expected="records of plain tf.Examples",
        action="Compress the file with gzip, or deliver files of less than 8 MB: they are read from their beginning.",
    )


def _serialized(path: str, kind: str, start: int, end: int | None) -> Iterator[list[bytes]]:
    if kind:
        for batch in tf.data.TFRecordDataset(path, kind).batch(BATCH).prefetch(2).as_numpy_iterator():
            yield batch.tolist()
        return
    for tensor in frames.read(path, start=start, end=end, rows=BATCH):
        yield tensor.numpy().tolist()


def _parted(records: Sequence[_Record]) -> _Batch:
    sound = [record for record in records if record.sound]
    numbers = np.array([record.number for record in sound], np.int64)
    return [record.data for record in sound], numbers, [record for record in records if not record.sound]


def _broken(path: str, error: _Broken) -> Problem:
    return Problem(
        where=f"{path}, record {error.number:,}",
        found=error.found,
        expected="a whole TFRecord file",
        action="Deliver the file again; what follows this record cannot be told apart.",
    )


def _decoded(
    decoder: Any, records: list[bytes], numbers: npt.NDArray[np.int64], types: Mapping[str, ColumnType]
) -> tuple[pa.Table | None, npt.NDArray[np.int64], list[BadLine]]:
    """Decodes records; None without a good one."""
    bad: list[BadLine] = []
    if records:
        try:
            return pa.Table.from_batches([decoder.DecodeBatch(records)]), numbers, bad
        except RuntimeError:
            bad = list(_undecodable(records, numbers, types))
            kept = ~np.isin(numbers, [line.line for line in bad])
            records, numbers = [records[row] for row in np.flatnonzero(kept)], numbers[kept]
    if not records:
        return None, np.zeros(0, np.int64), bad
    return pa.Table.from_batches([decoder.DecodeBatch(records)]), numbers, bad


def _undecodable(
    records: Sequence[bytes], numbers: npt.NDArray[np.int64], types: Mapping[str, ColumnType]
) -> Iterator[BadLine]:
    """Finds the records that are no tf.Example, or that have a kind of list which their column does not."""
    for data, number in zip(records, numbers.tolist(), strict=True):
        example = _parsed(data)
        if example is None:
            yield BadLine(line=number, reason=_NO_EXAMPLE, text=_shown(data))
            continue
        wrong = {
            name: kind
            for name, feature in example.features.feature.items()
            if (kind := feature.WhichOneof("kind")) and name in types and _KINDS[kind] is not types[name]
        }
        if wrong:
            yield BadLine(
                line=number,
                reason="; ".join(
                    f"column {name}: {kind} is not {types[name].words}" for name, kind in sorted(wrong.items())
                ),
                text=str(example)[:TEXT_SHOWN],
                columns=tuple(sorted(wrong)),
            )


def _parsed(data: bytes) -> Any:
    try:
        return tf.train.Example.FromString(data)
    except message.DecodeError:
        return None


def _shown(data: bytes) -> str:
    return data[:TEXT_SHOWN].decode("utf-8", "backslashreplace")[:TEXT_SHOWN]


# --- frames ----------------------------------------------------------------------------------------------------------


def _records(path: str, start: int = 0, end: int | None = None) -> Iterator[_Record]:
    """Takes a file apart record by record, from its beginning, and yields those that begin in a range.

    The record behind the range is looked at too: its reader found no other beginning than this one's end, or nobody
    reads it.

    Raises:
        _Broken: a length is damaged, or the file ends within a record; the number is the one in the file.
    """
    number = passed = at = 0
    # Any one-byte encoding would do: what matters is that the stream is decompressed and nothing else.
    with source.opened(path, encoding="utf-8") as stream:
        while head := _exactly(stream, 12):
            number += 1
            if len(head) < 12:
                raise _Broken(number, "the end of the file within a record")
            length, checksum = struct.unpack("<QI", head)
            if frames.masked(head[:8]) != checksum:
                raise _Broken(number, "a damaged length of a record")
            if length > MAX_RECORD:
                raise _Broken(number, f"a record of {length:,} bytes")
            body = _exactly(stream, length + 4)
            if len(body) < length + 4:
                raise _Broken(number, "the end of the file within a record")
            if end is not None and at >= end:
                return
            if at < start:
                passed += 1
            else:
                data = body[:length]
                yield _Record(number - passed, data, frames.masked(data) == struct.unpack("<I", body[length:])[0])
            at += length + frames.FRAME


def _exactly(stream: source.Stream, size: int) -> bytes:
    parts = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
