"""The work of StatisticsGen: TFDV's statistics of all splits in one columnar pass.

TFDV's own generators make the statistics (`distinct.py` counts what TFDV counts by a shuffle), from batches of
thousands of rows instead of one Beam element a row. Where ExampleGen has said which columns there are, TensorFlow
parses the examples, much faster than tfx-bsl, which finds the columns out. Options that this pass has no short cut for
(slices, weights, samples, custom or semantic generators, sharded output) go to TFX's executor as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics.generators import basic_stats_generator, stats_generator
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.components.statistics_gen import executor as tfx_executor
from tfx.components.util import examples_utils, tfxio_utils
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils
from tfx_bsl.statistics import merge_util

from components.example_gen import summary
from components.records import reading
from components.statistics_gen import distinct
from evergreen import progress

Inputs = dict[str, list[types.Artifact]]


class Executor(tfx_executor.Executor):
    """Statistics of every split."""

    def Do(  # noqa: N802 TFX's name
        self, input_dict: Inputs, output_dict: Inputs, exec_properties: dict[str, Any]
    ) -> None:
        """Computes the statistics.

        Args:
            input_dict: `examples`, and optionally `schema`.
            output_dict: `statistics`, which gets `Split-<name>/FeatureStats.pb`.
            exec_properties: TFX's: `stats_options_json`, `exclude_splits` and the others.
        """
        examples = artifact_utils.get_single_instance(input_dict[standard_component_specs.EXAMPLES_KEY])
        options = _options(input_dict, exec_properties)
        if not _is_plain(examples, options, exec_properties):
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        excluded = json.loads(exec_properties.get(standard_component_specs.EXCLUDE_SPLITS_KEY) or "null") or []
        splits = [name for name in artifact_utils.decode_split_names(examples.split_names) if name not in excluded]
        statistics = artifact_utils.get_single_instance(output_dict[standard_component_specs.STATISTICS_KEY])
        statistics.split_names = artifact_utils.encode_split_names(splits)
        statistics.span = examples.span
        statistics.set_string_custom_property(tfx_executor.STATS_DASHBOARD_LINK, "")
        statistics.set_json_value_custom_property(
            tfx_executor.SAMPLE_RATE_BY_SPLIT_PROPERTY_NAME, json.dumps(dict.fromkeys(splits, 1.0), sort_keys=True)
        )
        uri = statistics.uri
        patterns = {
            split: io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split)) for split in splits
        }
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Read" >> reading.ReadKeyedBatches(patterns, schema=summary.columns(examples.uri))
                | "Untyped" >> beam.MapTuple(_untyped_where_missing)
                | "Statistics" >> beam.CombinePerKey(StatisticsFn(generators(options)))
                | "Write" >> beam.Map(_write, uri=uri)
            )
        for split in splits:
            if not tf.io.gfile.exists(_path(uri, split)):
                _write((split, statistics_pb2.DatasetFeatureStatistics()), uri)
        rows = {split: int(tfdv.load_stats_binary(_path(uri, split)).datasets[0].num_examples) for split in splits}
        progress.report(f"{sum(rows.values()):,} rows")


def _untyped_where_missing(split: str, batch: pa.RecordBatch) -> tuple[str, pa.RecordBatch]:
    """Takes the type of columns without a value away: TFDV knows none of a batch that was decoded without a schema."""
    columns = [pa.nulls(len(column)) if column.null_count == len(column) else column for column in batch.columns]
    return split, pa.RecordBatch.from_arrays(columns, batch.schema.names)


def generators(options: tfdv.StatsOptions) -> list[stats_generator.CombinerStatsGenerator]:
    """Returns what computes TFDV's default statistics, all of it as combiners."""
    return [
        basic_stats_generator.BasicStatsGenerator(
            schema=options.schema,
            num_values_histogram_buckets=options.num_values_histogram_buckets,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
            epsilon=options.epsilon,
        ),
        distinct.DistinctValuesGenerator(options),
    ]


