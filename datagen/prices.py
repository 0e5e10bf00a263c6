"""The built-in problem `prices`: a shop's sales in four currencies, of which the yen is small in the whole.

    revenue = discount_price * rate * quantity * exp(N(0, 0.1))          in euro

A list price is what the product costs in euro (log-normal around the price of its `category`), told in the currency of
the sale; the discount price is 50 to 100 % of it. The rate of a currency is one number a day, which walks by
`DAILY_STEP` from day to day; of the euro it is 1. Three sales in a hundred are in yen. Each span is a day; its bytes
depend on seed, number and options only.

    generate(pathlib.Path("data/prices"))                            # spans 1 to 7
    add_span(pathlib.Path("data/prices"), fault="yen_rate_one")      # span 8, broken on purpose
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datagen import writing

COLUMNS = ("category", "currency", "rate", "list_price", "discount_price", "quantity", "revenue")
"""In the order of the files."""
CURRENCIES: Mapping[str, tuple[float, float]] = {
    "EUR": (0.55, 1.0),
    "USD": (0.28, 0.92),
    "GBP": (0.14, 1.17),
    "JPY": (0.03, 0.0062),
}
"""Share of the sales, and rate to the euro on the first day."""
CATEGORIES: Mapping[str, tuple[float, float]] = {
    "books": (0.35, 18.0),
    "toys": (0.25, 30.0),
    "music": (0.2, 12.0),
    "garden": (0.15, 45.0),
    "camera": (0.05, 320.0),
}
"""Share of the sales, and median price in euro."""
DAILY_STEP = 0.005
"""Standard deviation of a rate's relative change from one day to the next."""
NOISE = 0.1
"""Standard deviation of the logarithm of the revenue: what no model can know."""
SEED = 20240229
FILE = "prices.csv"


def generate(
    root: pathlib.Path,
    *,
    spans: int = 7,
    rows: int = 20_000,
    seed: int = SEED,
    drift: float = 0.0,
    fault: str | None = None,
) -> list[pathlib.Path]:
    """Writes spans 1 to `spans` below `root` where they are missing.

    Args:
        root: the folder that holds the spans; made if missing.
        spans: how many spans there shall be.
        rows: rows of each span.
        seed: what the spans' own seeds are derived from.
        drift: see `table`; applies to all spans written.
        fault: one of `FAULTS`; strikes the last span only, if it is written.

    Returns:
        The folders of all spans 1 to `spans`, in order.

    Raises:
        ValueError: `fault` is not one of `FAULTS`.
    """
    content = _content(rows=rows, seed=seed, drift=drift, fault=fault)
    return writing.generate(root, content, spans=spans, file=FILE)


def add_span(
    root: pathlib.Path,
    *,
    rows: int = 20_000,
    seed: int = SEED,
    drift: float = 0.0,
    fault: str | None = None,
) -> pathlib.Path:
    """Writes the span after the highest one below `root`.

    Args:
        root: the folder that holds the spans; made if missing.
        rows: rows of the span.
        seed: what the span's own seed is derived from; the same as for the spans before.
        drift: see `table`.
        fault: one of `FAULTS`, or `None` for a good span.

    Returns:
        The folder of the new span.

    Raises:
        ValueError: `fault` is not one of `FAULTS`.
    """
    return writing.add_span(root, _content(rows=rows, seed=seed, drift=drift, fault=fault), file=FILE)


def table(*, span: int, rows: int, seed: int = SEED, drift: float = 0.0) -> pa.Table:
    """Draws the rows of one span.

    Args:
        span: the span's number; every span has its own stream of random numbers.
        rows: how many.
        seed: the common seed.
        drift: by how much all prices rise, as a share: 0.5 makes everything half as dear again.

    Returns:
        `COLUMNS`; category and currency text, quantity int64, the others float64.
    """
    random = np.random.default_rng([seed, span])
    currency = _choose(random, CURRENCIES, rows)
    category = _choose(random, CATEGORIES, rows)
    daily = rates(span, seed=seed)
    rate = np.array([daily[name] for name in CURRENCIES])[currency]
    median = np.array([price for _, price in CATEGORIES.values()])[category]
    euro = (1.0 + drift) * median * np.exp(random.normal(0.0, 0.4, rows))
    list_price = (euro / rate).round(2)
    # Rounding cannot lift a discount price above its list price: both are rounded the same way.
    discount_price = (list_price * random.uniform(0.5, 1.0, rows)).round(2)
    quantity = 1 + random.poisson(0.6, rows)
    revenue = discount_price * rate * quantity * np.exp(random.normal(0.0, NOISE, rows))
    names, kinds = np.array(list(CURRENCIES)), np.array(list(CATEGORIES))
    values = (kinds[category], names[currency], rate, list_price, discount_price, quantity, revenue.round(4))
    return pa.table(dict(zip(COLUMNS, values, strict=True)))


