"""The typed sections of the configuration that travel to the nodes; unknown keys are refused.

`pipeline/config.py` puts them together, checks them against each other and against the schema, and renders what is
wrong. `preprocessing_fn` and `run_fn` get the sections they need as JSON in `custom_config` and read them back with
`model_validate`: one definition, no environment variables, nothing read from a file by a node.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic

from evergreen import expressions

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


class Data(Section):
    """Where the rows come from and how they are split."""

    path: str
    """A glob of files; `{SPAN}` and `{VERSION}` stand for a span's number and its delivery."""
    format: Literal["csv"] = "csv"
    """The files' format."""
    csv: CsvFormat = CsvFormat()
    """How CSV files are written."""
    window: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many of the latest spans one run trains on."""
    splits: dict[str, Annotated[int, pydantic.Field(ge=1)]] = {"train": 8, "eval": 1, "test": 1}
    """Name of each split and its share in parts; a row falls into one by the hash of its values."""
    shards: Annotated[int, pydantic.Field(ge=1, le=1024)] = 4
    """TFRecord files a split (at the least; a large input makes more)."""
    compression: Literal["none", "gzip"] = "none"
    """Of the TFRecord files: none is several times faster, gzip a third of the size."""
    max_malformed_share: Share = 0.01
    """The share of a file's rows that may go to quarantine before the run stops."""
    generator: str | None = None
    """Dotted path of a module that makes the built-in data where there are none yet."""

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


# --- features --------------------------------------------------------------------------------------------------------


class Numeric(Section):
    """A number, scaled with what the train split says of it."""

    kind: Literal["numeric"]
    """Says that the feature is a number."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    scale: Literal["z_score", "min_max", "none"] = "z_score"
    """To mean 0 and deviation 1, to [0, 1], or not at all."""


class Identity(Section):
    """An integer that already counts categories, 0 to size - 1; one-hot in the model."""

    kind: Literal["identity"]
    """Says that the column's integers are categories already."""
    column: ColumnName | None = None
    """The raw column; the feature's own name where it is left out."""
    size: Annotated[int, pydantic.Field(ge=2)]
    """How many categories there are; values outside of 0 to size - 1 share one more."""


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


class CrossPart(Section):
    """One side of a cross: an integer column with values 0 to size - 1."""

    column: ColumnName
    """The raw integer column."""
    size: Annotated[int, pydantic.Field(ge=2)]
    """How many values it takes, counted from 0."""


class Cross(Section):
    """Every combination of several integer columns as a category of its own; one-hot in the model."""

    kind: Literal["cross"]
    """Says that the feature is a combination of columns."""
    parts: Annotated[list[CrossPart], pydantic.Field(min_length=2)]
    """The columns to combine, the slowest-moving first."""


Feature = Annotated[Numeric | Identity | Vocabulary | Cross, pydantic.Field(discriminator="kind")]


def raw_columns(name: str, feature: Feature) -> list[str]:
    """Names the raw columns that the feature `name` reads."""
    if isinstance(feature, Cross):
        return [part.column for part in feature.parts]
    return [feature.column or name]


class Label(Section):
    """The column to predict."""

    column: ColumnName
    """The column to predict."""
    task: Task
    """What the model predicts: a number, one of two classes, one of several."""


class Preprocessing(Section):
    """What `transform/preprocessing.py` gets: the features and the label."""

    features: Annotated[dict[str, Feature], pydantic.Field(min_length=1)]
    label: Label


# --- model and training ----------------------------------------------------------------------------------------------


class Model(Section):
    """The shape of the Keras model."""

    kind: Literal["linear", "deep", "wide_deep"] = "wide_deep"
    """A linear model, a deep network, or both added up."""
    hidden_units: list[Annotated[int, pydantic.Field(ge=1)]] = [64, 32]
    """Units of each hidden layer of the deep part."""
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of hidden units that are left out at random in training."""
    one_hot_up_to: Annotated[int, pydantic.Field(ge=1)] = 512
    """Categories with at most this many values are one-hot, larger ones are embedded."""


class Training(Section):
    """How the model is fitted."""

    epochs: Annotated[int, pydantic.Field(ge=1)] = 10
    """How often training sees the whole train split at the most."""
    max_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Stops after this many steps, whatever the epochs say."""
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 1024
    """Rows a step over all devices (the global batch)."""
    learning_rate: Annotated[float, pydantic.Field(gt=0.0)] = 3e-3
    """The optimiser's learning rate, for the global batch."""
    learning_rate_schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` lets the learning rate fall to zero over all steps, which ends nearer to the optimum."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser."""
    early_stopping_patience: Annotated[int, pydantic.Field(ge=1)] | None = 3
    """Epochs without a better loss on the eval split before training stops; `null` never stops early."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 42
    """Seed of everything random in training."""
    cache_mib: Annotated[int, pydantic.Field(ge=0)] = 1024
    """Memory for the decoded columns of a split; a larger split is streamed from its files in every epoch."""
    reproducible: bool = True
    """Whether a streamed split is read in the same order in every run; without it the reading is faster."""
    distribution: Literal["auto", "none", "mirrored"] = "auto"
    """`auto` mirrors over all GPUs when there are several."""


class TrainerConfig(Section):
    """What `trainer/train.py` gets as `custom_config`."""

    preprocessing: Preprocessing
    model: Model
    training: Training


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
