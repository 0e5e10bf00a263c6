"""The work dealt out: files and ranges of large files, grouped into pieces that each write their own shards.

Guarantee: the same files and settings give the same pieces, each piece the same shards under the same names with the
same bytes, however often and wherever it is done; a shard shows under its name only when it is whole.

    for piece in deal(files, data):
        result = Converter(plan).convert(piece)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from components.example_gen import reading, source, typed
from components.example_gen.inspection import Inspected, Unreadable
from components.example_gen.reading import Block, Unit, stored_in
from components.example_gen.splits import Dealer
from components.example_gen.table import BadLine, ColumnType, line_count
from components.records import encoding, writing
from evergreen import settings
from evergreen.errors import Problem

PIECE = 64 << 20
"""Bytes of stored data that a piece aims at, at the most."""
RESULTS = ".pieces"
"""Folder for the pieces' results, and for files that are not whole yet, while the work goes on."""
SPANS_APART = 64
"""How many of the newest spans have shards of their own."""
_EXAMPLES_KEPT = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What one call works through."""

    index: int
    units: Sequence[Unit]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What all pieces have in common; travels to the workers."""

    uri: str
    """The folder of the artifact."""
    data: settings.Data
    types: Mapping[str, ColumnType]
    columns: Sequence[str]
    """Those of the types that every example gets, also where its file lacks the column."""
    pieces: int
    shards_per_piece: int
    cutoffs: Mapping[int, Sequence[float]] = dataclasses.field(default_factory=dict)
    """By span, the moments at which each split but the first begins; for splits by time."""
    span_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The span of each file by path, for `data.span_column`."""
    label: str | None = None
    """The column without which a row teaches nothing; None keeps such rows."""

    @property
    def shards(self) -> int:
        """Files of each split."""
        return self.pieces * self.shards_per_piece


@dataclasses.dataclass(kw_only=True)
class UnitResult:
    """What became of a unit; plain data, for it travels as JSON."""

    path: str
    rows: int = 0
    """Rows written."""
    quarantined: int = 0
    """Rows and lines that went to quarantine, those without a label among them."""
    unlabelled: int = 0
    """Rows that lack nothing but the label."""
    unlabelled_lines: list[int] = dataclasses.field(default_factory=list)
    """The number of the first of them, if there is one."""
    values: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many rows have a value, by column."""
    unusable: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many lines were bad for a value of the column."""
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """The first few bad lines."""
    problem: dict[str, str] | None = None
    """What rules the whole file out."""


# --- dealing ---------------------------------------------------------------------------------------------------------


def deal(files: Sequence[Inspected], data: settings.Data, *, span_of: Mapping[str, int] | None = None) -> list[Piece]:
    """Groups the files' bytes into pieces of at most about `PIECE`, and into at least `data.shards` where files allow.

    Args:
        files: inspected, without problems.
        data: the settings.
        span_of: the span of each file by path; a piece then holds files of one span only, so that whoever reads the
            shards can tell the spans apart. (Of all but the newest `SPANS_APART` spans small files still share pieces.)

    Returns:
        The pieces, in the order of the files.
    """
    total = sum(file.stored_size or file.file.size for file in files)
    target = min(PIECE, max(1, total // data.shards))
    cut = min(PIECE, max(smallest(), target))
    apart = set(sorted(set((span_of or {}).values()))[-SPANS_APART:])
    pieces: list[list[Unit]] = []
    room, before = 0, None
    for file in files:
        span = (span_of or {}).get(file.file.path)
        ends = span != before and (span in apart or before in apart)
        before = span
        for unit, size in units(file, data, span=span or 0, size=cut):
            if size > room or ends or not pieces:
                pieces.append([])
                room = target
                ends = False
            pieces[-1].append(unit)
            room -= size
    return [Piece(index=index, units=tuple(units)) for index, units in enumerate(pieces)]


def smallest() -> int:
    """Returns the bytes that are not worth cutting: a worker converts them in a moment, and cutting reads them too."""
    return 2 * source.BLOCK


def units(
    file: Inspected, data: settings.Data, *, span: int = 0, size: int | None = None
) -> Iterator[tuple[Unit, int]]:
    """Cuts a file where it can be cut.

    A large plain CSV file is cut at block ends; the lines before each range are counted, so that numbers stay exact. A
    Parquet file is cut into its row groups, a plain TFRecord file at any byte: who reads a range finds its records.

    Args:
        file: inspected, without problems.
        data: the settings.
        span: of the file.
        size: bytes that a unit aims at; `PIECE` if None.

    Yields:
        Each unit with its size in bytes.
    """
    whole = Unit(
        path=file.file.path,
        stored=file.stored,
        columns=tuple(file.header),
        start=file.data_start,
        length=None,
        line=file.data_line,
        span=span,
    )
    stored_size = file.stored_size or file.file.size
    if file.ranges:
        stored = file.file.size / max(1, sum(part.size for part in file.ranges))
        for part in file.ranges:
            unit = dataclasses.replace(whole, start=part.start, length=part.length, line=part.line)
            yield unit, max(1, round(part.size * stored))
        return
    size = size or PIECE
    if not file.seekable or stored_size <= size:
        yield whole, stored_size
        return
    if data.format == "tfrecord":
        for begin in range(0, stored_size, size):
            yield dataclasses.replace(whole, start=begin, length=size), min(size, stored_size - begin)
        return
    start, line, length, lines = file.data_start, file.data_line, 0, 0
    path, encoding = stored_in(whole, data)
    with source.opened(path, encoding=encoding, start=start) as stream:
        try:
            for block in source.blocks(stream, quote=data.csv.quote.encode()):
                length += len(block)
                lines += line_count(block)
                if length >= size - source.BLOCK:
                    yield dataclasses.replace(whole, start=start, length=length, line=line), length
                    start, line, length, lines = start + length, line + lines, 0, 0
        except source.LineTooLong:
            # Whoever reads the rest meets it again and says so.
            yield dataclasses.replace(whole, start=start, line=line), stored_size - start
            return
    if length:
        yield dataclasses.replace(whole, start=start, length=length, line=line), length


# --- converting ------------------------------------------------------------------------------------------------------


class Converter:
    """Turns pieces into shards of serialized tf.Examples."""

    def __init__(self, plan: Plan) -> None:
        """Keeps the plan; one converter may do many pieces."""
        self._plan = plan
        self._dealer = Dealer(plan.data, cutoffs=plan.cutoffs)

    def convert(self, piece: Piece) -> list[UnitResult]:
        """Writes the piece's shards, its quarantine and its result.

        Args:
            piece: which units.

        Returns:
            What became of each unit. It is also written to `RESULTS`, where whoever waits for all pieces reads it.
        """
        with contextlib.ExitStack() as stack:
            shards = _Shards(self._plan, piece.index)
            stack.push(shards.close)
            quarantine = stack.enter_context(_Quarantine(self._plan, piece.index))
            results = [self._convert_unit(unit, shards, quarantine) for unit in piece.units]
        name = f"{self._plan.uri}/{RESULTS}/{piece.index:05d}.json"
        rows = shards.rows
        _write_whole(name, json.dumps({"rows": rows, "units": [dataclasses.asdict(result) for result in results]}))
        return results

    def _convert_unit(self, unit: Unit, shards: _Shards, quarantine: _Quarantine) -> UnitResult:
        result = UnitResult(path=unit.path)
        try:
            for block in reading.read(unit, self._plan.data, self._plan.types):
                self._convert_block(block, unit, shards, quarantine, result)
        except Unreadable as error:
            result.problem = dataclasses.asdict(error.problem)
        return result

    def _convert_block(
        self, block: Block, unit: Unit, shards: _Shards, quarantine: _Quarantine, result: UnitResult
    ) -> None:
        rows, bad = block.rows, block.bad
        splits = self._dealer.splits(rows, span=unit.span) if rows.num_rows else np.zeros(0, np.int64)
        useless = self._useless(rows, splits)
        unlabelled = self._unlabelled(rows, except_for=useless)
        if useless or unlabelled:
            bad = [*bad, *_lines(block, useless)]
            _set_aside(_lines(block, unlabelled), result, quarantine)
            kept = np.ones(rows.num_rows, np.bool_)
            kept[[*useless, *unlabelled]] = False
            rows, splits = rows.filter(pa.array(kept)), splits[kept]
        if bad:
            _account(bad, result, quarantine)
        result.rows += rows.num_rows
        values = Counter({name: rows.num_rows - rows.column(name).null_count for name in rows.column_names})
        result.values = dict(Counter(result.values) + values)
        self._write(rows, splits, unit, shards)

    def _useless(self, rows: pa.Table, splits: npt.NDArray[np.int64]) -> dict[int, str]:
        """Finds the rows that lack what they need, with the reason."""
        found: dict[int, str] = {}
        if (splits < 0).any():
            by = self._plan.data.split_by
            name = by.time if isinstance(by, settings.SplitByTime) else ""
            found = dict.fromkeys(np.flatnonzero(splits < 0).tolist(), f"column {name}: no moment to split by")
        for name in self._plan.data.required:
            if name not in rows.column_names or not rows.num_rows:
                continue
            missing = typed.whole(rows.column(name)).is_null().to_numpy(zero_copy_only=False)
            found.update(dict.fromkeys(np.flatnonzero(missing).tolist(), f"column {name}: no value (data.required)"))
        return dict(sorted(found.items()))

    def _unlabelled(self, rows: pa.Table, *, except_for: Mapping[int, str]) -> dict[int, str]:
        """Finds the rows that lack nothing but the label, with the reason."""
        label = self._plan.label
        if label is None or label not in rows.column_names or not rows.num_rows:
            return {}
        missing = typed.whole(rows.column(label)).is_null().to_numpy(zero_copy_only=False)
        return {row: f"column {label}: no label" for row in np.flatnonzero(missing).tolist() if row not in except_for}

    def _write(self, rows: pa.Table, splits: npt.NDArray[np.int64], unit: Unit, shards: _Shards) -> None:
        if not rows.num_rows:
            return
        # The span is no part of what the row's hash sees: a row that is delivered again stays in its split.
        written = _with_span(
            self._with_all_columns(rows), self._plan.data.span_column, self._plan.span_of.get(unit.path, 0)
        )
        examples = encoding.encode(written).to_numpy(zero_copy_only=False)
        for split in range(len(self._plan.data.splits)):
            shards.write(split, examples[splits == split])

    def _with_all_columns(self, rows: pa.Table) -> pa.Table:
        """Adds what another file has, as missing: so that all examples have the same features."""
        for name in self._plan.columns:
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, self._plan.types[name].arrow))
        return rows


def _with_span(rows: pa.Table, column: str | None, span: int) -> pa.Table:
    if column is None:
        return rows
    return rows.append_column(column, pa.array(np.full(rows.num_rows, span, np.int64)))


def _lines(block: Block, reasons: Mapping[int, str]) -> list[BadLine]:
    """Returns rows of a block, given by their positions, as lines of the quarantine."""
    places = block.locate(list(reasons)) if reasons else []
    return [
        BadLine(line=line, reason=reason, text=text)
        for reason, (line, text) in zip(reasons.values(), places, strict=True)
    ]


def _set_aside(unlabelled: Sequence[BadLine], result: UnitResult, quarantine: _Quarantine) -> None:
    """Puts rows without a label into quarantine; they are not malformed."""
    if not unlabelled:
        return
    quarantine.write(_entries(unlabelled, result))
    result.quarantined += len(unlabelled)
    result.unlabelled += len(unlabelled)
    result.unlabelled_lines = [*result.unlabelled_lines, unlabelled[0].line][:1]


def _entries(bad: Sequence[BadLine], result: UnitResult) -> list[dict[str, Any]]:
    return [{"file": result.path, "line": entry.line, "reason": entry.reason, "text": entry.text} for entry in bad]


def _account(bad: Sequence[BadLine], result: UnitResult, quarantine: _Quarantine) -> None:
    entries = _entries(bad, result)
    quarantine.write(entries)
    result.quarantined += len(bad)
    result.examples += entries[: _EXAMPLES_KEPT - len(result.examples)]
    columns = Counter(name for entry in bad for name in entry.columns)
    result.unusable = dict(Counter(result.unusable) + columns)


# --- writing ---------------------------------------------------------------------------------------------------------


class _Shards:
    """The shards of one piece, all splits; they get their names when the piece is done."""

    def __init__(self, plan: Plan, piece: int) -> None:
        self._plan = plan
        self._names = list(plan.data.splits)
        self.rows = dict.fromkeys(self._names, 0)
        suffix = ".gz" if plan.data.compression == "gzip" else ""
        options = "GZIP" if plan.data.compression == "gzip" else ""
        token = uuid.uuid4().hex
        self._files: list[list[tuple[Any, str, str]]] = []
        for split in self._names:
            folder = f"{plan.uri}/Split-{split}"
            tf.io.gfile.makedirs(folder)
            # Readers take all files of a split, hidden ones too: what a killed worker leaves must not lie there.
            tf.io.gfile.makedirs(f"{plan.uri}/{RESULTS}")
            files = []
            for position in range(plan.shards_per_piece):
                index = piece * plan.shards_per_piece + position
                name = f"data_tfrecord-{index:05d}-of-{plan.shards:05d}{suffix}"
                temporary = f"{plan.uri}/{RESULTS}/{split}-{name}.{token}.tmp"
                files.append((tf.io.TFRecordWriter(temporary, options), temporary, f"{folder}/{name}"))
            self._files.append(files)

    def write(self, split: int, examples: npt.NDArray[np.object_]) -> None:
        """Appends serialized examples, dealt evenly to the piece's shards of the split."""
        self.rows[self._names[split]] += len(examples)
        shards = self._files[split]
        for (writer, _, _), part in zip(shards, np.array_split(examples, len(shards)), strict=True):
            writing.append(writer, part)

    def close(self, error: type[BaseException] | None, *_: object) -> None:
        """Names the files, or removes them after an error."""
        for files in self._files:
            for writer, temporary, final in files:
                writer.close()
                if error is None:
                    tf.io.gfile.rename(temporary, final, overwrite=True)
                else:
                    tf.io.gfile.remove(temporary)


