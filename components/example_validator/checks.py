"""The checks of the data gate: pure functions from statistics to findings; none reads a file or stops anything.

Each check looks at the whole and returns everything that it finds. A new check is a new function here and one line in
the executor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.example_validator import comparison, wording
from components.example_validator.findings import Finding, Severity
from components.example_validator.profile import Floats

Dataset: TypeAlias = statistics_pb2.DatasetFeatureStatistics
Column: TypeAlias = statistics_pb2.FeatureNameStatistics

_TWO_DECILES = 0.15
"""Between one step and two of the curve that eleven edges make."""
_FEW_INTEGERS = 1000
"""The range up to which whole numbers are compared by buckets of equal width."""
_DRIFT = (
    anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH,
    anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
)
_HARMLESS = (anomalies_pb2.AnomalyInfo.SCHEMA_NEW_COLUMN,)


def columns(dataset: Dataset) -> dict[str, Column]:
    """Returns the statistics of each top-level column by its name."""
    named = ((column.name or ".".join(column.path.step), column) for column in dataset.features)
    return {name: column for name, column in named if name}


def rows(splits: Mapping[str, Dataset], *, min_rows: int) -> Iterator[Finding]:
    """Finds splits without rows, and a train split with less than `min_rows` of them."""
    for split, dataset in splits.items():
        needed = min_rows if split == "train" else 1
        if dataset.num_examples >= needed:
            continue
        yield Finding(
            column=None,
            check="rows" if split == "train" else f"rows_{split}",
            severity=Severity.ERROR,
            splits=(split,),
            found=f"{int(dataset.num_examples):,} rows" if dataset.num_examples else "no rows",
            expected=f"at least {needed:,}" + (" (validation.min_rows)" if split == "train" else ""),
            action="Look whether files are missing or were cut short; a longer data.window brings more rows.",
        )


def label(splits: Mapping[str, Dataset], *, column: str) -> Iterator[Finding]:
    """Finds splits in which no row has a label, or all have the same: nothing could be learned or measured there."""
    for split, dataset in splits.items():
        if not dataset.num_examples:
            continue
        statistics = columns(dataset).get(column)
        if statistics is not None and _present(statistics):
            yield from _one_label(split, column, statistics)
            continue
        yield Finding(
            column=column,
            check="label",
            severity=Severity.ERROR,
            splits=(split,),
            found="no such column" if statistics is None else "no value in any row",
            expected="the label",
            action="Look whether the column was renamed or has not been filled in yet.",
        )


def _one_label(split: str, column: str, statistics: Column) -> Iterator[Finding]:
    value = _only_value(statistics)
    if value is None:
        return
    learned = split == "train"
    for_what = "nothing to learn" if learned else "little to measure"
    yield Finding(
        column=column,
        check="label",
        severity=Severity.ERROR if learned else Severity.WARNING,
        splits=(split,),
        found=f"one label only: {value} in every row",
        expected=f"at least two different labels, for there is {for_what}",
        action="Look whether the rows of the others were lost at the source, or name another label.column."
        if learned
        else "Give the split a larger share in data.splits, or bring in more rows (data.window).",
    )


def _only_value(statistics: Column) -> str | None:
    """Returns the value that all rows have, in words; None where there are several."""
    if statistics.HasField("num_stats"):
        numbers = statistics.num_stats
        return f"{numbers.min:.6g}" if numbers.min == numbers.max else None
    words = statistics.string_stats
    return repr(words.top_values[0].value) if words.unique == 1 and words.top_values else None


def weights(splits: Mapping[str, Dataset], *, column: str | None) -> Iterator[Finding]:
    """Finds the splits that training looks at in which no row counts; a missing weight counts, a negative one is 0."""
    for split, dataset in splits.items():
        statistics = columns(dataset).get(column or "")
        if split not in ("train", "eval") or statistics is None or not statistics.HasField("num_stats"):
            continue
        numbers = statistics.num_stats
        if not _present(statistics) or numbers.max > 0 or numbers.common_stats.num_missing:
            continue
        yield Finding(
            column=column,
            check="weights",
            severity=Severity.ERROR,
            splits=(split,),
            found="the weight 0 in every row"
            if numbers.min == 0
            else f"no weight above 0: {numbers.min:.6g} to {numbers.max:.6g}",
            expected="rows that count: weights above 0",
            action="Look what fills the column, or take it out of weights.column.",
        )


def empty_columns(splits: Mapping[str, Dataset], *, schema: schema_pb2.Schema) -> Iterator[Finding]:
    """Finds columns of the schema without a single value, though the schema lets every value be missing."""
    required = {feature.name for feature in schema.feature if feature.presence.min_fraction > 0}
    known = {feature.name for feature in schema.feature} - required
    for split, dataset in splits.items():
        for name, column in columns(dataset).items():
            if name in known and dataset.num_examples and not _present(column):
                yield Finding(
                    column=name,
                    check="empty",
                    severity=Severity.WARNING,
                    splits=(split,),
                    found="no value in any row",
                    expected="values in some rows",
                    action="Look whether its source still delivers; without values the column teaches nothing.",
                )


def anomalies(
    found: anomalies_pb2.Anomalies, *, split: str, dataset: Dataset, schema: schema_pb2.Schema
) -> Iterator[Finding]:
    """Puts TFDV's anomalies into words; drift is left to `drift`.

    The severity is TFDV's, with one exception: a column that the schema does not know is a warning, for no feature can
    read it. (A renamed column is stopped all the same: its old name is missing.)
    """
    if found.HasField("dataset_anomaly_info"):
        yield from _of_anomaly(None, found.dataset_anomaly_info, split=split, dataset=dataset, schema=schema)
    for name in sorted(found.anomaly_info):
        yield from _of_anomaly(name, found.anomaly_info[name], split=split, dataset=dataset, schema=schema)


def _of_anomaly(
    name: str | None,
    anomaly: anomalies_pb2.AnomalyInfo,
    *,
    split: str,
    dataset: Dataset,
    schema: schema_pb2.Schema,
) -> Iterator[Finding]:
    plain = name.strip("'") if name else None
    statistics = columns(dataset).get(plain) if plain else None
    feature = next((feature for feature in schema.feature if feature.name == plain), None)
    for reason in anomaly.reason:
        if reason.type in _DRIFT:
            continue
        words = wording.describe(
            reason, rows=int(dataset.num_examples), column=statistics, feature=feature, schema=schema
        )
        harmless = reason.type in _HARMLESS or anomaly.severity == anomalies_pb2.AnomalyInfo.WARNING
        yield Finding(
            column=plain,
            check=words.check,
            severity=Severity.WARNING if harmless else Severity.ERROR,
            splits=(split,),
            found=words.found,
            expected=words.expected,
            examples=words.examples,
            action=words.action,
        )


# --- drift -----------------------------------------------------------------------------------------------------------


def with_comparators(
    schema: schema_pb2.Schema, *, current: Dataset, reference: Dataset, max_drift: float
) -> schema_pb2.Schema:
    """Returns a copy of the schema that makes TFDV measure the drift of every column that both statistics can compare.

    Numbers are compared by Jensen-Shannon divergence (base 2, in [0, 1]) over the quantile histograms. TFDV's usual
    histograms have buckets of equal width between minimum and maximum, so that one outlier moves every bucket: honest
    samples of 16,000 rows of a log-normal column measured 0.72 apart with them, 0.08 with quantiles. Whole numbers of
    a small range keep the usual ones: there are no outliers, and quantiles of seven weekdays jump (0.38 at 100 rows).
    Categories are compared by L-infinity: the largest change of a value's share.

    A comparator that the schema has already stays as it is. With few rows the threshold is widened to what sampling
    alone does: four standard deviations of a share, at its worst.

    Args:
        schema: left as it is.
        current: statistics of the split that is checked.
        reference: statistics that it is compared with.
        max_drift: the largest distance that is no finding.
    """
    copy = schema_pb2.Schema()
    copy.CopyFrom(schema)
    threshold = max(max_drift, sampling_noise(current.num_examples, reference.num_examples))
    ours, theirs = columns(current), columns(reference)
    for feature in copy.feature:
        if feature.HasField("drift_comparator") or feature.name not in ours or feature.name not in theirs:
            continue
        both = (ours[feature.name], theirs[feature.name])
        if not all(_present(column) for column in both):
            continue
        if all(column.HasField("num_stats") for column in both):
            divergence = feature.drift_comparator.jensen_shannon_divergence
            divergence.threshold = threshold
            if not all(_few_integers(column) for column in both):
                divergence.source.type = schema_pb2.HistogramSelection.QUANTILES
        elif all(column.HasField("string_stats") for column in both):
            feature.drift_comparator.infinity_norm.threshold = threshold
    return copy


def sampling_noise(current_rows: float, reference_rows: float) -> float:
    """Returns by how much the share of a value differs between two samples of the same data, at the very most.

    Four standard deviations of the difference of two shares of one half: 0.02 at 16,000 rows each, 0.26 at 120.
    """
    if not current_rows or not reference_rows:
        return 1.0
    return 2.0 * math.sqrt(1.0 / current_rows + 1.0 / reference_rows)


def distances(found: anomalies_pb2.Anomalies) -> dict[str, tuple[float, float]]:
    """Returns distance and threshold of every column whose drift TFDV measured."""
    return {
        ".".join(info.path.step): (measurement.value, measurement.threshold)
        for info in found.drift_skew_info
        for measurement in info.drift_measurements
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What the train split is held against."""

    statistics: Dataset
    words: str
    """What it is, in words."""
    max_drift: float | None
    """The largest distance of a column; None leaves them alone."""
    max_label_drift: float | None
    """The same for the label."""


