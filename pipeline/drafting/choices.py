"""From what a table holds to what the configuration says, each choice with its reason.

Guarantee: pure functions of a `Profile`; nothing is read or written. A choice is never silent: a column that is no
feature has the reason why, and what looks dangerous (a leak, an identifier) is also told as a warning.

A new kind of feature slots in as one more `_Rule` in `_RULES`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen import settings
from evergreen.words import short
from pipeline.drafting import leaks
from pipeline.drafting.profile import LARGEST, Column, Profile, Type

Value = Any
"""What YAML holds: a number, a text, a list or a dictionary of them."""

_MAX_INTEGER_CLASSES = 20
_MAX_CLASSES = 1000
_SMALL = 2_000
"""Rows below which the parts for eval and test are larger."""
_LINEAR_BELOW = 1_000
"""Rows of the train split below which a network has too little to learn from."""
_MOST_PENALTY = 0.003
_OFTEN = 5
"""Rows from which on a value is worth a weight of its own."""
_HASH_BUCKETS = 4096
_MOST_VALUES = 256
"""What `max_values` may be."""
_UNLABELLED = "max_unlabelled_share"
_MALFORMED = "max_malformed_share"
_MOST_MALFORMED = 0.2
"""Share of bad lines from which on the file is more likely read in the wrong way than damaged."""
_FEW_WORDS = 3.0
"""Words a value from which a text column is prose."""
_CATEGORY_NAME = re.compile(
    r"(^|[_. -])(code|zip|plz|postcode|postal|category|class|group|region|type|month|weekday)([_. -]|$)", re.IGNORECASE
)
_ID_NAME = re.compile(r"(^|[_. -])(id|ids|uuid|guid|key|hash|index|row|serial|unnamed: 0)$", re.IGNORECASE)
_TIME_NAME = re.compile(r"time|date|stamp|_at$|_ts$|^ts$|epoch", re.IGNORECASE)
_ID_CAMEL = re.compile(r"[a-z0-9]I[Dd]$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature of the model."""

    column: str
    body: Mapping[str, Value]
    """The feature's section of the configuration, without `column`."""
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A column that is no feature."""

    column: str
    reason: str
    warning: bool = False
    """Whether the reason is worth a warning on the screen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a section with its value and the reason."""

    key: str
    value: Value
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """All that `new` decides."""

    task: settings.Task
    task_reason: str
    features: list[Feature]
    left_out: list[LeftOut]
    data: list[Setting]
    model: list[Setting]
    training: list[Setting]
    validation: list[Setting]
    evaluation: list[Setting]
    warnings: list[str]
    smallest_split: int
    """Rows that the smallest split has, about."""


def choose(profile: Profile, *, label: str, task: settings.Task | None = None) -> Choices:
    """Decides everything.

    Args:
        profile: what the table holds.
        label: the column to predict, one of the profile's.
        task: what the model predicts, where the person said it.
    """
    column = profile.columns[label]
    found, reason = task_of(column)
    chosen, why = (task, "as asked for with --task") if task else (found, reason)
    target = _target(column, chosen)
    features, left_out = _split_columns(profile, label=label, target=target)
    splits = _splits(profile.rows)
    parts = splits.value
    rows = {name: profile.rows * part // sum(parts.values()) for name, part in parts.items()}
    usable = max(1, round(rows["train"] * (1.0 - column.missing_share)))
    width = sum(_width(feature, profile.columns[feature.column]) for feature in features)
    return Choices(
        task=chosen,
        task_reason=why,
        features=features,
        left_out=left_out,
        data=[splits, *_split_by(profile, label), *_unlabelled(column), *_malformed(profile)],
        model=list(_model(usable, width)),
        training=list(_training(usable, width, chosen)),
        validation=list(_validation(rows["train"])),
        evaluation=list(_evaluation(chosen, round(rows["test"] * (1.0 - column.missing_share)))),
        warnings=list(_warnings(profile, column, chosen, left_out)),
        smallest_split=max(1, min(rows.values())),
    )


# --- the label -------------------------------------------------------------------------------------------------------


def task_of(label: Column) -> tuple[settings.Task, str]:
    """Tells what the label asks for, with the reason."""
    distinct = label.distinct
    if label.type is Type.STRING:
        return _classes(distinct), f"the label is text with {label.distinct_in_words()} different values"
    if label.type is Type.FLOAT:
        return settings.Task.REGRESSION, f"the label is a number with {label.distinct_in_words()} different values"
    dense = distinct <= _MAX_INTEGER_CLASSES and label.distinct_exact and label.present >= 5 * distinct
    if dense:
        values = sorted(int(value) for value in label.counts)
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        return _classes(
            distinct
        ), f"the label is one of {distinct} whole numbers ({shown}); --task regression otherwise"
    return settings.Task.REGRESSION, f"the label is a whole number with {label.distinct_in_words()} different values"


def _classes(distinct: int) -> settings.Task:
    return settings.Task.BINARY if distinct <= 2 else settings.Task.MULTICLASS


def _target(label: Column, task: settings.Task) -> Any:
    """Returns the label's sample as the leak check wants it: numbers for a regression, else text."""
    if task is settings.Task.REGRESSION or label.type is Type.STRING:
        return label.sample
    known = np.isfinite(label.sample)
    return pa.array([str(int(value)) if ok else None for value, ok in zip(label.sample, known, strict=True)])


