"""Raw columns to model inputs, driven by the configuration: the same graph at training and at serving, with no skew.

Every feature becomes one or a few dense columns, whatever the schema makes of the raw one (dense or sparse):

* numbers (`transform/numbers.py`): float32 [batch], scaled with what the train split says of them; a missing, NaN or
  infinite value becomes the mean of the train split, which is 0 under `z_score`, or what the configuration says;
* categories (`transform/categories.py`): an int64 id, `columns.NO_CATEGORY` where there is none; [batch], or
  [batch, max_values] for a feature of several values a row, and for the terms of a text (`transform/text.py`);
* moments (`transform/moments.py`) become both, by the part of the calendar.

Why ids and not the one-hot vectors: `weekday` x `hour` is one number a row on disk instead of 168, decodes that much
faster, and the first layer of the model expands a whole batch at once (`trainer/model.py`). So the four columns of the
humidity problem are 3 columns on disk and 170 inputs of the model. How many categories a column has travels in the
int domain of the transformed schema, where `trainer/features.py` reads it.

The label passes through as float32 for a regression (the model scales inside and answers in the label's own units); a
class label becomes the id of its class. At serving neither the label nor the weight of a row is fed, and nothing needs
them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_transform as tft

from evergreen import errors, settings
from transform import categories, columns, moments, numbers, text, weights

Output: TypeAlias = tf.Tensor | numbers.Unscaled
_SCHEMA_TYPES = {tf.float32: "FLOAT", tf.int64: "INT", tf.string: "BYTES"}


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turns the raw columns into features and label; Transform traces it once for the train split and for serving.

    Args:
        inputs: Raw columns by name, float32, int64 or string; dense [batch] or [batch, n], or sparse [batch, n], of
            which the first value of a row counts (or the first `max_values`). Missing is: absent from a sparse column,
            NaN or infinite, the smallest int64, or "".
        custom_config: `settings.Preprocessing` as JSON.

    Returns:
        The dense columns of each feature by the names of `settings.output_columns` (float32 [batch], or int64 ids
        [batch] or [batch, n]), of the label, and `columns.WEIGHT` where weights are asked for.

    Raises:
        BadInput: when columns are missing or of a type that the feature's kind cannot use, all of them at once.
    """
    config = settings.Preprocessing.model_validate(custom_config)
    problems = _problems(inputs, config)
    if problems:
        raise errors.BadInput(problems)
    return _outputs(inputs, config)


# No Python condition here depends on a tensor, and AutoGraph takes longer to read all this than Transform to run it.
@tf.autograph.experimental.do_not_convert
def _outputs(inputs: Mapping[str, Any], config: settings.Preprocessing) -> dict[str, tf.Tensor]:
    outputs: dict[str, Output] = {}
    for name, feature in config.features.items():
        outputs.update(zip(settings.output_columns(name, feature), _feature(name, feature, inputs), strict=True))
    unscaled = {name: output for name, output in outputs.items() if isinstance(output, numbers.Unscaled)}
    outputs.update(zip(unscaled, numbers.scaled(list(unscaled.values())), strict=True))
    outputs[config.label.column] = _label(config.label, inputs[config.label.column])
    if config.weights is not None:
        outputs[columns.WEIGHT] = weights.weight(config, inputs)
    return outputs


def vocabulary_name(feature: str) -> str:
    """Names the vocabulary of a feature among the assets of the transform graph."""
    return f"vocabulary_{feature}"


def label_vocabulary_name(column: str) -> str:
    """Names the vocabulary of a class label among the assets of the transform graph."""
    return f"classes_{column}"


def _feature(name: str, feature: settings.Feature, inputs: Mapping[str, Any]) -> list[Output]:
    if isinstance(feature, settings.Cross):
        return [categories.cross(feature, inputs)]
    if isinstance(feature, settings.Custom):
        return _custom(name, feature, inputs)
    column = inputs[feature.column or name]
    if isinstance(feature, settings.Vocabulary):
        return [categories.vocabulary(feature, column, file=vocabulary_name(name))]
    if isinstance(feature, settings.Identity):
        return [categories.identity(feature, column)]
    if isinstance(feature, settings.Hash):
        return [categories.hashed(feature, column)]
    if isinstance(feature, settings.Boolean):
        return [categories.boolean(feature, column)]
    return _of_dense(feature, columns.to_dense(column))


def _of_dense(
    feature: settings.Numeric | settings.Buckets | settings.Cyclical | settings.Calendar | settings.Text,
    column: tf.Tensor,
) -> list[Output]:
    if isinstance(feature, settings.Numeric):
        return numbers.numeric(feature, column)
    if isinstance(feature, settings.Cyclical):
        return numbers.circle(columns.to_float(column, tf.float64), feature.period)
    if isinstance(feature, settings.Calendar):
        return moments.calendar(feature, column)
    if isinstance(feature, settings.Text):
        return [text.terms(feature, column)]
    ids = numbers.intervals(column, quantiles=feature.quantiles, boundaries=feature.boundaries)
    return [categories.sized(ids, feature.quantiles or len(feature.boundaries or ()) + 1)]


