"""The generator of the prices keeps its word: shares, prices, rates of a day, faults that strike what they say."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from datagen import Generator, prices

SCHEMA = pathlib.Path(__file__).parents[2] / "schemas" / "prices" / "schema.pbtxt"


def test_the_module_is_a_generator():
    generator: Generator = prices
    assert generator is prices


def test_revenue_is_what_the_docstring_says():
    table = prices.table(span=2, rows=50_000)
    discount, rate, quantity, revenue = (
        table[name].to_numpy() for name in ("discount_price", "rate", "quantity", "revenue")
    )
    residuals = np.log(revenue) - np.log(discount * rate * quantity)
    assert np.std(residuals) == pytest.approx(prices.NOISE, rel=0.02)
    assert np.all(discount <= table["list_price"].to_numpy())
    assert np.mean(discount / table["list_price"].to_numpy()) == pytest.approx(0.75, abs=0.01)


def test_three_sales_in_a_hundred_are_in_yen_and_a_day_has_one_rate():
    table = prices.table(span=3, rows=50_000).to_pandas()
    assert (table.currency == "JPY").mean() == pytest.approx(0.03, abs=0.004)
    assert table.groupby("currency").rate.nunique().to_dict() == dict.fromkeys(prices.CURRENCIES, 1)
    yen = [prices.rates(span)["JPY"] for span in range(1, 31)]
    assert yen[0] == prices.CURRENCIES["JPY"][1]
    assert 0 < np.std(np.diff(np.log(yen))) < 2 * prices.DAILY_STEP


def test_values_fit_the_curated_schema():
    schema = text_format.Parse(SCHEMA.read_text(), schema_pb2.Schema())
    table = prices.table(span=1, rows=20_000)
    assert [feature.name for feature in schema.feature] == list(prices.COLUMNS)
    for name in ("rate", "list_price", "discount_price", "revenue"):
        assert table[name].to_numpy().min() > 0
    assert set(table["currency"].to_pylist()) == set(prices.CURRENCIES)
    assert table["quantity"].to_numpy().min() == 1


def test_a_span_is_the_same_whoever_writes_it(tmp_path):
    prices.generate(tmp_path / "a", spans=3, rows=50)
    prices.generate(tmp_path / "b", spans=2, rows=50)
    added = prices.add_span(tmp_path / "b", rows=50)
    name = pathlib.Path("v-1") / prices.FILE
    assert (added / name).read_bytes() == (tmp_path / "a" / "span-3" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["span-1", "span-2", "span-3"]


@pytest.mark.parametrize("fault", sorted(prices.FAULTS))
def test_a_fault_strikes_the_last_span_and_what_its_name_says(tmp_path, fault):
    good = prices.generate(tmp_path / "good", spans=2, rows=400)
    bad = prices.generate(tmp_path / "bad", spans=2, rows=400, fault=fault)
    contents = [(folder / "v-1" / prices.FILE).read_text() for folder in (*good, *bad)]
    assert contents[0] == contents[2]
    assert contents[1] != contents[3]
    if not fault.startswith("yen"):
        return
    # A column with a text in it has quotes and all its zeros.
    before, after = (pd.read_csv(folder / "v-1" / prices.FILE, dtype=str) for folder in (good[1], bad[1]))
    differs = (before.fillna("") != after.fillna("")) & ~before.apply(pd.to_numeric, errors="coerce").eq(
        after.apply(pd.to_numeric, errors="coerce")
    )
    assert (differs.any(axis=1) == (before.currency == "JPY")).all()


def test_the_same_again_is_the_span_before(tmp_path):
    first, second = prices.generate(tmp_path, spans=2, rows=50, fault="same_again")
    assert (first / "v-1" / prices.FILE).read_bytes() == (second / "v-1" / prices.FILE).read_bytes()


def test_an_unknown_fault_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'typo'.*yen_rate_one"):
        prices.add_span(tmp_path, fault="typo")
    assert list(tmp_path.iterdir()) == []