# --- the columns -----------------------------------------------------------------------------------------------------


def _split_columns(profile: Profile, *, label: str, target: Any) -> tuple[list[Feature], list[LeftOut]]:
    features: list[Feature] = []
    left_out: list[LeftOut] = []
    leaking: list[tuple[Feature, LeftOut]] = []
    for column in profile.columns.values():
        if column.name == label:
            continue
        verdict = _verdict(column)
        if isinstance(verdict, LeftOut):
            left_out.append(verdict)
            continue
        score = leaks.score(column.sample, target)
        if score < leaks.LEAK:
            features.append(verdict)
            continue
        reason = f"alone it gives the label away (score {score:.3f} of 1 on rows held out): known only after the fact?"
        leaking.append((verdict, LeftOut(column=column.name, reason=reason, warning=True)))
    if not features:
        # With nothing else to learn from, the one column that determines the label is more likely an honest one.
        return [feature for feature, _ in leaking], left_out
    return features, left_out + [left for _, left in leaking]


def _verdict(column: Column) -> Feature | LeftOut:
    for rule in _RULES:
        if verdict := rule(column):
            return verdict
    raise AssertionError(f"no rule for {column.name}")  # the last rules take everything


def _several(column: Column) -> Feature | LeftOut | None:
    """Several values a row: categories together; no kind of feature takes several numbers."""
    if column.most_values <= 1:
        return None
    several = f"up to {column.most_values:,} values a row"
    if column.type is Type.FLOAT:
        return LeftOut(column=column.name, reason=f"{several}, of which no kind of feature takes more than the first")
    feature = _vocabulary(column, f"{several}; ")
    most = min(_MOST_VALUES, column.most_values)
    return dataclasses.replace(feature, body={**feature.body, "max_values": most})


_Rule = Callable[[Column], Feature | LeftOut | None]


def _empty(column: Column) -> LeftOut | None:
    return LeftOut(column=column.name, reason="no value in any row") if not column.present else None


def _constant(column: Column) -> LeftOut | None:
    if column.distinct > 1:
        return None
    value = next(iter(column.counts), "")
    return LeftOut(column=column.name, reason=f"constant: {_short(value)} in every row that has a value")


def _identifier(column: Column) -> LeftOut | None:
    if column.type is Type.FLOAT or column.present < 20 or column.timestamps:
        return None
    named = bool(_ID_NAME.search(column.name) or _ID_CAMEL.search(column.name))
    share = column.unique_share
    if column.type is Type.STRING and share >= 0.98 and _words(column) < _FEW_WORDS:
        return _is_identifier(column, f"{share:.0%} of its values are different{_other_numbers(column)}")
    if column.type is Type.INT and share == 1.0 and (named or _counts_up(column)):
        return _is_identifier(column, "every value is another whole number" + ("" if named else ", counting up"))
    if named and share > 0.2:
        return _is_identifier(column, f"its name says so, and it has {column.distinct_in_words()} different values")
    return None


