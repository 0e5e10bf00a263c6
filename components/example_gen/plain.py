"""Files that only one worker can read, made plain, so that several convert them.

A compressed file, or one in another encoding than UTF-8, is read from its beginning by one worker and by no other.
Where there are several workers, one of them writes it as it is inside to a file of the artifact's work folder; that one
is then cut like any other large file, and goes away with the work. What cannot be read stays as it is: whoever converts
it says what is wrong with it.

    files = with_plain(files, data, folder=f"{uri}/.pieces/plain", pipeline=pipeline)
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf

from components.example_gen import pieces, source
from components.example_gen.inspection import Inspected
from evergreen import settings

_Asked = tuple[str, str, str]
"""The file, its encoding, and the plain one to write."""


def is_for_one(file: Inspected, data: settings.Data) -> bool:
    """Tells whether a file is large and cannot be cut as it is stored."""
    return data.format != "parquet" and not file.seekable and file.file.size > pieces.smallest()


def with_plain(
    files: Sequence[Inspected], data: settings.Data, *, folder: str, make_pipeline: Callable[[], Any]
) -> list[Inspected]:
    """Makes plain files of those that only one worker could read, different ones in parallel.

    Args:
        files: inspected, without problems.
        data: how they are written.
        folder: for the plain files; made if there is one.
        make_pipeline: makes the Beam pipeline.

    Returns:
        All files in their order.
    """
    # TFRecord files are bytes; any encoding of one byte a character would do.
    encoding = data.csv.encoding if data.format == "csv" else "utf-8"
    asked = {
        file.file.path: (file.file.path, encoding, f"{folder}/{number:05d}")
        for number, file in enumerate(files)
        if is_for_one(file, data)
    }
    if not asked:
        return list(files)
    tf.io.gfile.makedirs(folder)
    with make_pipeline() as pipeline:
        _ = pipeline | "Large" >> beam.Create(list(asked.values()), reshuffle=True) | "Plain" >> beam.FlatMap(_write)
    return [_replaced(file, asked[file.file.path][2]) if file.file.path in asked else file for file in files]


def _replaced(file: Inspected, plain: str) -> Inspected:
    if not tf.io.gfile.exists(plain):
        return file
    return dataclasses.replace(file, seekable=True, stored=plain, stored_size=int(tf.io.gfile.stat(plain).length))


def _write(asked: _Asked) -> Iterable[None]:
    path, encoding, plain = asked
    temporary = f"{plain}.{uuid.uuid4().hex}.tmp"
    try:
        with source.opened(path, encoding=encoding) as stream, tf.io.gfile.GFile(temporary, "wb") as out:
            while block := stream.read(source.BLOCK):
                out.write(block)
    except (OSError, UnicodeDecodeError):
        return ()
    tf.io.gfile.rename(temporary, plain, overwrite=True)
    return ()