class StatisticsFn(beam.CombineFn):
    """Runs TFDV's combiners over record batches as they are; the output is one `DatasetFeatureStatistics`."""

    def __init__(self, combiners: Sequence[stats_generator.CombinerStatsGenerator]) -> None:
        """Takes the combiners."""
        super().__init__()
        self._combiners = list(combiners)

    def setup(self, *_: Any, **__: Any) -> None:
        """Prepares the combiners."""
        for combiner in self._combiners:
            combiner.setup()

    def create_accumulator(self) -> list[Any]:
        """Returns an accumulator of each combiner."""
        return [combiner.create_accumulator() for combiner in self._combiners]

    def add_input(self, mutable_accumulator: list[Any], element: pa.RecordBatch) -> list[Any]:
        """Adds a batch."""
        return [
            combiner.add_input(accumulator, element)
            for combiner, accumulator in zip(self._combiners, mutable_accumulator, strict=True)
        ]

    def merge_accumulators(self, accumulators: Iterable[list[Any]]) -> list[Any]:
        """Merges what the workers have."""
        return [
            combiner.merge_accumulators(parts)
            for combiner, parts in zip(self._combiners, zip(*accumulators, strict=True), strict=True)
        ]

    def compact(self, accumulator: list[Any]) -> list[Any]:
        """Makes the accumulator small before it travels."""
        return [combiner.compact(part) for combiner, part in zip(self._combiners, accumulator, strict=True)]

    def extract_output(self, accumulator: list[Any]) -> statistics_pb2.DatasetFeatureStatistics:
        """Returns the statistics."""
        outputs = [
            combiner.extract_output(part)
            for combiner, part in zip(self._combiners, self.compact(accumulator), strict=True)
        ]
        return merge_util.merge_dataset_feature_statistics(outputs).datasets[0]


def _path(uri: str, split: str) -> str:
    return f"{uri}/Split-{split}/{tfx_executor.DEFAULT_FILE_NAME}"


def _write(keyed: tuple[str, statistics_pb2.DatasetFeatureStatistics], uri: str) -> None:
    """Writes what `tfdv.load_stats_binary` reads; the file appears whole."""
    split, statistics = keyed
    content = statistics_pb2.DatasetFeatureStatisticsList(datasets=[statistics]).SerializeToString(deterministic=True)
    path = _path(uri, split)
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(f"{path}.tmp", "wb") as file:
        file.write(content)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def _options(input_dict: Inputs, exec_properties: dict[str, Any]) -> tfdv.StatsOptions:
    written = exec_properties.get(standard_component_specs.STATS_OPTIONS_JSON_KEY)
    options = tfdv.StatsOptions.from_json(written) if written else tfdv.StatsOptions()
    schema = input_dict.get(standard_component_specs.SCHEMA_KEY)
    if schema and not options.schema:
        folder = artifact_utils.get_single_uri(schema)
        options.schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(folder))
    return options


def _is_plain(examples: types.Artifact, options: tfdv.StatsOptions, exec_properties: dict[str, Any]) -> bool:
    """Tells whether the columnar pass computes what the options ask for."""
    payload, _ = tfxio_utils.resolve_payload_format_and_data_view_uri([examples])
    return payload == example_gen_pb2.FORMAT_TF_EXAMPLE and not any(
        (
            examples.has_custom_property(examples_utils.CUSTOM_SPLIT_PATTERN_PROPERTY_NAME),
            exec_properties.get(standard_component_specs.SAMPLE_RATE_BY_SPLIT_KEY, "null") not in (None, "null", "{}"),
            exec_properties.get(standard_component_specs.SHARDED_STATS_OUTPUT_KEY, False),
            options.generators,
            options.feature_allowlist,
            options.experimental_slice_functions,
            options.experimental_slice_sqls,
            options.slicing_config,
            options.sample_rate,
            options.enable_semantic_domain_stats,
            options.use_sketch_based_topk_uniques,
            options.example_weight_map.all_weight_features(),
            options.experimental_result_partitions != 1,
            not options.add_default_generators,
        )
    )
