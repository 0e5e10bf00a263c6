"""The number of a row: from its values only, spread evenly, and the same for ever."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from components.example_gen.hashing import row_hashes


def table(**columns):
    types = {float: pa.float32(), int: pa.int64(), str: pa.string()}
    return pa.table(
        {
            name: pa.array(values, types[next(type(value) for value in values if value is not None)])
            for name, values in columns.items()
        }
    )


def test_the_numbers_never_change():
    # A change here moves rows between splits for everybody: what a model was trained on would test it.
    rows = table(a=[1.5, None, 0.25], b=[7, -3, None], c=["x", "é", None])
    assert row_hashes(rows).tolist() == [7517653449697109493, 7303340974298694734, 8647986970339814681]


def test_order_of_columns_and_rows_do_not_matter():
    rows = table(a=[1.5, 2.5, None], b=[1, 2, 3], c=["x", None, "y"])
    expected = row_hashes(rows)
    assert (row_hashes(rows.select(["c", "a", "b"])) == expected).all()
    assert (row_hashes(rows.take([2, 0, 1])) == expected[[2, 0, 1]]).all()
    assert (row_hashes(pa.concat_tables([rows.slice(0, 1), rows.slice(1)])) == expected).all()


def test_a_column_without_values_does_not_matter():
    rows = table(a=[1.5, 2.5])
    assert (row_hashes(rows.append_column("b", pa.nulls(2, pa.string()))) == row_hashes(rows)).all()


def test_the_same_value_in_another_column_is_another_row():
    assert row_hashes(table(a=[1], b=[2]))[0] != row_hashes(table(a=[2], b=[1]))[0]
    assert row_hashes(table(a=[1, None], b=[None, 1]))[0] != row_hashes(table(a=[1, None], b=[None, 1]))[1]


def test_minus_zero_is_zero():
    first, second = row_hashes(table(a=[0.0, -0.0]))
    assert first == second


@pytest.mark.parametrize(
    "rows",
    [
        table(a=list(range(50_000))),
        table(a=[value / 8 for value in range(50_000)]),
        table(a=[str(value) for value in range(50_000)]),
        table(a=[value % 7 for value in range(50_000)], b=[value // 7 for value in range(50_000)]),
    ],
)
def test_every_number_of_buckets_is_filled_evenly(rows):
    hashes = row_hashes(rows)
    assert len(np.unique(hashes)) == 50_000
    for buckets in (3, 10, 64):
        counts = np.bincount((hashes % buckets).astype(int), minlength=buckets)
        expected = 50_000 / buckets
        # Chi-squared with buckets - 1 degrees of freedom: mean buckets - 1, variance twice that.
        chi = ((counts - expected) ** 2 / expected).sum()
        assert chi < (buckets - 1) + 5 * (2 * (buckets - 1)) ** 0.5
