"""Evaluates the checks' expressions over whole columns with Arrow; nothing is known of a row whose values are missing.

failing = rows_that_fail(parse("discount_price <= list_price", Kind.ROW), table)      # bool of shape [rows]
holds(parse("share(rate == 1.0) < 0.01", Kind.TABLE), table)                          # True, False or None
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.expressions import Expression

Mask = npt.NDArray[np.bool_]
Value = Any
"""A column (`pa.Array` or `pa.ChunkedArray`), or a `pa.Scalar`."""


def rows_that_fail(expression: Expression, table: pa.Table) -> Mask:
    """Tells for each row whether it breaks the condition; where a value is missing nothing is known, so it does not.

    Args:
        expression: a condition on a row.
        table: columns of float32, int64 and string.

    Returns:
        bool of shape [rows].
    """
    return _mask(pc.invert(_truth(expression, table)), table.num_rows)


def rows_that_hold(expression: Expression, table: pa.Table) -> Mask:
    """Tells for each row whether the condition is so; bool of shape [rows]."""
    return _mask(_truth(expression, table), table.num_rows)


def holds(expression: Expression, table: pa.Table) -> bool | None:
    """Tells whether a condition on all rows is so; None where there is no value to tell it by."""
    return _truth(expression, table).as_py()


def gathered_values(expression: Expression, table: pa.Table) -> list[tuple[str, float | None]]:
    """Returns what each function that gathers rows came to, with its words: what a failing condition was decided by."""
    evaluator = _Evaluator(table)
    calls = [node for node in ast.walk(expression.tree) if isinstance(node, ast.Call) and _name(node) in _GATHERING]
    return [(ast.unparse(call), evaluator.visit(call).as_py()) for call in calls]


def _truth(expression: Expression, table: pa.Table) -> Value:
    return _Evaluator(table).visit(expression.tree)


def _mask(truth: Value, rows: int) -> Mask:
    if isinstance(truth, pa.Scalar):
        return np.full(rows, bool(truth.as_py()))
    if isinstance(truth, pa.ChunkedArray):
        truth = truth.combine_chunks()
    mask: Mask = pc.fill_null(truth, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


class _Evaluator:
    """Walks over a tree that `evergreen.expressions.parse` has checked; Arrow's own functions do the work."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def visit(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            return pa.scalar(node.value)
        if isinstance(node, ast.Name):
            return self._table.column(node.id)
        if isinstance(node, ast.BoolOp):
            combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return functools.reduce(combine, [self.visit(value) for value in node.values])
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BinOp):
            return _ARITHMETIC[type(node.op)](_number(self.visit(node.left)), _number(self.visit(node.right)))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        assert isinstance(node, ast.Call), type(node)
        return self._call(node)

    def _unary(self, node: ast.UnaryOp) -> Value:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return pc.invert(value)
        return pc.negate(value) if isinstance(node.op, ast.USub) else value

    def _comparison(self, node: ast.Compare) -> Value:
        left, parts = self.visit(node.left), []
        for operator, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                members = [pc.equal(*_alike(left, self.visit(element))) for element in _elements(other)]
                found = functools.reduce(pc.or_kleene, members)
                parts.append(pc.invert(found) if isinstance(operator, ast.NotIn) else found)
                continue
            right = self.visit(other)
            parts.append(_COMPARISONS[type(operator)](*_alike(left, right)))
            left = right
        return functools.reduce(pc.and_kleene, parts)

    def _call(self, node: ast.Call) -> Value:
        name, arguments = _name(node), node.args
        if name == "column":
            return self._table.column(arguments[0].value)  # type: ignore[attr-defined]
        if name == "rows":
            return pa.scalar(self._table.num_rows)
        values = [self.visit(argument) for argument in arguments]
        if name in _GATHERING:
            column = values[0]
            if isinstance(column, pa.Scalar):  # such as mean(1): every row has it
                column = pa.array([column.as_py()] * self._table.num_rows, column.type)
            return _GATHERING[name](column, *values[1:])
        return _PER_ROW[name](*values)


def _name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _elements(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]


def _number(value: Value) -> Value:
    return value.cast(pa.float64()) if value.type != pa.float64() else value


def _alike(left: Value, right: Value) -> tuple[Value, Value]:
    """Brings a written number to the precision of the column that it is compared with: 0.1 is no float32."""
    for this, other in ((left, right), (right, left)):
        if pa.types.is_float32(this.type) and isinstance(other, pa.Scalar) and pa.types.is_primitive(other.type):
            narrow = pa.scalar(float(np.float32(other.as_py())), pa.float32()) if other.is_valid else other
            return (this, narrow) if this is left else (narrow, this)
    return left, right


def _modulo(left: Value, right: Value) -> Value:
    return pc.subtract(left, pc.multiply(pc.floor(pc.divide(left, right)), right))


def _mean(column: Value) -> Value:
    return pc.mean(column.cast(pa.float64()))


def _missing(column: Value) -> Value:
    return pa.scalar(column.null_count / len(column) if len(column) else None, pa.float64())


def _quantile(column: Value, at: Value) -> Value:
    return pc.quantile(_number(column), q=min(1.0, max(0.0, float(at.as_py()))))[0]


_ARITHMETIC: Mapping[type[ast.operator], Callable[..., Value]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
    ast.Mod: _modulo,
    ast.Pow: pc.power,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[..., Value]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_PER_ROW: Mapping[str, Callable[..., Value]] = {
    "abs": pc.abs,
    "sqrt": lambda value: pc.sqrt(_number(value)),
    "log": lambda value: pc.ln(_number(value)),
    "round": lambda value: pc.round(_number(value)),
    "floor": lambda value: pc.floor(_number(value)),
    "length": pc.utf8_length,
    "lower": pc.utf8_lower,
    "starts_with": lambda value, text: pc.starts_with(value, pattern=text.as_py()),
    "matches": lambda value, text: pc.match_substring_regex(value, pattern=text.as_py()),
    "is_missing": pc.is_null,
}
_GATHERING: Mapping[str, Callable[..., Value]] = {
    "share": _mean,
    "count": lambda column: pc.sum(column.cast(pa.int64()), min_count=0),
    "rows": lambda: None,
    "mean": _mean,
    "std": lambda column: pc.stddev(_number(column)),
    "min": lambda column: pc.min_max(column)["min"],
    "max": lambda column: pc.min_max(column)["max"],
    "sum": lambda column: pc.sum(_number(column)),
    "median": lambda column: _quantile(column, pa.scalar(0.5)),
    "quantile": _quantile,
    "distinct": pc.count_distinct,
    "missing": _missing,
}
