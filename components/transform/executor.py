"""The work of Transform: TFX's own graph and values, in as few stages and as large batches as there can be.

Tracing, analyzers, the transform graph and its folder are tf.Transform's. Around it, TFX's executor traces the
preprocessing function eight times, writes a cache of analyzers that no node reads, loads the graph once a split, and
reads and writes record by record in Python. Here it is traced for the columns, for the analysis and for the graph; all
splits go through one chain of stages; `components/records` reads and writes whole batches, into several plain files
instead of one gzipped one. Values, split names and the layout of every artifact are those of TFX.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx import types
from tfx.components.transform import executor as tfx_executor
from tfx.components.transform import executor_utils, labels
from tfx.components.util import examples_utils, tfxio_utils, udf_utils
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils
from tfx_bsl.tfxio import tensor_adapter

from components.records import reading, writing

Inputs = dict[str, list[types.Artifact]]
_TEMP = ".temp_path"
_NAME = "transformed_examples"
_SPLIT = "__evergreen_split__"
_OTHER_KEYS = (
    standard_component_specs.MODULE_FILE_KEY,
    standard_component_specs.MODULE_PATH_KEY,
    standard_component_specs.STATS_OPTIONS_UPDATER_FN_KEY,
    standard_component_specs.SAVE_OPTIONS_KEY,
    standard_component_specs.FORCE_TF_COMPAT_V1_KEY,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What to read and where to write."""

    schema: schema_pb2.Schema
    analyze: Sequence[str]
    """Patterns of the files that are analyzed."""
    transform: Mapping[str, str]
    """Patterns of the files that are transformed, by split."""
    graph: str
    """The folder of the transform graph."""
    examples: str
    """The folder of the transformed examples."""


class Executor(tfx_executor.Executor):
    """Analyzes the train split and transforms every split."""

    def Do(  # noqa: N802 TFX's name
        self, input_dict: Inputs, output_dict: Inputs, exec_properties: dict[str, Any]
    ) -> None:
        """Traces, analyzes and transforms.

        Args:
            input_dict: `examples`, `schema`, and optionally `analyzer_cache`.
            output_dict: `transform_graph`, and optionally `transformed_examples` and `updated_analyzer_cache`.
            exec_properties: TFX's. What is asked for beyond a dotted `preprocessing_fn` over tf.Examples, without
                statistics and without a cache of analyzers, is done by TFX's executor.
        """
        if not _is_plain(input_dict, output_dict, exec_properties):
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        executor_utils.MatchNumberOfTransformedExamplesArtifacts(input_dict, output_dict)
        examples = artifact_utils.get_single_instance(input_dict[standard_component_specs.EXAMPLES_KEY])
        splits = executor_utils.ResolveSplitsConfig(
            exec_properties.get(standard_component_specs.SPLITS_CONFIG_KEY), [examples]
        )
        transformed = output_dict.get(standard_component_specs.TRANSFORMED_EXAMPLES_KEY) or []
        executor_utils.SetSplitNames(splits.transform, transformed)
        schema_folder = artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY])
        work = Work(
            schema=io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder)),
            analyze=[_pattern(examples, split) for split in splits.analyze],
            transform={split: _pattern(examples, split) for split in splits.transform} if transformed else {},
            graph=artifact_utils.get_single_uri(output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY]),
            examples=transformed[0].uri if transformed else "",
        )
        self._transform(work, self._preprocessing_fn(exec_properties))

    def _transform(self, work: Work, preprocessing_fn: Any) -> None:
        raw = reading.ExampleTFXIO([*work.analyze, *work.transform.values()], schema=work.schema)
        typespecs = raw.TensorAdapter().OriginalTypeSpecs()
        # Both are traced once for all that is read: no other column is decoded.
        columns = sorted(
            set(tft.get_analyze_input_columns(preprocessing_fn, typespecs))
            | set(tft.get_transform_input_columns(preprocessing_fn, typespecs))
        )
        schema, config = raw.schema_of(columns), raw.Project(columns).TensorAdapterConfig()
        temporary = f"{work.graph}/{_TEMP}"
        with (
            self._make_beam_pipeline() as pipeline,
            tft_beam.Context(temp_dir=temporary, passthrough_keys={_SPLIT}, use_deep_copy_optimization=True),
        ):
            analyzed = pipeline | "ReadAnalyzed" >> reading.ReadBatches(work.analyze, schema=schema)
            transform_fn = (analyzed, config) | "Analyze" >> tft_beam.AnalyzeDataset(
                preprocessing_fn, pipeline=pipeline
            )
            metadata = dataset_metadata.DatasetMetadata(work.schema)
            _ = metadata | "WriteMetadata" >> tft_beam.WriteMetadata(
                f"{work.graph}/{tft.TFTransformOutput.RAW_METADATA_DIR}", pipeline
            )
            _ = transform_fn | "WriteTransformFn" >> tft_beam.WriteTransformFn(work.graph)
            if work.transform:
                batches = pipeline | "Read" >> reading.ReadKeyedBatches(work.transform, schema=schema)
                _write_examples(
                    work, (batches | "PutSplit" >> beam.Map(_with_split), _with_split_column(config)), transform_fn
                )
        io_utils.delete_dir(temporary)

    def _preprocessing_fn(self, exec_properties: Mapping[str, Any]) -> Any:
        path = exec_properties[standard_component_specs.PREPROCESSING_FN_KEY]
        function = udf_utils.get_fn(
            {standard_component_specs.PREPROCESSING_FN_KEY: path}, standard_component_specs.PREPROCESSING_FN_KEY
        )
        custom = {labels.CUSTOM_CONFIG: exec_properties.get(standard_component_specs.CUSTOM_CONFIG_KEY)}
        return executor_utils.MaybeBindCustomConfig(custom, function)


