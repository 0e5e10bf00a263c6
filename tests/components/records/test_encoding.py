"""Rows encoded by columns, beside tfx-bsl's encoder: the same messages, whatever the values."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tfx_bsl.coders import example_coder

from components.records import encoding

NUMBERS = st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), -0.0, 1e-45, 3.4028235e38])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 127, 128, 2**14 - 1, 2**14, -1, 2**63 - 1, -(2**63)])
TEXTS = st.binary(max_size=5) | st.text(max_size=4).map(str.encode) | st.sampled_from([b"", b"x" * 127, b"x" * 20_000])
KINDS = {"float": (NUMBERS, pa.float32()), "int": (WHOLE, pa.int64()), "text": (TEXTS, pa.large_binary())}
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Columns of every kind, single values and lists, some of their rows cut off at both ends."""
    rows = draw(st.integers(1, 12))
    columns: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        values, type_ = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        if draw(st.booleans()):
            values, type_ = st.lists(values, max_size=3), pa.large_list(type_)
        values = values if draw(st.booleans()) else st.none() | values
        columns[name] = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), type_)
    first = draw(st.integers(0, rows - 1))
    return pa.table(columns).slice(first, draw(st.integers(1, rows - first)))


def _as_lists(table: pa.Table) -> pa.RecordBatch:
    """What tfx-bsl takes; from Python's values, so that nothing of ours is between."""
    lists = {}
    for name in table.column_names:
        type_ = table.schema.field(name).type
        values = table.column(name).to_pylist()
        if not pa.types.is_large_list(type_):
            values, type_ = [None if value is None else [value] for value in values], pa.large_list(type_)
        lists[name] = pa.array(values, type_)
    return pa.RecordBatch.from_pydict(lists)


def _messages(serialized: Any) -> list[dict[str, tuple[Any, ...]]]:
    """Every feature's kind and values, numbers by their bits: NaN is no other than itself."""
    return [
        {name: _feature(feature) for name, feature in tf.train.Example.FromString(one).features.feature.items()}
        for one in serialized
    ]


def _feature(feature: Any) -> tuple[Any, ...]:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else ()
    return (kind, *(struct.pack("<f", value) if kind == "float_list" else value for value in values))


@given(tables())
@hypothesis_settings(max_examples=150, deadline=None)
def test_the_messages_are_those_of_tfx(table: pa.Table) -> None:
    ours = encoding.encode(table).to_pylist()
    stock = example_coder.RecordBatchToExamplesEncoder().encode(_as_lists(table))
    assert _messages(ours) == _messages(stock)
    # The order of the map apart there are no other bytes either.
    assert [len(one) for one in ours] == [len(one) for one in stock]


@given(tables())
@hypothesis_settings(max_examples=50, deadline=None)
def test_the_bytes_do_not_depend_on_the_order_of_columns_or_on_the_batch(table: pa.Table) -> None:
    backwards = table.select(table.column_names[::-1])
    alone = [encoding.encode(backwards.slice(row, 1))[0].as_py() for row in range(table.num_rows)]
    assert encoding.encode(table).to_pylist() == alone


def test_all_types_of_a_kind_are_written_alike() -> None:
    rows = {
        "int": [pa.int8(), pa.int32(), pa.int64()],
        "text": [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()],
    }
    values = {"int": [1, None, -1], "text": [b"a", None, b""]}
    for name, types in rows.items():
        written = {tuple(encoding.encode(pa.table({"x": pa.array(values[name], t)})).to_pylist()) for t in types}
        assert len(written) == 1
    short = pa.array([[1], None, [2, 3]], pa.list_(pa.int64()))
    assert encoding.encode(pa.table({"x": short})) == encoding.encode(
        pa.table({"x": short.cast(pa.large_list(pa.int64()))})
    )


def test_hundreds_of_columns_in_several_chunks() -> None:
    random = np.random.default_rng(3)
    one = {f"c{number}": random.normal(size=5).astype(np.float32) for number in range(600)}
    table = pa.concat_tables([pa.table(one), pa.table(one)])
    assert _messages(encoding.encode(table).to_pylist()) == _messages(
        example_coder.RecordBatchToExamplesEncoder().encode(_as_lists(table))
    )


def test_no_rows() -> None:
    assert encoding.encode(pa.table({"x": pa.array([], pa.int64())})).to_pylist() == []


@pytest.mark.parametrize("type_", [pa.float64(), pa.bool_(), pa.uint64(), pa.null(), pa.list_(pa.list_(pa.int64()))])
def test_another_type_is_refused_by_name(type_: pa.DataType) -> None:
    with pytest.raises(TypeError, match="'odd'"):
        encoding.encode(pa.table({"odd": pa.array([None], type_)}))


def test_a_null_within_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="'odd'"):
        encoding.encode(pa.table({"odd": [[1, None]]}))
