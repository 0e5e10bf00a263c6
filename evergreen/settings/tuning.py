"""Sections about the search for hyperparameters, and all that the trainer gets."""

from __future__ import annotations

import difflib
import math
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


_FIXED = "a key that changes what a trial learns"
_NO_HYPERPARAMETERS = {
    "training.epochs": "tuning.max_epochs instead, beside the space",
    "training.early_stopping_patience": "tuning.early_stopping_patience instead, beside the space",
    "training.cache_mib": _FIXED,
    "training.checkpoint_minutes": _FIXED,
    "training.checkpoint_steps": _FIXED,
    "training.checkpoints_kept": _FIXED,
    "training.disk_cache_gib": _FIXED,
    "training.distribution": _FIXED,
    "training.keep": _FIXED,
    "training.profile_input": _FIXED,
    "training.reproducible": _FIXED,
    "training.tflite": _FIXED,
    "training.weight_histograms": _FIXED,
    "training.xla": _FIXED,
}
"""Keys of the sections `model` and `training` that cannot be searched, and what is expected in their place."""


class Objective(Section):
    """What a trial is judged by."""

    metric: Literal["loss", "rmse", "mae", "accuracy", "auc"] = "loss"
    """On the part of the train split that is held out."""
    direction: Literal["min", "max"] | None = None
    """Whether less or more of it is better; where it is left out, more of `accuracy` and `auc`, less of the others."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_direction(cls, given: object) -> object:
        if not isinstance(given, dict) or given.get("direction") is not None:
            return given
        return {**given, "direction": "max" if given.get("metric") in ("accuracy", "auc") else "min"}


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
        known = [name for name in known if name not in _NO_HYPERPARAMETERS]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            what = _NO_HYPERPARAMETERS.get(name) or (f"the key {close[0]}" if close else f"one of {', '.join(known)}")
            yield name, what
            return
        parameter = self.space[name]
        if not isinstance(parameter, ChoiceHyperparameter):
            if parameter.min >= parameter.max:
                yield parameter.min, f"a min below the max of {parameter.max}"
            if parameter.log and parameter.min <= 0:
                yield parameter.min, "a min above 0 on a logarithmic scale"
        for value in _samples(parameter):
            try:
                sections[section].model_validate({key: value})
            except pydantic.ValidationError as error:
                detail = error.errors()[0]
                if isinstance(parameter, FloatHyperparameter) and detail["type"] == "int_from_float":
                    yield parameter.kind, f"kind int, for {name} is a whole number"
                    break
                yield value, f"a value that {name} can have: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
        yield from self._wrong_with_conditions(name)

    def _wrong_with_conditions(self, name: str) -> Iterator[tuple[object, str]]:
        parameter = self.space[name]
        if len(parameter.when) > 1:
            yield list(parameter.when), "one condition at the most"
        for parent, values in parameter.when.items():
            decides = self.space.get(parent)
            if not isinstance(decides, ChoiceHyperparameter):
                others = {other: kind for other, kind in self.space.items() if other != name}
                choices = [other for other, kind in others.items() if isinstance(kind, ChoiceHyperparameter)]
                yield parent, f"a condition on a choice of this space ({', '.join(choices) or 'it has none'})"
            elif lost := [value for value in values if value not in decides.values]:
                yield lost[0], f"in the condition, one of the values of {parent}: {decides.values}"
            elif self._depends_on_itself(parent):
                yield parent, "a condition that does not depend on itself"

    def _depends_on_itself(self, name: str) -> bool:
        """Tells whether the conditions above a hyperparameter lead back to it."""
        above, seen = list(self.space[name].when), set()
        while above:
            parent = above.pop()
            if parent == name:
                return True
            if parent in self.space and parent not in seen:
                seen.add(parent)
                above.extend(self.space[parent].when)
        return False


def _samples(parameter: Hyperparameter) -> list[Scalar]:
    """Returns values that stand for all that a hyperparameter can have."""
    if isinstance(parameter, ChoiceHyperparameter):
        return parameter.values
    if isinstance(parameter, IntHyperparameter):
        return [parameter.min, parameter.max]
    # Of a range of numbers hardly one is whole, whatever its limits are.
    return [parameter.min + (parameter.max - parameter.min) / math.pi, parameter.min, parameter.max]


class TrainerConfig(Section):
    """What `trainer/train.py` gets as `custom_config`."""

    preprocessing: Preprocessing
    model: Model
    training: Training
    tuning: Tuning | None = None
    checkpoint_folder: str | None = None
    """Where a killed training finds its checkpoints again: a folder that outlives the node's own."""
