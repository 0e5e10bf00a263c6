"""Sections about features: what is made of which column."""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, Literal

import pydantic

from evergreen.settings.base import ColumnName, Section

Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Buckets_ = Annotated[int, pydantic.Field(ge=2, le=2**24)]
MaxValues = Annotated[int, pydantic.Field(ge=1, le=256)]
Scale = Literal["z_score", "min_max", "none"]


class Clip(Section):
    """Limits that numbers are brought to."""

    min: Finite | None = None
    """Smaller numbers become this one."""
    max: Finite | None = None
    """Larger numbers become this one."""

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Clip:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError("a min below max")
        return self


class Numeric(Section):
    """A number: clipped, its logarithm taken, missing values filled, scaled with what the train split says of it."""

    kind: Literal["numeric"]
    """Says that the feature is a number."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    clip: Clip = Clip()
    """Limits, in the column's own units; comes first."""
    log: Literal["none", "log", "log1p"] = "none"
    """The natural logarithm of the number, or of the number plus one; a number that has none counts as missing."""
    missing: Literal["mean", "median", "constant"] = "mean"
    """What takes the place of a missing, NaN or infinite value: the train split's mean or median (of what clip and log
    made of the column), or `constant`."""
    constant: Finite = 0.0
    """The value for `missing: constant`, in the column's own units."""
    indicator: bool = False
    """Whether the model also sees, as 0 or 1 in `<name>_missing`, that the value was missing."""
    scale: Scale = "z_score"
    """To mean 0 and deviation 1, to [0, 1], or not at all; comes last."""

    @pydantic.model_validator(mode="after")
    def _constant_in_use(self) -> Numeric:
        if self.constant and self.missing != "constant":
            raise ValueError("`missing: constant` beside a constant")
        return self


def _one_of(section: Section, *keys: str) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(keys)}, not {' and '.join(given) or 'none'}")


def _ascending(boundaries: list[float] | None) -> list[float] | None:
    if boundaries is not None and any(low >= high for low, high in itertools.pairwise(boundaries)):
        raise ValueError("boundaries that ascend")
    return boundaries


Boundaries = Annotated[
    list[Finite] | None, pydantic.Field(min_length=1, max_length=10_000), pydantic.AfterValidator(_ascending)
]
Quantiles = Annotated[int, pydantic.Field(ge=2, le=1000)]


class Buckets(Section):
    """A number as the interval that it falls into; one-hot in the model, no interval where the number is missing."""

    kind: Literal["buckets"]
    """Says that numbers are put into intervals."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    quantiles: Quantiles | None = None
    """How many intervals of about as many rows of the train split each."""
    boundaries: Boundaries = None
    """The intervals' limits, ascending; a number that equals one belongs to the interval above."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Buckets:
        _one_of(self, "quantiles", "boundaries")
        return self


class Identity(Section):
    """An integer that already counts categories, 0 to size - 1; one-hot in the model."""

    kind: Literal["identity"]
    """Says that the column's integers are categories already."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    size: Annotated[int, pydantic.Field(ge=2)]
    """How many categories there are; values outside of 0 to size - 1 are no category."""
    max_values: MaxValues = 1
    """How many values of a row count; several are multi-hot."""


class Vocabulary(Section):
    """A string or integer, numbered by how often the train split shows it; one-hot or embedded in the model."""

    kind: Literal["vocabulary"]
    """Says that the values are words to be numbered."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    top_k: Annotated[int, pydantic.Field(ge=1)] = 10_000
    """How many of the most frequent values get a number of their own."""
    min_frequency: Annotated[int, pydantic.Field(ge=1)] = 1
    """How often the train split has to show a value for it to get one."""
    out_of_vocabulary: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many buckets take the values that the vocabulary lacks."""
    max_values: MaxValues = 1
    """How many values of a row count; several are multi-hot."""
    separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """What stands between the values of a row where they are written as one text, such as `a|b|c`."""


class Hash(Section):
    """A string or integer, put into one of a fixed number of buckets by its hash; nothing is learned from the data."""

    kind: Literal["hash"]
    """Says that the values are hashed."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    buckets: Buckets_
    """How many buckets; values that share one are the same to the model."""
    max_values: MaxValues = 1
    """How many values of a row count; several are multi-hot."""
    separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """What stands between the values of a row where they are written as one text, such as `a|b|c`."""


