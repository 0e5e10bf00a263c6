"""Predictions for whole files, CSV or Parquet, through Beam: a published SavedModel in each worker's process.

    run_batch(registry="runs/registry", name="taxi", sources=["rows/*.parquet"], output="predictions", format="parquet")

Files are dealt out by row groups or by ranges of bytes, and go through the model as Arrow record batches, no row alone.
Every row of the input comes out with all its columns, in order, and with `prediction` (of a classifier with its
probabilities too) or with what is wrong with it in `problem`. The output is a folder of part files and `summary.json`,
there only once it is complete.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from evergreen import settings
from evergreen.errors import BadInput, ExitCode, Problem
from evergreen.registry import Registry
from serving import arrays
from serving.predictor import Arrays, Predictor, csv_of, manifest_of

OutputFormat = Literal["csv", "parquet"]
SUFFIXES: Mapping[str, OutputFormat] = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
PROBLEM = "problem"
"""The output's column of what is wrong with a row; null in one that was answered."""
SUMMARY = "summary.json"
_PIECE_BYTES = 32 << 20
"""Bytes of a CSV file that one worker takes at once."""
_ROWS = 1 << 16
"""Rows that go through the model at once, of Parquet; of CSV those of a block."""
_BLOCK = 4 << 20
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one call of a worker reads: bytes of a CSV file, or a row group of a Parquet file."""

    number: int
    path: str
    begin: int
    end: int
    """The byte after the last one, or the row group after the last one."""
    header: tuple[str, ...] = ()
    """The columns of a CSV file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker needs to know."""

    model: str
    bundle: str
    staged: str
    format: OutputFormat
    csv: settings.CsvFormat
    """How the CSV files among the input are written."""
    pieces: int


def run_batch(
    *,
    registry: str | os.PathLike[str],
    name: str,
    version: int | None = None,
    sources: Sequence[str],
    output: str,
    format: OutputFormat = "parquet",
    beam_arguments: Sequence[str] = (),
    log: TextIO | None = None,
) -> ExitCode:
    """Answers every row of files.

    Args:
        registry: the root of the model registry.
        name: the model in it.
        version: which one; the one that serves where it is left out.
        sources: paths or globs of CSV files with a header (`.csv`, `.tsv`) or Parquet files.
        output: a folder that is not there yet.
        format: of the part files.
        beam_arguments: Beam's options; the DirectRunner in this process without any.
        log: where the closing line goes; standard error where it is left out.

    Returns:
        `ExitCode.OK`, or `ExitCode.BAD_INPUT` when a row was refused.

    Raises:
        BadInput: when there is no such version, a file cannot be read or lacks a column, or the output is there.
    """
    import tensorflow as tf

    models = Registry(registry, name)
    manifest = manifest_of(models, version)
    csv_format = csv_of(manifest)
    if tf.io.gfile.exists(output):
        raise _bad(output, "something there already", "a new folder", "Name another one, or remove it.")
    pieces = _pieces(_files(sources), csv_format)
    folder, last = os.path.split(output.rstrip("/"))
    work = Work(
        model=models.model_dir(manifest.version),
        bundle=models.bundle_dir(manifest.version),
        staged=os.path.join(folder, f".{last}.{os.getpid()}.partial"),
        format=format,
        csv=csv_format,
        pieces=len(pieces),
    )
    try:
        _run(work, pieces, beam_arguments)
        summary = _summarize(work, pieces, {"model": name, "version": manifest.version})
        tf.io.gfile.rename(work.staged, output)
    finally:
        if tf.io.gfile.exists(work.staged):
            tf.io.gfile.rmtree(work.staged)
    return _told(summary, output, log)


# --- pieces ----------------------------------------------------------------------------------------------------------


def _files(sources: Sequence[str]) -> list[str]:
    import tensorflow as tf

    found, problems = [], []
    for source in sources:
        paths = sorted(tf.io.gfile.glob(source))
        found += paths
        if not paths:
            problems.append(Problem(where=source, found="no file", expected="rows", action="Correct the path."))
        problems += [
            Problem(where=path, found="another kind of file", expected="CSV or Parquet", action="Leave it out.")
            for path in paths
            if os.path.splitext(path)[1].lower() not in SUFFIXES
        ]
    if problems:
        raise BadInput(problems)
    return found


def _pieces(files: Sequence[str], csv_format: settings.CsvFormat) -> list[Piece]:
    """Deals files out; what cannot be read at all is told before a model is loaded."""
    found: list[Piece] = []
    problems: list[Problem] = []
    for path in files:
        try:
            of_file = _of_csv(path, csv_format) if _is_csv(path) else _of_parquet(path)
            found += [dataclasses.replace(piece, number=len(found) + n) for n, piece in enumerate(of_file)]
        except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
            action = "Repair the file, or leave it out."
            problems.append(Problem(where=path, found=str(error), expected="CSV or Parquet", action=action))
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return found


def _is_csv(path: str) -> bool:
    return SUFFIXES[os.path.splitext(path)[1].lower()] == "csv"


def _of_csv(path: str, csv_format: settings.CsvFormat) -> list[Piece]:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        line, size = file.readline(), file.size()
    text, delimiter = line.decode("utf-8-sig"), _delimiter(path, csv_format.delimiter)
    header = tuple(next(csv.reader([text], delimiter=delimiter, quotechar=csv_format.quote, strict=True), ()))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or not header:
        found = f"the columns {', '.join(twice)} more than once" if twice else "an empty file"
        raise _bad(f"{path}, line 1", found, "a header that names each column once", "Repair the header.")
    begins = list(range(len(line), size, _PIECE_BYTES))
    return [
        Piece(0, path, begin, end, header)
        for begin, end in zip(begins, [*begins[1:], size][: len(begins)], strict=True)
    ]


def _of_parquet(path: str) -> list[Piece]:
    with _opened(path) as file:
        groups = parquet.ParquetFile(file).num_row_groups
    return [Piece(0, path, group, group + 1) for group in range(groups)]


def _delimiter(path: str, delimiter: str) -> str:
    return "\t" if path.lower().endswith(".tsv") else delimiter


def _opened(path: str) -> Any:
    """Opens a file for Arrow to seek in, on any filesystem of TensorFlow's."""
    if "://" not in path:
        return pa.OSFile(path)
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        return pa.BufferReader(file.read())


