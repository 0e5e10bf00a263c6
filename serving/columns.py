"""What a raw column admits, from the schema, and how its values become a tensor: missing ones by the model's contract.

A column of good values is converted at once by numpy; only a column with something to look at is taken value by value,
and each refused value is told on its own.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evergreen.decimals import pointed
from evergreen.errors import Problem
from evergreen.words import short
from serving.rows import CommaText, Text

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64 = np.iinfo(np.int64)
_SHOWN = 10
_MOST_VALUES = 256
"""Values of a row that a model may read at the most: no feature takes more (`settings.MaxValues`)."""


class Kind(enum.Enum):
    """The type of a column's tensor."""

    NUMBER = "a number"
    """float32; NaN is missing."""
    INTEGER = "a whole number"
    """int64; the smallest one is missing."""
    TEXT = "a text"
    """UTF-8 bytes; the empty text is missing."""


_DTYPES: dict[Kind, Any] = {Kind.NUMBER: np.float32, Kind.INTEGER: np.int64, Kind.TEXT: np.object_}
_MISSING: dict[Kind, Any] = {Kind.NUMBER: math.nan, Kind.INTEGER: int(_INT64.min), Kind.TEXT: b""}


class _Refused(Exception):
    """A value that the column does not admit."""

    def __init__(self, found: str, expected: str, action: str) -> None:
        super().__init__(found)
        self.found, self.expected, self.action = found, expected, action


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A raw column that the model reads."""

    name: str
    kind: Kind
    required: bool = True
    several: bool = False
    """Whether a row may have several values: the tensor is [rows, n], with missing values behind a row's last one."""
    low: float = -math.inf
    """The smallest number admitted."""
    high: float = math.inf
    allowed: frozenset[str] | None = None
    """The texts admitted; every one where it is `None`."""
    truth: tuple[object, object] | None = None
    """What false and true stand for; `None` where a truth value is refused."""

    def encode(self, values: Sequence[object]) -> tuple[npt.NDArray[Any], dict[int, Problem]]:
        """Converts a batch of the column.

        Args:
            values: one a row, `None` where the row lacks the column; `Text` where the format knows only text; a list
                where the column admits several.

        Returns:
            The tensor, shape [rows], or [rows, n] with n of at least 1 where the column admits several values, dtype
            float32, int64 or object (bytes), and what is wrong by the index of the row; a refused value is missing in
            the tensor.
        """
        if self.several:
            return self._encode_lists(values)
        array = self._all_good(values)
        if array is not None:
            return array, {}
        encoded: list[Any] = []
        refused: dict[int, Problem] = {}
        for index, value in enumerate(values):
            try:
                encoded.append(self._one(value))
            except _Refused as error:
                encoded.append(_MISSING[self.kind])
                refused[index] = Problem(
                    where=f"column {self.name!r}", found=error.found, expected=error.expected, action=error.action
                )
        return np.array(encoded, dtype=_DTYPES[self.kind]), refused

    def _encode_lists(self, values: Sequence[object]) -> tuple[npt.NDArray[Any], dict[int, Problem]]:
        """Converts all values of all rows at once, and puts them back into their rows."""
        rows = [_as_list(value, self.kind) for value in values]
        lengths = np.array([len(row) for row in rows], np.int64)
        owners = np.repeat(np.arange(len(rows)), lengths)
        places = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        one = dataclasses.replace(self, several=False, required=True)
        every = [value for row in rows for value in row]
        flat, wrong = one.encode(every)
        matrix = np.full((len(rows), int(np.clip(lengths.max(initial=1), 1, _MOST_VALUES))), _MISSING[self.kind])
        matrix = matrix.astype(_DTYPES[self.kind])
        kept = places < matrix.shape[1]
        matrix[owners[kept], places[kept]] = flat[kept]
        refused: dict[int, Problem] = {}
        for index, problem in wrong.items():
            hole = {"found": "nothing within a list", "action": "Leave it out of the list."}
            words = hole if self._is_missing(every[index]) else {}
            refused.setdefault(int(owners[index]), dataclasses.replace(problem, **words))
        if self.required:
            empty = Problem(
                where=f"column {self.name!r}",
                found="no value",
                expected=self._expected(),
                action="Give every row this column.",
            )
            refused.update(dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), empty))
        return matrix, refused

    def _all_good(self, values: Sequence[object]) -> npt.NDArray[Any] | None:
        """Returns the tensor when every value is there and admitted, else `None`: then each must be looked at."""
        try:
            return _QUICK[self.kind](self, values)
        except (ValueError, OverflowError):
            return None

    def _one(self, value: object) -> Any:
        """Returns the value as it goes into the tensor.

        Raises:
            _Refused: when the column does not admit it.
        """
        if isinstance(value, Text) and self.kind is not Kind.TEXT:
            value = _parsed(value, self.kind)
        if isinstance(value, bool) and self.truth is not None:
            value = self.truth[value]
        if self._is_missing(value):
            if self.required:
                raise _Refused("no value", self._expected(), "Give every row this column.")
            return _MISSING[self.kind]
        return self._text(value) if self.kind is Kind.TEXT else self._number(value)

    def _is_missing(self, value: object) -> bool:
        if self.kind is Kind.TEXT:
            return value is None or value == ""
        return value is None or (isinstance(value, float) and math.isnan(value))

    def _number(self, value: object) -> float | int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _Refused(_shown(value), self._expected(), "Write a number without quotes, or leave the row out.")
        if self.kind is Kind.INTEGER and not (isinstance(value, int) or value.is_integer()):
            raise _Refused(str(value), self._expected(), "Write a whole number.")
        largest = _FLOAT32_MAX if self.kind is Kind.NUMBER else _INT64.max
        if not -largest <= value <= largest:
            raise _Refused(short(str(value), 40), f"{self._expected()} that fits the model", "Correct the number.")
        if not self.low <= value <= self.high:
            action = "Correct the value; if it is right, widen the column's domain in the schema and train again."
            raise _Refused(str(value), self._expected(), action)
        return float(value) if self.kind is Kind.NUMBER else int(value)

    def _text(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise _Refused(_shown(value), self._expected(), "Write the value as a text, between quotes.")
        if self.allowed is not None and value not in self.allowed:
            action = "Correct the value; if it is right, add it to the column's domain in the schema and train again."
            raise _Refused(_shown(value), self._expected(), action)
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise _Refused("half a character", "a text", "Save the row as UTF-8.") from None

    def _expected(self) -> str:
        if self.allowed is not None:
            listed = ", ".join(map(repr, sorted(self.allowed)[:_SHOWN]))
            more = len(self.allowed) - _SHOWN
            return f"one of {listed}{f' and {more} more' if more > 0 else ''}"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.kind.value} from {self.low:g} to {self.high:g}"
        if math.isfinite(self.low):
            return f"{self.kind.value} of at least {self.low:g}"
        if math.isfinite(self.high):
            return f"{self.kind.value} of at most {self.high:g}"
        return self.kind.value


