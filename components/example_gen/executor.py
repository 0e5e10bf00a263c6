"""The work of ExampleGen: spans of files to splits of tf.Examples, or one error with everything that is wrong.

Guarantees: every line of the input is a row of one split or a line of the quarantine, where rows without a label go
too; the same rows with the same
values fall into the same splits, whatever the order of columns, files or lines and whatever the format; a file that
changes while it is read is an error; after an error no split is left behind.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.options import pipeline_options
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.example_gen import columns as column_types
from components.example_gen import inspection, pieces, plain, reading, splits, summary
from components.example_gen.inspection import Column, Inspected, Unreadable
from components.example_gen.pieces import Converter, Piece, Plan, UnitResult
from components.example_gen.table import ColumnType
from evergreen import progress, settings, spans
from evergreen.errors import BadInput, Problem

DATA_KEY = "data"
SCHEMA_PATH_KEY = "schema_path"
SCHEMA_FINGERPRINT_KEY = "schema_fingerprint"
SPANS_KEY = "spans"
INPUT_FINGERPRINT_KEY = "input_fingerprint"
LABEL_KEY = "label"
EXAMPLES_KEY = "examples"
_INSPECTED_AT_ONCE = 8
_LINES_SHOWN = 3


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads the chosen spans and writes the splits."""

    def Do(  # noqa: N802 TFX's name
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs the node.

        Args:
            input_dict: nothing.
            output_dict: `examples`, one `Examples` artifact. Beside the splits it gets `summary.json` (spans, files and
                their rows, rows of each split) and, where there were bad lines, `quarantine/*.jsonl`.
            exec_properties: `data` (a JSON of `settings.Data`) and, optionally, `schema_path`, `spans`,
                `input_fingerprint` and `label`, the column without which rows go to quarantine.

        Raises:
            BadInput: with the problems of all files.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        data = settings.Data.model_validate_json(exec_properties[DATA_KEY])
        schema_path = exec_properties.get(SCHEMA_PATH_KEY)
        known = _delivered(column_types.from_schema(schema_path), data) if schema_path else None
        if data.format == "csv" and not data.csv.header and known is None:
            raise BadInput([_no_names()])
        selection = spans.resolve(data, spans=exec_properties.get(SPANS_KEY) or None)
        _refuse_if_changed(selection, data, exec_properties.get(INPUT_FINGERPRINT_KEY))
        progress.report(f"{len(selection.files)} files")
        try:
            told = self._convert(artifact.uri, data, known, selection, exec_properties.get(LABEL_KEY) or None)
        except BaseException:
            _remove_splits(artifact.uri, data)
            raise
        _describe(artifact, data, selection)
        _write_json(f"{artifact.uri}/{summary.FILE}", told)
        quarantined = f", {told['quarantined']:,} in quarantine" if told["quarantined"] else ""
        progress.report(f"{sum(told['rows'].values()):,} rows{quarantined}")

    def _convert(
        self,
        uri: str,
        data: settings.Data,
        known: Mapping[str, Column] | None,
        selection: spans.Selection,
        label: str | None,
    ) -> dict[str, Any]:
        """Writes the splits and returns the summary."""
        files, problems = _inspect(selection, data, known)
        taken = [file.file.path for file in files if data.span_column in file.header]
        if taken:
            problems.append(_span_column_taken(data, taken))
        if not files or taken:
            raise BadInput(problems)
        columns = known if known is not None else column_types.infer(files, data)
        if lacking := list(_columns_lacking(data, columns, label)):
            raise BadInput([*problems, *lacking])
        span_of = {file.path: span.number for span in selection.spans for file in span.files}
        work = f"{uri}/{pieces.RESULTS}"
        if tf.io.gfile.exists(work):
            tf.io.gfile.rmtree(work)
        if self._has_workers():
            files = plain.with_plain(files, data, folder=f"{work}/plain", make_pipeline=self._make_beam_pipeline)
        dealt = pieces.deal(files, data, span_of=span_of)
        plan = Plan(
            uri=uri,
            data=data,
            types=column_types.types_of(columns),
            columns=_written_columns(files, data, columns),
            pieces=len(dealt),
            shards_per_piece=-(-data.shards // len(dealt)),
            cutoffs=_cutoffs(files, data, columns, span_of),
            span_of=span_of if data.span_column else {},
            label=label,
        )
        # Good files are read even if others are bad: what is wrong further down in them belongs into the same error.
        self._run(plan, dealt)
        rows, results = _results(plan)
        by_file = _by_file(results)
        for file in files:
            problems += _file_problems(by_file[file.file.path], data, columns)
        problems += [_changed(file) for file in selection.files if not spans.unchanged(file)]
        problems += _label_problems(selection, by_file, data, label)
        if not problems:
            problems += _split_problems(rows)
        if problems:
            raise BadInput(problems)
        tf.io.gfile.rmtree(work)
        told = _summary(selection, by_file, rows, _shards_of_spans(plan, dealt, span_of))
        return told | {summary.COLUMNS: _types_written(plan)}

    def _has_workers(self) -> bool:
        """Tells whether the Beam runner works with more than this process."""
        options = pipeline_options.PipelineOptions(self._beam_pipeline_args)
        mode = options.view_as(pipeline_options.DirectOptions).direct_running_mode
        local = options.view_as(pipeline_options.StandardOptions).runner in (None, "DirectRunner")
        return not local or mode != "in_memory"

    def _run(self, plan: Plan, dealt: Sequence[Piece]) -> None:
        with self._make_beam_pipeline() as pipeline:
            # pylint: disable=expression-not-assigned
            (
                pipeline
                | "Pieces" >> beam.Create(list(dealt), reshuffle=True)
                | "Convert" >> beam.ParDo(_ConvertPiece(plan))
            )


class _ConvertPiece(beam.DoFn):
    """Converts one piece a call; what it returns and what is wrong lies in files, so that a retry changes nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rows = 0

    def setup(self) -> None:
        self._converter = Converter(self._plan)

    def process(self, element: Piece) -> Iterable[None]:
        results = self._converter.convert(element)
        rows = sum(result.rows for result in results)
        logging.getLogger(__name__).info("Piece %d of %d: %d rows.", element.index, self._plan.pieces, rows)
        self._rows += rows
        progress.report(f"{self._rows:,} rows")
        return ()


def _delivered(known: Mapping[str, Column], data: settings.Data) -> Mapping[str, Column]:
    """Leaves out the column that no file has, for it is made here."""
    return {name: column for name, column in known.items() if name != data.span_column}


def _span_column_taken(data: settings.Data, paths: Sequence[str]) -> Problem:
    others = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    return Problem(
        where=f"{paths[0]}{others}",
        found=f"a column {data.span_column!r}",
        expected="no column of that name, for data.span_column is made of the spans' numbers",
        action="Choose another name for data.span_column.",
    )


# --- before ----------------------------------------------------------------------------------------------------------


def _no_names() -> Problem:
    return Problem(
        where="data.csv.header",
        found="false, and no schema",
        expected="a schema, whose features name the columns in their order",
        action="Set schema_path in the configuration, or write the files with a header and set it to true.",
    )


def _columns_lacking(data: settings.Data, columns: Mapping[str, Column], label: str | None) -> Iterator[Problem]:
    """Yields what the settings ask of columns that are not there, or that should not be."""
    by = data.split_by
    asked = [] if label is None else [("label.column", label)]
    asked += [("data.required", name) for name in data.required]
    asked += [("data.split_by.columns", name) for name in by.columns] if isinstance(by, settings.SplitByKey) else []
    asked += [("data.split_by.time", by.time)] if isinstance(by, settings.SplitByTime) else []
    for where, name in asked:
        if name not in columns:
            yield Problem(
                where=where,
                found=f"column {name!r}, which there is not",
                expected=f"one of {', '.join(columns)}",
                action="Correct the name.",
            )


def _written_columns(files: Sequence[Inspected], data: settings.Data, columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Returns the columns that the examples get: those that a file has; records are read for all that are known."""
    delivered = {name for file in files for name in file.header}
    return tuple(name for name in columns if data.format == "tfrecord" or name in delivered)


def _cutoffs(
    files: Sequence[Inspected], data: settings.Data, columns: Mapping[str, Column], span_of: Mapping[str, int]
) -> dict[int, list[float]]:
    """Finds at which moments the splits of each span begin, if it is moments that decide."""
    by = data.split_by
    if not isinstance(by, settings.SplitByTime):
        return {}
    given = splits.given_cutoffs(data, columns[by.time].type)
    if given is not None:
        return dict.fromkeys(span_of.values(), given)
    types = column_types.types_of(columns)
    of_span: dict[int, list[splits.Moments]] = {}
    for file in files:
        found = of_span.setdefault(span_of[file.file.path], [])
        for unit, _ in pieces.units(file, data):
            try:
                found += [splits.moments(block.rows, by) for block in reading.read(unit, data, types)]
            except Unreadable:
                # Whoever converts the file meets it again and says so.
                break
    return {span: splits.cutoffs_of(np.concatenate([*found, []]), data) for span, found in of_span.items()}


def _changed(file: spans.DataFile) -> Problem:
    return Problem(
        where=file.path,
        found=f"another size or modification time than before it was read ({file.size:,} bytes then)",
        expected="a file whose writing has ended",
        action="Write files under another name (*.tmp) and rename them when they are whole; then run again.",
    )


def _refuse_if_changed(selection: spans.Selection, data: settings.Data, expected: str | None) -> None:
    """Stops where the files are not those that the run was planned with.

    The cache goes by the fingerprint of the plan: other data under it would be served to every later run.
    """
    if not expected or expected == selection.fingerprint:
        return
    newest = max(selection.files, key=lambda file: file.modified)
    raise BadInput(
        [
            Problem(
                where=data.path,
                found=f"files that changed between the planning of the run and their reading; the last to change was "
                f"{newest.path}, now {newest.size:,} bytes",
                expected="files whose writing has ended",
                action="Write files under another name (*.tmp) and rename them when they are whole; then run again.",
            )
        ]
    )


def _inspect(
    selection: spans.Selection, data: settings.Data, known: Mapping[str, Column] | None
) -> tuple[list[Inspected], list[Problem]]:
    """Looks at the beginning of all files; returns the ones that can be read on and the problems of the others."""
    with concurrent.futures.ThreadPoolExecutor(_INSPECTED_AT_ONCE) as pool:
        inspected = list(pool.map(lambda file: reading.inspect(file, data, known), selection.files))
    problems = [problem for file in inspected for problem in file.problems]
    readable = [file for file in inspected if not file.problems]
    if known is not None or not readable:
        return readable, problems
    odd = inspection.odd_ones(readable, may_lack=data.format == "tfrecord")
    problems += [problem for of_file in odd.values() for problem in of_file]
    return [file for file in readable if file.file.path not in odd], problems


# --- after -----------------------------------------------------------------------------------------------------------


def _results(plan: Plan) -> tuple[dict[str, int], list[UnitResult]]:
    """Reads what the pieces left: rows of each split, and what became of each unit."""
    rows: Counter[str] = Counter(dict.fromkeys(plan.data.splits, 0))
    results = []
    for index in range(plan.pieces):
        with tf.io.gfile.GFile(f"{plan.uri}/{pieces.RESULTS}/{index:05d}.json", "r") as file:
            piece = json.load(file)
        rows.update(piece["rows"])
        results += [UnitResult(**unit) for unit in piece["units"]]
    return dict(rows), results


def _by_file(results: Sequence[UnitResult]) -> dict[str, UnitResult]:
    """Adds up the ranges of each file."""
    files: dict[str, UnitResult] = {}
    for unit in results:
        if unit.path not in files:
            files[unit.path] = unit
            continue
        file = files[unit.path]
        file.rows += unit.rows
        file.quarantined += unit.quarantined
        file.unlabelled += unit.unlabelled
        file.unlabelled_lines = file.unlabelled_lines or unit.unlabelled_lines
        file.values = dict(Counter(file.values) + Counter(unit.values))
        file.unusable = dict(Counter(file.unusable) + Counter(unit.unusable))
        file.examples += unit.examples
        file.problem = file.problem or unit.problem
    return files


def _file_problems(file: UnitResult, data: settings.Data, columns: Mapping[str, Column]) -> Iterator[Problem]:
    if problem := pieces.problem_of(file):
        yield problem
        return
    lines = file.rows + file.quarantined
    unusable = [name for name, count in sorted(file.unusable.items()) if count > lines / 2]
    for name in unusable:
        yield _column_of_text(file, name, columns[name], data)
    if file.quarantined - file.unlabelled > data.max_malformed_share * lines and not unusable:
        yield _too_many_bad_lines(file, data)
    for name, column in columns.items():
        if column.required and file.rows and not file.values.get(name):
            yield Problem(
                where=f"{file.path}, column {name!r}",
                found=f"no value in any of {file.rows:,} rows",
                expected="values, for the schema requires them",
                action="Deliver the file again with this column, or change its presence in the schema.",
            )


def _column_of_text(file: UnitResult, name: str, column: Column, data: settings.Data) -> Problem:
    lines = file.rows + file.quarantined
    example = next((entry for entry in file.examples if f"column {name}:" in entry["reason"]), None)
    shown = f" ({reading.NOUNS[data.format]} {example['line']}: {example['reason']})" if example else ""
    return Problem(
        where=f"{file.path}, column {name!r}",
        found=f"{file.unusable[name]:,} of {lines:,} values that are not {column.type.words}{shown}",
        expected=f"{column.type.words} in every row",
        action="Repair the column in the file, or change its type in the schema.",
    )


def _too_many_bad_lines(file: UnitResult, data: settings.Data) -> Problem:
    lines = file.rows + file.quarantined
    malformed = file.quarantined - file.unlabelled
    noun = reading.NOUNS[data.format]
    shown = "; ".join(
        f"{noun} {entry['line']}: {entry['reason']}: {entry['text'][:60]!r}" for entry in file.examples[:_LINES_SHOWN]
    )
    return Problem(
        where=file.path,
        found=f"{malformed:,} of {lines:,} {noun}s malformed ({malformed / lines:.2%}): {shown}",
        expected=f"at most {data.max_malformed_share:.2%} (data.max_malformed_share)",
        action=f"Repair the file, or raise data.max_malformed_share to leave these {noun}s out.",
    )


def _label_problems(
    selection: spans.Selection, by_file: Mapping[str, UnitResult], data: settings.Data, label: str | None
) -> Iterator[Problem]:
    """Yields the spans of which too many rows have no label; those of a span that came too early have none."""
    for span in selection.spans:
        files = [by_file[file.path] for file in span.files if file.path in by_file]
        rows = sum(file.rows + file.quarantined for file in files)
        count = sum(file.unlabelled for file in files)
        if not count or count <= data.max_unlabelled_share * rows:
            continue
        first = next(file for file in files if file.unlabelled)
        noun = reading.NOUNS[data.format]
        yield Problem(
            where=f"span {spans.name_of(span.number, pattern=data.path)}, column {label!r}",
            found=f"{count:,} of {rows:,} rows without a label ({count / rows:.2%}), the first of them {first.path}, "
            f"{noun} {first.unlabelled_lines[0]:,}",
            expected=f"at most {data.max_unlabelled_share:.2%} of a span's rows (data.max_unlabelled_share)",
            action="Deliver the span again when its labels have come, train on others (--spans), or raise "
            "data.max_unlabelled_share to leave these rows out.",
        )


def _split_problems(rows: Mapping[str, int]) -> Iterator[Problem]:
    for name, count in rows.items():
        if not count:
            yield Problem(
                where=f"data.splits.{name}",
                found=f"no row in this split, of {sum(rows.values()):,} rows in all",
                expected="at least one row in every split",
                action="Bring more rows (a larger data.window), or give the split a larger share.",
            )


def _types_written(plan: Plan) -> dict[str, str]:
    """Returns the types of all columns that the examples have, in the schema's words."""
    types = {name: plan.types[name].value for name in plan.columns}
    return types if plan.data.span_column is None else types | {plan.data.span_column: ColumnType.INT.value}


def _shards_of_spans(plan: Plan, dealt: Sequence[Piece], span_of: Mapping[str, int]) -> dict[int, list[int]]:
    """Returns the numbers of the shards that hold rows of each span and of no other."""
    shards: dict[int, list[int]] = {}
    mixed: set[int] = set()
    for piece in dealt:
        held = {span_of[unit.path] for unit in piece.units}
        mixed |= held if len(held) > 1 else set()
        first = piece.index * plan.shards_per_piece
        shards.setdefault(min(held), []).extend(range(first, first + plan.shards_per_piece))
    return {span: numbers for span, numbers in shards.items() if span not in mixed}


def _summary(
    selection: spans.Selection,
    by_file: Mapping[str, UnitResult],
    rows: Mapping[str, int],
    shards: Mapping[int, Sequence[int]],
) -> dict[str, Any]:
    return {
        "spans": [
            {
                "span": span.number,
                "version": span.version,
                "shards": list(shards.get(span.number, ())),
                "files": [
                    {
                        "path": file.path,
                        "size": file.size,
                        "rows": by_file[file.path].rows,
                        "quarantined": by_file[file.path].quarantined,
                        "unlabelled": by_file[file.path].unlabelled,
                    }
                    for file in span.files
                ],
            }
            for span in selection.spans
        ],
        "rows": dict(rows),
        "quarantined": sum(file.quarantined for file in by_file.values()),
        "unlabelled": sum(file.unlabelled for file in by_file.values()),
        "fingerprint": selection.fingerprint,
    }


def _describe(artifact: Any, data: settings.Data, selection: spans.Selection) -> None:
    artifact.split_names = artifact_utils.encode_split_names(list(data.splits))
    artifact.span = selection.newest.number
    artifact.version = selection.newest.version
    examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
    # TFX's only name for TFRecord; readers go by the files' ending.
    examples_utils.set_file_format(artifact, "tfrecords_gzip")
    artifact.set_string_custom_property(INPUT_FINGERPRINT_KEY, selection.fingerprint)


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    temporary = f"{path}.tmp"
    with tf.io.gfile.GFile(temporary, "w") as file:
        file.write(json.dumps(content, indent=1))
    tf.io.gfile.rename(temporary, path, overwrite=True)


def _remove_splits(uri: str, data: settings.Data) -> None:
    for name in (*(f"Split-{split}" for split in data.splits), pieces.RESULTS):
        folder = f"{uri}/{name}"
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rmtree(folder)