# --- the work of a piece ---------------------------------------------------------------------------------------------


def _run(work: Work, pieces: Sequence[Piece], arguments: Sequence[str]) -> None:
    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.utils import shared

    class Answer(beam.DoFn):
        """Reads a piece, asks the model, writes a part."""

        def __init__(self, work: Work, handle: shared.Shared) -> None:
            self._work, self._handle = work, handle

        def setup(self) -> None:
            self._predictor = self._handle.acquire(
                lambda: Predictor.load(self._work.model, bundle_dir=self._work.bundle)
            )

        def process(self, piece: Piece) -> Iterator[int]:
            answer_piece(piece, self._work, self._predictor)
            yield piece.number

    tf.io.gfile.makedirs(work.staged)
    options = PipelineOptions(
        list(arguments) or ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]
    )
    with beam.Pipeline(options=options) as pipeline:
        dealt = pipeline | "Pieces" >> beam.Create(list(pieces)) | "Deal" >> beam.Reshuffle()
        _ = dealt | "Answer" >> beam.ParDo(Answer(work, shared.Shared()))


def answer_piece(piece: Piece, work: Work, predictor: Predictor) -> None:
    """Writes a part with the answers to a piece, and beside it how many rows there were; done again, it is the same."""
    broken: list[str] = []
    rows = refused = 0
    shown: list[str] = []
    buffer = pa.BufferOutputStream()
    writer: Any = None
    try:
        for batch in _batches(piece, work, broken):
            answered = answer_batch(
                batch, predictor, csv_format=work.csv if _is_csv(piece.path) else None, where=piece.path
            )
            problems = answered.column(PROBLEM).drop_null()
            rows, refused = rows + answered.num_rows, refused + len(problems)
            shown += problems[: max(0, _SHOWN - len(shown))].to_pylist()
            answered = _flat(answered) if work.format == "csv" else answered
            if writer is None:
                kind = arrow_csv.CSVWriter if work.format == "csv" else parquet.ParquetWriter
                writer = kind(buffer, answered.schema)
            writer.write_table(answered)
    except BadInput as error:
        _keep(work, f"{piece.number:05d}.json", {"problems": [dataclasses.asdict(each) for each in error.problems]})
        return
    if writer is not None:
        writer.close()
        part = f"part-{piece.number:05d}-of-{work.pieces:05d}.{work.format}"
        _write(os.path.join(work.staged, part), buffer.getvalue().to_pybytes())
    told = {"rows": rows, "refused": refused, "broken": len(broken), "shown": [*broken[:_SHOWN], *shown]}
    _keep(work, f"{piece.number:05d}.json", told)