def drift(
    measured: Mapping[str, tuple[float, float]], *, split: str, current: Dataset, against: Reference, label: str
) -> Iterator[Finding]:
    """Finds columns that are distributed otherwise than in the reference.

    Args:
        measured: distance and threshold by column; the threshold holds what sampling alone does.
        split: which split was measured.
        current: its statistics.
        against: what it was compared with.
        label: the raw label column, which has a threshold of its own.
    """
    noise = sampling_noise(current.num_examples, against.statistics.num_examples)
    ours, theirs = columns(current), columns(against.statistics)
    for name, (distance, measured_threshold) in sorted(measured.items(), key=lambda item: -item[1][0]):
        most = against.max_label_drift if name == label else against.max_drift
        if most is None:
            continue
        widest = max(value for value in (against.max_drift, against.max_label_drift) if value is not None)
        # A comparator that the schema has already is the schema's word on this column.
        of_schema = measured_threshold != max(widest, noise)
        threshold = measured_threshold if of_schema else max(most, noise)
        if distance <= threshold or not _differ(ours[name], theirs[name]):
            continue
        key = "validation.max_label_drift" if name == label else "validation.max_drift"
        was, now = wording.summary(theirs[name]), wording.summary(ours[name])
        yield Finding(
            column=name,
            check="label_drift" if name == label else "drift",
            severity=Severity.ERROR,
            splits=(split,),
            found=f"a distance of {distance:.2f} from {against.words}: {was} then, {now} now",
            expected=f"at most {threshold:.2f} ({'the schema' if of_schema else key})",
            action=f"Look whether the source changed; where the change is real, raise {key} for a run.",
        )