# --- the quick way ---------------------------------------------------------------------------------------------------


def _quick_numbers(column: Column, values: Sequence[object]) -> npt.NDArray[Any] | None:
    numbers = _quickly_typed(values, {int, float}, float)
    if numbers is None:
        return None
    array = np.array(numbers, dtype=np.float64)
    good = (np.abs(array) <= _FLOAT32_MAX) & (array >= column.low) & (array <= column.high)  # NaN is never good.
    return array.astype(np.float32) if good.all() else None


def _quick_integers(column: Column, values: Sequence[object]) -> npt.NDArray[Any] | None:
    numbers = _quickly_typed(values, {int}, int)
    if numbers is None:
        return None
    array = np.array(numbers, dtype=np.int64)
    good = (array > _INT64.min) & (array >= column.low) & (array <= column.high)
    return array if good.all() else None


def _quick_texts(column: Column, values: Sequence[object]) -> npt.NDArray[Any] | None:
    if not set(map(type, values)) <= {str, Text, CommaText}:
        return None
    there = set(values)
    if column.required and "" in there:
        return None
    if column.allowed is not None and not there - {""} <= column.allowed:
        return None
    array = np.empty(len(values), dtype=np.object_)
    array[:] = [str(value).encode() for value in values]
    return array


_QUICK: dict[Kind, Callable[[Column, Sequence[object]], npt.NDArray[Any] | None]] = {
    Kind.NUMBER: _quick_numbers,
    Kind.INTEGER: _quick_integers,
    Kind.TEXT: _quick_texts,
}


