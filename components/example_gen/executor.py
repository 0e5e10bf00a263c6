"""The work of ExampleGen: spans of files to splits of tf.Examples, or one error with everything that is wrong.

Guarantees: every line of the input is a row of one split or a line of the quarantine; the same rows with the same
values fall into the same splits, whatever the order of columns, files or lines; after an error no split is left behind.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.example_gen import columns as column_types
from components.example_gen import inspection, pieces, source
from components.example_gen.inspection import Column, Inspected
from components.example_gen.pieces import Converter, Piece, Plan, UnitResult
from evergreen import progress, settings, spans
from evergreen.errors import BadInput, Problem

DATA_KEY = "data"
SCHEMA_PATH_KEY = "schema_path"
SCHEMA_FINGERPRINT_KEY = "schema_fingerprint"
SPANS_KEY = "spans"
INPUT_FINGERPRINT_KEY = "input_fingerprint"
EXAMPLES_KEY = "examples"
SUMMARY_FILE = "summary.json"
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
            exec_properties: `data` (a JSON of `settings.Data`) and, optionally, `schema_path`, `spans` and
                `input_fingerprint`.

        Raises:
            BadInput: with the problems of all files.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        data = settings.Data.model_validate_json(exec_properties[DATA_KEY])
        _check_format(data.csv)
        schema_path = exec_properties.get(SCHEMA_PATH_KEY)
        known = column_types.from_schema(schema_path) if schema_path else None
        selection = spans.resolve(data, spans=exec_properties.get(SPANS_KEY) or None)
        _tell_if_changed(selection, exec_properties.get(INPUT_FINGERPRINT_KEY))
        progress.report(f"{len(selection.files)} files")
        try:
            summary = self._convert(artifact.uri, data, known, selection)
        except BaseException:
            _remove_splits(artifact.uri, data)
            raise
        _describe(artifact, data, selection)
        _write_json(f"{artifact.uri}/{SUMMARY_FILE}", summary)
        quarantined = f", {summary['quarantined']:,} in quarantine" if summary["quarantined"] else ""
        progress.report(f"{sum(summary['rows'].values()):,} rows{quarantined}")

    def _convert(
        self, uri: str, data: settings.Data, known: Mapping[str, Column] | None, selection: spans.Selection
    ) -> dict[str, Any]:
        """Writes the splits and returns the summary."""
        files, problems = _inspect(selection, data, known)
        if not files:
            raise BadInput(problems)
        columns = known if known is not None else column_types.infer(files, data)
        span_of = {file.path: span.number for span in selection.spans for file in span.files}
        dealt = pieces.deal(files, data, span_of=span_of)
        plan = Plan(
            uri=uri,
            data=data,
            types=column_types.types_of(columns),
            pieces=len(dealt),
            shards_per_piece=-(-data.shards // len(dealt)),
        )
        # Good files are read even if others are bad: what is wrong further down in them belongs into the same error.
        self._run(plan, dealt)
        rows, results = _results(plan)
        by_file = _by_file(results)
        for file in files:
            problems += _file_problems(by_file[file.file.path], data, columns)
        if not problems:
            problems += _split_problems(rows)
        if problems:
            raise BadInput(problems)
        tf.io.gfile.rmtree(f"{uri}/{pieces.RESULTS}")
        return _summary(selection, by_file, rows, _shards_of_spans(plan, dealt, span_of))

    def _run(self, plan: Plan, dealt: Sequence[Piece]) -> None:
        results = f"{plan.uri}/{pieces.RESULTS}"
        if tf.io.gfile.exists(results):
            tf.io.gfile.rmtree(results)
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
        self._rows += sum(result.rows for result in results)
        progress.report(f"{self._rows:,} rows")
        return ()


# --- before ----------------------------------------------------------------------------------------------------------


def _check_format(csv_format: settings.CsvFormat) -> None:
    problems = [
        Problem(
            where=f"data.csv.{name}",
            found=repr(character),
            expected="an ASCII character that is no line end",
            action="Write the files with another one.",
        )
        for name, character in (("delimiter", csv_format.delimiter), ("quote", csv_format.quote))
        if not character.isascii() or character in "\r\n\0"
    ]
    try:
        source.is_utf8(csv_format.encoding)
    except LookupError:
        problems.append(
            Problem(
                where="data.csv.encoding",
                found=repr(csv_format.encoding),
                expected="an encoding that Python knows, such as utf-8, cp1252 or utf-16",
                action="Correct the name.",
            )
        )
    if problems:
        raise BadInput(problems)


def _tell_if_changed(selection: spans.Selection, expected: str | None) -> None:
    if expected and expected != selection.fingerprint:
        logging.getLogger(__name__).warning(
            "The files changed since the run was planned (%s, now %s); what is there now is read.",
            expected,
            selection.fingerprint,
        )


def _inspect(
    selection: spans.Selection, data: settings.Data, known: Mapping[str, Column] | None
) -> tuple[list[Inspected], list[Problem]]:
    """Looks at the beginning of all files; returns the ones that can be read on and the problems of the others."""
    with concurrent.futures.ThreadPoolExecutor(_INSPECTED_AT_ONCE) as pool:
        inspected = list(pool.map(lambda file: inspection.inspect(file, data, known), selection.files))
    problems = [problem for file in inspected for problem in file.problems]
    readable = [file for file in inspected if not file.problems]
    if known is not None or not readable:
        return readable, problems
    # Without a schema, what most files have is right.
    sets = Counter(frozenset(file.header) for file in readable)
    majority = sets.most_common(1)[0][0]
    reference = next(file for file in readable if frozenset(file.header) == majority)
    same = [file for file in readable if frozenset(file.header) == majority]
    for file in readable:
        if frozenset(file.header) != majority:
            problems += inspection.columns_differ(file, reference.header, reference.file.path)
    return same, problems


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
        yield _column_of_text(file, name, columns[name])
    if file.quarantined > data.max_malformed_share * lines and not unusable:
        yield _too_many_bad_lines(file, data)
    for name, column in columns.items():
        if column.required and file.rows and not file.values.get(name):
            yield Problem(
                where=f"{file.path}, column {name!r}",
                found=f"no value in any of {file.rows:,} rows",
                expected="values, for the schema requires them",
                action="Deliver the file again with this column, or change its presence in the schema.",
            )


def _column_of_text(file: UnitResult, name: str, column: Column) -> Problem:
    lines = file.rows + file.quarantined
    example = next((entry for entry in file.examples if f"column {name}:" in entry["reason"]), None)
    shown = f" (line {example['line']}: {example['reason']})" if example else ""
    return Problem(
        where=f"{file.path}, column {name!r}",
        found=f"{file.unusable[name]:,} of {lines:,} values that are not {column.type.words}{shown}",
        expected=f"{column.type.words} in every row",
        action="Repair the column in the file, or change its type in the schema.",
    )


def _too_many_bad_lines(file: UnitResult, data: settings.Data) -> Problem:
    lines = file.rows + file.quarantined
    shown = "; ".join(
        f"line {entry['line']}: {entry['reason']}: {entry['text'][:60]!r}" for entry in file.examples[:_LINES_SHOWN]
    )
    return Problem(
        where=file.path,
        found=f"{file.quarantined:,} of {lines:,} lines malformed ({file.quarantined / lines:.2%}): {shown}",
        expected=f"at most {data.max_malformed_share:.2%} (data.max_malformed_share)",
        action="Repair the file, or raise data.max_malformed_share to leave these lines out.",
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
                    }
                    for file in span.files
                ],
            }
            for span in selection.spans
        ],
        "rows": dict(rows),
        "quarantined": sum(file.quarantined for file in by_file.values()),
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
