"""What the types of a configuration cannot say: its sections against each other, against the schema and the data."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen import expressions, settings, spans
from evergreen.errors import BadInput, Problem
from pipeline.yaml_file import Place

if TYPE_CHECKING:
    from pipeline.config import Config

Where = Callable[..., str]
"""Names file, line and key of a location, as `yaml_file.Document.where` does."""
_REGRESSION_METRICS = ("rmse", "mae")
_CLASS_METRICS = ("accuracy", "auc", "log_loss")
_OBJECTIVES = {
    settings.Task.REGRESSION: ("loss", "rmse", "mae"),
    settings.Task.BINARY: ("loss", "accuracy", "auc"),
    settings.Task.MULTICLASS: ("loss", "accuracy"),
}
"""What training measures of each task, and a search can be judged by."""


def check(config: Config, where: Where, *, look_for_data: bool = True) -> Iterator[Problem]:
    """Yields what is wrong between the sections, and between them, the schema and the data.

    Args:
        config: of which only the fields in `model_fields_set` are there.
        where: names the place of a key.
        look_for_data: whether the data have to be there.
    """
    sound = config.model_fields_set
    if "label" in sound:
        yield from _check_features(config, where)
    if {"label", "evaluation"} <= sound:
        yield from _check_metrics(config, where)
    if {"label", "tuning"} <= sound:
        yield from _check_objective(config, where)
    yield from _check_functions(config, where)
    if "data" in sound:
        yield from _check_generator(config, where)
        yield from _check_weights(config, where)
        if look_for_data:
            yield from _check_data(config, where)
    yield from _check_custom(config, where)
    yield from _check_schema(config, where)


def _check_features(config: Config, where: Where) -> Iterator[Problem]:
    for name, feature in config.features.items():
        if config.label.column in settings.raw_columns(name, feature):
            yield Problem(
                where=where("features", name),
                found=f"the label {config.label.column!r} as a feature",
                expected="features that are known when the model is asked",
                action="Remove the feature: the model would learn to copy its answer.",
            )
        if "/" in name:
            yield Problem(
                where=where("features", name),
                found=f"the name {name!r}",
                expected="a name without '/', which Keras refuses",
                action="Rename the feature; its raw column may keep the name and stand in `column`.",
            )
    for problem in settings.name_problems(config.features, config.label.column):
        yield dataclasses.replace(problem, where=where(*problem.where.split(".", 1)))


def _check_functions(config: Config, where: Where) -> Iterator[Problem]:
    for name, feature in config.features.items():
        if isinstance(feature, settings.Custom) and not _is_module(feature.function.rpartition(".")[0]):
            yield Problem(
                where=where("features", name, "function"),
                found=f"{feature.function!r}, whose module cannot be imported",
                expected="the dotted path of a function in a module of this project",
                action="Correct the path, for example transform.own.my_function.",
            )


def _check_weights(config: Config, where: Where) -> Iterator[Problem]:
    if config.weights is None or config.weights.half_life_spans is None or config.data.span_column is not None:
        return
    yield Problem(
        where=where("weights", "half_life_spans"),
        found="no data.span_column",
        expected="the name of the column that tells each row's span",
        action="Add `span_column: span` under data, and the column (INT) to the schema where there is one.",
    )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _check_objective(config: Config, where: Where) -> Iterator[Problem]:
    fitting = _OBJECTIVES[config.label.task]
    if config.tuning is not None and config.tuning.objective.metric not in fitting:
        yield Problem(
            where=where("tuning", "objective", "metric"),
            found=config.tuning.objective.metric,
            expected=f"a metric of {config.label.task.value}: {', '.join(fitting)}",
            action="Correct the metric, or label.task.",
        )


def _check_metrics(config: Config, where: Where) -> Iterator[Problem]:
    task = config.label.task
    fitting = _REGRESSION_METRICS if task is settings.Task.REGRESSION else _CLASS_METRICS
    for position, metric in enumerate(config.evaluation.metrics):
        if metric not in fitting:
            yield Problem(
                where=where("evaluation", "metrics", position),
                found=metric,
                expected=f"a metric of {task.value}: {', '.join(fitting)}",
                action="Correct the metric, or label.task.",
            )
    for metric, bound in config.evaluation.bounds.items():
        if metric not in config.evaluation.metrics:
            yield Problem(
                where=where("evaluation", "bounds", metric),
                found="a bound on a metric that is not computed",
                expected=f"one of {', '.join(config.evaluation.metrics)}",
                action="Add it to evaluation.metrics.",
            )
        if bound.min is None and bound.max is None:
            yield Problem(
                where=where("evaluation", "bounds", metric),
                found="neither min nor max",
                expected="at least one of them",
                action="Give the limit, or remove the key.",
            )


def _check_generator(config: Config, where: Where) -> Iterator[Problem]:
    generator = config.data.generator
    if generator is None:
        return
    if not _is_module(generator):
        yield Problem(
            where=where("data", "generator"),
            found=f"{generator!r}, which cannot be imported",
            expected="the dotted path of a module of this project",
            action="Correct the path, for example datagen.humidity.",
        )


def _check_data(config: Config, where: Where) -> Iterator[Problem]:
    """Looks for the files, except where a generator makes them or looking would load TensorFlow."""
    if config.data.generator is not None or "://" in config.data.path:
        return
    try:
        spans.resolve(config.data)
    except BadInput as error:
        at = where("data", "path")
        yield from (dataclasses.replace(problem, where=f"{at}: {problem.where}") for problem in error.problems)


def _check_custom(config: Config, where: Where) -> Iterator[Problem]:
    """Reads the expressions of the data gate's own checks; with a schema, the columns' names and types too."""
    if "validation" not in config.model_fields_set:
        return
    types = None
    if config.schema_path is not None:
        try:
            types = _schema_types(Path(config.schema_path))
        except (OSError, ValueError):
            types = None  # `_check_schema` tells it
    for position, check in enumerate(config.validation.checks):
        for key, kind, text in check.expressions():
            try:
                expressions.parse(text, kind, types=types)
            except expressions.ExpressionError as error:
                yield Problem(
                    where=f"{where('validation', 'checks', position, key)}, position {error.position}",
                    found=error.found,
                    expected=error.expected,
                    action=error.action,
                )


def _check_schema(config: Config, where: Where) -> Iterator[Problem]:
    if config.schema_path is None:
        return
    if not os.path.isfile(config.schema_path):
        yield Problem(
            where=where("schema"),
            found=f"no file {config.schema_path}",
            expected="a schema in text form (schema.pbtxt)",
            action="Correct the path, or remove the key to have the schema inferred.",
        )
        return
    try:
        types = _schema_types(Path(config.schema_path))
    except (OSError, ValueError) as error:
        yield Problem(
            where=config.schema_path,
            found=str(error),
            expected="a tensorflow.metadata.v0.Schema in text form",
            action="Repair the file.",
        )
        return
    yield from _check_columns(config, where, types)


def _schema_types(path: Path) -> dict[str, str]:
    """Returns the type (INT, FLOAT, BYTES) of every column of a schema file.

    Raises:
        ValueError: when the file is not a schema in text form.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    return {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in schema.feature}


