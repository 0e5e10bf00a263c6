"""Which raw columns features read and which columns they yield, and what is wrong with their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from evergreen.errors import Problem
from evergreen.settings.features import (
    EPOCHS,
    Boolean,
    Buckets,
    Calendar,
    Cross,
    CrossPart,
    Custom,
    Cyclical,
    Feature,
    Hash,
    Identity,
    Numeric,
    Text,
    Vocabulary,
)

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
