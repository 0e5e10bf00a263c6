"""Writing generated spans: what every generator shares, from the number of the next span to its atomic appearance."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv


def generate(root: pathlib.Path, content: Callable[[int, bool], bytes], *, spans: int, file: str) -> list[pathlib.Path]:
    """Writes spans 1 to `spans` below `root` where they are missing.

    Args:
        root: the folder that holds the spans; made if missing.
        content: the bytes of a span's file by the span's number; the second argument tells the newest one.
        spans: how many spans there shall be.
        file: the name of each span's file.

    Returns:
        The folders of all spans 1 to `spans`, in order.
    """
    numbers = range(1, spans + 1)
    return [_write(root, span, functools.partial(content, span, span == spans), file=file) for span in numbers]


def add_span(root: pathlib.Path, content: Callable[[int, bool], bytes], *, file: str) -> pathlib.Path:
    """Writes the span after the highest one below `root`, and returns its folder; arguments as `generate` has them."""
    existing = [int(match[1]) for path in root.glob("span-*") if (match := re.fullmatch(r"span-(\d+)", path.name))]
    span = max(existing, default=0) + 1
    return _write(root, span, functools.partial(content, span, True), file=file)


def check_fault(fault: str | None, faults: Collection[str]) -> None:
    """Raises ValueError when `fault` is none of `faults`."""
    if fault is not None and fault not in faults:
        raise ValueError(f"unknown fault {fault!r}; there are {', '.join(sorted(faults))}")


def csv_bytes(data: pa.Table, *, header: bool = True) -> bytes:
    """Returns what `write_csv` writes."""
    sink = io.BytesIO()
    write_csv(data, sink, header=header)
    return sink.getvalue()


def write_csv(data: pa.Table, sink: BinaryIO, *, header: bool = True) -> None:
    """Writes a table as CSV with plain names in its header."""
    # The names need no quotes; pyarrow would quote them.
    if header:
        sink.write((",".join(data.column_names) + "\n").encode())
    csv.write_csv(data, sink, csv.WriteOptions(include_header=False))


def _write(root: pathlib.Path, span: int, content: Callable[[], bytes], *, file: str) -> pathlib.Path:
    """Writes version 1 of one span, which appears at once and whole; a span that is there stays as it is."""
    final = root / f"span-{span}"
    if final.exists():
        return final
    data = content()
    root.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{final.name}-", suffix=".tmp", dir=root))
    try:
        # mkdtemp makes its folder private; a span is as readable as any other file.
        staging.chmod(0o777 & ~_umask())
        version = staging / "v-1"
        version.mkdir()
        with open(version / file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return final


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