def answer_batch(
    batch: pa.RecordBatch, predictor: Predictor, *, csv_format: settings.CsvFormat | None, where: str
) -> pa.Table:
    """Asks the model.

    Args:
        batch: the input's columns.
        predictor: the model.
        csv_format: how the columns are written, where they are the fields of a CSV file.
        where: names the input in a problem.

    Returns:
        The batch with the model's outputs and with `problem`; of a row with a problem the outputs are null.

    Raises:
        BadInput: when it lacks a column that every row needs, or has one of the names of the outputs.
    """
    rows, there = batch.num_rows, set(batch.schema.names)
    lacking = [column.name for column in predictor.columns if column.required and column.name not in there]
    if lacking:
        raise _bad(where, f"no column {', '.join(lacking)}", "every column that the model needs", "Add it.")
    tensors: Arrays = {}
    problems: dict[int, list[Problem]] = {}
    for column in predictor.columns:
        values = batch.column(column.name) if column.name in there else pa.nulls(rows, pa.string())
        tensors[column.name], refused = arrays.encode(column, values, csv=csv_format)
        for row, problem in refused.items():
            problems.setdefault(row, []).append(problem)
    outputs = predictor.ask(tensors)
    taken = sorted(there & {*outputs, PROBLEM})
    if taken:
        raise _bad(where, f"the column {', '.join(taken)}", "other names: the answers have these", "Rename it.")
    told: list[str | None] = [None] * rows
    for row, found in problems.items():
        told[row] = "; ".join(f"{each.where}: found {each.found}, expected {each.expected}" for each in found)
    for row in np.flatnonzero(~_finite(outputs, rows)).tolist():
        told[row] = told[row] or "the model: an answer that is not a finite number"
    bad = np.array([words is not None for words in told])
    answers = {name: _arrow(array, bad) for name, array in outputs.items()}
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return pa.table({**columns, **answers, PROBLEM: pa.array(told, pa.string())})


def _finite(outputs: Mapping[str, npt.NDArray[Any]], rows: int) -> npt.NDArray[np.bool_]:
    finite = np.ones(rows, dtype=bool)
    for array in outputs.values():
        if np.issubdtype(array.dtype, np.floating):
            finite &= np.isfinite(array.reshape(rows, -1)).all(axis=1)
    return finite


def _arrow(array: npt.NDArray[Any], null: npt.NDArray[np.bool_]) -> pa.Array:
    """Returns an output, [rows] or [rows, n], as a column; text for bytes, lists for several values."""
    if array.ndim == 1:
        values = pa.array(array, mask=null)
        return values.cast(pa.string()) if array.dtype == object else values
    begins = np.cumsum([0, *np.where(null, 0, array.shape[1])], dtype=np.int32)  # a null holds no values
    return pa.ListArray.from_arrays(pa.array(begins), pa.array(array[~null].reshape(-1)), mask=pa.array(null))