def _quickly_typed(
    values: Sequence[Any], types: set[type], parse: Callable[[str], float | int]
) -> Sequence[float | int] | None:
    """Returns the numbers of a column that holds nothing else, parsed where they are text, else `None`."""
    found = set(map(type, values))
    if found in ({Text}, {CommaText}):
        together = "".join(values)
        written = map(pointed, values) if found == {CommaText} else values
        return list(map(parse, written)) if together.isascii() and "_" not in together else None
    return values if found <= types else None


def _as_list(value: object, kind: Kind) -> Sequence[object]:
    """Returns the values of a row; a single one stands for a list of one, and nothing for an empty list.

    The empty text between others is left out, as nothing is learned of it in training; any other hole is refused.
    """
    if isinstance(value, (list, tuple)):
        return [one for one in value if one != ""] if kind is Kind.TEXT else value
    nothing = value is None or (isinstance(value, float) and math.isnan(value))
    nothing = nothing or (isinstance(value, str) and not value.strip())
    return [] if nothing else [value]


def _parsed(text: Text, kind: Kind) -> object:
    """Reads a number out of a format that knows only text; nothing is missing, anything else stays a text."""
    if not text.strip():
        return None
    number = pointed(text) if isinstance(text, CommaText) else text
    if not text.isascii() or "_" in text:  # Python reads both as numbers, the CSV reader of training does not.
        return str(text)
    try:
        return int(number) if kind is Kind.INTEGER else float(number)
    except ValueError:
        return str(text)


def _shown(value: object) -> str:
    names = {bool: "the truth value", int: "the number", float: "the number", list: "the array", dict: "the object"}
    return f"{names.get(type(value), 'the text')} {short(repr(value), 40)}"


# --- the schema ------------------------------------------------------------------------------------------------------


def column_of(name: str, kind: Kind, feature: Any, shared_domains: Iterable[Any], *, several: bool = False) -> Column:
    """Returns what a column admits.

    Args:
        name: of the column.
        kind: type of the model's input.
        feature: the `schema_pb2.Feature`, or `None` for a column that the schema does not know: then it is required
            and admits every value of its type.
        shared_domains: the schema's `string_domain`s, which features name by `domain`.
        several: whether the model reads several values of a row.
    """
    return dataclasses.replace(_single(name, kind, feature, shared_domains), several=several)


def _single(name: str, kind: Kind, feature: Any, shared_domains: Iterable[Any]) -> Column:
    if feature is None:
        return Column(name=name, kind=kind)
    required = bool(feature.presence.min_fraction >= 1.0)
    if kind is Kind.TEXT:
        allowed, truth = _texts(feature, shared_domains)
        return Column(name=name, kind=kind, required=required, allowed=allowed, truth=truth)
    if feature.HasField("bool_domain"):
        return Column(name=name, kind=kind, required=required, low=0, high=1, truth=(0, 1))
    which = feature.WhichOneof("domain_info")
    domain = getattr(feature, which) if which in {"int_domain", "float_domain"} else None
    low = domain.min if domain is not None and domain.HasField("min") else -math.inf
    high = domain.max if domain is not None and domain.HasField("max") else math.inf
    return Column(name=name, kind=kind, required=required, low=low, high=high)


def _texts(feature: Any, shared_domains: Iterable[Any]) -> tuple[frozenset[str] | None, tuple[object, object] | None]:
    """Returns the texts that a feature's domain allows, `None` where others may come, and what truth values mean."""
    if feature.HasField("bool_domain"):
        domain = feature.bool_domain
        truth = (domain.false_value or "false", domain.true_value or "true")
        return frozenset(truth), truth
    values: Sequence[str] = ()
    if feature.HasField("string_domain"):
        values = feature.string_domain.value
    elif feature.HasField("domain"):
        values = [value for domain in shared_domains if domain.name == feature.domain for value in domain.value]
    if not values or feature.distribution_constraints.min_domain_mass < 1.0:
        return None, None
    return frozenset(values), None
