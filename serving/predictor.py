"""Asks a published model for predictions of raw rows: every problem of a bad row is told, the others go on.

    predictor = Predictor.from_registry(Registry("runs/registry", "humidity"))
    for answer in predictor.predict([{"beta1": 1.5, "beta2": -0.5, "weekday": 2, "hour": 19}]):
        print(answer.outputs or answer.problems)

TensorFlow is imported by the first model that is loaded, not by this module.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from evergreen import settings, signatures
from evergreen.errors import BadInput, ExitCode, Problem
from evergreen.registry import Manifest, Registry
from serving.columns import Column, Kind, column_of
from serving.rows import Format, Line, Source, read_rows

SIGNATURE = "raw"
"""The SavedModel's signature of named raw columns."""
SCHEMA_FILE = "schema.pbtxt"
BATCH_SIZE = 1024

Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model says of a row, or why it was not asked."""

    outputs: Mapping[str, Any] | None = None
    """`prediction`, and for a classifier `probability` or `probabilities`, as Python values."""
    problems: Sequence[Problem] = ()
    """Everything that is wrong with the row."""


class Predictor:
    """A loaded model with what its schema says of the columns; `predict` may be called any number of times."""

    def __init__(
        self, ask: Callable[[Arrays], Mapping[str, npt.NDArray[Any]]], columns: Sequence[Column], ignored: Iterable[str]
    ) -> None:
        """Puts a predictor together; `load` and `from_registry` are how to get one.

        Args:
            ask: the model: raw columns by name, shape [rows] (or [rows, n], of several values a row), to outputs, shape
                [rows] or [rows, n].
            columns: the columns that the model reads.
            ignored: further columns that a row may have, the label among them.
        """
        self._ask = ask
        self._columns = tuple(columns)
        self._known = frozenset(column.name for column in columns) | frozenset(ignored)

    @classmethod
    def load(cls, model_dir: str | os.PathLike[str], *, bundle_dir: str | os.PathLike[str]) -> Predictor:
        """Loads a SavedModel.

        Args:
            model_dir: the SavedModel.
            bundle_dir: the folder with the `schema.pbtxt` of its raw columns.

        Raises:
            BadInput: when the model has no signature of raw columns, or the schema cannot be read.
        """
        import tensorflow as tf

        schema = _schema(os.path.join(bundle_dir, SCHEMA_FILE))
        model = tf.saved_model.load(os.fspath(model_dir))
        if SIGNATURE not in model.signatures:
            found = f"the signatures {', '.join(sorted(model.signatures)) or '(none)'}"
            raise _bad(os.fspath(model_dir), found, f"a signature {SIGNATURE!r}", "Publish the model again.")
        signature = model.signatures[SIGNATURE]
        kinds = {tf.float32: Kind.NUMBER, tf.int64: Kind.INTEGER, tf.string: Kind.TEXT}
        features = {feature.name: feature for feature in schema.feature}
        inputs = signature.structured_input_signature[1]
        asked = signatures.read_inputs(os.fspath(model_dir)) or {name: name for name in inputs}
        columns = [
            column_of(
                column,
                kinds[inputs[name].dtype],
                features.get(column),
                schema.string_domain,
                several=inputs[name].shape.rank == 2,
            )
            for column, name in sorted(asked.items())
        ]

        def ask(arrays: Arrays) -> Mapping[str, npt.NDArray[Any]]:
            named = {asked[column]: tf.constant(array) for column, array in arrays.items()}
            # Asked for by the model each time: a signature alone does not keep the model's variables alive.
            outputs = model.signatures[SIGNATURE](**named)
            return {name: tensor.numpy() for name, tensor in outputs.items()}

        return cls(ask, columns, features)

    @classmethod
    def from_registry(cls, registry: Registry, version: int | None = None) -> Predictor:
        """Loads a published version: the one that serves, or `version`.

        Raises:
            BadInput: when it is not there.
        """
        manifest = manifest_of(registry, version)
        return cls.load(registry.model_dir(manifest.version), bundle_dir=registry.bundle_dir(manifest.version))

    @property
    def columns(self) -> Sequence[Column]:
        """The raw columns that the model reads, by name."""
        return self._columns

    def ask(self, tensors: Arrays) -> Mapping[str, npt.NDArray[Any]]:
        """Asks the model for a whole batch as it is.

        Args:
            tensors: every one of `columns` by name, as `Column.encode` gives it.

        Returns:
            The outputs by name, shape [rows] or [rows, n].
        """
        return self._ask(tensors)

    def predict(self, rows: Iterable[Mapping[str, object]], *, batch_size: int = BATCH_SIZE) -> Iterator[Answer]:
        """Answers each row, in order.

        Args:
            rows: raw columns by name; a column that is missing, null, or "" where a text belongs has no value, and one
                of which the model reads several values may hold a list. The label and other columns of the schema that
                the model does not read are ignored.
            batch_size: rows that go through the model at once.

        Yields:
            One answer a row.
        """
        waiting = iter(rows)
        while batch := list(itertools.islice(waiting, batch_size)):
            yield from self._answers(batch)

    def _answers(self, rows: Sequence[Mapping[str, object]]) -> list[Answer]:
        problems = [self._unknown(row) for row in rows]
        arrays: Arrays = {}
        for column in self._columns:
            arrays[column.name], refused = column.encode([row.get(column.name) for row in rows])
            for index, problem in refused.items():
                problems[index].append(problem)
        good = [index for index, found in enumerate(problems) if not found]
        answers = [Answer(problems=tuple(found)) for found in problems]
        if not good:
            return answers
        if len(good) < len(rows):
            arrays = {name: array[good] for name, array in arrays.items()}
        for index, answer in zip(good, _spelled_out(self._ask(arrays), len(good)), strict=True):
            answers[index] = answer
        return answers

    def _unknown(self, row: Mapping[str, object]) -> list[Problem]:
        """Returns a problem for each column that neither the model nor the schema knows."""
        if row.keys() <= self._known:
            return []
        names = ", ".join(column.name for column in self._columns)
        return [
            Problem(
                where=f"column {name!r}",
                found="a column that the schema does not know",
                expected=f"the columns {names}",
                action="Correct its name, or leave it out.",
            )
            for name in sorted(map(str, row.keys() - self._known))
        ]


def run_predict(
    *,
    registry: str | os.PathLike[str],
    name: str,
    version: int | None = None,
    source: Source | None = None,
    format: Format | None = None,
    out: TextIO,
    log: TextIO | None = None,
) -> ExitCode:
    """Answers each line of a file with one JSON object a line, in the input's order.

    An answer is ``{"line": 1, "prediction": 21.5}`` (for a classifier with its probabilities too), or
    ``{"line": 2, "error": [{"where", "found", "expected", "action"}, ...]}``.

    Args:
        registry: the root of the model registry.
        name: the model in it.
        version: which one; the one that serves where it is left out.
        source: path or open file; standard input where it is left out.
        format: how the rows are written; found out where it is left out.
        out: where the answers go.
        log: where the closing summary goes; standard error where it is left out.

    Returns:
        `ExitCode.OK`, or `ExitCode.BAD_INPUT` when a line was refused.

    Raises:
        BadInput: when there is no such version, or the file as a whole cannot be read.
    """
    models = Registry(registry, name)
    manifest = manifest_of(models, version)
    csv = csv_of(manifest)
    rows_of = sys.stdin.buffer if source is None else source
    lines = read_rows(
        rows_of, format=format, delimiter=csv.delimiter, quote=csv.quote, decimal=csv.decimal, missing=csv.missing
    )
    # Read before the model is loaded, so that a file that cannot be used is told at once.
    lines = itertools.chain(list(itertools.islice(lines, 1)), lines)
    predictor = Predictor.from_registry(models, manifest.version)
    refused = total = 0
    while batch := list(itertools.islice(lines, BATCH_SIZE)):
        for line, answer in zip(batch, _answered(predictor, batch), strict=True):
            total += 1
            refused += bool(answer.problems)
            out.write(_as_json(line, answer))
    summary = f"{total - refused:,} of {total:,} rows answered by version {manifest.version} of {name}"
    print(f"{summary}; {refused:,} refused" if refused else summary, file=log or sys.stderr)
    return ExitCode.BAD_INPUT if refused else ExitCode.OK


def _answered(predictor: Predictor, lines: Sequence[Line]) -> Iterator[Answer]:
    """Yields an answer a line; those that are no row are not shown to the model."""
    answers = predictor.predict(line.row for line in lines if line.row is not None)
    for line in lines:
        yield next(answers) if line.problem is None else Answer(problems=(line.problem,))


def _as_json(line: Line, answer: Answer) -> str:
    said = answer.outputs or {"error": [dataclasses.asdict(problem) for problem in answer.problems]}
    return json.dumps({"line": line.number, **said}, ensure_ascii=False, allow_nan=False) + "\n"


def _spelled_out(outputs: Mapping[str, npt.NDArray[Any]], rows: int) -> list[Answer]:
    """Turns the model's outputs, shape [rows] or [rows, n], into answers of Python values."""
    finite = np.ones(rows, dtype=bool)
    for array in outputs.values():
        if np.issubdtype(array.dtype, np.floating):
            finite &= np.isfinite(array.reshape(rows, -1)).all(axis=1)
    columns = {name: [_plain(value) for value in array.tolist()] for name, array in outputs.items()}
    return [
        Answer(outputs={name: values[row] for name, values in columns.items()})
        if finite[row]
        else Answer(problems=(_not_finite(),))
        for row in range(rows)
    ]


