"""Columns of any Arrow type to the three that a tf.Example has, and the rows that cannot be: none is lost or changed.

Guarantees: the same value gives the same column and hash whatever file format it came in; what a column's type cannot
hold exactly enough (a number that is not finite in 32 bits, a fraction in a column of whole numbers, a whole number
that a double no longer tells apart, bytes that are no UTF-8) is a bad row with a reason, never a silent change. NaN and
the empty text are missing values, as in CSV and at serving. A column of lists stays one where a row has several values.

    rows, bad = conformed(table, types, first=1)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen.table import TEXT_SHOWN, BadLine, ColumnType

_Bad = dict[int, str]
"""Reasons by position."""
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
"""Up to where every whole number has a value of its own."""
_SHOWN = 40


def kind_of(type_: Any) -> ColumnType | None:
    """Names the column type that holds values of an Arrow type without loss of meaning.

    Args:
        type_: of the values; for lists that of one element.

    Returns:
        None for a type that a tf.Example cannot hold: structures, maps, lists of lists, durations.
    """
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if is_list(type_):
        return None if is_list(type_.value_type) else kind_of(type_.value_type)
    if pa.types.is_boolean(type_) or pa.types.is_integer(type_):
        return ColumnType.INT
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return ColumnType.FLOAT
    text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_null(type_)
    if text or _is_binary(type_) or _is_moment(type_):
        return ColumnType.STRING
    return None


def fits(type_: Any, wanted: ColumnType) -> bool:
    """Tells whether a column of an Arrow type can be read as `wanted`: all numbers as numbers, whole ones as text."""
    if pa.types.is_null(type_):
        return True
    kind = kind_of(type_)
    if is_list(type_):
        type_ = type_.value_type
    if kind is None or kind is wanted or _is_moment(type_):
        return kind is not None and (kind is wanted or wanted is ColumnType.INT)
    return kind is not ColumnType.STRING and (wanted is not ColumnType.STRING or kind is ColumnType.INT)


def is_list(type_: Any) -> bool:
    """Tells whether a row may have several values."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def conformed(
    rows: pa.Table, types: Mapping[str, ColumnType], *, first: int
) -> tuple[pa.Table, list[BadLine], npt.NDArray[np.int64]]:
    """Brings the columns to their types.

    Args:
        rows: columns of types that `kind_of` knows.
        types: the type of each column.
        first: number of the first row in its file.

    Returns:
        The good rows (float32, int64, string, or large lists of them), the bad ones, and the good ones' numbers.
    """
    columns: dict[str, Any] = {}
    faults: dict[int, list[tuple[str, str]]] = {}
    for name in rows.column_names:
        column = whole(rows.column(name))
        columns[name], bad = _of_lists(column, types[name]) if is_list(column.type) else _of(column, types[name])
        for row, reason in bad.items():
            faults.setdefault(row, []).append((name, reason))
    numbers = np.arange(first, first + rows.num_rows, dtype=np.int64)
    made = pa.table(columns)
    if not faults:
        return made, [], numbers
    good = np.ones(rows.num_rows, dtype=np.bool_)
    good[list(faults)] = False
    lines = [
        BadLine(
            line=first + row,
            reason="; ".join(f"column {name}: {reason}" for name, reason in reasons),
            text=shown(rows, row),
            columns=tuple(name for name, _ in reasons),
        )
        for row, reasons in sorted(faults.items())
    ]
    return made.filter(pa.array(good)), lines, numbers[good]


def shown(rows: pa.Table, row: int) -> str:
    """Writes a row for people to read."""
    values = {name: rows.column(name)[row].as_py() for name in rows.column_names[:50]}
    values = {
        name: value[:TEXT_SHOWN] if isinstance(value, (str, bytes, list)) else value for name, value in values.items()
    }
    return json.dumps(values, ensure_ascii=False, default=_plain)[:TEXT_SHOWN]


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def whole(column: Any) -> Any:
    """Makes one array of a column, without a dictionary."""
    made = column.combine_chunks()
    if isinstance(made, pa.ChunkedArray):
        made = pa.concat_arrays(made.chunks) if made.num_chunks else pa.array([], made.type)
    if pa.types.is_dictionary(made.type):
        made = made.cast(made.type.value_type)
    return made


# --- lists -----------------------------------------------------------------------------------------------------------


