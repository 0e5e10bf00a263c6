"""The typed sections of the configuration that travel to the nodes; unknown keys are refused.

`pipeline/config.py` puts them together, checks them against each other and against the schema, and renders what is
wrong. `preprocessing_fn` and `run_fn` get the sections they need as JSON in `custom_config` and read them back with
`model_validate`: one definition, no environment variables, nothing read from a file by a node.
"""

from __future__ import annotations

import difflib
import enum
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, NamedTuple

import pydantic
import pydantic_core

from evergreen import expressions
from evergreen.errors import Problem

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
"""A part of a whole, in [0, 1]."""
ColumnName = Annotated[str, pydantic.Field(min_length=1)]


class Section(pydantic.BaseModel):
    """Base of all sections: immutable, unknown keys refused; the text under a field is its description in the docs."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Task(str, enum.Enum):
    """What the model predicts."""

    REGRESSION = "regression"
    """A number; the loss is the mean squared error."""
    BINARY = "binary"
    """One of two classes."""
    MULTICLASS = "multiclass"
    """One of more than two classes."""


# --- data ------------------------------------------------------------------------------------------------------------


class CsvFormat(Section):
    """How the CSV files are written."""

    delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = ","
    """What stands between two fields."""
    quote: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = '"'
    """What a field that holds a delimiter is wrapped in."""
    encoding: str = "utf-8"
    """The files' character encoding, by Python's name."""
    missing: list[str] = []
    """How a missing value is written beside an empty cell, exactly: `NA`, `?`. It is missing in every column then, text
    included."""
    header: bool = True
    """Whether the first line names the columns; without it the columns are the schema's, in the schema's order."""


class SplitByKey(Section):
    """Rows go into a split by the hash of some columns: all rows of one customer into the same."""

    columns: Annotated[list[ColumnName], pydantic.Field(min_length=1)]
    """The columns that say who or what a row belongs to. A row that lacks them all goes by its own hash."""


class SplitByTime(Section):
    """Rows go into a split by their moment: the first split gets the oldest ones, the last the newest ones."""

    time: ColumnName
    """The column with the moment; rows without one go to quarantine."""
    formats: Annotated[list[str], pydantic.Field(min_length=1)] = ["iso"]
    """How the moments are written, as in a feature of the kind calendar."""
    cutoffs: dict[str, str] | None = None
    """The moment, written like the column's, at which every split but the first begins. Without cutoffs each span by
    itself is cut by the shares of `splits`: the newest rows of every span are its test rows."""

    @pydantic.field_validator("formats")
    @classmethod
    def _known_formats(cls, formats: list[str]) -> list[str]:
        return [_time_format(text) for text in formats]


class Data(Section):
    """Where the rows come from and how they are split."""

    path: str
    """A glob of files; `{SPAN}` and `{VERSION}` stand for a span's number and its delivery."""
    format: Literal["csv", "parquet", "tfrecord"] = "csv"
    """The files' format: CSV (plain, gzip, zstd or bz2), Parquet, or TFRecord of tf.Example (plain or gzip)."""
    csv: CsvFormat = CsvFormat()
    """How CSV files are written."""
    window: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many of the latest spans one run trains on."""
    splits: dict[str, Annotated[int, pydantic.Field(ge=1)]] = {"train": 8, "eval": 1, "test": 1}
    """Name of each split and its share in parts."""
    split_by: Literal["row"] | SplitByKey | SplitByTime = "row"
    """What decides on a row's split: the hash of all its values (copies of a row stay together), the hash of some
    columns (`columns: [customer]`), or its moment (`time: sold_at`)."""
    required: list[ColumnName] = []
    """Columns without which a row is malformed; rows that lack a value go to quarantine."""
    shards: Annotated[int, pydantic.Field(ge=1, le=1024)] = 4
    """TFRecord files a split (at the least; a large input makes more)."""
    compression: Literal["none", "gzip"] = "none"
    """Of the TFRecord files: none is several times faster, gzip a third of the size."""
    max_malformed_share: Share = 0.01
    """The share of a file's rows that may go to quarantine before the run stops."""
    max_unlabelled_share: Share = 0.05
    """The share of a span's rows that may lack the label before the run stops. Such rows teach nothing: they go to
    quarantine, and do not count as malformed. Raise it where labels come late."""
    generator: str | None = None
    """Dotted path of a module that makes the built-in data where there are none yet."""
    span_column: ColumnName | None = None
    """Name of an integer column that every row gets with the number of its span; none by default."""

    @pydantic.field_validator("splits")
    @classmethod
    def _needed_splits(cls, splits: dict[str, int]) -> dict[str, int]:
        missing = {"train", "eval", "test"} - set(splits)
        if missing:
            raise ValueError(f"the splits train, eval and test are needed; missing: {', '.join(sorted(missing))}")
        illegal = [name for name in splits if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
        if illegal:
            raise ValueError(f"split names are lower-case words; found: {', '.join(illegal)}")
        return splits

    @pydantic.model_validator(mode="after")
    def _cutoffs_of_all(self) -> Data:
        if not isinstance(self.split_by, SplitByTime) or self.split_by.cutoffs is None:
            return self
        later = list(self.splits)[1:]
        if sorted(self.split_by.cutoffs) != sorted(later):
            raise ValueError(f"split_by.cutoffs has to hold {', '.join(later)}: every split but the first")
        return self


# --- features --------------------------------------------------------------------------------------------------------

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
            raise ValueError(f"fewer than {cells:.1e} combinations; make the parts smaller")
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

_NUMBERS, _CATEGORIES, _ANYTHING = ("INT", "FLOAT"), ("INT", "BYTES"), ("INT", "FLOAT", "BYTES")


class Use(NamedTuple):
    """A place where a feature names a raw column."""

    location: tuple[str | int, ...]
    """Where in the feature's section; empty where the column has the feature's name."""
    column: str
    types: tuple[str, ...]
    """The types of the schema that will do: INT, FLOAT, BYTES."""


def uses(name: str, feature: Feature) -> list[Use]:
    """Lists where the feature `name` reads raw columns, and of which types."""
    if isinstance(feature, Cross):
        return [
            Use(("parts", position, "column"), part.column, _side_types(part))
            for position, part in enumerate(feature.parts)
        ]
    if isinstance(feature, Custom):
        return [Use(("columns", position), column, _ANYTHING) for position, column in enumerate(feature.columns)]
    return [Use(("column",) if feature.column else (), feature.column or name, _types(feature))]


def _side_types(part: CrossPart) -> tuple[str, ...]:
    if part.size is not None:
        return ("INT",)
    return _CATEGORIES if part.buckets is not None else _NUMBERS


def _types(
    feature: Numeric | Buckets | Identity | Vocabulary | Hash | Boolean | Cyclical | Calendar | Text,
) -> tuple[str, ...]:
    if isinstance(feature, Calendar):
        # A float32, all that a float column holds, tells moments of today apart by two minutes only.
        return _CATEGORIES if set(feature.formats) <= EPOCHS.keys() else ("BYTES",)
    if isinstance(feature, Vocabulary | Hash):
        return ("BYTES",) if feature.separator else _CATEGORIES
    if isinstance(feature, Identity):
        return ("INT",)
    if isinstance(feature, Boolean):
        return _ANYTHING
    return ("BYTES",) if isinstance(feature, Text) else _NUMBERS


def raw_columns(name: str, feature: Feature) -> list[str]:
    """Names the raw columns that the feature `name` reads."""
    return [use.column for use in uses(name, feature)]


def listed_columns(features: Mapping[str, Feature]) -> set[str]:
    """Names the raw columns of which a feature reads several values a row."""
    return {
        use.column
        for name, feature in features.items()
        if isinstance(feature, Identity | Vocabulary | Hash)
        and feature.max_values > 1
        and getattr(feature, "separator", None) is None
        for use in uses(name, feature)
    }


def output_columns(name: str, feature: Feature) -> list[str]:
    """Names the columns that Transform makes of the feature `name`, in their order."""
    if isinstance(feature, Numeric):
        return [name, f"{name}_missing"] if feature.indicator else [name]
    if isinstance(feature, Cyclical):
        return _circle(name)
    if isinstance(feature, Calendar):
        return [column for part in feature.parts for column in _calendar_columns(f"{name}_{part}", part, feature)]
    if isinstance(feature, Custom) and feature.width > 1:
        return [f"{name}_{position}" for position in range(feature.width)]
    return [name]


def _circle(name: str) -> list[str]:
    return [f"{name}_sin", f"{name}_cos"]


def _calendar_columns(name: str, part: str, feature: Calendar) -> list[str]:
    return [name] if part in ("year", "days") or feature.encoding == "category" else _circle(name)


def name_problems(features: Mapping[str, Feature], label: str) -> list[Problem]:
    """Finds features whose columns behind Transform have the name of the label or of another feature's column."""
    owners: dict[str, str] = {}
    problems: list[Problem] = []
    for name, feature in features.items():
        for column in output_columns(name, feature):
            owner = owners.setdefault(column, name)
            if column == label:
                problems.append(_taken(name, column, "a feature with the name of the label"))
            elif owner != name:
                problems.append(_taken(name, column, f"the column {column!r}, which feature {owner!r} makes too"))
    return problems


def _taken(name: str, column: str, found: str) -> Problem:
    renaming = "Rename the feature" if name == column else f"Rename the feature that makes {column!r}"
    return Problem(
        where=f"features.{name}",
        found=found,
        expected="another name",
        action=f"{renaming} and give its raw column as `column`.",
    )


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


# --- model and training ----------------------------------------------------------------------------------------------


class Model(Section):
    """The shape of the Keras model."""

    kind: Literal["linear", "deep", "wide_deep", "cross"] = "wide_deep"
    """A linear model, a deep network, both added up, or a cross network (DCN) over a deep one."""
    hidden_units: list[Annotated[int, pydantic.Field(ge=1)]] = [64, 32]
    """Units of each hidden layer of the deep part."""
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of hidden units that are left out at random in training."""
    l2: Annotated[float, pydantic.Field(ge=0.0)] = 0.0
    """Penalty on the squared weights of all dense layers and embeddings."""
    cross_layers: Annotated[int, pydantic.Field(ge=1)] = 2
    """Layers of the cross network; n of them express products of n + 1 inputs."""
    cross_rank: Annotated[int, pydantic.Field(ge=1)] | None = 64
    """Rank of a cross layer's matrix; `null` for a full one, whose size is the square of the inputs' width."""
    one_hot_up_to: Annotated[int, pydantic.Field(ge=1)] = 512
    """Categories with at most this many values are one-hot, larger ones are embedded."""
    function: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """Dotted path of a function of your own that builds the Keras model in the place of `kind`."""


ClassWeights = Literal["balanced"] | dict[str, Annotated[float, pydantic.Field(gt=0.0)]] | None


class Training(Section):
    """How the model is fitted."""

    epochs: Annotated[int, pydantic.Field(ge=1)] = 10
    """How often training sees the whole train split at the most."""
    max_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Stops after this many steps, whatever the epochs say."""
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 1024
    """Rows a step over all devices and workers (the global batch)."""
    learning_rate: Annotated[float, pydantic.Field(gt=0.0)] = 3e-3
    """The optimiser's learning rate, for the global batch: more devices do not change it."""
    learning_rate_schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """`cosine` lets the learning rate fall to zero over all steps, which ends nearer to the optimum; `exponential` to
    a hundredth."""
    warmup_share: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of all steps over which the learning rate rises from zero first."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser."""
    gradient_clip: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """Longest gradient (over all weights together) that a step follows as it is; a longer one is shortened to it."""
    class_weights: ClassWeights = None
    """How much a row of each class counts in the loss: `balanced` makes all classes count the same."""
    early_stopping_patience: Annotated[int, pydantic.Field(ge=1)] | None = 3
    """Epochs without a better loss on the eval split before training stops; `null` never stops early."""
    keep: Literal["best", "last"] = "best"
    """The weights of the epoch with the best loss on the eval split, or of the last one: a linear model with a penalty
    has one optimum, and a small eval split cannot tell a better place to stop."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 42
    """Seed of everything random in training."""
    cache_mib: Annotated[int, pydantic.Field(ge=0)] = 1024
    """Memory for the decoded columns of a split; those of a larger one are kept on disk."""
    disk_cache_gib: Annotated[float, pydantic.Field(ge=0.0)] = 16.0
    """Disk for the decoded columns of a split, in the folder for temporary files (TMPDIR); a larger split is streamed
    from its files in every epoch."""
    reproducible: bool = True
    """Whether a streamed split is read in the same order in every run; without it the reading is faster."""
    distribution: Literal["auto", "none", "mirrored", "multi_worker", "parameter_server"] = "auto"
    """`auto` mirrors over all GPUs when there are several, and over all workers when TF_CONFIG names them."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """What is computed with; weights and outputs are float32 always. `auto` is float32: the networks of tables are
    too small to gain from less."""
    xla: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles the step; `auto` does on one GPU and not on CPUs, where it was measured to be slower."""
    checkpoint_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Steps between two checkpoints; `null` leaves it to the minutes."""
    checkpoint_minutes: Annotated[float, pydantic.Field(gt=0.0)] | None = 1.0
    """Minutes between two checkpoints; `null` leaves it to the steps. A killed training goes on from the last one."""
    checkpoints_kept: Annotated[int, pydantic.Field(ge=1)] = 2
    """How many of the latest checkpoints stay on disk until training is through."""
    weight_histograms: bool = False
    """Whether TensorBoard gets the weights' histograms of every epoch."""
    profile_input: bool = False
    """Whether the share of the steps that waits for input is measured in the second epoch (half a second of profiler),
    for TensorBoard and `training.json`."""
    tflite: list[Literal["float16", "int8"]] = []
    """Quantised variants of the network for TensorFlow Lite, written and measured beside the SavedModel."""


# --- tuning ----------------------------------------------------------------------------------------------------------

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


# --- gates -----------------------------------------------------------------------------------------------------------

Metric = Literal["rmse", "mae", "accuracy", "auc", "log_loss"]
HIGHER_IS_BETTER: dict[str, bool] = {"rmse": False, "mae": False, "accuracy": True, "auc": True, "log_loss": False}
"""The direction of each metric that the configuration may name."""


class Bound(Section):
    """The values of a metric at which a candidate is still blessed."""

    min: float | None = None
    """The metric may not be below this."""
    max: float | None = None
    """The metric may not be above this."""


class Evaluation(Section):
    """When a candidate is good enough to replace the serving model."""

    metrics: Annotated[list[Metric], pydantic.Field(min_length=1)]
    """The first one decides between the candidate, the champion and the trivial baseline."""
    bounds: dict[Metric, Bound] = {}
    """Absolute limits of a metric on the test split."""
    tolerated_loss: Annotated[float, pydantic.Field(ge=0.0)] = 0.01
    """By how much, relative to the champion, the first metric may be worse."""
    slices: list[Annotated[list[ColumnName], pydantic.Field(min_length=1)]] = []
    """Columns (or combinations) by whose values the metrics are also computed."""
    beat_trivial: bool = True
    """Whether the candidate must beat predicting the mean (or the most frequent class) of the train split."""


DataCheck = Literal[
    "rows",
    "label",
    "weights",
    "empty",
    "missing_column",
    "new_column",
    "type",
    "missing_values",
    "unknown_values",
    "range",
    "not_finite",
    "value_count",
    "distinct_values",
    "encoding",
    "row_count",
    "drift",
    "label_drift",
    "split_skew",
    "span_drift",
    "slice_drift",
    "new_values",
    "vanished_values",
    "span_rows",
    "quarantine",
    "duplicate_span",
]
"""What the data gate checks without being told to; the page on the data gate says what each one means."""


class CustomCheck(Section):
    """A condition on the data that only whoever knows them can name; it holds for every span by itself."""

    name: str | None = None
    """What to call it in reports; the expression where it is left out."""
    row: str | None = None
    """A condition on every row, such as `discount_price <= list_price`; either this or `column`."""
    column: str | None = None
    """A condition on all rows of a span together, such as `share(price == 1.0) < 0.01`."""
    where: str | None = None
    """Only the rows for which this is so, such as `currency == 'JPY'`."""
    max_failing: Share = 0.0
    """The share of the rows that may break a condition on rows."""
    severity: Literal["error", "warning"] = "error"
    """Whether the run stops."""

    @pydantic.model_validator(mode="after")
    def _one_condition(self) -> CustomCheck:
        if (self.row is None) == (self.column is None):
            raise ValueError("either `row` or `column`, with a condition")
        if self.column is not None and self.max_failing:
            raise ValueError("`max_failing` with `row` only: a condition on a column is true or false as a whole")
        return self

    def expressions(self) -> Iterator[tuple[str, expressions.Kind, str]]:
        """Yields key, kind and text of each expression."""
        kinds = (("row", expressions.Kind.ROW), ("column", expressions.Kind.TABLE), ("where", expressions.Kind.ROW))
        for key, kind in kinds:
            text = getattr(self, key)
            if text is not None:
                yield key, kind, text


class Validation(Section):
    """What the data gate holds the data against, beside the schema; `null` switches a threshold's check off."""

    max_drift: Annotated[float, pydantic.Field(gt=0.0)] | None = 0.2
    """Largest Jensen-Shannon divergence (numbers) or L-infinity distance (categories) from the serving model's training
    statistics; `null` leaves drift alone. Honest samples of one table are at most 0.09 apart at 16,000 rows and 0.11 at
    500, whatever the columns look like (heavy tails, masses at zero, categories without end); a shift of a normal
    column by one standard deviation is 0.22, a value's share that changes by a fifth of all rows is 0.2."""
    max_label_drift: Annotated[float, pydantic.Field(gt=0.0)] | None = 0.2
    """The same for the label, and its largest Kolmogorov-Smirnov distance from the span before."""
    max_span_drift: Annotated[float, pydantic.Field(gt=0.0)] | None = 0.2
    """Largest Kolmogorov-Smirnov distance (numbers), change of a value's share (categories) or of the share of missing
    values of a new span from the span before it. Noise of sampling, and what the column always does from span to span,
    come on top."""
    max_slice_drift: Annotated[float, pydantic.Field(gt=0.0)] | None = 0.3
    """The same within the rows of one category (one currency, one weekday), however few they are in the whole."""
    max_value_change: Share | None = 0.005
    """Share of a new span's rows from which on a category that the span before did not have, or one that is gone, is
    told; columns with few values only."""
    max_split_skew: Annotated[float, pydantic.Field(gt=0.0)] | None = 0.2
    """Largest distance of another split from the train split, measured as `max_drift` is."""
    max_rows_factor: Annotated[float, pydantic.Field(gt=1.0)] | None = 3.0
    """How many times more or fewer rows than usual (the median of the earlier spans) a new span may have."""
    max_duplicate_share: Share | None = 0.5
    """Share of a new span's rows that may also be in another span; a span that was delivered twice shares all."""
    min_rows: Annotated[int, pydantic.Field(ge=1)] = 100
    """Rows that the train split needs at the least."""
    severity: dict[DataCheck, Literal["error", "warning", "off"]] = {}
    """What a check's finding does, where it shall not be what it is: stop the run, be reported, nothing."""
    checks: list[CustomCheck] = []
    """Your own conditions."""