def _plain(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _not_finite() -> Problem:
    return Problem(
        where="the model",
        found="an answer that is not a finite number",
        expected="a prediction",
        action="Look whether the row's values are like those of training; the model does not cover them.",
    )


def manifest_of(registry: Registry, version: int | None) -> Manifest:
    """Returns the manifest of a version, or of the one that serves.

    Raises:
        BadInput: when it is not there.
    """
    chosen = registry.serving() if version is None else version
    if chosen is None:
        raise _bad(
            f"the registry {registry.folder}",
            "no published model",
            "one that serves",
            "Run the pipeline first: python local_runner.py",
        )
    return registry.manifest(chosen)


def csv_of(manifest: Manifest) -> settings.CsvFormat:
    """Returns how the CSV files that the model was trained on are written; those with questions are, too."""
    return settings.CsvFormat.model_validate(manifest.config.get("data", {}).get("csv", {}))


def _schema(path: str) -> Any:
    from google.protobuf import text_format
    from tensorflow.io import gfile
    from tensorflow_metadata.proto.v0 import schema_pb2

    if not gfile.exists(path):
        raise _bad(path, "no file", "the schema of the model's raw columns", "Publish the model again.")
    with gfile.GFile(path) as file:
        text = file.read()
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise _bad(path, str(error), "a schema as text", "Restore the file from a backup.") from error


def _bad(where: str, found: str, expected: str, action: str) -> BadInput:
    return BadInput([Problem(where=where, found=found, expected=expected, action=action)])