def _of_lists(column: Any, type_: ColumnType) -> tuple[Any, _Bad]:
    """Brings lists to lists of the type; a column without a list of several values becomes one of single values."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    owners = np.repeat(np.arange(len(column)), lengths)
    values = column.flatten()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    several = lengths[owners] > 1
    made, bad_values = _of(values, type_, empty_is_missing=False)
    bad: _Bad = {}
    for position, reason in bad_values.items():
        bad.setdefault(int(owners[position]), reason)
    missing = made.is_null().to_numpy(zero_copy_only=False)
    for position in np.flatnonzero(missing & several).tolist():
        bad.setdefault(int(owners[position]), "a missing value within a list")
    if type_ is ColumnType.STRING:
        missing = missing | pc.fill_null(pc.equal(made, ""), False).to_numpy(zero_copy_only=False)
    # A list of nothing but one missing value is a missing value; so is one without any.
    kept = several | ~missing
    made, owners = made.filter(pa.array(kept)), owners[kept]
    lengths = np.bincount(owners, minlength=len(column)).astype(np.int64)
    if lengths.max(initial=0) <= 1:
        positions = np.cumsum(lengths) - 1
        return made.take(pa.array(positions, mask=lengths == 0)), bad
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, mask=np.append(lengths == 0, False)), made), bad


# --- values ----------------------------------------------------------------------------------------------------------


def _of(column: Any, type_: ColumnType, *, empty_is_missing: bool = True) -> tuple[Any, _Bad]:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), type_.arrow), {}
    if type_ is ColumnType.STRING:
        made, bad = _text(column)
        if empty_is_missing:
            made = pc.if_else(pc.equal(made, ""), pa.scalar(None, pa.string()), made)
        return made, bad
    if not (_is_number(column.type) or (_is_moment(column.type) and type_ is ColumnType.INT)):
        every = _bad(column, column.is_valid(), lambda value: f"{value} is not {type_.words}")
        return pa.nulls(len(column), type_.arrow), every
    return _float(column) if type_ is ColumnType.FLOAT else _int(column)


def _float(column: Any) -> tuple[Any, _Bad]:
    numbers = _finite_type(column)
    made = numbers.cast(pa.float32(), safe=False)
    bad = _bad(numbers, pc.is_inf(made), _not_finite)
    return pc.if_else(pc.is_nan(made), pa.scalar(None, pa.float32()), made), bad


def _not_finite(value: str) -> str:
    if "inf" in value:
        return f"{value} is not a finite number"
    return f"{value} is too large for a number of 32 bits"


def _int(column: Any) -> tuple[Any, _Bad]:
    if _is_moment(column.type):
        whole = column if column.type.bit_width == 64 else column.cast(pa.int32())
        return whole.cast(pa.int64()), {}
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int64()), {}
    if pa.types.is_integer(column.type):
        made = column.cast(pa.int64(), safe=False)
        if column.type != pa.uint64():
            return made, {}
        return made, _bad(
            column,
            pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())),
            "{} is too large for a whole number of 64 bits".format,
        )
    if pa.types.is_decimal(column.type):
        try:
            return column.cast(pa.int64()), {}
        except pa.ArrowInvalid:
            column = column.cast(pa.float64())
    exact = _EXACT[column.type]
    numbers = _finite_type(column)
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, numbers.type), numbers)
    fraction = pc.not_equal(pc.floor(numbers), numbers)
    wrong = pc.or_(fraction, pc.greater(pc.abs(numbers), exact))
    bad = _bad(numbers, wrong, lambda value: _not_whole(value, exact))
    return pc.if_else(wrong, pa.scalar(None, numbers.type), numbers).cast(pa.int64()), bad


def _not_whole(value: str, exact: int) -> str:
    if abs(float(value)) > exact and "inf" not in value:
        return f"{value} is past 2^{exact.bit_length() - 1}, where floating-point numbers skip whole numbers"
    return f"{value} is not a whole number"


def _text(column: Any) -> tuple[Any, _Bad]:
    if pa.types.is_timestamp(column.type):
        return _iso(column), {}
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        every = _bad(column, column.is_valid(), lambda value: f"{value} is a number and not text")
        return pa.nulls(len(column), pa.string()), every
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or _is_binary(column.type)):
        return column.cast(pa.string()), {}
    data = column.cast(pa.large_binary())
    try:
        return data.cast(pa.large_string()).cast(pa.string()), {}
    except pa.ArrowInvalid:
        pass
    # Only now a value at a time: bytes that are not UTF-8 are rare.
    texts: list[str | None] = []
    bad: _Bad = {}
    for row, value in enumerate(data.to_pylist()):
        try:
            texts.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError as error:
            texts.append(None)
            bad[row] = f"byte 0x{value[error.start]:02x} is not UTF-8"
    return pa.array(texts, pa.string()), bad


def _iso(column: Any) -> Any:
    """Writes moments as in 2024-02-29T13:45:00.000000Z; those without a zone lack the Z."""
    zone = None if column.type.tz is None else "UTC"
    unit = "us" if column.type.unit in ("s", "ms") else column.type.unit
    return pc.replace_substring(column.cast(pa.timestamp(unit, zone)).cast(pa.string()), " ", "T", max_replacements=1)


def _finite_type(column: Any) -> Any:
    """Makes numbers what Arrow's functions take."""
    if column.type == pa.float16():
        values = np.array([np.nan if value is None else value for value in column.to_pylist()], np.float32)
        return pa.array(values, mask=column.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_boolean(column.type):
        return column.cast(pa.float32())
    if pa.types.is_floating(column.type):
        return column
    return column.cast(pa.float64(), safe=False)


def _bad(column: Any, mask: Any, reason: Callable[[str], str]) -> _Bad:
    rows: Sequence[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).tolist()
    return {row: reason(_value(column[row].as_py())) for row in rows}


def _value(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return repr(_plain(value)[:_SHOWN])
    return str(value)


def _is_number(type_: Any) -> bool:
    return kind_of(type_) in (ColumnType.INT, ColumnType.FLOAT)


def _is_moment(type_: Any) -> bool:
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_) or pa.types.is_time(type_))


def _is_binary(type_: Any) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_))
