"""Sections about the gates: what stops data or a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic

from evergreen import expressions
from evergreen.settings.base import ColumnName, Section, Share, YamlSwitch

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
    severity: dict[DataCheck, Annotated[Literal["error", "warning", "off"], YamlSwitch]] = {}
    """What a check's finding does, where it shall not be what it is: stop the run, be reported, nothing."""
    checks: list[CustomCheck] = []
    """Your own conditions."""
