"""Reads TFRecord files of tf.Examples into large Arrow record batches: no Python and no Beam element per row.

Guarantee: every row of every file that matches comes out once, in its file's order; no batch is larger than `rows` rows
or about `BATCH_BYTES`, however large the files are. Beam's own reader makes an element of every record, checks it in
Python and puts batches together again; here a file is an element, tf.data reads it and tfx-bsl decodes it, both in C++.

    batches = pipeline | ReadBatches(["/data/Split-train/*"])                # PCollection[pa.RecordBatch]
    keyed = pipeline | ReadKeyedBatches({"train": "/data/Split-train/*"})    # PCollection[tuple[str, pa.RecordBatch]]
    tfxio = ExampleTFXIO(["/data/Split-train/*"], schema=schema)       # the same behind tfx-bsl's interface
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_representation_util, tf_example_record

ROWS = 1 << 12
"""Rows of a batch; beyond this nothing gets faster (measured on 18 columns), and memory only grows."""
BATCH_BYTES = 32 << 20
"""Bytes of serialized tf.Examples of a batch; wide rows make batches of fewer rows."""
_BUFFER = 4 << 20


def record_batches(path: str, decoder: Any, *, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one file.

    Args:
        path: a TFRecord file of serialized tf.Examples, gzipped where its name ends in `.gz`.
        decoder: a `tfx_bsl.coders.example_coder.ExamplesToRecordBatchDecoder`.
        rows: of a batch at the most.
    """
    records = tf.data.TFRecordDataset(
        path, compression_type="GZIP" if path.endswith(".gz") else "", buffer_size=_BUFFER
    )
    # The next batch is read while this one is worked on.
    batches = records.batch(rows_of_a_batch(records, rows=rows)).prefetch(1)
    for examples in batches.as_numpy_iterator():
        yield decoder.DecodeBatch(examples)


def rows_of_a_batch(records: tf.data.Dataset, *, rows: int = ROWS) -> int:
    """Returns how many rows keep a batch below `BATCH_BYTES`, judged by the longest of the first records."""
    longest = max((len(record) for record in records.take(64).as_numpy_iterator()), default=1)
    return max(1, min(rows, BATCH_BYTES // max(1, longest)))


class ReadKeyedBatches(beam.PTransform):
    """Reads files into record batches with a key; a file is read by one worker, different files by any.

    One PCollection for all keys: a Flatten of several would make the in-process runner keep all batches in memory.
    """

    def __init__(
        self, patterns: Mapping[str, str], *, schema: schema_pb2.Schema | None = None, rows: int = ROWS
    ) -> None:
        """Takes what to read.

        Args:
            patterns: of TFRecord files, by key.
            schema: the columns to decode and their types; without one all columns that a batch has.
            rows: of a batch at the most.
        """
        super().__init__()
        self._patterns = dict(patterns)
        # Messages do not travel well between interpreters, bytes do.
        self._schema = None if schema is None else schema.SerializeToString()
        self._rows = rows

    def expand(self, pipeline: Any) -> beam.PCollection[tuple[str, pa.RecordBatch]]:
        """Returns the record batches of all files with their keys."""
        root = pipeline.pipeline if isinstance(pipeline, beam.PCollection) else pipeline
        return (
            root
            | "Patterns" >> beam.Create(list(self._patterns.items()))
            | "Files" >> beam.FlatMap(_files).with_output_types(tuple[str, str])
            # Few names, but what spreads the files over the workers.
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadFile(self._schema, self._rows)).with_output_types(tuple[str, pa.RecordBatch])
        )


class ReadBatches(beam.PTransform):
    """Reads files into record batches."""

    def __init__(self, patterns: Sequence[str], *, schema: schema_pb2.Schema | None = None, rows: int = ROWS) -> None:
        """Takes what to read; see `ReadKeyedBatches`."""
        super().__init__()
        self._read = ReadKeyedBatches(
            {str(number): name for number, name in enumerate(patterns)}, schema=schema, rows=rows
        )

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        """Returns the record batches of all files."""
        return pipeline | "Keyed" >> self._read | "Batches" >> beam.Values().with_output_types(pa.RecordBatch)


def _files(keyed: tuple[str, str]) -> list[tuple[str, str]]:
    key, pattern = keyed
    return [(key, file) for file in sorted(tf.io.gfile.glob(pattern))]


class _ReadFile(beam.DoFn):
    def __init__(self, schema: bytes | None, rows: int) -> None:
        self._schema = schema
        self._rows = rows

    def setup(self) -> None:
        self._decoder = example_coder.ExamplesToRecordBatchDecoder(*(() if self._schema is None else (self._schema,)))

    def process(self, element: tuple[str, str]) -> Iterable[tuple[str, pa.RecordBatch]]:
        key, path = element
        for batch in record_batches(path, self._decoder, rows=self._rows):
            yield key, batch


class ExampleTFXIO(tf_example_record.TFExampleRecord):
    """tfx-bsl's TFXIO of tf.Examples in TFRecord files, with this module's reader behind `BeamSource`."""

    def BeamSource(self, batch_size: int | None = None) -> beam.PTransform:  # noqa: N802 tfx-bsl's name
        """Returns the source of record batches.

        Args:
            batch_size: rows of a batch at the most; `ROWS` by default.
        """
        return ReadBatches(self._file_pattern, schema=self._schema, rows=batch_size or ROWS)

    def schema_of(self, tensor_names: Sequence[str]) -> schema_pb2.Schema:
        """Returns what to decode for these tensors only, for the other transforms of this module."""
        return tensor_representation_util.ProjectTensorRepresentationsInSchema(self._schema, list(tensor_names))

    def _ProjectImpl(self, tensor_names: list[str]) -> ExampleTFXIO:  # noqa: N802 tfx-bsl's name
        return ExampleTFXIO(
            file_pattern=self._file_pattern,
            schema=self.schema_of(tensor_names),
            telemetry_descriptors=self.telemetry_descriptors,
        )