def rates(span: int, *, seed: int = SEED) -> dict[str, float]:
    """Returns the rate of each currency to the euro on the day of a span."""
    steps = np.random.default_rng([seed, 0]).normal(0.0, DAILY_STEP, (span, len(CURRENCIES)))
    walked = np.exp(steps.sum(axis=0) - steps[0])
    return {
        name: 1.0 if name == "EUR" else float(f"{first * factor:.6g}")
        for (name, (_, first)), factor in zip(CURRENCIES.items(), walked, strict=True)
    }


def _choose(random: np.random.Generator, kinds: Mapping[str, tuple[float, float]], rows: int) -> npt.NDArray[np.int64]:
    return random.choice(len(kinds), rows, p=[share for share, _ in kinds.values()])


def _content(*, rows: int, seed: int, drift: float, fault: str | None) -> Callable[[int, bool], bytes]:
    writing.check_fault(fault, FAULTS)

    def content(span: int, newest: bool) -> bytes:
        data = table(span=span, rows=rows, seed=seed, drift=drift)
        if fault and newest:
            data = FAULTS[fault](data, lambda: table(span=max(1, span - 1), rows=rows, seed=seed, drift=drift))
        return writing.csv_bytes(data)

    return content


# --- faults ----------------------------------------------------------------------------------------------------------


def _replaced(data: pa.Table, column: str, values: Any) -> pa.Table:
    return data.set_column(data.column_names.index(column), column, pa.array(values))


def _yen(data: pa.Table) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.array(data["currency"].to_pylist()) == "JPY"
    return mask


def _scaled(data: pa.Table, columns: tuple[str, ...], factor: float, rows: npt.NDArray[np.bool_] | None) -> pa.Table:
    for name in columns:
        values = data[name].to_numpy()
        data = _replaced(data, name, np.where(True if rows is None else rows, values * factor, values).round(2))
    return data


def _yen_rate_one(data: pa.Table, _: Callable[[], pa.Table]) -> pa.Table:
    return _replaced(data, "rate", np.where(_yen(data), 1.0, data["rate"].to_numpy()))


def _yen_rate_null(data: pa.Table, _: Callable[[], pa.Table]) -> pa.Table:
    return data.set_column(2, "rate", pa.array(data["rate"].to_numpy(), mask=_yen(data)))


def _error_text(data: pa.Table, _: Callable[[], pa.Table]) -> pa.Table:
    return _replaced(data, "discount_price", ["#ERROR: no such feed"] * data.num_rows)


def _yen_error_text(data: pa.Table, _: Callable[[], pa.Table]) -> pa.Table:
    texts = [f"{value:.2f}" for value in data["discount_price"].to_pylist()]
    return _replaced(data, "discount_price", np.where(_yen(data), "#ERROR: no such feed", np.array(texts)))


FAULTS: Mapping[str, Callable[[pa.Table, Callable[[], pa.Table]], pa.Table]] = {
    "error_text": _error_text,
    "mostly_lost": lambda data, _: data.slice(0, data.num_rows // 5),
    "prices_wrong": lambda data, _: _scaled(data, ("list_price", "discount_price"), 100.0, None),
    "same_again": lambda _, before: before(),
    "swapped_prices": lambda data, _: data.rename_columns(
        [{"list_price": "discount_price", "discount_price": "list_price"}.get(n, n) for n in data.column_names]
    ),
    "yen_error_text": _yen_error_text,
    "yen_prices_wrong": lambda data, _: _scaled(data, ("list_price", "discount_price"), 0.01, _yen(data)),
    "yen_rate_null": _yen_rate_null,
    "yen_rate_one": _yen_rate_one,
}
"""Name of each corruption and what it makes of a span; the second argument draws the span before. `yen_*` strike the
three sales in a hundred that are in yen; `prices_wrong` makes both prices a hundred times too high, which no comparison
of one with the other shows; `same_again` delivers the span before once more; `mostly_lost` drops four rows of five."""