def skew(
    measured: Mapping[str, tuple[float, float]], *, split: str, current: Dataset, train: Dataset
) -> Iterator[Finding]:
    """Finds columns of another split that are distributed otherwise than in the train split.

    A warning: splits by time differ by their nature, and the rows themselves need not be wrong.
    """
    ours, theirs = columns(current), columns(train)
    for name, (distance, threshold) in sorted(measured.items(), key=lambda item: -item[1][0]):
        if distance <= threshold or not _differ(ours[name], theirs[name]):
            continue
        was, now = wording.summary(theirs[name]), wording.summary(ours[name])
        yield Finding(
            column=name,
            check="split_skew",
            severity=Severity.WARNING,
            splits=(split,),
            found=f"a distance of {distance:.2f} from the train split: {was} there, {now} here",
            expected=f"at most {threshold:.2f} (validation.max_split_skew)",
            action="Look how data.splits deals the rows: metrics on this split say little of the others.",
        )


def _differ(ours: Column, theirs: Column) -> bool:
    """Tells whether the deciles of a column of numbers bear a distance out; of other columns there is no doubt.

    TFDV's buckets move with the smallest and the largest value: the counts of a few whole numbers, 1 to 6 in one sample
    and 1 to 5 in the other, are 0.44 apart though nothing changed. Nor is it drift where each number is about the same.
    """
    deciles = [_deciles(column) for column in (ours, theirs)]
    if not all(len(values) for values in deciles) or len(deciles[0]) != len(deciles[1]):
        return True
    spread = comparison.spread_of(deciles[1].tolist())
    return comparison.between(deciles[0], deciles[1], spread=spread) > _TWO_DECILES


def _deciles(column: Column) -> Floats:
    quantiles = statistics_pb2.Histogram.QUANTILES
    for histogram in column.num_stats.histograms:
        if histogram.type == quantiles and histogram.buckets:
            edges = [histogram.buckets[0].low_value, *(bucket.high_value for bucket in histogram.buckets)]
            return np.asarray(edges, np.float64)
    return np.zeros(0)


def _few_integers(column: Column) -> bool:
    numbers = column.num_stats
    return bool(column.type == statistics_pb2.FeatureNameStatistics.INT and numbers.max - numbers.min <= _FEW_INTEGERS)


def _present(column: Column) -> bool:
    """Tells whether any row has a value."""
    common = column.num_stats.common_stats if column.HasField("num_stats") else column.string_stats.common_stats
    if column.HasField("bytes_stats"):
        common = column.bytes_stats.common_stats
    return bool(common.num_non_missing)
