"""Slices of whole batches against TFMA's own slicer, which takes one row at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluator import columnar

TAGS = [["a", "b"], ["b"], None, [], ["c", "a", "c"], ["a"], ["b", "c", "a"]]
HOURS = [[1], [2], [1], [3], [2], None, [1, 2]]


def batch(*, offset: int = 0) -> pa.RecordBatch:
    """Returns the rows from `offset` on, as a slice of a larger batch."""
    columns = {
        "tags": pa.array(TAGS, pa.large_list(pa.string())),
        "hour": pa.array(HOURS, pa.large_list(pa.int64())),
        "nothing": pa.nulls(len(TAGS)),
    }
    return pa.RecordBatch.from_pydict(columns).slice(offset)


def by_tfma(spec: slicer_lib.SingleSliceSpec, columns: dict[str, list[list[object] | None]]) -> Counter[object]:
    found: Counter[object] = Counter()
    for row in range(len(TAGS)):
        features = {name: np.array(values[row] or []) for name, values in columns.items()}
        found.update((key, row) for key in set(slicer_lib.get_slices_for_features_dicts([], features, [spec])))
    return found


@pytest.mark.parametrize(
    "slicing",
    [
        tfma.SlicingSpec(),
        tfma.SlicingSpec(feature_keys=["tags"]),
        tfma.SlicingSpec(feature_keys=["hour"]),
        tfma.SlicingSpec(feature_keys=["hour", "tags"]),
        tfma.SlicingSpec(feature_values={"tags": "a"}),
    ],
)
def test_a_row_is_in_the_slice_of_each_of_its_values_once(slicing: tfma.SlicingSpec) -> None:
    spec = slicer_lib.SingleSliceSpec(spec=slicing)
    names = sorted(slicing.feature_keys) + sorted(slicing.feature_values)
    found: Counter[object] = Counter()
    for key, rows in columnar.slices(batch(), [(spec, names)]):
        found.update((key, int(row)) for row in (range(len(TAGS)) if rows is None else rows))
    expected = by_tfma(spec, {"tags": TAGS, "hour": HOURS})
    assert found == expected
    assert len(found) >= len(TAGS) - 2 or slicing.feature_values


def test_a_batch_that_is_cut_out_of_another_counts_its_own_rows() -> None:
    spec = slicer_lib.SingleSliceSpec(columns=["tags"])
    found = {
        key: rows.tolist() for key, rows in columnar.slices(batch(offset=4), [(spec, ["tags"])]) if rows is not None
    }
    assert found == {(("tags", "a"),): [0, 1, 2], (("tags", "b"),): [2], (("tags", "c"),): [0, 2]}


def test_a_column_without_any_value_makes_no_slice() -> None:
    spec = slicer_lib.SingleSliceSpec(columns=["nothing"])
    assert list(columnar.slices(batch(), [(spec, ["nothing"]), (spec, ["absent"])])) == []