def _check_columns(config: Config, where: Where, types: Mapping[str, str]) -> Iterator[Problem]:
    for location, column, wanted in _uses(config):
        if column not in types:
            close = difflib.get_close_matches(column, types, n=1)
            yield Problem(
                where=where(*location),
                found=f"column {column!r}, which the schema {config.schema_path} lacks",
                expected=f"one of {', '.join(sorted(types))}",
                action=f"Did you mean {close[0]!r}?" if close else "Correct the column, or add it to the schema.",
            )
        elif types[column] not in wanted:
            yield Problem(
                where=where(*location),
                found=f"column {column!r} of type {types[column]} in {config.schema_path}",
                expected=f"type {' or '.join(wanted)}",
                action="Choose another kind of feature, or correct the schema.",
            )


def _uses(config: Config) -> Iterator[tuple[Place, str, tuple[str, ...]]]:
    """Yields where the configuration names a raw column, the column, and the types that will do there."""
    numbers, anything = ("INT", "FLOAT"), ("INT", "FLOAT", "BYTES")
    sound = config.model_fields_set
    if "label" in sound:
        label_types = numbers if config.label.task is settings.Task.REGRESSION else ("INT", "BYTES")
        yield ("label", "column"), config.label.column, label_types
    for name, feature in config.features.items():
        for use in settings.uses(name, feature):
            yield ("features", name, *use.location), use.column, use.types
    if config.weights is not None and config.weights.column is not None:
        yield ("weights", "column"), config.weights.column, numbers
    by_recency = config.weights is not None and config.weights.half_life_spans is not None
    if by_recency and "data" in sound and config.data.span_column is not None:
        yield ("data", "span_column"), config.data.span_column, ("INT",)
    if "data" in sound:
        yield from ((("data", *location), column, anything) for location, column in _of_rows(config.data))
    for position, columns in enumerate(config.evaluation.slices if "evaluation" in sound else ()):
        for place, column in enumerate(columns):
            yield ("evaluation", "slices", position, place), column, anything


def _of_rows(data: settings.Data) -> Iterator[tuple[Place, str]]:
    """Yields the columns that decide whether a row is read, and into which split it goes."""
    yield from ((("required", position), column) for position, column in enumerate(data.required))
    if isinstance(data.split_by, settings.SplitByKey):
        yield from ((("split_by", "columns", place), column) for place, column in enumerate(data.split_by.columns))
    elif isinstance(data.split_by, settings.SplitByTime):
        yield ("split_by", "time"), data.split_by.time
