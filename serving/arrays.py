"""Arrow columns to the model's tensors, a whole batch at once, with the meaning that `Column.encode` gives to a value.

    array, refused = encode(column, batch["miles"])

A column in which every value is there and admitted (or may be missing) is converted by Arrow and numpy; any other one
goes to `Column.encode`, which tells each refused value on its own. So a value means the same whichever way it comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen import settings
from evergreen.decimals import pointed_column
from evergreen.errors import Problem
from serving.columns import Column, Kind
from serving.rows import text_type

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MISSING_INTEGER = int(np.iinfo(np.int64).min)


def encode(
    column: Column, values: pa.Array, *, csv: settings.CsvFormat | None
) -> tuple[npt.NDArray[Any], dict[int, Problem]]:
    """Converts a batch of a column.

    Args:
        column: what it admits.
        values: one a row; null is missing.
        csv: how they are written, where they are fields of a CSV file: "7" may be a number then.

    Returns:
        As `Column.encode`.
    """
    if csv is not None:
        values = pc.if_else(pc.is_in(values, value_set=pa.array(["", *csv.missing])), pa.scalar(None), values)
    quick = None if column.several else _quick(column, values, csv=csv)
    if quick is not None:
        return quick, {}
    rows = values.to_pylist()
    if csv is None:
        return column.encode(rows)
    text = text_type(csv.decimal)
    return column.encode([None if value is None else text(value) for value in rows])


def _quick(column: Column, values: pa.Array, *, csv: settings.CsvFormat | None) -> npt.NDArray[Any] | None:
    """Returns the tensor, or None where a value has to be looked at."""
    try:
        if column.kind is Kind.TEXT:
            return _texts(column, values)
        if pa.types.is_boolean(values.type) or (pa.types.is_string(values.type) and csv is None):
            return None
        if csv is not None and csv.decimal == ",":
            values = pointed_column(values)
        if column.required and values.null_count:
            return None
        return _numbers(column, values) if column.kind is Kind.NUMBER else _integers(column, values)
    except pa.ArrowException:
        return None


def _numbers(column: Column, values: pa.Array) -> npt.NDArray[Any] | None:
    there = values.cast(pa.float64())
    array = there.to_numpy(zero_copy_only=False)
    good = (np.abs(array) <= _FLOAT32_MAX) & (array >= column.low) & (array <= column.high)  # NaN is never good
    good |= np.asarray(there.is_null())
    return array.astype(np.float32) if good.all() else None


def _integers(column: Column, values: pa.Array) -> npt.NDArray[Any] | None:
    numbers = values.cast(pa.int64())
    array = numbers.fill_null(_MISSING_INTEGER).to_numpy()
    good = (array > _MISSING_INTEGER) & (array >= column.low) & (array <= column.high)
    good |= np.asarray(numbers.is_null())
    return array if good.all() else None


def _texts(column: Column, values: pa.Array) -> npt.NDArray[Any] | None:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return None
    values = values.fill_null("")
    there = values.unique().to_pylist() if column.required or column.allowed is not None else []
    if column.required and "" in there:
        return None
    if column.allowed is not None and not set(there) - {""} <= column.allowed:
        return None
    array: npt.NDArray[Any] = values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return array
