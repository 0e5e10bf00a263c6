"""The small language: what it takes, what it refuses and where, and that nothing else is ever run."""

from __future__ import annotations

import pytest

from evergreen.expressions import ExpressionError, Kind, parse

TYPES = {"list_price": "FLOAT", "discount_price": "FLOAT", "currency": "BYTES", "rate": "FLOAT", "n": "INT"}


@pytest.mark.parametrize(
    ("text", "kind", "columns"),
    [
        ("discount_price <= list_price", Kind.ROW, ("discount_price", "list_price")),
        ("0 < rate <= 1 and not is_missing(n)", Kind.ROW, ("rate", "n")),
        ("currency in ['JPY', 'EUR'] or length(currency) == 3", Kind.ROW, ("currency",)),
        ("matches(currency, '^[A-Z]{3}$')", Kind.ROW, ("currency",)),
        ("column('list_price') * -1 < 0", Kind.ROW, ("list_price",)),
        ("share(rate == 1.0) < 0.01", Kind.TABLE, ("rate",)),
        ("0.5 < quantile(rate, 0.5) < mean(list_price) / rows()", Kind.TABLE, ("rate", "list_price")),
    ],
)
def test_conditions_are_read(text: str, kind: Kind, columns: tuple[str, ...]) -> None:
    assert set(parse(text, kind, types=TYPES).columns) == set(columns)


@pytest.mark.parametrize(
    ("text", "kind", "position", "found", "action"),
    [
        ("discuont_price <= list_price", Kind.ROW, 1, "column 'discuont_price'", "Did you mean 'discount_price'?"),
        ("list_price > 0 and pi > 3", Kind.ROW, 20, "column 'pi'", "Correct the column."),
        ("currency == 3", Kind.ROW, 13, "a number", "Correct"),
        ("rate + 'a' > 1", Kind.ROW, 8, "a text", "Correct"),
        ("mean(rate) < 1", Kind.ROW, 1, "mean, which makes one value of all rows", "`column`"),
        ("rate < 1", Kind.TABLE, 1, "column 'rate' by itself", "`row`"),
        ("1 < 2", Kind.TABLE, 1, "nothing that speaks of all rows", "Correct"),
        ("share(mean(rate) > 1) < 1", Kind.TABLE, 7, "mean, which makes one value of all rows", "`column`"),
        ("shre(rate > 1) < 1", Kind.TABLE, 1, "the function 'shre'", "Did you mean 'share'?"),
        ("quantile(rate) < 1", Kind.TABLE, 1, "1 arguments", "Correct"),
        ("matches(currency, currency)", Kind.ROW, 19, "something computed", "Correct"),
        ("rate", Kind.ROW, 1, "a number", "Correct"),
        ("rate is None", Kind.ROW, 9, "None", "Correct"),
        ("share(rate == 1.0 < 0.01", Kind.TABLE, 6, "'(' was never closed", "Correct"),
        ("", Kind.ROW, 1, "nothing", "Correct"),
        ("1 < " * 1000, Kind.ROW, 2000, "4,000 characters", "Correct"),
    ],
)
def test_a_mistake_is_told_with_its_position(text: str, kind: Kind, position: int, found: str, action: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text, kind, types=TYPES)
    assert caught.value.position == position
    assert found in caught.value.found
    assert action in caught.value.action


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "rate.__class__ == 1",
        "(lambda: 1)() > 0",
        "[x for x in rate] == 1",
        "list_price[0] > 1",
        "f'{rate}' == '1'",
        "(y := rate) > 1",
        "rate > 1 if n else 0 > 1",
        "abs(*rate) > 0",
        "rate << 2 > 1",
        "open('x') == 1",
        "(" * 500 + "rate" + ")" * 500 + " > 1",
    ],
)
def test_whatever_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text, Kind.ROW, types=TYPES)


def test_without_types_names_and_types_are_left_to_the_data() -> None:
    assert parse("anything > 1 and other == 'a'", Kind.ROW).columns == ("anything", "other")