class _Quarantine:
    """The bad lines of one piece; a file is made when there is one to put into it."""

    def __init__(self, plan: Plan, piece: int) -> None:
        self._folder = f"{plan.uri}/quarantine"
        self._final = f"{self._folder}/lines-{piece:05d}-of-{plan.pieces:05d}.jsonl"
        self._temporary = f"{plan.uri}/{RESULTS}/{os.path.basename(self._final)}.{uuid.uuid4().hex}.tmp"
        self._file: Any = None

    def __enter__(self) -> _Quarantine:
        return self

    def write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Appends bad lines."""
        if self._file is None:
            tf.io.gfile.makedirs(self._folder)
            self._file = tf.io.gfile.GFile(self._temporary, "w")
        self._file.write("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        self._file.close()
        if error is None:
            tf.io.gfile.rename(self._temporary, self._final, overwrite=True)
        else:
            tf.io.gfile.remove(self._temporary)


def _write_whole(path: str, text: str) -> None:
    tf.io.gfile.makedirs(os.path.dirname(path))
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with tf.io.gfile.GFile(temporary, "w") as file:
        file.write(text)
    tf.io.gfile.rename(temporary, path, overwrite=True)


def problem_of(result: UnitResult) -> Problem | None:
    """Brings the problem of a unit back from plain data."""
    return None if result.problem is None else Problem(**result.problem)
