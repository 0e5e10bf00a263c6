"""The schema that `new` writes: what the table shows, as a person would write it down, with the reasons as comments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.drafting.profile import Column, Profile, Type

_MAX_DOMAIN = 100
"""Values up to which the schema lists them."""


def render(
    looked: Profile,
    *,
    label: str,
    classes: bool,
    features: Mapping[str, Mapping[str, Any]],
    smallest_split: int,
) -> str:
    """Returns a tensorflow.metadata.v0.Schema in text form with comments.

    Every column of the table is in it, features or not: the gate looks at all of them.

    Args:
        looked: what the table holds.
        label: the column to predict.
        classes: whether the label is a class.
        features: the section of the configuration for each column that is a feature.
        smallest_split: rows of the smallest split, whose share of missing values moves the most by chance.
    """
    lines = [
        "# Written from the data (tensorflow.metadata.v0.Schema): what the table shows today. It is imported, not",
        "# inferred: a value outside of it stops a run before anything is trained. Change it on purpose: `schema diff`",
        "# says what the newest data would change, `schema accept` takes it over.",
        'default_environment: "TRAINING"',
        "# The label is not there when the model serves.",
        'default_environment: "SERVING"',
    ]
    for column in looked.columns.values():
        is_label = column.name == label
        body = features.get(column.name, {})
        lines += feature(
            column,
            is_label=is_label,
            smallest_split=smallest_split,
            domain=domain(column, kind=body.get("kind"), size=body.get("size"), classes=is_label and classes),
        )
    return "\n".join(lines) + "\n"


def feature(column: Column, *, is_label: bool, smallest_split: int, domain: Iterable[str] = ()) -> Iterator[str]:
    """Yields the lines of one column.

    Args:
        column: what it holds.
        is_label: whether it is the column to predict.
        smallest_split: rows of the smallest split.
        domain: the lines that limit its values.
    """
    yield f"# {_words(column, is_label=is_label)}"
    yield "feature {"
    yield f"  name: {quoted(column.name)}"
    yield f"  type: {column.type.value}"
    yield from presence(column, smallest_split)
    yield from domain
    if is_label:
        yield '  not_in_environment: "SERVING"'
    yield "}"


def presence(column: Column, smallest_split: int) -> Iterator[str]:
    """Yields the lines that say how many rows need a value: all, or what was seen less what chance does."""
    if not column.missing:
        yield "  presence { min_fraction: 1.0 min_count: 1 }"
        if column.most_values == 1:
            yield "  shape { dim { size: 1 } }"
        return
    count = 1 if column.present else 0
    yield f"  presence {{ min_fraction: {min_fraction(column, smallest_split)} min_count: {count} }}"


def _words(column: Column, *, is_label: bool) -> str:
    what = {Type.INT: "whole numbers", Type.FLOAT: "numbers", Type.STRING: "text"}[column.type]
    bounds = column.range()
    spread = f" from {bounds[0]:g} to {bounds[1]:g}" if bounds else ""
    missing = f", {column.missing_share:.1%} missing" if column.missing else ", none missing"
    several = f", up to {column.most_values:,} a row" if column.most_values > 1 else ""
    role = "The label: " if is_label else ""
    return f"{role}{what}{spread}, {column.distinct_in_words()} different{several}{missing}."


def min_fraction(column: Column, smallest_split: int) -> float:
    """Returns the share of rows that must have a value: what was seen less what chance does in the smallest split."""
    share = 1.0 - column.missing_share
    noise = 4.0 * math.sqrt(share * (1.0 - share) / smallest_split)
    return max(0.0, math.floor(100.0 * (share - noise - 0.05)) / 100.0)


def domain(column: Column, *, kind: str | None, size: int | None, classes: bool) -> Iterator[str]:
    """Yields the lines that limit a column's values, where the model depends on them.

    Args:
        column: what it holds.
        kind: what kind of feature it is; None where it is none.
        size: how many categories an identity has.
        classes: whether it is the label, and a class.
    """
    if column.type is Type.INT:
        if kind == "identity" and size:
            yield f"  int_domain {{ min: 0 max: {size - 1} }}"
        elif classes:
            numbers = [int(value) for value in column.counts]
            yield f"  int_domain {{ min: {min(numbers)} max: {max(numbers)} }}"
        return
    listed = kind in ("vocabulary", "boolean") and column.distinct <= _MAX_DOMAIN
    if column.type is Type.STRING and column.counts and (classes or listed):
        values = " ".join(f"value: {quoted(value)}" for value in sorted(column.counts))
        yield f"  string_domain {{ {values} }}"
        if not classes:
            yield "  # A new value stops a run when it takes more than a twentieth of the rows."
            yield "  distribution_constraints { min_domain_mass: 0.95 }"


def quoted(text: str) -> str:
    """Writes a text as protobuf's text form does; what does not print as octal bytes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        escaped = "".join(
            sign if sign.isprintable() else "".join(f"\\{byte:03o}" for byte in sign.encode()) for sign in escaped
        )
    return f'"{escaped}"'
