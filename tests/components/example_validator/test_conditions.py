"""Expressions over columns: what every operator and function comes to, and what missing values do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from components.example_validator import conditions
from evergreen.expressions import FUNCTIONS, Kind, parse

TABLE = pa.table(
    {
        "x": pa.array([0.1, 2.0, None, -4.0], pa.float32()),
        "n": pa.array([1, 2, 3, None], pa.int64()),
        "s": pa.array(["EUR", "JPY", None, "usd"]),
    }
)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("x == 0.1", [1, 0, 0, 0]),
        ("x <= n", [1, 1, 0, 0]),
        ("not x <= n", [0, 0, 0, 0]),
        ("0 < x < 2.5", [1, 1, 0, 0]),
        ("s in ['JPY', 'usd']", [0, 1, 0, 1]),
        ("s not in ('JPY',)", [1, 0, 0, 1]),
        ("n in [1, 3] or x < -1", [1, 0, 1, 1]),
        ("is_missing(x) and n == 3", [0, 0, 1, 0]),
        ("not is_missing(s)", [1, 1, 0, 1]),
        ("abs(x) * 2 == 8", [0, 0, 0, 1]),
        ("n % 2 == 1", [1, 0, 1, 0]),
        ("n ** 2 / 2 - 1 > 0.5", [0, 1, 1, 0]),
        ("-n + 4 >= 2", [1, 1, 0, 0]),
        ("length(s) == 3 and lower(s) == 'usd'", [0, 0, 0, 1]),
        ("starts_with(s, 'E') or matches(s, '[JK]P.$')", [1, 1, 0, 0]),
        ("sqrt(n) < 1.5 and log(n) > 0.5 and round(x) == 2 and floor(x) == 2", [0, 1, 0, 0]),
        ("1 < 2", [1, 1, 1, 1]),
        ("column('x') > 1.0", [0, 1, 0, 0]),
    ],
)
def test_conditions_on_rows(text: str, held: list[int]) -> None:
    expression = parse(text, Kind.ROW)
    assert conditions.rows_that_hold(expression, TABLE).tolist() == [bool(value) for value in held]


def test_a_row_of_which_nothing_is_known_does_not_fail() -> None:
    assert conditions.rows_that_fail(parse("x <= 0.5", Kind.ROW), TABLE).tolist() == [False, True, False, False]
    assert conditions.rows_that_fail(parse("x <= n", Kind.ROW), TABLE).tolist() == [False] * 4


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("share(x > 0) == 2 / 3", True),
        ("share(x > 0 and n < 2) < 0.3", True),
        ("count(s == 'EUR') == 1", True),
        ("rows() == 4", True),
        ("mean(n) == 2 and std(n) < 1 and median(n) == 2", True),
        ("min(x) == -4 and max(n) == 3 and sum(n) == 6", True),
        ("quantile(n, 0.5) == 2", True),
        ("distinct(s) == 3 and missing(x) == 0.25", True),
        ("mean(x) > 0", False),
        ("abs(mean(x)) < 1 or share(x > 100) > 0", True),
    ],
)
def test_conditions_on_columns(text: str, held: bool) -> None:
    assert conditions.holds(parse(text, Kind.TABLE), TABLE) is held


def test_without_a_value_nothing_can_be_told() -> None:
    assert conditions.holds(parse("mean(x) > 0", Kind.TABLE), TABLE.slice(0, 0)) is None
    assert conditions.holds(parse("rows() > 0", Kind.TABLE), TABLE.slice(0, 0)) is False


def test_what_a_condition_was_decided_by() -> None:
    decided = dict(conditions.gathered_values(parse("share(n > 1) < 0.5 and mean(x) < 1", Kind.TABLE), TABLE))
    assert decided["share(n > 1)"] == pytest.approx(2 / 3)
    assert decided["mean(x)"] == pytest.approx((0.1 + 2 - 4) / 3, rel=1e-6)


def test_every_function_of_the_language_can_be_evaluated() -> None:
    known = {*conditions._PER_ROW, *conditions._GATHERING}
    assert set(FUNCTIONS) == known


def test_whole_numbers_are_compared_exactly() -> None:
    table = pa.table({"id": pa.array([2**53, 2**53 + 1], pa.int64())})
    assert conditions.rows_that_hold(parse(f"id == {2**53 + 1}", Kind.ROW), table).tolist() == [False, True]
    assert np.all(conditions.rows_that_hold(parse("id > 10", Kind.ROW), table))