def _write_examples(work: Work, read: tuple[Any, Any], transform_fn: Any) -> None:
    """Transforms all splits in one PCollection: one loaded graph, one chain of stages."""
    transform = tft_beam.TransformDataset(output_record_batches=True)
    outputs, metadata = (read, transform_fn) | "Transform" >> transform
    prefixes = {split: f"{work.examples}/Split-{split}/{_NAME}" for split in work.transform}
    staging = f"{work.examples}/.writing-{uuid.uuid4().hex}.tmp"
    _ = (
        outputs
        | "TakeSplit" >> beam.Map(_split_of)
        | "Write" >> writing.WriteKeyedBatches(prefixes, schema=metadata.schema, staging=staging)
    )


def _pattern(examples: types.Artifact, split: str) -> str:
    return str(io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split)))


def _with_split(keyed: tuple[str, pa.RecordBatch]) -> pa.RecordBatch:
    """Puts the split beside the rows, in a column that tf.Transform passes through."""
    split, batch = keyed
    offsets = pa.array(np.arange(batch.num_rows + 1, dtype=np.int64))
    column = pa.LargeListArray.from_arrays(offsets, pa.array([split.encode()] * batch.num_rows, pa.large_binary()))
    return pa.RecordBatch.from_arrays([*batch.columns, column], [*batch.schema.names, _SPLIT])


def _with_split_column(config: Any) -> tensor_adapter.TensorAdapterConfig:
    return tensor_adapter.TensorAdapterConfig(
        arrow_schema=config.arrow_schema.append(pa.field(_SPLIT, pa.large_list(pa.large_binary()))),
        tensor_representations=config.tensor_representations,
        original_type_specs=config.original_type_specs,
    )


def _split_of(transformed: tuple[pa.RecordBatch, Any]) -> tuple[str, pa.RecordBatch]:
    """Takes the column of the split away again."""
    batch, beside = transformed
    place = batch.schema.get_field_index(_SPLIT)
    # A batch of one row has it beside the columns, any other one among them.
    split = (batch.column(place) if place >= 0 else beside[_SPLIT])[0].as_py()[0].decode()
    kept = [index for index in range(batch.num_columns) if index != place]
    names = [batch.schema.names[index] for index in kept]
    return split, pa.RecordBatch.from_arrays([batch.column(index) for index in kept], names)


def _is_plain(input_dict: Inputs, output_dict: Inputs, exec_properties: Mapping[str, Any]) -> bool:
    """Tells whether only the ends differ from what TFX's executor would do."""
    examples = input_dict[standard_component_specs.EXAMPLES_KEY]
    payload, view = tfxio_utils.resolve_payload_format_and_data_view_uri(examples)
    formats = {examples_utils.get_file_format(artifact) for artifact in examples}
    return (
        len(examples) == 1
        and not input_dict.get(standard_component_specs.ANALYZER_CACHE_KEY)
        and not output_dict.get(standard_component_specs.UPDATED_ANALYZER_CACHE_KEY)
        and payload == example_gen_pb2.FORMAT_TF_EXAMPLE
        and view is None
        and formats <= {labels.FORMAT_TFRECORD}
        and bool(exec_properties.get(standard_component_specs.DISABLE_STATISTICS_KEY, 0))
        and not any(exec_properties.get(key) for key in _OTHER_KEYS)
    )
