"""Sections about the search for hyperparameters, and all that the trainer gets."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic
import pydantic_core

from evergreen.settings.base import Section
from evergreen.settings.preprocessing import Preprocessing
from evergreen.settings.training import Model, Training

Scalar = bool | int | float | str | list[int] | None
"""A value of a hyperparameter."""


class _Conditional(Section):
    when: dict[str, Annotated[list[Scalar], pydantic.Field(min_length=1)]] = {}
    """Another hyperparameter of the space and the values of it with which this one counts; it is searched only then."""


class IntHyperparameter(_Conditional):
    """A whole number between two limits."""

    kind: Literal["int"]
    """Says that it is a whole number."""
    min: int
    """The smallest value."""
    max: int
    """The largest value."""
    step: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Distance (with `log`: factor) between two values; `null` allows all."""
    log: bool = False
    """Whether small values are searched as finely, relative to their size, as large ones."""


class FloatHyperparameter(_Conditional):
    """A number between two limits."""

    kind: Literal["float", "log"]
    """Says that it is a number; `log` searches small values as finely, relative to their size, as large ones."""
    min: float
    """The smallest value."""
    max: float
    """The largest value."""
    step: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """Distance (with `log`: factor) between two values; `null` allows all."""

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.kind == "log"


class ChoiceHyperparameter(_Conditional):
    """One of several values."""

    kind: Literal["choice"]
    """Says that the values are listed."""
    values: Annotated[list[Scalar], pydantic.Field(min_length=1)]
    """The values."""


Hyperparameter = Annotated[
    IntHyperparameter | FloatHyperparameter | ChoiceHyperparameter, pydantic.Field(discriminator="kind")
]


class Objective(Section):
    """What a trial is judged by."""

    metric: Literal["loss", "rmse", "mae", "accuracy", "auc"] = "loss"
    """On the part of the train split that is held out."""
    direction: Literal["min", "max"] = "min"
    """Whether less or more of it is better."""


class Tuning(Section):
    """The search for hyperparameters, before training; without this section there is none."""

    space: Annotated[dict[str, Hyperparameter], pydantic.Field(min_length=1)]
    """What is searched, by its key in the configuration (`training.learning_rate`, `model.hidden_units`)."""
    algorithm: Literal["random", "bayesian", "hyperband"] = "hyperband"
    """Independent draws, draws near what was good so far, or many short trials of which the best go on."""
    objective: Objective = Objective()
    """What a trial is judged by, and in which direction."""
    max_trials: Annotated[int, pydantic.Field(ge=1)] = 16
    """Trials of `random` and `bayesian`; `hyperband` makes as many as its brackets have."""
    max_epochs: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs of a trial at the most; those of the training where it is left out."""
    hyperband_factor: Annotated[int, pydantic.Field(ge=2)] = 3
    """The share (one in so many) of a bracket's trials that goes on to the next, longer round."""
    hyperband_iterations: Annotated[int, pydantic.Field(ge=1)] = 1
    """How often all brackets are gone through."""
    executions_per_trial: Annotated[int, pydantic.Field(ge=1)] = 1
    """Trainings a trial, with different seeds; their mean counts."""
    early_stopping_patience: Annotated[int, pydantic.Field(ge=1)] | None = 2
    """Epochs without a better loss that end a trial; `null` never does."""
    parallel_trials: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Trials at the same time, each in a process of its own; one a GPU, or one a core, where it is left out."""
    max_minutes: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """After so many minutes no trial begins any more; the best so far is taken."""
    holdout: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the train split that judges the trials; the eval and the test split are never looked at."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 42
    """Seed of the search."""
    when: Literal["once", "always"] = "once"
    """`once` takes the serving model's values when they were found in the same space; `always` searches every time."""

    @pydantic.model_validator(mode="after")
    def _sound_space(self) -> Tuning:
        wrong = [
            pydantic_core.InitErrorDetails(
                type=pydantic_core.PydanticCustomError("search_space", "{expected}", {"expected": expected}),
                loc=("space", name),
                input=found,
            )
            for name in self.space
            for found, expected in self._wrong_with(name)
        ]
        if wrong:  # each under its own key: pydantic puts the place of this section before it
            raise pydantic_core.ValidationError.from_exception_data("Tuning", wrong)
        return self

    def _wrong_with(self, name: str) -> Iterator[tuple[object, str]]:
        """Yields what was found under a key of the space, and what is expected there."""
        section, _, key = name.partition(".")
        sections: dict[str, type[Section]] = {"model": Model, "training": Training}
        known = [f"{name}.{field}" for name, kind in sections.items() for field in kind.model_fields]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            yield name, f"the key {close[0]}" if close else "a key that begins with model. or training."
            return
        parameter = self.space[name]
        if not isinstance(parameter, ChoiceHyperparameter):
            if parameter.min >= parameter.max:
                yield parameter.min, f"a min below the max of {parameter.max}"
            if parameter.log and parameter.min <= 0:
                yield parameter.min, "a min above 0 on a logarithmic scale"
        values = parameter.values if isinstance(parameter, ChoiceHyperparameter) else [parameter.min, parameter.max]
        for value in values:
            try:
                sections[section].model_validate({key: value})
            except pydantic.ValidationError as error:
                message = error.errors()[0]["msg"]
                yield value, f"a value that {name} can have: {message[:1].lower()}{message[1:]}"
        yield from self._wrong_with_conditions(parameter)

    def _wrong_with_conditions(self, parameter: Hyperparameter) -> Iterator[tuple[object, str]]:
        if len(parameter.when) > 1:
            yield list(parameter.when), "one condition at the most"
        for parent, values in parameter.when.items():
            decides = self.space.get(parent)
            if not isinstance(decides, ChoiceHyperparameter):
                yield parent, "a condition on a choice of this space"
            elif lost := [value for value in values if value not in decides.values]:
                yield lost[0], f"in the condition, one of the values of {parent}: {decides.values}"
            elif decides.when and parent in decides.when:
                yield parent, "a condition that does not depend on itself"


class TrainerConfig(Section):
    """What `trainer/train.py` gets as `custom_config`."""

    preprocessing: Preprocessing
    model: Model
    training: Training
    tuning: Tuning | None = None
    checkpoint_folder: str | None = None
    """Where a killed training finds its checkpoints again: a folder that outlives the node's own."""
