"""A small safe language over columns: parsed and checked here without data, evaluated elsewhere over whole columns.

    parse("discount_price <= list_price", Kind.ROW)                 # true or false of every row
    parse("share(rate == 1.0) < 0.01", Kind.TABLE)                  # true or false of all rows together

Guarantees: nothing is ever executed but the functions in `FUNCTIONS`; a mistake is told with its position before any
data are read; what `parse` returns can be evaluated on any table that has the columns.

The syntax is a subset of Python's: numbers, texts, column names (`column('any name')` for the ones that are no words),
`+ - * / % **`, comparisons (chained ones too), `in [..]`, `and`, `or`, `not` and the functions.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
from collections.abc import Iterator, Mapping

MAX_LENGTH = 2000
"""Characters of an expression."""


class Kind(str, enum.Enum):
    """What an expression speaks of."""

    ROW = "row"
    """Of every row by itself; it uses no function that gathers rows."""
    TABLE = "column"
    """Of all rows together; a column stands only inside a function that gathers rows."""


class Type(str, enum.Enum):
    """What a part of an expression is."""

    NUMBER = "a number"
    TEXT = "a text"
    TRUTH = "true or false"
    ANY = "anything"
    """Of a column whose type is not known yet."""


@dataclasses.dataclass(frozen=True)
class Function:
    """One function of the language."""

    takes: tuple[Type, ...]
    gives: Type
    gathers: bool = False
    """Whether it makes one value of all rows."""
    constants: tuple[int, ...] = ()
    """Positions of the arguments that have to be written out."""


_N, _T, _B, _A = Type.NUMBER, Type.TEXT, Type.TRUTH, Type.ANY
FUNCTIONS: Mapping[str, Function] = {
    "abs": Function((_N,), _N),
    "sqrt": Function((_N,), _N),
    "log": Function((_N,), _N),
    "round": Function((_N,), _N),
    "floor": Function((_N,), _N),
    "length": Function((_T,), _N),
    "lower": Function((_T,), _T),
    "starts_with": Function((_T, _T), _B, constants=(1,)),
    "matches": Function((_T, _T), _B, constants=(1,)),
    "is_missing": Function((_A,), _B),
    "share": Function((_B,), _N, gathers=True),
    "count": Function((_B,), _N, gathers=True),
    "rows": Function((), _N, gathers=True),
    "mean": Function((_N,), _N, gathers=True),
    "std": Function((_N,), _N, gathers=True),
    "min": Function((_N,), _N, gathers=True),
    "max": Function((_N,), _N, gathers=True),
    "sum": Function((_N,), _N, gathers=True),
    "median": Function((_N,), _N, gathers=True),
    "quantile": Function((_N, _N), _N, gathers=True, constants=(1,)),
    "distinct": Function((_A,), _N, gathers=True),
    "missing": Function((_A,), _N, gathers=True),
}
"""By name. `share` is the part of the rows (of those for which it is known) that are so, `missing` the part without a
value; `matches` is a regular expression of RE2 that is found anywhere."""
_OF_SCHEMA = {"INT": _N, "FLOAT": _N, "BYTES": _T}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.Pow)
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class ExpressionError(ValueError):
    """A mistake in an expression."""

    def __init__(self, *, found: str, expected: str, position: int, action: str = "Correct the expression.") -> None:
        """Keeps what is wrong and where."""
        super().__init__(f"position {position}: found {found}; expected {expected}")
        self.found = found
        self.expected = expected
        self.position = position
        """Character, counted from 1."""
        self.action = action

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by message, which is all that another process needs."""
        return (ValueError, (str(self),))


@dataclasses.dataclass(frozen=True)
class Expression:
    """A checked expression."""

    text: str
    kind: Kind
    tree: ast.expr
    columns: tuple[str, ...]
    """The columns that it reads, in the order in which they come."""