def _custom(name: str, feature: settings.Custom, inputs: Mapping[str, Any]) -> list[Output]:
    """Calls the configuration's function.

    Raises:
        BadInput: when it does not return what it should.
    """
    given = {column: columns.to_dense(inputs[column]) for column in feature.columns}
    made = tf.convert_to_tensor(_function(feature.function)(given))
    flat, wide = tf.TensorShape([None]), tf.TensorShape([None, feature.width])
    fits = made.shape.is_compatible_with(flat if feature.width == 1 else wide) or made.shape.is_compatible_with(wide)
    if not fits or not (made.dtype.is_integer or made.dtype.is_floating or made.dtype == tf.bool):
        raise errors.BadInput([_not_a_column(name, feature, made)])
    matrix = tf.reshape(made, [-1, feature.width])
    if feature.size is not None:
        return [categories.of_integers(tf.cast(matrix[:, 0], tf.int64), feature.size)]
    matrix = tf.cast(matrix, tf.float64)
    matrix = tf.where(tf.math.is_finite(matrix), matrix, tf.constant(float("nan"), tf.float64))
    return [numbers.Unscaled(matrix[:, position], feature.scale) for position in range(feature.width)]


def _function(path: str) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Imports a function by its dotted path.

    Raises:
        ImportError: when there is no such module.
        AttributeError: when the module has no such function.
    """
    module, _, function = path.rpartition(".")
    found: Callable[[dict[str, tf.Tensor]], tf.Tensor] = getattr(importlib.import_module(module), function)
    return found


def _label(label: settings.Label, column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    dense = columns.to_dense(column)
    if label.task is settings.Task.REGRESSION:
        return columns.to_float(dense)
    ids = tft.compute_and_apply_vocabulary(
        columns.as_terms(columns.present(dense)),
        num_oov_buckets=0,
        default_value=columns.NO_CATEGORY,
        vocab_filename=label_vocabulary_name(label.column),
    )
    return columns.to_dense(ids, missing=columns.NO_CATEGORY)


def _problems(inputs: Mapping[str, Any], config: settings.Preprocessing) -> list[errors.Problem]:
    wanted = [
        (f"features.{name}", use.column, use.types)
        for name, feature in config.features.items()
        for use in settings.uses(name, feature)
    ]
    regression = config.label.task is settings.Task.REGRESSION
    wanted.append(("label", config.label.column, ("INT", "FLOAT") if regression else ("INT", "BYTES")))
    if config.weights and config.weights.column:
        wanted.append(("weights.column", config.weights.column, ("INT", "FLOAT")))
    if config.weights and config.weights.half_life_spans:
        wanted.append(("data.span_column", config.span_column or "", ("INT",)))
    problems = [problem for where, column, types in wanted if (problem := _problem(inputs, where, column, types))]
    problems += settings.name_problems(config.features, config.label.column)
    problems += [problem for name, feature in config.features.items() if (problem := _function_problem(name, feature))]
    return problems


def _problem(inputs: Mapping[str, Any], where: str, column: str, types: tuple[str, ...]) -> errors.Problem | None:
    if column not in inputs:
        return errors.Problem(
            where=where,
            found=f"column {column!r}, which the schema lacks",
            expected=f"one of {', '.join(sorted(inputs))}",
            action="Correct the name in the configuration or add the column to the schema.",
        )
    found = _SCHEMA_TYPES.get(inputs[column].dtype, inputs[column].dtype.name)
    if found not in types:
        return errors.Problem(
            where=where,
            found=f"column {column!r} of type {found}",
            expected=" or ".join(types),
            action="Choose another kind of feature or correct the type in the schema.",
        )
    return None


def _function_problem(name: str, feature: settings.Feature) -> errors.Problem | None:
    if not isinstance(feature, settings.Custom):
        return None
    try:
        found = _function(feature.function)
    except Exception as error:  # noqa: BLE001  importing it runs code of the user's
        reason = f"{type(error).__name__}: {error}"
    else:
        if callable(found):
            return None
        reason = f"a {type(found).__name__}, which cannot be called"
    return errors.Problem(
        where=f"features.{name}.function",
        found=f"{feature.function}: {reason}",
        expected="the dotted path of a function in a module of the project",
        action="Correct the path or the module.",
    )


def _not_a_column(name: str, feature: settings.Custom, made: tf.Tensor) -> errors.Problem:
    expected = "[batch]" if feature.width == 1 else f"[batch, {feature.width}]"
    return errors.Problem(
        where=f"features.{name}.function",
        found=f"{feature.function} returns {made.dtype.name} of shape {made.shape}",
        expected=f"numbers of shape {expected}",
        action="Correct the function, or the feature's width.",
    )