class Boolean(Section):
    """True or false, however the table writes it; two categories, none of them where the value is missing."""

    kind: Literal["boolean"]
    """Says that the values are true or false."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    true: Annotated[list[str], pydantic.Field(min_length=1)] = ["true", "t", "yes", "y", "on", "1"]
    """How true is written; capitals and surrounding blanks do not matter."""
    false: Annotated[list[str], pydantic.Field(min_length=1)] = ["false", "f", "no", "n", "off", "0"]
    """How false is written; what is neither counts as missing."""

    @pydantic.field_validator("true", "false", mode="before")
    @classmethod
    def _as_written(cls, words: object) -> object:
        # YAML reads `no`, `on` and `1` as what they mean.
        return [str(word).lower() for word in words] if isinstance(words, list) else words

    @pydantic.model_validator(mode="after")
    def _apart(self) -> Boolean:
        both = {word.strip() for word in self.true} & {word.strip() for word in self.false}
        if both:
            raise ValueError(f"words that mean either true or false, not both, as {', '.join(sorted(both))}")
        return self


class Cyclical(Section):
    """A number that comes round, such as an hour or an angle: its sine and cosine, `<name>_sin` and `<name>_cos`."""

    kind: Literal["cyclical"]
    """Says that the number lies on a circle."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    period: Annotated[float, pydantic.Field(gt=0.0, allow_inf_nan=False)]
    """After how much the number means the same again: 24 for hours, 7 for weekdays, 12 for months."""


CalendarPart = Literal[
    "second", "minute", "hour", "weekday", "hour_of_week", "day", "day_of_year", "week", "month", "quarter", "weekend",
    "year", "days",
]  # fmt: skip
EPOCHS: dict[str, int] = {"epoch_seconds": 1, "epoch_millis": 10**3, "epoch_micros": 10**6, "epoch_nanos": 10**9}
"""Ways to write a moment as a whole number since 1970-01-01T00:00:00Z, and how many of them make a second."""
DIRECTIVES = "YymdHIMSfpbBjz"
"""The letters of strptime that a timestamp's format may hold."""


def _time_format(text: str) -> str:
    if text == "iso" or text in EPOCHS:
        return text
    found = re.findall(r"%(.?)", text.replace("%%", ""))
    unknown = sorted({letter for letter in found if letter not in DIRECTIVES or not letter})
    if unknown:
        raise ValueError(f"a format of %{', %'.join(DIRECTIVES)}; %{unknown[0]} is not known")
    if not found:
        raise ValueError(f"iso, {', '.join(EPOCHS)}, or a format like strptime's: %d.%m.%Y %H:%M")
    twice = sorted({letter for letter in found if found.count(letter) > 1})
    if twice:
        raise ValueError(f"every directive once; %{twice[0]} stands twice")
    return text


TimeFormat = Annotated[str, pydantic.AfterValidator(_time_format)]


class Calendar(Section):
    """What the calendar says of a moment: one column `<name>_<part>` for each part."""

    kind: Literal["calendar"]
    """Says that the values are moments."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    formats: Annotated[list[TimeFormat], pydantic.Field(min_length=1)] = ["iso"]
    """How the moments are written; the first format that fits a value counts. `iso` (2024-02-29T13:45:00Z, from the
    date alone to nanoseconds), strptime's directives (%d.%m.%Y %H:%M), or `epoch_seconds`, `epoch_millis`,
    `epoch_micros`, `epoch_nanos` for whole numbers. What fits none, or no day of the years 1 to 9999, is missing."""
    parts: Annotated[list[CalendarPart], pydantic.Field(min_length=1)] = ["hour", "weekday", "month"]
    """What the model sees. `weekday` counts from Monday, `week` is the ISO week, `days` is the time since 1970 in days
    and grows for ever, as `year` does; those two are numbers, scaled to mean 0 and deviation 1."""
    encoding: Literal["category", "cyclical"] = "category"
    """The other parts as categories (one-hot in the model), or as sine and cosine (`<name>_<part>_sin`, `_cos`)."""
    utc_offset_minutes: Annotated[int, pydantic.Field(ge=-1440, le=1440)] = 0
    """Added to every moment, to see it in local time; an offset in the value itself (%z) has been taken off before."""

    @pydantic.field_validator("parts")
    @classmethod
    def _once(cls, parts: list[str]) -> list[str]:
        if len(set(parts)) < len(parts):
            raise ValueError("every part only once")
        return parts


class Text(Section):
    """A short text as the set of its words, groups of words and groups of letters, each hashed into a bucket."""

    kind: Literal["text"]
    """Says that the values are texts."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    words: Annotated[int, pydantic.Field(ge=0, le=5)] = 1
    """The longest group of words: 1 for single words, 2 for pairs too, 0 for no words."""
    characters: Annotated[int, pydantic.Field(ge=0, le=10)] = 0
    """The length of the groups of letters, which forgive misspellings; 0 for none."""
    buckets: Buckets_ = 1024
    """How many buckets; groups that share one are the same to the model."""
    max_terms: MaxValues = 64
    """How many groups of a text count, from its beginning (of words and of letters alike)."""
    lower_case: bool = True
    """Whether capitals mean the same as small letters."""

    @pydantic.model_validator(mode="after")
    def _something(self) -> Text:
        if not self.words and not self.characters:
            raise ValueError("words or characters above 0")
        return self


