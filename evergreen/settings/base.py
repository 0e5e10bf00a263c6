"""What every section of a configuration is made of."""

from __future__ import annotations

import enum
from typing import Annotated

import pydantic

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
"""A part of a whole, in [0, 1]."""
ColumnName = Annotated[str, pydantic.Field(min_length=1)]


def _on_or_off(value: object) -> object:
    return ("on" if value else "off") if isinstance(value, bool) else value


YamlSwitch = pydantic.BeforeValidator(_on_or_off)
"""For words with `on` or `off` among them, which YAML reads as true and false where they stand without quotes."""


class Section(pydantic.BaseModel):
    """Base of all sections: immutable, unknown keys refused; the text under a field is its description in the docs.

    Numbers are finite: a threshold of infinity or NaN is a gate that never closes.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Task(str, enum.Enum):
    """What the model predicts."""

    REGRESSION = "regression"
    """A number; the loss is the mean squared error."""
    BINARY = "binary"
    """One of two classes."""
    MULTICLASS = "multiclass"
    """One of more than two classes."""
