"""What this machine can do at the most with the work of the data nodes: disk, memory, Arrow's readers, TFRecord.

    python -m benchmarks.limits

The table is that of `benchmarks.data`. Nothing of Evergreen works here but where it says so: these are the libraries
and the hardware below it, on one core where it does not say otherwise, the best of three. Evergreen's are its encoder,
and what only one worker can do, however many there are: cutting a large CSV file, and making a compressed one plain.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks import harness
from benchmarks.pipeline import OUT
from components.example_gen import pieces, reading, source
from components.records import encoding, frames
from datagen import taxi
from evergreen import settings, spans

_REPEAT = 3
_COPIED = 256 << 20
_CUT = 256 << 20
"""Bytes of the CSV file that is cut: several ranges of 64 MB."""


def main(arguments: Sequence[str]) -> int:
    """Measures, prints the table and writes `benchmarks/out/limits.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description="The limits of this machine.")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the table (default: 300000)")
    options = parser.parse_args(arguments)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(prefix="evergreen-limits-") as folder:
        figures = _figures(Path(folder), options.rows)
    print(f"{options.rows:,} rows of {len(taxi.COLUMNS)} columns; {harness.machine()}")
    print(harness.table(figures))
    harness.write(figures, OUT / "limits.json")
    return 0


def _figures(folder: Path, rows: int) -> list[harness.Figure]:
    (text,) = taxi.write(folder / "csv", rows=rows)
    (columns,) = taxi.write(folder / "parquet", rows=rows, file_format="parquet")
    size = text.stat().st_size
    source = np.ones(_COPIED, np.uint8)
    target = np.empty_like(source)
    records = folder / "x.tfrecord"
    batch = _batch(text)
    serialized = _encode(batch)
    _write(serialized, records)
    stored = records.stat().st_size
    large, packed = folder / "large.csv", folder / "packed.csv.gz"
    _join(text, large, times=max(1, _CUT // size))
    cut_size = large.stat().st_size
    with gzip.open(packed, "wb", compresslevel=6) as file:
        file.write(text.read_bytes())
    return [
        _rate("disk, not cached", size, "MB/s", lambda: _read_cold(text)),
        _rate("page cache", size, "MB/s", text.read_bytes),
        _rate("memory, copy", _COPIED, "MB/s", lambda: np.copyto(target, source)),
        _rate("pyarrow CSV", rows, "rows/s", lambda: csv.read_csv(text)),
        _rate("pyarrow CSV, all cores", rows, "rows/s", lambda: _on_all_cores(lambda: csv.read_csv(text))),
        _rate("pyarrow Parquet", rows, "rows/s", lambda: parquet.read_table(columns, use_threads=False)),
        _rate("tf.Example encoder", rows, "rows/s", lambda: _encode(batch)),
        _rate("Evergreen's encoder", rows, "rows/s", lambda: encoding.encode(batch)),
        _rate("TFRecord write", rows, "rows/s", lambda: _write(serialized, records)),
        _rate("TFRecord read", rows, "rows/s", lambda: _read(records)),
        _rate("tf.Example parser", rows, "rows/s", lambda: _parse(records)),
        _rate("tfx-bsl's decoder", rows, "rows/s", lambda: _decode(serialized)),
        _rate("Evergreen cuts CSV", cut_size, "MB/s", lambda: _cut(large)),
        _rate("Evergreen makes gzip plain", size, "MB/s", lambda: _plain(packed)),
        harness.Figure(case="a row", metric="CSV", unit="bytes", ours=size / rows, stock=None),
        harness.Figure(case="a row", metric="TFRecord", unit="bytes", ours=stored / rows, stock=None),
    ]


def _rate(case: str, amount: int, unit: str, work: Callable[[], Any]) -> harness.Figure:
    best = min(_seconds(work) for _ in range(_REPEAT))
    value = amount / best / (1e6 if unit == "MB/s" else 1)
    return harness.Figure(case=case, metric="rate", unit=unit, ours=value, stock=None, lower_is_better=False)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _read_cold(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(4 << 20):
            pass


def _on_all_cores(work: Callable[[], Any]) -> None:
    pa.set_cpu_count(os.cpu_count() or 1)
    try:
        work()
    finally:
        pa.set_cpu_count(1)


def _batch(text: Path) -> pa.RecordBatch:
    table = csv.read_csv(text).combine_chunks()
    columns = []
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        values = column.cast(pa.float32()) if pa.types.is_floating(column.type) else column
        values = values.cast(pa.binary()) if pa.types.is_string(values.type) else values
        present = values.is_valid().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(present)])
        columns.append(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.drop_null()))
    return pa.RecordBatch.from_arrays(columns, table.column_names)


def _encode(batch: pa.RecordBatch) -> list[bytes]:
    from tfx_bsl.coders import example_coder

    return list(example_coder.RecordBatchToExamplesEncoder().encode(batch))


def _decode(serialized: Sequence[bytes]) -> None:
    from tfx_bsl.coders import example_coder

    decoder = example_coder.ExamplesToRecordBatchDecoder()
    for start in range(0, len(serialized), 4096):
        decoder.DecodeBatch(serialized[start : start + 4096])


def _write(serialized: Sequence[bytes], path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)


def _read(path: Path) -> None:
    for _ in frames.from_record(str(path), 0).batch(4096):
        pass


def _join(part: Path, path: Path, *, times: int) -> None:
    """Writes a table several times, with one header."""
    header, rows = part.read_bytes().split(b"\n", 1)
    with path.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(times):
            file.write(rows)


def _cut(path: Path) -> None:
    settings_ = settings.Data(path=str(path))
    stat = path.stat()
    file = spans.DataFile(path=str(path), relative=path.name, size=stat.st_size, modified=stat.st_mtime_ns)
    inspected = reading.inspect(file, settings_, None)
    if sum(1 for _ in pieces.units(inspected, settings_)) < 2:
        raise harness.Failed(f"{path} was not cut")


def _plain(path: Path) -> None:
    with source.opened(str(path), encoding="utf-8") as stream:
        while stream.read(source.BLOCK):
            pass


def _parse(path: Path) -> None:
    import tensorflow as tf

    kinds = {"string": tf.string, "int64": tf.int64, "double": tf.float32}
    features = {
        field.name: tf.io.RaggedFeature(kinds[str(field.type)], row_splits_dtype=tf.int64)
        for field in taxi.table(rows=10).schema
    }
    parse = tf.function(lambda batch: tf.io.parse_example(batch, features), autograph=False)
    for batch in frames.from_record(str(path), 0).batch(4096):
        parse(batch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
