"""Writes Arrow record batches as TFRecord files of tf.Examples, whole batches at a time.

Guarantee: a file shows under its name only when all files of the write are whole; a bundle that is done again leaves
nothing twice; names are numbered without a gap. Beam's own writer encodes, checks and frames every record in Python and
makes one gzipped file; here a batch is encoded at once and TensorFlow writes it in C++, into several plain files.

    keyed | WriteKeyedBatches({"train": "/out/Split-train/data"}, schema=schema, staging="/out/.writing")
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms import window
from apache_beam.utils import windowed_value
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder

from components.records import encoding

SHARDS = 4
"""Files that each bundle of work writes, so that there is something to read in parallel."""


class WriteKeyedBatches(beam.PTransform):
    """Writes pairs of key and `pa.RecordBatch` as `<prefix of the key>-XXXXX-of-NNNNN`.

    Every key has at least one file, even one of no rows.
    """

    def __init__(
        self, prefixes: Mapping[str, str], *, schema: schema_pb2.Schema, staging: str, shards: int = SHARDS
    ) -> None:
        """Takes where and how to write.

        Args:
            prefixes: path of the files before their number, by key.
            schema: the columns that are written and how they map to tf.Example features.
            staging: a folder of this transform's own, on the same file system, for files that are not whole yet.
            shards: files that each bundle writes of each key.
        """
        super().__init__()
        self._prefixes = dict(prefixes)
        self._schema = schema.SerializeToString()
        self._staging = staging
        self._shards = shards

    def expand(self, batches: beam.PCollection[tuple[str, pa.RecordBatch]]) -> beam.PCollection[str]:
        """Returns the names of the files, once they are there."""
        return (
            batches
            | "Write" >> beam.ParDo(_WriteShards(self._staging, self._schema, self._shards))
            | "Gather" >> beam.combiners.ToList()
            | "Name" >> beam.FlatMap(name_files, prefixes=self._prefixes, staging=self._staging)
        )


class _WriteShards(beam.DoFn):
    def __init__(self, staging: str, schema: bytes, shards: int) -> None:
        self._staging = staging
        self._schema = schema
        self._shards = shards
        self._files: dict[str, dict[str, tf.io.TFRecordWriter]] = {}

    def start_bundle(self) -> None:
        self._files = {}

    def process(self, element: tuple[str, pa.RecordBatch]) -> Iterable[tuple[str, str]]:
        key, batch = element
        if not batch.num_rows:
            return ()
        if key not in self._files:
            tf.io.gfile.makedirs(self._staging)
            # A bundle that is done again writes files of its own; only the ones that it returns get a name.
            token = uuid.uuid4().hex
            paths = [f"{self._staging}/{key}-{token}-{shard:05d}" for shard in range(self._shards)]
            self._files[key] = {path: tf.io.TFRecordWriter(path) for path in paths}
        examples = self._encode(batch)
        for writer, part in zip(self._files[key].values(), np.array_split(examples, self._shards), strict=True):
            append(writer, part)
        return ()

    def _encode(self, batch: pa.RecordBatch) -> npt.NDArray[np.object_]:
        if not any(_is_nested(field.type) for field in batch.schema):
            encoded: npt.NDArray[np.object_] = encoding.encode(batch).to_numpy(zero_copy_only=False)
            return encoded
        # Lists of lists become several features, which the schema names.
        encoder = example_coder.RecordBatchToExamplesEncoder(schema_pb2.Schema.FromString(self._schema))
        return np.array(encoder.encode(batch), dtype=object)

    def finish_bundle(self) -> Iterator[Any]:
        everything = window.GlobalWindow()
        for key, files in self._files.items():
            for path, writer in files.items():
                writer.close()
                yield windowed_value.WindowedValue((key, path), everything.max_timestamp(), [everything])
        self._files = {}


def _is_nested(type_: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(type_) and pa.types.is_large_list(type_.value_type))


def append(writer: tf.io.TFRecordWriter, examples: npt.NDArray[np.object_]) -> None:
    """Writes records one after the other.

    Args:
        writer: of one file.
        examples: bytes objects [n].
    """
    # C code calls C code a row at a time: `TFRecordWriter.write` is only Python around its base class's.
    base: Any = super(tf.io.TFRecordWriter, writer)
    deque(map(base.write, examples), maxlen=0)


def name_files(written: Sequence[tuple[str, str]], prefixes: Mapping[str, str], staging: str) -> list[str]:
    """Gives the files their names; done again after it broke off, it goes on where it was.

    Args:
        written: key and path of every file.
        prefixes: what the names begin with, by key.
        staging: the folder to remove when all files have their names.

    Returns:
        The names.
    """
    named = []
    for key, prefix in prefixes.items():
        paths = sorted(path for of, path in written if of == key)
        count = max(1, len(paths))
        names = [f"{prefix}-{index:05d}-of-{count:05d}" for index in range(count)]
        tf.io.gfile.makedirs(os.path.dirname(prefix))
        if not paths:
            tf.io.TFRecordWriter(names[0]).close()
        for path, name in zip(paths, names, strict=False):
            if tf.io.gfile.exists(path):
                tf.io.gfile.rename(path, name, overwrite=True)
        named += names
    if tf.io.gfile.exists(staging):
        tf.io.gfile.rmtree(staging)
    return named