class CrossPart(Section):
    """One side of a cross: an integer column as it is, or any column by hash or interval."""

    column: ColumnName
    """The raw column."""
    size: Annotated[int, pydantic.Field(ge=2)] | None = None
    """For integers: how many values it takes, counted from 0."""
    buckets: Buckets_ | None = None
    """For strings or integers: into how many buckets they are hashed."""
    quantiles: Quantiles | None = None
    """For numbers: how many intervals of about as many rows of the train split each."""
    boundaries: Boundaries = None
    """For numbers: the limits of their intervals, ascending."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> CrossPart:
        _one_of(self, "size", "buckets", "quantiles", "boundaries")
        return self

    @property
    def cells(self) -> int:
        """Returns how many values the side takes."""
        if self.boundaries is not None:
            return len(self.boundaries) + 1
        return self.size or self.buckets or self.quantiles or 1


class Cross(Section):
    """Every combination of several columns as a category of its own; one-hot or embedded in the model."""

    kind: Literal["cross"]
    """Says that the feature is a combination of columns."""
    parts: Annotated[list[CrossPart], pydantic.Field(min_length=2)]
    """The columns to combine, the slowest-moving first."""
    buckets: Buckets_ | None = None
    """Into how many buckets the combinations are hashed; without it each has a number of its own."""

    @pydantic.model_validator(mode="after")
    def _countable(self) -> Cross:
        cells = math.prod(part.cells for part in self.parts)
        if cells > 2**62:
            raise ValueError("fewer than 2^62 combinations; make the parts smaller")
        if self.buckets is None and cells > 2**24:
            raise ValueError(f"fewer than {cells:,} combinations; hash them with buckets, or make the parts smaller")
        return self


class Custom(Section):
    """What a Python function makes of raw columns."""

    kind: Literal["custom"]
    """Says that a function makes the feature."""
    function: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    """Dotted path of the function. It gets a dict from the columns' names to tensors of shape [batch] (missing is NaN,
    the smallest int64 or "") and returns a tensor of TensorFlow: numbers [batch], or [batch, width]."""
    columns: Annotated[list[ColumnName], pydantic.Field(min_length=1)]
    """The raw columns that it reads, of any type."""
    width: Annotated[int, pydantic.Field(ge=1, le=1024)] = 1
    """How many numbers a row it returns; more than one become `<name>_0`, `<name>_1` and so on."""
    size: Annotated[int, pydantic.Field(ge=2)] | None = None
    """For a function that returns categories: how many there are, counted from 0; others are no category."""
    scale: Scale = "none"
    """What is done to the numbers, as for `numeric`; what is not finite becomes their mean on the train split."""

    @pydantic.model_validator(mode="after")
    def _one_category(self) -> Custom:
        if self.size is not None and (self.width > 1 or self.scale != "none"):
            raise ValueError("size without width and scale")
        return self


Feature = Annotated[
    Numeric | Buckets | Identity | Vocabulary | Hash | Boolean | Cyclical | Calendar | Text | Cross | Custom,
    pydantic.Field(discriminator="kind"),
]
