"""Reads TFRecord files of tf.Examples into large Arrow record batches: no Python and no Beam element per row.

Guarantee: every row of every file that matches comes out once; no batch is larger than `rows` rows or about
`BATCH_BYTES`, however large the files are, and a large plain file is read by as many workers as it has ranges. Beam's
own reader makes an element of every record, checks it in Python and puts batches together again; here a range of a
file is an element, tf.data reads it and tfx-bsl decodes it, both in C++.

    batches = pipeline | ReadBatches(["/data/Split-train/*"])                # PCollection[pa.RecordBatch]
    keyed = pipeline | ReadKeyedBatches({"train": "/data/Split-train/*"})    # PCollection[tuple[str, pa.RecordBatch]]
    tfxio = ExampleTFXIO(["/data/Split-train/*"], schema=schema)       # the same behind tfx-bsl's interface
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_representation_util, tf_example_record

from components.records import frames

ROWS = 1 << 12
"""Rows of a batch; beyond this nothing gets faster (measured on 18 columns), and memory only grows."""
BATCH_BYTES = 32 << 20
"""Bytes of serialized tf.Examples of a batch; wide rows make batches of fewer rows."""
RANGE = 64 << 20
"""Bytes of a plain file that are read in one go: much to a worker's start, little to a large file."""