def _is_identifier(column: Column, why: str) -> LeftOut:
    return LeftOut(column=column.name, reason=f"an identifier: {why}; a model would learn rows by heart", warning=True)


def _counts_up(column: Column) -> bool:
    """Tells whether whole numbers number the rows: they fill their range and rise or fall from row to row."""
    known = column.sample[np.isfinite(column.sample)]
    if len(known) < 2:
        return False
    steps = np.diff(known)
    bounds = column.range()
    dense = bounds is not None and bounds[1] - bounds[0] < 2.0 * column.present
    return bool(dense or np.all(steps > 0) or np.all(steps < 0))


def _timestamp(column: Column) -> Feature | None:
    if not column.timestamps:
        return None
    known = list(column.timestamps)
    dated = any(format_ == "iso" or "%d" in format_ for format_ in known)
    parts = ["hour"] * column.clock + ["weekday", "month"] * dated
    body: dict[str, Value] = {"kind": "calendar", "parts": parts}
    if known != ["iso"]:
        body["formats"] = known
    shares = " and ".join(f"{format_} ({share:.0%})" for format_, share in column.timestamps.items())
    reason = f"moments written as {shares}{_missing(column)}; parts that come again, not the date, which never does"
    return Feature(column=column.name, body=body, reason=reason)


def _epoch(column: Column) -> Feature | None:
    """Whole numbers that are moments: seconds or milliseconds of the years 2001 to 2065, with a name that says so."""
    bounds = column.range()
    if column.type is not Type.INT or bounds is None or not _TIME_NAME.search(column.name):
        return None
    for format_, second in settings.EPOCHS.items():
        if 1e9 * second <= bounds[0] and bounds[1] < 3e9 * second:
            body = {"kind": "calendar", "parts": ["hour", "weekday", "month"], "formats": [format_]}
            reason = f"moments, by name and size, written as {format_}; parts that come again"
            return Feature(column=column.name, body=body, reason=reason)
    return None


def _boolean(column: Column) -> Feature | None:
    if not column.boolean:
        return None
    return Feature(column=column.name, body={"kind": "boolean"}, reason=f"yes or no: {_values(column)}")


def _categories_in_integers(column: Column) -> Feature | None:
    if column.type is not Type.INT or not column.distinct_exact:
        return None
    bounds = column.range()
    assert bounds is not None
    low, high = int(bounds[0]), int(bounds[1])
    size = high + 1
    if low >= 0 and size <= 64 and column.distinct >= 0.5 * size and column.present >= 50 * size:
        reason = f"whole numbers {low} to {high}: few enough to learn a weight for each"
        return Feature(column=column.name, body={"kind": "identity", "size": max(2, size)}, reason=reason)
    if _CATEGORY_NAME.search(column.name) and column.present >= 20 * column.distinct:
        return _vocabulary(column, "the name says that its numbers are categories: ")
    return None


def _number(column: Column) -> Feature | None:
    if not column.numeric:
        return None
    bounds = column.range() or (0.0, 0.0)
    what = "whole numbers" if column.type is Type.INT else "numbers"
    body: dict[str, Value] = {"kind": "numeric"}
    notes = [f"{what} from {bounds[0]:g} to {bounds[1]:g}"]
    if log := _log(column, bounds[0]):
        body["log"] = log
        notes.append("a few are far larger than most")
    if column.missing:
        body |= {"missing": "median", "indicator": True}
        notes.append(f"{column.missing_share:.1%} missing, which may mean something")
    return Feature(column=column.name, body=body, reason="; ".join(notes))


