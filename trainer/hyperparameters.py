"""Hyperparameters between the configuration and Keras Tuner: a search space out of one, found values into the other.

A hyperparameter is named as its key in the configuration ("training.learning_rate", "model.hidden_units"). Lists,
which Keras Tuner does not know, travel as JSON text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evergreen import settings

if TYPE_CHECKING:
    import keras_tuner

CONFIGURED = "configuration"
"""The source of hyperparameters that nobody searched for."""
CHAMPION = "champion"
"""The source of those that the serving model was tuned to."""
SOURCE = "tuner/source"
"""Where values on their way to Trainer say that they come from the champion; beside Keras Tuner's own such names."""


def space(tuning: settings.Tuning) -> keras_tuner.HyperParameters:
    """Returns the search space as Keras Tuner has it, conditions included."""
    import keras_tuner

    found = keras_tuner.HyperParameters()
    for name, parameter in sorted(tuning.space.items(), key=lambda item: (_depth(tuning, item[0]), item[0])):
        _declare(found, name, parameter)
    return found


def _depth(tuning: settings.Tuning, name: str) -> int:
    """Counts the conditions above a hyperparameter: what decides comes before what it decides on."""
    parents = tuning.space[name].when
    return 1 + max((_depth(tuning, parent) for parent in parents), default=-1)


def _declare(found: keras_tuner.HyperParameters, name: str, parameter: settings.Hyperparameter) -> None:
    if parameter.when:
        (parent, values), *_ = parameter.when.items()
        with found.conditional_scope(parent, [_encode(value) for value in values]):
            return _declare(found, name, parameter.model_copy(update={"when": {}}))
    if isinstance(parameter, settings.ChoiceHyperparameter):
        found.Choice(name, [_encode(value) for value in parameter.values], ordered=False)
        return None
    kind = found.Int if isinstance(parameter, settings.IntHyperparameter) else found.Float
    kind(
        name,
        parameter.min,
        parameter.max,
        step=parameter.step,
        sampling="log" if parameter.log else "linear",
    )
    return None


def _encode(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) or value is None else value


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values as Keras Tuner has them."""
    return {name: _encode(value) for name, value in values.items()}


def _decode(value: Any) -> Any:
    if isinstance(value, str) and (value.startswith("[") or value == "null"):
        return json.loads(value)
    return value


def active(values: Mapping[str, Any], tuning: settings.Tuning) -> dict[str, Any]:
    """Returns the values, in the configuration's types, that count: those whose conditions hold."""
    decoded = {name: _decode(value) for name, value in values.items() if name in tuning.space}

    def counts(name: str) -> bool:
        return all(
            parent in decoded and counts(parent) and decoded[parent] in allowed
            for parent, allowed in tuning.space[name].when.items()
        )

    return {name: value for name, value in decoded.items() if counts(name)}


def with_values(config: settings.TrainerConfig, values: Mapping[str, Any]) -> settings.TrainerConfig:
    """Returns the configuration with values by dotted key in the place of its own."""
    document = config.model_dump(mode="json")
    for name, value in values.items():
        section, _, key = name.partition(".")
        document[section][key] = value
    return settings.TrainerConfig.model_validate(document)


def apply(
    config: settings.TrainerConfig, found: Mapping[str, Any] | None
) -> tuple[settings.TrainerConfig, dict[str, Any]]:
    """Puts what Tuner found into the configuration.

    Args:
        config: the configuration of the training.
        found: Keras Tuner's `HyperParameters.get_config()`, or None where no Tuner ran.

    Returns:
        The configuration to train with, and for the report which values come from where.
    """
    if not found or config.tuning is None:
        return config, {"source": CONFIGURED, "values": {}}
    values = active(found["values"], config.tuning)
    source = found["values"].get(SOURCE, "tuner")
    return with_values(config, values), {"source": source, "values": values, "space": digest(config)}


def digest(config: settings.TrainerConfig) -> str:
    """Returns a sha256 of the search: values found for another one are not reused."""
    assert config.tuning is not None
    said = config.tuning.model_dump(mode="json", include={"space", "objective"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