class Reader:
    """Reads files into record batches, with the decoder that is the fastest for what is known of the columns.

    With a schema TensorFlow parses the examples straight into offsets and values, 2.5 times as fast as tfx-bsl's
    decoder does. Without one only tfx-bsl's can tell which columns there are.
    """

    def __init__(
        self, schema: schema_pb2.Schema | None = None, *, rows: int = ROWS, records: str | None = None
    ) -> None:
        """Prepares the decoder.

        Args:
            schema: the columns to decode and their types; without one all columns that a batch has.
            rows: of a batch at the most.
            records: the name of one more column, which holds the serialized examples themselves.
        """
        self._records = records
        arguments = () if schema is None else (schema.SerializeToString(),)
        self._decoder = example_coder.ExamplesToRecordBatchDecoder(*arguments)
        self._rows = rows
        self._arrow = None if schema is None else self._decoder.ArrowSchema()
        self._parse = None if self._arrow is None else _parser(self._arrow)

    def read(self, path: str, *, start: int = 0, end: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a TFRecord file of serialized tf.Examples, gzipped where it ends in `.gz`.

        Args:
            path: of the file.
            start: of a plain file: any byte of it; records that begin before are left out.
            end: of a plain file: any byte of it; records that begin there or behind are left out.
        """
        for serialized in self._serialized(path, start, end):
            yield self._beside(self.decode(serialized), serialized)

    def decode(self, serialized: tf.Tensor | npt.NDArray[np.object_]) -> pa.RecordBatch:
        """Decodes serialized tf.Examples [n], n > 0, into a row each."""
        if self._parse is None or self._arrow is None:
            values = serialized if isinstance(serialized, np.ndarray) else serialized.numpy()
            return self._decoder.DecodeBatch(values)
        parsed = self._parse(serialized)
        columns = [_column(parsed[field.name], field.type) for field in self._arrow]
        return pa.RecordBatch.from_arrays(columns, schema=self._arrow)

    def _beside(self, batch: pa.RecordBatch, serialized: tf.Tensor) -> pa.RecordBatch:
        """Puts the serialized examples beside their columns, where that is asked for."""
        if self._records is None:
            return batch
        offsets = pa.array(np.arange(batch.num_rows + 1, dtype=np.int64))
        column = pa.LargeListArray.from_arrays(offsets, pa.array(serialized.numpy(), pa.large_binary()))
        return pa.RecordBatch.from_arrays([*batch.columns, column], [*batch.schema.names, self._records])

    def _serialized(self, path: str, start: int, end: int | None) -> Iterator[tf.Tensor]:
        if is_cuttable(path):
            records = frames.from_record(path, 0)
            yield from frames.read(path, start=start, end=end, rows=rows_of_a_batch(records, rows=self._rows))
            return
        records = frames.from_record(path, 0, compression="GZIP")
        yield from records.batch(rows_of_a_batch(records, rows=self._rows))


def is_cuttable(path: str) -> bool:
    """Tells whether a file is plain; a compressed one is read by one worker from its beginning."""
    return not path.endswith(".gz")


def _parser(arrow: pa.Schema) -> Any | None:
    """Returns a function from serialized examples to ragged tensors by name; None where a column is no plain list."""
    kinds = {pa.large_binary(): tf.string, pa.int64(): tf.int64, pa.float32(): tf.float32}
    if not len(arrow) or any(not pa.types.is_large_list(field.type) for field in arrow):
        return None
    if any(field.type.value_type not in kinds for field in arrow):
        return None
    features = {
        field.name: tf.io.RaggedFeature(kinds[field.type.value_type], row_splits_dtype=tf.int64) for field in arrow
    }
    return tf.function(
        lambda serialized: tf.io.parse_example(serialized, features),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def _column(ragged: tf.RaggedTensor, kind: pa.DataType) -> pa.Array:
    """Makes a ragged tensor an Arrow list without copying numbers; a row without a value is null, as of tfx-bsl."""
    offsets = ragged.row_splits.numpy()
    values = pa.array(ragged.flat_values.numpy(), kind.value_type)
    missing = offsets[1:] == offsets[:-1]
    # The last offset only ends.
    mask = np.append(missing, False) if missing.any() else None
    return pa.LargeListArray.from_arrays(pa.array(offsets, mask=mask), values)


def rows_of_a_batch(records: tf.data.Dataset, *, rows: int = ROWS) -> int:
    """Returns how many rows keep a batch below `BATCH_BYTES`, judged by the longest of the first records."""
    longest = max((len(record) for record in records.take(64).as_numpy_iterator()), default=1)
    return max(1, min(rows, BATCH_BYTES // max(1, longest)))


class ReadKeyedBatches(beam.PTransform):
    """Reads files into record batches with a key; ranges of plain files, and gzipped files, are read by any worker.

    One PCollection for all keys: a Flatten of several would make the in-process runner keep all batches in memory.
    """

    def __init__(
        self,
        patterns: Mapping[str, str],
        *,
        schema: schema_pb2.Schema | None = None,
        rows: int = ROWS,
        records: str | None = None,
    ) -> None:
        """Takes what to read.

        Args:
            patterns: of TFRecord files, by key.
            schema: the columns to decode and their types; without one all columns that a batch has.
            rows: of a batch at the most.
            records: the name of one more column, which holds the serialized examples themselves.
        """
        super().__init__()
        self._records = records
        self._patterns = dict(patterns)
        # Messages do not travel well between interpreters, bytes do.
        self._schema = None if schema is None else schema.SerializeToString()
        self._rows = rows
        self._range = RANGE

    def expand(self, pipeline: Any) -> beam.PCollection[tuple[str, pa.RecordBatch]]:
        """Returns the record batches of all files with their keys."""
        root = pipeline.pipeline if isinstance(pipeline, beam.PCollection) else pipeline
        return (
            root
            | "Patterns" >> beam.Create([list(self._patterns.items())])
            | "Files" >> beam.FlatMap(ranges, size=self._range).with_output_types(tuple[str, str, int, int])
            # Few names, but what spreads the files over the workers.
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.ParDo(_ReadFile(self._schema, self._rows, self._records)).with_output_types(
                tuple[str, pa.RecordBatch]
            )
        )


class ReadBatches(beam.PTransform):
    """Reads files into record batches."""

    def __init__(
        self,
        patterns: Sequence[str],
        *,
        schema: schema_pb2.Schema | None = None,
        rows: int = ROWS,
        records: str | None = None,
    ) -> None:
        """Takes what to read; see `ReadKeyedBatches`."""
        super().__init__()
        keyed = {str(number): name for number, name in enumerate(patterns)}
        self._read = ReadKeyedBatches(keyed, schema=schema, rows=rows, records=records)

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        """Returns the record batches of all files."""
        return pipeline | "Keyed" >> self._read | "Batches" >> beam.Values().with_output_types(pa.RecordBatch)


def ranges(patterns: Sequence[tuple[str, str]], size: int) -> list[tuple[str, str, int, int]]:
    """Cuts the files that match.

    Args:
        patterns: of files, with their keys.
        size: bytes of a range at the most.

    Returns:
        Key, file, and the bytes from and up to which it is read; the largest first, for workers are dealt to in turn.
    """
    found = []
    for key, pattern in patterns:
        for file in sorted(tf.io.gfile.glob(pattern)):
            length = max(1, tf.io.gfile.stat(file).length)
            parts = -(-length // size) if is_cuttable(file) else 1
            # Of one size each: a small rest would be all that one of two workers gets of every file.
            borders = [length * part // parts for part in range(parts + 1)]
            found += [(key, file, start, end) for start, end in itertools.pairwise(borders)]
    return sorted(found, key=lambda part: part[3] - part[2], reverse=True)


class _ReadFile(beam.DoFn):
    def __init__(self, schema: bytes | None, rows: int, records: str | None) -> None:
        self._schema = schema
        self._rows = rows
        self._records = records

    def setup(self) -> None:
        schema = None if self._schema is None else schema_pb2.Schema.FromString(self._schema)
        self._reader = Reader(schema, rows=self._rows, records=self._records)

    def process(self, element: tuple[str, str, int, int]) -> Iterable[tuple[str, pa.RecordBatch]]:
        key, path, start, end = element
        rows = 0
        for batch in self._reader.read(path, start=start, end=end):
            rows += batch.num_rows
            yield key, batch
        logging.info("Read %d rows of %s, bytes %d to %d.", rows, path, start, end)


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
