"""The configuration: one typed object out of YAML, every mistake told at once with file, line and key.

    config = load_config(Path("configs/humidity.yaml"))
    environment = load_environment(Path("configs/environments/local.yaml"))

Nothing here imports TensorFlow or TFX, so that a mistake shows in well under a second. Relative paths in the files
are relative to the folder that the runner works in, the project's root.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import yaml

from evergreen import expressions, settings, spans
from evergreen.errors import BadInput, Problem
from pipeline.beam import Beam
from pipeline.kubeflow.environment import Kubeflow

Path_ = tuple[str | int, ...]
"""The way from the root of a YAML document to a value."""


class Config(settings.Section):
    """What a person writes about a table: the data, the features, the model and when it is good enough."""

    name: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    """Names the pipeline and the model in the registry."""
    data: settings.Data
    schema_path: str | None = pydantic.Field(default=None, alias="schema")
    """The curated schema; without one the run infers it."""
    label: settings.Label
    features: Annotated[dict[str, settings.Feature], pydantic.Field(min_length=1)]
    """What the model sees, by name; the kind says how it is made of raw columns."""
    weights: settings.Weights | None = None
    """How much each row counts in training; all the same where it is left out."""
    model: settings.Model = settings.Model()
    training: settings.Training = settings.Training()
    tuning: settings.Tuning | None = None
    """The search for hyperparameters before training; without it the configured ones are trained with."""
    validation: settings.Validation = settings.Validation()
    evaluation: settings.Evaluation

    def preprocessing(self) -> settings.Preprocessing:
        """Returns the part that `preprocessing_fn` needs."""
        return settings.Preprocessing(
            features=self.features, label=self.label, weights=self.weights, span_column=self.data.span_column
        )

    def functions(self) -> list[str]:
        """Returns the dotted paths of the functions that features name: code that decides what a node computes."""
        return [feature.function for feature in self.features.values() if isinstance(feature, settings.Custom)]

    def trainer(self) -> settings.TrainerConfig:
        """Returns the part that `run_fn` needs."""
        return settings.TrainerConfig(
            preprocessing=self.preprocessing(), model=self.model, training=self.training, tuning=self.tuning
        )


class Environment(settings.Section):
    """Where the pipeline runs: folders and the Beam runner. The code is the same everywhere."""

    workspace: str = "runs"
    """Artifacts, metadata and logs of the runs."""
    registry: str = "runs/registry"
    """The model registry, a folder on any filesystem that TensorFlow opens."""
    beam: Beam = Beam()
    """Which Beam runner does the data work, and how."""
    kubeflow: Kubeflow | None = None
    """The cluster, where the pipeline runs on one."""

    def root(self, name: str) -> Path:
        """Returns the folder of the pipeline `name` in the workspace."""
        return Path(self.workspace) / name


Model = TypeVar("Model", bound=pydantic.BaseModel)


def load_config(path: Path, *, look_for_data: bool = True) -> Config:
    """Reads and checks a problem's configuration, with the schema that it names.

    Args:
        path: the file.
        look_for_data: whether the data have to be there; those of a cluster are not on this machine.

    Raises:
        BadInput: with every problem found, each with file, line and key.
    """
    document, lines = _read_yaml(path)
    config, problems = _validate(Config, document, path=path, lines=lines)
    problems.extend(_check(config or _sound_part(document), path=path, lines=lines, look_for_data=look_for_data))
    if config is None or problems:
        raise BadInput(problems)
    return config


def load_environment(path: Path) -> Environment:
    """Reads and checks an environment file.

    Raises:
        BadInput: with every problem found, each with file, line and key.
    """
    document, lines = _read_yaml(path)
    environment, problems = _validate(Environment, document, path=path, lines=lines)
    if environment is None:
        raise BadInput(problems)
    return environment


def load(config: Path, environment: Path, *, look_for_data: bool = True) -> tuple[Config, Environment]:
    """Reads both files.

    Args:
        config: the problem's file.
        environment: the environment's file.
        look_for_data: whether the data have to be there.

    Raises:
        BadInput: with every problem of both.
    """
    problems: list[Problem] = []
    loaded: list[Any] = []
    readers: Sequence[Callable[[], Any]] = (
        lambda: load_config(config, look_for_data=look_for_data),
        lambda: load_environment(environment),
    )
    for reader in readers:
        try:
            loaded.append(reader())
        except BadInput as error:
            problems.extend(error.problems)
    if problems:
        raise BadInput(problems)
    return loaded[0], loaded[1]


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> tuple[Mapping[str, Any], Mapping[Path_, int]]:
    """Returns the document and the 1-based line of every key in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        beside = ", ".join(sorted(str(p) for p in path.parent.glob("*.yaml"))) or "no YAML file beside it"
        raise BadInput(
            [Problem(where=str(path), found="no such file", expected="a YAML file", action=f"There is: {beside}.")]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            [Problem(where=str(path), found=str(error), expected="a readable UTF-8 file", action="Repair the file.")]
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        found = str(getattr(error, "problem", None) or error)
        raise BadInput(
            [Problem(where=where, found=found, expected="valid YAML", action="Correct this line or the one before.")]
        ) from error
    if not isinstance(document, dict):
        found = "an empty file" if document is None else f"a {type(document).__name__}"
        raise BadInput(
            [Problem(where=str(path), found=found, expected="keys and values", action="See configs/humidity.yaml.")]
        )
    lines: dict[Path_, int] = {}
    twice = list(_index(node, (), lines, str(path)))
    if twice:
        raise BadInput(twice)
    return document, lines


def _index(node: yaml.Node | None, at: Path_, lines: dict[Path_, int], file: str) -> Iterator[Problem]:
    """Fills `lines` with the line of every value; yields a problem for every key that stands twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*at, str(key.value))
            line = key.start_mark.line + 1
            if below in lines:
                yield Problem(
                    where=f"{file}, line {line}, {_dotted(below)}",
                    found=f"a key that stands in line {lines[below]} already",
                    expected="every key once",
                    action="Remove one of them.",
                )
            lines[below] = line
            yield from _index(value, below, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            below = (*at, position)
            lines[below] = value.start_mark.line + 1
            yield from _index(value, below, lines, file)


def _dotted(at: Path_) -> str:
    return ".".join(str(part) for part in at)


# --- shape -----------------------------------------------------------------------------------------------------------


def _validate(
    model: type[Model], document: Mapping[str, Any], *, path: Path, lines: Mapping[Path_, int]
) -> tuple[Model | None, list[Problem]]:
    try:
        return model.model_validate(document), []
    except pydantic.ValidationError as error:
        return None, [_shape_problem(model, dict(detail), path=path, lines=lines) for detail in error.errors()]


def _sound_part(document: Mapping[str, Any]) -> Config:
    """Returns what can be used of a configuration with mistakes, so that the other checks still find theirs."""
    kept: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        value = document.get(field.alias or name)
        if name == "features" and isinstance(value, dict):
            features = {key: _sound(settings.Feature, feature) for key, feature in value.items()}
            kept[name] = {key: feature for key, feature in features.items() if feature is not None}
        elif (sound := _sound(field.annotation, value)) is not None:
            kept[name] = sound
    # Fields that are missing or wrong are left out; `_check` looks before it uses one.
    return Config.model_construct(**{"schema_path": None, "features": {}, **kept})


def _sound(annotation: Any, value: Any) -> Any:
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError:
        return None


def _shape_problem(
    model: type[pydantic.BaseModel], detail: dict[str, Any], *, path: Path, lines: Mapping[Path_, int]
) -> Problem:
    # A discriminated union puts the name of the chosen kind into the location; no key of the file has it.
    kind, value = detail["type"], detail.get("input")
    location = _without_tags(tuple(detail["loc"]), lines, missing=kind == "missing")
    where = _where(path, location, lines)
    if kind == "extra_forbidden":
        known = _keys(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        action = f"Did you mean {close[0]!r}?" if close else f"Remove it, or use one of: {', '.join(known)}."
        return Problem(where=where, found="an unknown key", expected="a key that Evergreen knows", action=action)
    if kind == "missing":
        return Problem(where=where, found="nothing", expected="a value", action="Add the key.")
    if kind.startswith("union_tag"):
        return Problem(
            where=where,
            found=f"kind {value.get('kind')!r}" if isinstance(value, dict) and "kind" in value else "no kind",
            expected=f"one of {detail['ctx'].get('expected_tags', 'the known kinds')}",
            action="Name the kind of the feature.",
        )
    found = repr(value)
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(
        where=where,
        found=found if len(found) <= 80 else found[:77] + "...",
        expected=message[:1].lower() + message[1:],
        action="Correct the value.",
    )


def _without_tags(location: Path_, lines: Mapping[Path_, int], *, missing: bool) -> Path_:
    kept: Path_ = ()
    for position, part in enumerate(location):
        is_missing = missing and position == len(location) - 1
        if (*kept, part) in lines or is_missing:
            kept = (*kept, part)
    return kept


def _where(path: Path, location: Path_, lines: Mapping[Path_, int]) -> str:
    """Names file, line and key; a missing key has the line of what it is missing from."""
    for length in range(len(location), 0, -1):
        line = lines.get(location[:length])
        if line is not None:
            return f"{path}, line {line}, {_dotted(location)}"
    return f"{path}, {_dotted(location)}" if location else str(path)


def _keys(model: type[pydantic.BaseModel], location: Path_) -> list[str]:
    """Returns the keys that the section at `location` knows, as far as the types tell."""
    reached: list[type[pydantic.BaseModel]] = [model]
    for part in location:
        fields = [field for section in reached if (field := section.model_fields.get(str(part)))]
        reached = [section for field in fields for section in sections(field.annotation)] or reached
    names = {field.alias or name for section in reached for name, field in section.model_fields.items()}
    return sorted(names)


def sections(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """Yields the section types inside an annotation such as ``dict[str, A | B]``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from sections(inner)


# --- sense -----------------------------------------------------------------------------------------------------------

_REGRESSION_METRICS = ("rmse", "mae")
_CLASS_METRICS = ("accuracy", "auc", "log_loss")


def _check(config: Config, *, path: Path, lines: Mapping[Path_, int], look_for_data: bool = True) -> Iterator[Problem]:
    def where(*location: str | int) -> str:
        return _where(path, location, lines)

    sound = config.model_fields_set
    if "label" in sound:
        yield from _check_features(config, where)
    if {"label", "evaluation"} <= sound:
        yield from _check_metrics(config, where)
    yield from _check_functions(config, where)
    if "data" in sound:
        yield from _check_generator(config, where)
        yield from _check_weights(config, where)
        if look_for_data:
            yield from _check_data(config, where)
    yield from _check_custom(config, where)
    yield from _check_schema(config, where)


def _check_features(config: Config, where: Any) -> Iterator[Problem]:
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


def _check_functions(config: Config, where: Any) -> Iterator[Problem]:
    for name, feature in config.features.items():
        if isinstance(feature, settings.Custom) and not _is_module(feature.function.rpartition(".")[0]):
            yield Problem(
                where=where("features", name, "function"),
                found=f"{feature.function!r}, whose module cannot be imported",
                expected="the dotted path of a function in a module of this project",
                action="Correct the path, for example transform.own.my_function.",
            )


def _check_weights(config: Config, where: Any) -> Iterator[Problem]:
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


def _check_metrics(config: Config, where: Any) -> Iterator[Problem]:
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


def _check_generator(config: Config, where: Any) -> Iterator[Problem]:
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


def _check_data(config: Config, where: Any) -> Iterator[Problem]:
    """Looks for the files, except where a generator makes them or looking would load TensorFlow."""
    if config.data.generator is not None or "://" in config.data.path:
        return
    try:
        spans.resolve(config.data)
    except BadInput as error:
        at = where("data", "path")
        yield from (dataclasses.replace(problem, where=f"{at}: {problem.where}") for problem in error.problems)


def _check_custom(config: Config, where: Any) -> Iterator[Problem]:
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


def _check_schema(config: Config, where: Any) -> Iterator[Problem]:
    if config.schema_path is None:
        return
    if not Path(config.schema_path).is_file():
        yield Problem(
            where=where("schema"),
            found=f"no file {config.schema_path}",
            expected="a schema in text form (schema.pbtxt)",
            action="Correct the path, or remove the key to have the schema inferred.",
        )
        return
    try:
        types = _schema_types(Path(config.schema_path))
    except ValueError as error:
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


def _check_columns(config: Config, where: Any, types: Mapping[str, str]) -> Iterator[Problem]:
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


def _uses(config: Config) -> Iterator[tuple[Path_, str, tuple[str, ...]]]:
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
    for position, columns in enumerate(config.evaluation.slices if "evaluation" in sound else ()):
        for place, column in enumerate(columns):
            yield ("evaluation", "slices", position, place), column, anything
