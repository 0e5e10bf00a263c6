"""TFDV's anomalies in words that a person can act on: what was found, what was expected, examples, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from evergreen.words import short

_Type = anomalies_pb2.AnomalyInfo
_EXAMPLES = 5
_WIDTH = 60
"""Characters of an example value that are shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """One anomaly, said."""

    check: str
    found: str
    expected: str
    action: str
    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the statistics and the schema hold of the column."""

    reason: anomalies_pb2.AnomalyInfo.Reason
    rows: int
    column: statistics_pb2.FeatureNameStatistics | None
    feature: schema_pb2.Feature | None
    schema: schema_pb2.Schema


def describe(
    reason: anomalies_pb2.AnomalyInfo.Reason,
    *,
    rows: int,
    column: statistics_pb2.FeatureNameStatistics | None,
    feature: schema_pb2.Feature | None,
    schema: schema_pb2.Schema,
) -> Words:
    """Says what one reason of an anomaly means.

    Args:
        reason: TFDV's.
        rows: how many rows the split has.
        column: the column's statistics; None where the split lacks it.
        feature: the column in the schema; None where the schema lacks it.
        schema: the whole schema, for domains that columns share.
    """
    seen = _Seen(reason=reason, rows=rows, column=column, feature=feature, schema=schema)
    for types, words in _WORDS.items():
        if reason.type in types:
            return words(seen)
    return _other(seen)


def summary(column: statistics_pb2.FeatureNameStatistics) -> str:
    """Says in a few words how a column is distributed."""
    if column.HasField("num_stats"):
        numbers = column.num_stats
        return f"mean {numbers.mean:.4g}, standard deviation {numbers.std_dev:.4g}"
    total = column.string_stats.common_stats.num_non_missing
    top = column.string_stats.top_values[:3]
    return ", ".join(f"{_short(value.value)} {value.frequency / total:.1%}" for value in top) if total else "no values"


# --- the kinds of anomaly --------------------------------------------------------------------------------------------


def _missing_column(seen: _Seen) -> Words:
    return Words(
        check="missing_column",
        found="no such column",
        expected=f"a column of {_type_name(seen.feature)}",
        action="Look whether it was renamed or dropped at the source; if for good, remove it from schema and features.",
    )


def _new_column(seen: _Seen) -> Words:
    kind = statistics_pb2.FeatureNameStatistics.Type.Name(seen.column.type) if seen.column else "unknown type"
    return Words(
        check="new_column",
        found=f"a column of {kind} that the schema does not know",
        expected="the columns of the schema",
        action="Nothing reads it. To use it, add it to the schema and to the features.",
        examples=_top(seen.column),
    )


def _wrong_type(seen: _Seen) -> Words:
    kind = statistics_pb2.FeatureNameStatistics.Type.Name(seen.column.type) if seen.column else "another type"
    return Words(
        check="type",
        found=f"values of {'text (BYTES)' if kind == 'STRING' else kind}",
        expected=_type_name(seen.feature),
        action="Look for text among the numbers, or correct the type in the schema.",
        examples=_top(seen.column),
    )


def _few_present(seen: _Seen) -> Words:
    share = _common(seen.column).num_non_missing / seen.rows if seen.column and seen.rows else 0.0
    wanted = seen.feature.presence.min_fraction if seen.feature else 1.0
    return Words(
        check="missing_values",
        found=f"no value in {1 - share:.2%} of the rows" if share else "no value in any row",
        expected="a value in every row" if wanted >= 1 else f"a value in at least {wanted:.1%} of the rows",
        action="Look whether the source failed; where holes are normal, lower presence.min_fraction in the schema.",
    )


def _few_rows_with_value(seen: _Seen) -> Words:
    count = _common(seen.column).num_non_missing if seen.column else 0
    wanted = seen.feature.presence.min_count if seen.feature else 1
    return Words(
        check="missing_values",
        found=f"a value in {count:,} rows",
        expected=f"a value in at least {wanted:,} rows",
        action="Look whether the source failed; where holes are normal, lower presence.min_count in the schema.",
    )


def _unknown_values(seen: _Seen) -> Words:
    allowed = _domain(seen.feature, seen.schema)
    top = seen.column.string_stats.top_values if seen.column else []
    unknown = [value for value in top if value.value not in allowed]
    total = _common(seen.column).num_non_missing if seen.column else 0
    share = sum(value.frequency for value in unknown) / total if total else 0.0
    counted = f"{len(unknown):,} unknown value{'s' if len(unknown) != 1 else ''} in {share:.2%} of the rows"
    return Words(
        check="unknown_values",
        found=counted if unknown else seen.reason.description,
        expected=_enumeration(allowed),
        action="Correct them at the source, or add them to the column's domain in the schema.",
        examples=tuple(_short(value.value) for value in unknown[:_EXAMPLES]),
    )


def _out_of_range(seen: _Seen) -> Words:
    numbers = seen.column.num_stats if seen.column else None
    low, high = _bounds(seen.feature, seen.schema)
    found = f"values from {numbers.min:.6g} to {numbers.max:.6g}" if numbers else seen.reason.description
    outside = []
    if numbers and low is not None and numbers.min < low:
        outside.append(f"{numbers.min:.6g}")
    if numbers and high is not None and numbers.max > high:
        outside.append(f"{numbers.max:.6g}")
    if low is not None and high is not None:
        expected = f"values from {low:.6g} to {high:.6g}"
    elif low is not None or high is not None:
        expected = f"at least {low:.6g}" if low is not None else f"at most {high:.6g}"
    else:
        expected = "values inside the domain that the schema gives the column"
    return Words(
        check="range",
        found=found,
        expected=expected,
        action="Look for a changed unit or a broken sensor; where the values are right, widen the schema's domain.",
        examples=tuple(outside),
    )


def _not_finite(seen: _Seen) -> Words:
    kind = "infinite values" if seen.reason.type == _Type.FLOAT_TYPE_HAS_INF else "values that are no number (NaN)"
    return Words(
        check="not_finite",
        found=kind,
        expected="finite numbers",
        action="Look for divisions by zero at the source; a missing value should be left empty.",
    )


def _value_count(seen: _Seen) -> Words:
    common = _common(seen.column)
    wanted = seen.feature.value_count if seen.feature else schema_pb2.ValueCount()
    limits = f"{wanted.min} to {wanted.max} values" if wanted.max else "one value"
    return Words(
        check="value_count",
        found=f"{common.min_num_values} to {common.max_num_values} values in a row",
        expected=f"{limits} in a row",
        action="Look how the rows are written; where several values are right, raise value_count in the schema.",
    )


def _unique(seen: _Seen) -> Words:
    distinct = seen.column.string_stats.unique if seen.column and seen.column.HasField("string_stats") else 0
    wanted = seen.feature.unique_constraints if seen.feature else schema_pb2.UniqueConstraints()
    return Words(
        check="distinct_values",
        found=f"{distinct:,} distinct values" if distinct else seen.reason.description,
        expected=f"{wanted.min:,} to {wanted.max:,} distinct values",
        action="Look whether the column still holds what it did, or correct unique_constraints in the schema.",
    )


def _utf8(_seen: _Seen) -> Words:
    return Words(
        check="encoding",
        found="text that is not UTF-8",
        expected="UTF-8",
        action="Name the file's encoding in data.csv.encoding, or write the file as UTF-8.",
    )


def _row_count(seen: _Seen) -> Words:
    return Words(
        check="row_count",
        found=f"{seen.rows:,} rows",
        expected=seen.reason.description or "the number of rows that the schema asks for",
        action="Look whether files are missing or came twice, or correct dataset_constraints in the schema.",
    )


def _other(seen: _Seen) -> Words:
    name = _Type.Type.Name(seen.reason.type)
    return Words(
        check=name.lower(),
        found=seen.reason.description or seen.reason.short_description or name,
        expected="what the schema says of the column",
        action="Correct the data at the source, or the column in the schema.",
        examples=_top(seen.column),
    )


_WORDS = {
    (_Type.SCHEMA_MISSING_COLUMN, _Type.FEATURE_TYPE_NOT_PRESENT): _missing_column,
    (_Type.SCHEMA_NEW_COLUMN,): _new_column,
    (
        _Type.UNEXPECTED_DATA_TYPE,
        _Type.ENUM_TYPE_BYTES_NOT_STRING,
        _Type.ENUM_TYPE_FLOAT_NOT_STRING,
        _Type.ENUM_TYPE_INT_NOT_STRING,
        _Type.FLOAT_TYPE_NOT_FLOAT,
        _Type.FLOAT_TYPE_STRING_NOT_FLOAT,
        _Type.FLOAT_TYPE_NON_STRING,
        _Type.INT_TYPE_INT_EXPECTED,
        _Type.INT_TYPE_NOT_INT_STRING,
        _Type.INT_TYPE_NOT_STRING,
        _Type.INT_TYPE_STRING_EXPECTED,
        _Type.STRING_TYPE_NOW_FLOAT,
        _Type.STRING_TYPE_NOW_INT,
    ): _wrong_type,
    (_Type.FEATURE_TYPE_LOW_FRACTION_PRESENT,): _few_present,
    (_Type.FEATURE_TYPE_LOW_NUMBER_PRESENT, _Type.FEATURE_TYPE_NO_VALUES): _few_rows_with_value,
    (_Type.ENUM_TYPE_UNEXPECTED_STRING_VALUES,): _unknown_values,
    (
        _Type.FLOAT_TYPE_BIG_FLOAT,
        _Type.FLOAT_TYPE_SMALL_FLOAT,
        _Type.INT_TYPE_BIG_INT,
        _Type.INT_TYPE_SMALL_INT,
    ): _out_of_range,
    (_Type.FLOAT_TYPE_HAS_NAN, _Type.FLOAT_TYPE_HAS_INF): _not_finite,
    (
        _Type.FEATURE_TYPE_HIGH_NUMBER_VALUES,
        _Type.FEATURE_TYPE_LOW_NUMBER_VALUES,
        _Type.FEATURE_TYPE_UNEXPECTED_REPEATED,
        _Type.INVALID_FEATURE_SHAPE,
    ): _value_count,
    (_Type.FEATURE_TYPE_HIGH_UNIQUE, _Type.FEATURE_TYPE_LOW_UNIQUE, _Type.FEATURE_TYPE_NO_UNIQUE): _unique,
    (_Type.ENUM_TYPE_INVALID_UTF8,): _utf8,
    (_Type.DATASET_LOW_NUM_EXAMPLES, _Type.DATASET_HIGH_NUM_EXAMPLES, _Type.NO_DATA_IN_SPAN): _row_count,
}


# --- what the protos hold --------------------------------------------------------------------------------------------


def _common(column: statistics_pb2.FeatureNameStatistics | None) -> statistics_pb2.CommonStatistics:
    if column is None:
        return statistics_pb2.CommonStatistics()
    if column.HasField("num_stats"):
        return column.num_stats.common_stats
    if column.HasField("bytes_stats"):
        return column.bytes_stats.common_stats
    return column.string_stats.common_stats


def _top(column: statistics_pb2.FeatureNameStatistics | None) -> tuple[str, ...]:
    if column is None or not column.HasField("string_stats"):
        return ()
    return tuple(_short(value.value) for value in column.string_stats.top_values[:_EXAMPLES])


def _short(value: str) -> str:
    return repr(short(value, _WIDTH))


def _enumeration(values: Sequence[str]) -> str:
    shown = ", ".join(_short(value) for value in values[:10])
    return f"one of {shown}" + (f" and {len(values) - 10:,} more" if len(values) > 10 else "")


def _type_name(feature: schema_pb2.Feature | None) -> str:
    if feature is None:
        return "the type that the schema gives it"
    names: Mapping[int, str] = {
        schema_pb2.INT: "whole numbers (INT)",
        schema_pb2.FLOAT: "numbers (FLOAT)",
        schema_pb2.BYTES: "text (BYTES)",
    }
    return names.get(feature.type, schema_pb2.FeatureType.Name(feature.type))


def _domain(feature: schema_pb2.Feature | None, schema: schema_pb2.Schema) -> list[str]:
    if feature is None:
        return []
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    return [value for domain in schema.string_domain if domain.name == feature.domain for value in domain.value]


def _bounds(feature: schema_pb2.Feature | None, schema: schema_pb2.Schema) -> tuple[float | None, float | None]:
    if feature is None:
        return None, None
    domains = [feature.int_domain] if feature.HasField("int_domain") else []
    domains += [feature.float_domain] if feature.HasField("float_domain") else []
    shared = (*schema.int_domain, *schema.float_domain)
    domains += [domain for domain in shared if domain.name and domain.name == feature.domain]
    if not domains:
        return None, None
    domain = domains[0]
    return domain.min if domain.HasField("min") else None, domain.max if domain.HasField("max") else None