def _flat(table: pa.Table) -> pa.Table:
    """Gives each place of a list a column of its own, for CSV has no lists."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.schema.names:
        column = table.column(name)
        if not pa.types.is_list(column.type):
            columns[name] = column
            continue
        width = pa.compute.max(pa.compute.list_value_length(column)).as_py() or 0
        columns |= {f"{name}_{place}": pa.compute.list_element(column, place) for place in range(width)}
    return pa.table(columns)


def _batches(piece: Piece, work: Work, broken: list[str]) -> Iterator[pa.RecordBatch]:
    if not _is_csv(piece.path):
        with _opened(piece.path) as file:
            yield from parquet.ParquetFile(file).iter_batches(_ROWS, row_groups=[piece.begin])
        return

    def note(row: arrow_csv.InvalidRow) -> str:
        found = f"{row.actual_columns} fields, not {row.expected_columns}"
        broken.append(f"{piece.path}: {found}: {(row.text or '')[:80]}")
        return "skip"

    content = _lines(piece)
    if not content.strip():
        return
    try:
        yield from arrow_csv.open_csv(
            io.BytesIO(content),
            read_options=arrow_csv.ReadOptions(column_names=list(piece.header), block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(
                delimiter=_delimiter(piece.path, work.csv.delimiter),
                quote_char=work.csv.quote,
                invalid_row_handler=note,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(piece.header, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise _bad(piece.path, str(error)[:200], "CSV as text in UTF-8", "Repair the file.") from error


def _lines(piece: Piece) -> bytes:
    """Reads the lines that begin in a range: the rest of a line that began before it belongs to the range before."""
    import tensorflow as tf

    with tf.io.gfile.GFile(piece.path, "rb") as file:
        file.seek(piece.begin - 1)
        if file.read(1) != b"\n":
            file.readline()
        begin = file.tell()
        if begin >= piece.end:
            return b""
        content: bytes = file.read(piece.end - begin)
        return content if content.endswith(b"\n") else content + bytes(file.readline())


# --- the output ------------------------------------------------------------------------------------------------------


def _keep(work: Work, name: str, content: Mapping[str, Any]) -> None:
    _write(os.path.join(work.staged, f"_{name}"), json.dumps(content).encode())


def _write(path: str, content: bytes) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(f"{path}.tmp", "wb") as file:
        file.write(content)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def _summarize(work: Work, pieces: Iterable[Piece], of_model: Mapping[str, Any]) -> dict[str, Any]:
    """Gathers what the pieces said into `summary.json`.

    Raises:
        BadInput: when a piece could not be read.
    """
    import tensorflow as tf

    total: dict[str, Any] = {**of_model, "rows": 0, "refused": 0, "broken_lines": 0, "shown": []}
    problems: list[Problem] = []
    for piece in pieces:
        path = os.path.join(work.staged, f"_{piece.number:05d}.json")
        with tf.io.gfile.GFile(path) as file:
            told = json.load(file)
        tf.io.gfile.remove(path)
        problems += [Problem(**each) for each in told.get("problems", []) if Problem(**each) not in problems]
        total["rows"] += told.get("rows", 0)
        total["refused"] += told.get("refused", 0)
        total["broken_lines"] += told.get("broken", 0)
        total["shown"] = [*total["shown"], *told.get("shown", [])][:_SHOWN]
    if problems:
        raise BadInput(problems)
    _write(os.path.join(work.staged, SUMMARY), json.dumps(total, indent=1, ensure_ascii=False).encode())
    return total


def _told(summary: Mapping[str, Any], output: str, log: TextIO | None) -> ExitCode:
    import sys

    answered = summary["rows"] - summary["refused"]
    refused = summary["refused"] + summary["broken_lines"]
    line = f"{answered:,} rows answered by version {summary['version']} of {summary['model']}, in {output}"
    print(f"{line}; {refused:,} refused, see {SUMMARY}" if refused else line, file=log or sys.stderr)
    return ExitCode.BAD_INPUT if refused else ExitCode.OK


def _bad(where: str, found: str, expected: str, action: str) -> BadInput:
    return BadInput([Problem(where=where, found=found, expected=expected, action=action)])
