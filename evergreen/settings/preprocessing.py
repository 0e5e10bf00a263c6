"""Sections about the label, the weights and all that `preprocessing_fn` does."""

from __future__ import annotations

from typing import Annotated

import pydantic

from evergreen.settings.base import ColumnName, Section, Task
from evergreen.settings.features import Feature


class Weights(Section):
    """How much a row counts in training; the weights are scaled to a mean of 1 over the train split."""

    column: ColumnName | None = None
    """A raw column of weights; a missing one is the mean, a negative one is 0."""
    half_life_spans: Annotated[float, pydantic.Field(gt=0.0, allow_inf_nan=False)] | None = None
    """How many spans old a row is when it counts half as much as one of the newest span; needs `data.span_column`."""

    @pydantic.model_validator(mode="after")
    def _something(self) -> Weights:
        if self.column is None and self.half_life_spans is None:
            raise ValueError("column, half_life_spans or both")
        return self


class Label(Section):
    """The column to predict."""

    column: ColumnName
    """The column to predict."""
    task: Task
    """What the model predicts: a number, one of two classes, one of several."""


class Preprocessing(Section):
    """What `transform/preprocessing.py` gets: the features, the label and the rows' weights."""

    features: Annotated[dict[str, Feature], pydantic.Field(min_length=1)]
    label: Label
    weights: Weights | None = None
    span_column: ColumnName | None = None
    """The integer column with the number of a row's span."""