def _log(column: Column, low: float) -> str | None:
    """Names the logarithm for numbers that are never negative and whose largest hundredth is far from the rest."""
    known = column.sample[np.isfinite(column.sample)]
    if low < 0.0 or column.distinct < 20 or len(known) < 100:
        return None
    middle, high = np.quantile(known, [0.5, 0.99])
    if high <= 10.0 * max(float(middle), 1e-12):
        return None
    return "log" if low > 0.0 else "log1p"


def _prose(column: Column) -> Feature | None:
    if _words(column) < _FEW_WORDS or column.unique_share < 0.5:
        return None
    buckets = int(2 ** np.clip(np.round(np.log2(max(1, column.present) / 2)), 6, 12))
    reason = (
        f"text, {_words(column):.0f} words a value on average{_missing(column)}; its words, hashed into {buckets:,}"
    )
    return Feature(column=column.name, body={"kind": "text", "buckets": buckets}, reason=reason)


def _words_as_categories(column: Column) -> Feature:
    return _vocabulary(column, "")


def _rare(column: Column) -> LeftOut | None:
    """Words that hardly ever come twice: a weight for each would be learned from one row or two."""
    if column.numeric or not column.counts or column.distinct <= 100:
        return None
    frequent = sum(count for count in column.counts.values() if count >= _OFTEN) / column.present
    if frequent >= 0.1:
        return None
    rare = f"{1 - frequent:.0%} of the rows have one seen less than {_OFTEN} times"
    reason = f"{column.distinct_in_words()} different values, {rare}{_other_numbers(column)}"
    return LeftOut(column=column.name, reason=reason, warning=bool(_other_numbers(column)))


def other_number(column: Column) -> str | None:
    """Returns an example of numbers that are not written as CSV has them: a decimal comma, a unit, marks between.

    Args:
        column: of text.

    Returns:
        None where less than nine values in ten look like such numbers.
    """
    values = column.sample.drop_null()
    number = pc.match_substring_regex(values, r"^\s*[-+]?\s*[$€£]?\s*[0-9][0-9.,' ]*\s*[%€$£]?\s*$")
    if not len(values) or float(pc.mean(number.cast(pa.float64())).as_py()) < 0.9:
        return None
    return _short(str(values[0]))


def _other_numbers(column: Column) -> str:
    example = other_number(column)
    return f" (if {example} is a number, write it with a point, and no other sign or unit)" if example else ""


def _vocabulary(column: Column, because: str) -> Feature:
    known = f"{because}{column.distinct_in_words()} different values{_missing(column)}"
    if not column.counts:
        body: dict[str, Value] = {"kind": "hash", "buckets": _HASH_BUCKETS}
        return Feature(column=column.name, body=body, reason=f"{known}; too many to number, so they are hashed")
    body = {"kind": "vocabulary"}
    notes = [known]
    if column.distinct > 100:
        body |= {"min_frequency": _OFTEN, "out_of_vocabulary": 10}
        rare = sum(count < _OFTEN for count in column.counts.values())
        notes.append(f"{rare:,} are seen less than {_OFTEN} times, which teaches nothing: they share ten buckets")
    elif column.distinct <= 6:
        notes.append(_values(column))
    return Feature(column=column.name, body=body, reason="; ".join(notes))


_RULES: tuple[_Rule, ...] = (
    _empty,
    _constant,
    _several,
    _timestamp,
    _epoch,
    _identifier,
    _boolean,
    _categories_in_integers,
    _number,
    _prose,
    _rare,
    _words_as_categories,
)
"""In this order; the first that has something to say decides."""


def _words(column: Column) -> float:
    """Returns the mean number of words of a text column's value."""
    if column.numeric:
        return 1.0
    values = column.sample.drop_null()
    return float(pc.mean(pc.count_substring_regex(values, r"\S+")).as_py() or 0.0) if len(values) else 0.0


def _missing(column: Column) -> str:
    return f", {column.missing_share:.1%} missing" if column.missing else ""


def _values(column: Column) -> str:
    return ", ".join(
        f"{_short(value)} ({count / max(1, column.present):.0%})" for value, count in column.counts.items()
    )


def _short(value: str) -> str:
    return repr(short(value, 30))


