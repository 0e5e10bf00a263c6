"""Counts every distinct value of the string columns exactly, in Arrow: TFDV's top values and uniques, no shuffle.

TFDV counts by an element of Beam for every distinct value of every small batch. Here the accumulator is one Arrow table
of values and counts a column: a batch adds its own counts, and when what was added outgrows what is there, both are
added up. So memory is that of the distinct values, in Arrow, whatever the number of rows. Ties are broken as TFDV
breaks them (the larger value first), so that the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
from tensorflow_data_validation import types as tfdv_types
from tensorflow_data_validation.arrow import arrow_util
from tensorflow_data_validation.statistics.generators import stats_generator
from tensorflow_data_validation.utils import schema_util, stats_util, top_k_uniques_stats_util
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.arrow import array_util

_PENDING = 1 << 16
"""Counts that wait to be added up at the least, so that columns of few values are not added up for every batch."""


class Counts:
    """How often each value of one column occurred."""

    __slots__ = ("_pending", "_pending_rows", "_settled")

    def __init__(self, settled: pa.Table | None = None) -> None:
        """Starts from nothing, or from the table of another one."""
        self._settled = settled
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def add(self, values: pa.Array) -> None:
        """Counts the values of a batch; nulls do not count."""
        counted = values.drop_null().value_counts()
        self._append(pa.table({"value": counted.field("values"), "count": counted.field("counts")}))

    def merge(self, other: Counts) -> None:
        """Adds what another one has counted."""
        for table in [*other._pending, other._settled]:
            if table is not None and table.num_rows:
                self._append(table)

    def _append(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows > max(_PENDING, self._settled.num_rows if self._settled else 0):
            self.settled()

    def settled(self) -> pa.Table:
        """Returns `value` and `count` (int64), a row for each distinct value."""
        if self._pending or self._settled is None:
            parts = [table for table in (self._settled, *self._pending) if table is not None]
            if not parts:
                return pa.table({"value": pa.array([], pa.large_binary()), "count": pa.array([], pa.int64())})
            summed = pa.concat_tables(parts).group_by("value").aggregate([("count", "sum")])
            # One contiguous array each: no batch that the counts came from stays alive.
            self._settled = summed.rename_columns(["count", "value"]).select(["value", "count"]).combine_chunks()
            self._pending, self._pending_rows = [], 0
        return self._settled

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels as an Arrow stream."""
        sink = pa.BufferOutputStream()
        table = self.settled()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return (_read, (sink.getvalue().to_pybytes(),))

    def top(self, number: int) -> list[tuple[Any, int]]:
        """Returns the `number` most frequent values and their counts, the larger value first where counts are equal."""
        table = self.settled()
        if table.num_rows > number:
            # Values are compared only among those that may be in: most values of an identifier occur once.
            counts = table.column("count").to_numpy()
            threshold = _partition(counts, number)
            above = table.filter(pc.greater(table.column("count"), threshold))
            equal = table.filter(pc.equal(table.column("count"), threshold))
            order = pc.sort_indices(equal.column("value"), sort_keys=[("value", "descending")])
            table = pa.concat_tables([above, equal.take(order[: number - above.num_rows])])
        pairs = zip(table.column("value").to_pylist(), table.column("count").to_pylist(), strict=True)
        return sorted(pairs, key=lambda pair: (pair[1], pair[0]), reverse=True)


def _partition(counts: npt.NDArray[np.int64], number: int) -> int:
    """Returns the `number`-th largest count."""
    place = len(counts) - number
    return int(np.partition(counts, place)[place])


def _read(stream: bytes) -> Counts:
    return Counts(pa.ipc.open_stream(stream).read_all())


_Accumulator = dict[tfdv_types.FeaturePath, Counts]


class DistinctValuesGenerator(stats_generator.CombinerStatsGenerator):
    """TFDV's top values, rank histogram and uniques as a combiner, with exact counts."""

    def __init__(self, options: tfdv.StatsOptions) -> None:
        """Takes how many top values, and the schema that says which integers are categories."""
        super().__init__("DistinctValuesGenerator", options.schema)
        self._top_values = options.num_top_values
        self._rank_buckets = options.num_rank_histogram_buckets
        self._frequency_threshold = options.frequency_threshold
        schema = options.schema
        self._bytes = frozenset(schema_util.get_bytes_features(schema) if schema else [])
        self._categories = schema_util.get_categorical_numeric_feature_types(schema) if schema else {}

    def create_accumulator(self) -> _Accumulator:
        """Returns the counts of no column."""
        return {}

    def add_input(self, accumulator: _Accumulator, input_record_batch: pa.RecordBatch) -> _Accumulator:
        """Counts the values of one batch."""
        for path, array, _ in arrow_util.enumerate_arrays(
            input_record_batch, example_weight_map=None, enumerate_leaves_only=True
        ):
            if self._is_categorical(path, stats_util.get_feature_type_from_arrow_type(path, array.type)):
                values, _ = array_util.flatten_nested(array, False)
                if path not in accumulator:
                    accumulator[path] = Counts()
                accumulator[path].add(values)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        """Adds the counts of all accumulators up."""
        iterator = iter(accumulators)
        merged = next(iterator)
        for accumulator in iterator:
            for path, counts in accumulator.items():
                if path in merged:
                    merged[path].merge(counts)
                else:
                    merged[path] = counts
        return merged

    def extract_output(self, accumulator: _Accumulator) -> statistics_pb2.DatasetFeatureStatistics:
        """Returns uniques, top values and rank histogram of every column, as TFDV writes them."""
        result = statistics_pb2.DatasetFeatureStatistics()
        for path, counts in accumulator.items():
            distinct = counts.settled().num_rows
            if not distinct:
                continue
            top = counts.top(max(self._top_values, self._rank_buckets))
            result.features.add().CopyFrom(
                top_k_uniques_stats_util.make_feature_stats_proto_topk_uniques(
                    feature_path=path,
                    num_top_values=self._top_values,
                    num_rank_histogram_buckets=self._rank_buckets,
                    num_unique=distinct,
                    value_count_list=[top_k_uniques_stats_util.FeatureValueCount(*pair) for pair in top],
                    frequency_threshold=self._frequency_threshold,
                )
            )
        return result

    def _is_categorical(self, path: tfdv_types.FeaturePath, kind: int | None) -> bool:
        if kind == statistics_pb2.FeatureNameStatistics.STRING:
            return path not in self._bytes
        return bool(
            kind == statistics_pb2.FeatureNameStatistics.INT
            and top_k_uniques_stats_util.output_categorical_numeric(self._categories, path, kind)
        )