def parse(text: str, kind: Kind, *, types: Mapping[str, str] | None = None) -> Expression:
    """Reads and checks an expression; runs nothing.

    Args:
        text: the expression.
        kind: what it has to speak of.
        types: type of each column as a schema names it (INT, FLOAT, BYTES); without it neither the columns' names nor
            their types are checked.

    Raises:
        ExpressionError: with the first mistake.
    """
    tree = _read(text)
    checker = _Checker(text, types)
    type_, gathered = checker.visit(tree, inside=kind is Kind.ROW)
    if type_ not in (Type.TRUTH, Type.ANY):
        raise checker.error(tree, found=type_.value, expected="a comparison, which is true or false")
    if kind is Kind.TABLE and not gathered:
        raise checker.error(
            tree,
            found="nothing that speaks of all rows",
            expected="a function that gathers rows, such as share(price == 1.0) < 0.01",
        )
    return Expression(text=text, kind=kind, tree=tree, columns=tuple(dict.fromkeys(column_names(tree))))


def column_names(tree: ast.AST) -> Iterator[str]:
    """Yields the columns that a checked tree reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "column":
            yield node.args[0].value  # type: ignore[attr-defined]
        elif isinstance(node, ast.Name) and not _names_a_function(tree, node):
            yield node.id


def _names_a_function(tree: ast.AST, name: ast.Name) -> bool:
    return any(isinstance(node, ast.Call) and node.func is name for node in ast.walk(tree))


def _read(text: str) -> ast.expr:
    if not text.strip():
        raise ExpressionError(found="nothing", expected="an expression", position=1)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            found=f"{len(text):,} characters", expected=f"at most {MAX_LENGTH:,}", position=MAX_LENGTH
        )
    shift = len(text) - len(text.lstrip())
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        # "invalid syntax. Perhaps you forgot a comma?" is advice for Python.
        message = (error.msg or "invalid syntax").split(".")[0]
        position = (error.offset or 1) + shift
        shown = text[position - 1 : position + 11].strip()
        raise ExpressionError(
            found=f"{message} at {shown!r}" if shown else f"{message} at the end",
            expected="an expression such as discount_price <= list_price",
            position=position,
        ) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise ExpressionError(found=str(error) or "too deep a nesting", expected="an expression", position=1) from None


class _Checker:
    """Walks over a tree and says what each part is; whatever is not named here is refused."""

    def __init__(self, text: str, types: Mapping[str, str] | None) -> None:
        self._text = text
        self._types = types
        self._shift = len(text) - len(text.lstrip())

    def error(self, node: ast.expr, *, found: str, expected: str, action: str | None = None) -> ExpressionError:
        before = self._text.strip().encode()[: node.col_offset].decode(errors="ignore")
        return ExpressionError(
            found=found,
            expected=expected,
            position=len(before) + 1 + self._shift,
            action=action or "Correct the expression.",
        )

    def visit(self, node: ast.expr, *, inside: bool) -> tuple[Type, bool]:
        """Returns type of the node and whether rows are gathered in it; `inside` tells that columns may stand here."""
        if isinstance(node, ast.Constant):
            return self._constant(node), False
        if isinstance(node, ast.Name):
            return self._column(node, node.id, inside), False
        if isinstance(node, ast.BoolOp):
            return _B, self._all(node.values, _B, inside)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.UAdd):
            wanted = _B if isinstance(node.op, ast.Not) else _N
            return wanted, self._all([node.operand], wanted, inside)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
            return _N, self._all([node.left, node.right], _N, inside)
        if isinstance(node, ast.Compare):
            return _B, self._comparison(node, inside)
        if isinstance(node, ast.Call):
            return self._call(node, inside)
        shown = (ast.get_source_segment(self._text.strip(), node) or type(node).__name__)[:40]
        raise self.error(
            node,
            found=f"{shown!r}, which the language does not have",
            expected="columns, numbers, texts, + - * / % **, comparisons, in, and, or, not, and functions",
        )

    def _constant(self, node: ast.Constant) -> Type:
        if isinstance(node.value, bool):
            return _B
        if isinstance(node.value, int | float):
            return _N
        if isinstance(node.value, str):
            return _T
        raise self.error(node, found=repr(node.value), expected="a number or a text; is_missing(x) asks for a hole")

    def _column(self, node: ast.expr, name: str, inside: bool) -> Type:
        if name in FUNCTIONS and (self._types is None or name not in self._types):
            raise self.error(node, found=f"the function {name} without arguments", expected=f"{name}(...)")
        if self._types is not None and name not in self._types:
            close = difflib.get_close_matches(name, self._types, n=1)
            raise self.error(
                node,
                found=f"column {name!r}, which the table lacks",
                expected=f"one of {', '.join(sorted(self._types)[:20])}",
                action=f"Did you mean {close[0]!r}?" if close else "Correct the column.",
            )
        if not inside:
            raise self.error(
                node,
                found=f"column {name!r} by itself",
                expected=f"a function that gathers its rows, such as mean({name}) or share({name} > 0)",
                action="Use a function, or make it a check of every row (`row`).",
            )
        return _OF_SCHEMA.get((self._types or {}).get(name, ""), _A)

    def _all(self, nodes: list[ast.expr], wanted: Type, inside: bool) -> bool:
        # Each of them is checked, also when the first one gathers already.
        gathered = [self._one(node, wanted, inside) for node in nodes]
        return any(gathered)

    def _one(self, node: ast.expr, wanted: Type, inside: bool) -> bool:
        type_, gathered = self.visit(node, inside=inside)
        if wanted is not _A and type_ not in (wanted, _A):
            raise self.error(node, found=type_.value, expected=wanted.value)
        return gathered

    def _comparison(self, node: ast.Compare, inside: bool) -> bool:
        type_, gathered = self.visit(node.left, inside=inside)
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                self._members(right, type_)
                continue
            other, more = self.visit(right, inside=inside)
            gathered |= more
            if _A not in (type_, other) and type_ is not other:
                raise self.error(right, found=other.value, expected=f"{type_.value}, as on the left")
            if not isinstance(operator, (*_ORDER, ast.Eq, ast.NotEq)):
                raise self.error(right, found="is", expected="== or !=; is_missing(x) asks for a hole")
            if isinstance(operator, _ORDER) and _B in (type_, other):
                raise self.error(right, found="an order of true and false", expected="numbers or texts")
            type_ = other if type_ is _A else type_
        return gathered

    def _members(self, node: ast.expr, wanted: Type) -> None:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set) or not node.elts:
            raise self.error(node, found="no list", expected="a list such as ['EUR', 'JPY']")
        for element in node.elts:
            value = element.operand if isinstance(element, ast.UnaryOp) else element
            if not isinstance(value, ast.Constant):
                raise self.error(element, found="something computed", expected="numbers or texts that are written out")
            self._one(element, wanted, inside=False)

    def _call(self, node: ast.Call, inside: bool) -> tuple[Type, bool]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "column":
            return self._named_column(node, inside), False
        function = FUNCTIONS.get(name)
        if function is None:
            close = difflib.get_close_matches(name, FUNCTIONS, n=1)
            shown = ast.get_source_segment(self._text.strip(), node.func) or "a call"
            raise self.error(
                node,
                found=f"the function {shown[:40]!r}",
                expected=f"one of {', '.join(sorted(FUNCTIONS))}",
                action=f"Did you mean {close[0]!r}?" if close else "Correct the expression.",
            )
        if len(node.args) != len(function.takes) or node.keywords:
            count = len(node.args) + len(node.keywords)
            raise self.error(node, found=f"{count} arguments", expected=f"{len(function.takes)} of {name}")
        if function.gathers and inside:
            raise self.error(
                node,
                found=f"{name}, which makes one value of all rows",
                expected="a condition on a single row",
                action="Make it a check of the whole column (`column`), or leave the function out.",
            )
        gathered = function.gathers
        for position, (argument, wanted) in enumerate(zip(node.args, function.takes, strict=True)):
            if position in function.constants and not isinstance(argument, ast.Constant):
                raise self.error(argument, found="something computed", expected="a value that is written out")
            gathered |= self._one(argument, wanted, inside=inside or function.gathers)
        return function.gives, gathered

    def _named_column(self, node: ast.Call, inside: bool) -> Type:
        argument = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise self.error(node, found="column(...) without a name", expected="column('the name')")
        return self._column(node, argument.value, inside)