# --- the sections ----------------------------------------------------------------------------------------------------


def _splits(rows: int) -> Setting:
    if rows < _SMALL:
        reason = f"of {rows:,} rows a tenth would be too few to measure on"
        return Setting(key="splits", value={"train": 6, "eval": 2, "test": 2}, reason=reason)
    return Setting(
        key="splits", value={"train": 8, "eval": 1, "test": 1}, reason=f"a tenth of {rows:,} rows measures well"
    )


def _width(feature: Feature, column: Column) -> int:
    """Returns about how many inputs of the model a feature becomes."""
    body = feature.body
    if body["kind"] == "vocabulary":
        frequent = sum(count >= body.get("min_frequency", 1) for count in column.counts.values())
        return min((frequent or column.distinct) + 1, settings.Model().one_hot_up_to)
    if body["kind"] == "calendar":
        return sum({"hour": 24, "weekday": 7, "month": 12}[part] for part in body["parts"])
    return int(body.get("size") or body.get("buckets") or (2 if body.get("indicator") else 1))


def _split_by(profile: Profile, label: str) -> Iterator[Setting]:
    """Keeps the rows of one customer in one split, where an identifier says whose rows they are."""
    if "split_by" not in settings.Data.model_fields:
        return
    keys = [
        column
        for column in profile.columns.values()
        if column.name != label
        and column.type is not Type.FLOAT
        and (_ID_NAME.search(column.name) or _ID_CAMEL.search(column.name))
        and column.missing_share < 0.5
        and 0.02 <= column.unique_share <= 0.9
    ]
    if len(keys) == 1:
        rows = 1.0 / keys[0].unique_share
        reason = f"{keys[0].name} has {rows:.1f} rows on average: none of them may be learned from and measured on"
        yield Setting(key="split_by", value={"columns": [keys[0].name]}, reason=reason)


def _unlabelled(label: Column) -> Iterator[Setting]:
    """Lets as many rows lack the label as the table shows, and what chance and a little more add to it."""
    if not label.missing:
        return
    share = label.missing_share
    reason = f"{share:.1%} of the labels are missing; a span with more than this stops the run"
    yield Setting(key=_UNLABELLED, value=_at_most(share, rows=label.rows, key=_UNLABELLED), reason=reason)


def _malformed(profile: Profile) -> Iterator[Setting]:
    """Lets as many lines be none of the table as it shows, where that is more than nothing and not the most of it."""
    lines = profile.rows + profile.bad_lines
    share = profile.bad_lines / max(1, lines)
    if not settings.Data.model_fields[_MALFORMED].default / 2 < share <= _MOST_MALFORMED:
        return
    reason = f"{share:.1%} of the lines are no rows of this table; a file with more than this stops the run"
    yield Setting(key=_MALFORMED, value=_at_most(share, rows=lines, key=_MALFORMED), reason=reason)


def _at_most(share: float, *, rows: int, key: str) -> float:
    """Returns what was seen, four standard deviations of chance and the key's default on top, in whole hundredths."""
    most = share + 4.0 * math.sqrt(share * (1.0 - share) / rows) + settings.Data.model_fields[key].default
    return min(1.0, math.ceil(100.0 * most) / 100.0)


def _is_small(rows: int, width: int) -> bool:
    return rows < max(_LINEAR_BELOW, 10 * width)


def _model(rows: int, width: int) -> Iterator[Setting]:
    if not _is_small(rows, width):
        yield Setting(key="kind", value="wide_deep", reason=f"about {rows:,} rows to learn {width:,} inputs from")
        return
    reason = f"about {rows:,} rows to learn {width:,} inputs from: a network would learn them by heart"
    yield Setting(key="kind", value="linear", reason=reason)
    # The penalty of scikit-learn's logistic regression as it comes: 1/(2n) of the squared weights beside a mean loss.
    penalty = float(f"{min(_MOST_PENALTY, 0.5 / rows):.2g}") if rows < _LINEAR_BELOW else _MOST_PENALTY
    yield Setting(key="l2", value=penalty, reason="keeps weights small that few rows speak for")


def _training(rows: int, width: int, task: settings.Task) -> Iterator[Setting]:
    batch = next((size for most, size in ((500, 8), (5_000, 32), (50_000, 256)) if rows < most), 1024)
    steps = max(1, rows // batch)
    yield Setting(key="batch_size", value=batch, reason=f"{steps:,} steps an epoch")
    if _is_small(rows, width):
        # `make bench-tables` holds these against scikit-learn's linear models: docs/any-table.md.
        regression = task is settings.Task.REGRESSION
        epochs = int(np.clip(3_000 // steps, 20, 50))
        yield Setting(key="epochs", value=epochs, reason="small data are seen often")
        rate, why = (0.02, "in small steps to the least squares") if regression else (0.05, "a linear model bears it")
        yield Setting(key="learning_rate", value=rate, reason=why)
        if rows < _LINEAR_BELOW:
            why = "a penalised linear model has one optimum; a small eval split cannot tell where else to stop"
            yield Setting(key="early_stopping_patience", value=None, reason=why)
            yield Setting(key="keep", value="last", reason="for the same reason")
        else:
            patience = max(8, epochs * 2 // 5)
            yield Setting(key="early_stopping_patience", value=patience, reason="the best epoch on eval is kept")
    elif rows < 50_000:
        yield Setting(key="epochs", value=30, reason="the best epoch on the eval split is kept")
        yield Setting(key="early_stopping_patience", value=5, reason="epochs are short")


def _validation(rows: int) -> Iterator[Setting]:
    if rows < 200:
        reason = f"the train split has about {rows:,} rows; half of them would be suspicious"
        yield Setting(key="min_rows", value=max(1, rows // 2), reason=reason)


def _evaluation(task: settings.Task, rows: int) -> Iterator[Setting]:
    metrics, reason = {
        settings.Task.REGRESSION: (["rmse", "mae"], "the first one decides"),
        settings.Task.BINARY: (
            ["auc", "accuracy", "log_loss"],
            "the first one decides; auc does not mind classes of unequal size",
        ),
        settings.Task.MULTICLASS: (
            ["log_loss", "accuracy"],
            "the first one decides; log_loss sees every probability, accuracy jumps row by row",
        ),
    }[task]
    yield Setting(key="metrics", value=metrics, reason=reason)
    if rows < 2_000:
        tolerated = 0.05 if rows >= 200 else 0.1
        reason = f"chance alone moves a metric over about {rows:,} test rows by as much"
        yield Setting(key="tolerated_loss", value=tolerated, reason=reason)


# --- warnings --------------------------------------------------------------------------------------------------------


def _warnings(profile: Profile, label: Column, task: settings.Task, left_out: list[LeftOut]) -> Iterator[str]:
    yield from (f"{left.column}: left out, {left.reason}" for left in left_out if left.warning)
    for column in profile.columns.values():
        bounds = column.range()
        if bounds and max(map(abs, bounds)) > LARGEST:
            huge = max(bounds, key=abs)
            yield f"{column.name}: numbers such as {huge:g} do not fit 32 bits; a run puts their rows into quarantine"
    if profile.bad_lines:
        lines = f"{profile.bad_lines:,} lines are no rows" if profile.bad_lines > 1 else "one line is no row"
        yield f"{lines} of this table; a run puts what is none into quarantine with the reason"
    if not profile.complete:
        yield f"only the first {profile.rows:,} rows were looked at"
    if label.missing:
        yield f"{label.name}: the label is missing in {label.missing_share:.1%} of the rows; they go to quarantine"
    if task is not settings.Task.REGRESSION and label.counts:
        rarest, count = min(label.counts.items(), key=lambda item: item[1])
        if count < 10:
            yield f"{label.name}: only {count:,} rows of the class {_short(rarest)}; some split may have none of them"
    if task is settings.Task.MULTICLASS and label.distinct > _MAX_CLASSES:
        yield f"{label.name}: {label.distinct_in_words()} classes; is it not text or an identifier?"
