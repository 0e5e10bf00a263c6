"""Bytes of a CSV file, whatever it is stored as: a stream of UTF-8, cut into blocks of whole lines.

Guarantees: a block ends at a newline that no quoted value holds (a quoted value may span up to two blocks); no more
than a few blocks are in memory; blocks of the same file are the same whoever cuts them, so that a large file can be
dealt out in ranges of whole blocks.

    with opened(path, encoding="utf-8") as stream:
        for block in blocks(stream, quote=b'"'):
            ...
"""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

import numpy as np
import pyarrow as pa

BLOCK = 4 << 20
"""Bytes of a block: large enough for Arrow to run at full speed, small enough to have several in memory."""
MAX_LINE = 64 << 20
"""Bytes after which a line is not believed to be one."""
_REMOTE_BUFFER = 1 << 20
"""Bytes that are fetched at once: small reads over a network are slow."""
BOM = codecs.BOM_UTF8
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


class LineTooLong(Exception):
    """No newline within `MAX_LINE` bytes: this is no CSV file."""


class Stream(Protocol):
    """What `blocks` reads from."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes (at least one), or none at the end."""
        ...


def compression(head: bytes) -> str | None:
    """Names the codec of a file by its first bytes; its name's ending may lie."""
    return next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)


def is_utf8(encoding: str) -> bool:
    """Tells whether the bytes can be read as they are.

    Raises:
        LookupError: `encoding` is unknown to Python.
    """
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def seekable(head: bytes, *, encoding: str) -> bool:
    """Tells whether an offset in the stream is an offset in the file, so that the file can be cut into ranges."""
    return compression(head) is None and is_utf8(encoding)


@contextlib.contextmanager
def opened(path: str, *, encoding: str, start: int = 0) -> Iterator[Stream]:
    """Opens a file, decompressed and turned into UTF-8.

    Args:
        path: local, or remote with "://".
        encoding: how the text is stored.
        start: bytes of the stream to skip.

    Yields:
        The stream. Reading it raises OSError when the compressed data are damaged or end early, and UnicodeDecodeError
        when the bytes are not text in `encoding`, unless that is UTF-8, which is left to the reader of each line.
    """
    with raw(path) as file:
        head = file.read(8)
        file.seek(0)
        if seekable(head, encoding=encoding):
            file.seek(start)
            yield file
            return
        codec = compression(head)
        stream: Stream = file
        if codec is not None:
            # Remote files have no file descriptor: Arrow reads them through Python, a block at a time.
            stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
        if not is_utf8(encoding):
            stream = _Transcoded(stream, encoding)
        while start and (skipped := stream.read(min(start, BLOCK))):
            start -= len(skipped)
        yield stream


def head_of_file(path: str, size: int = 8) -> bytes:
    """Reads the first bytes as they are stored."""
    with raw(path) as file:
        return file.read(size)


def blocks(stream: Stream, *, quote: bytes, size: int = BLOCK, length: int | None = None) -> Iterator[bytes]:
    """Cuts a stream into blocks of whole lines.

    Args:
        stream: open at the start of a line.
        quote: the character (one byte) within which newlines belong to a value.
        size: bytes to aim at.
        length: where to stop; the end of the stream if None.

    Yields:
        Blocks that end with a newline; the last one may lack it.

    Raises:
        LineTooLong: a line has more than `MAX_LINE` bytes.
    """
    rest = b""
    left = length
    while data := stream.read(size if left is None else min(size, left)):
        left = None if left is None else left - len(data)
        rest += data
        cut = _last_line_end(rest, quote, anyhow=len(rest) >= 2 * size)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > MAX_LINE:
            raise LineTooLong
    if rest:
        yield rest


def _last_line_end(data: bytes, quote: bytes, *, anyhow: bool) -> int:
    """Finds the end of the last line that is not inside quotes, or, if there is none, the last one `anyhow`."""
    last = data.rfind(b"\n") + 1
    if not last or data.count(quote, 0, last) % 2 == 0:
        return last
    buffer = np.frombuffer(data, np.uint8, last)
    ends = np.flatnonzero(buffer == ord("\n"))
    quotes_before = np.searchsorted(np.flatnonzero(buffer == quote[0]), ends)
    outside = ends[quotes_before % 2 == 0]
    if outside.size:
        return int(outside[-1]) + 1
    return last if anyhow else 0


@contextlib.contextmanager
def raw(path: str) -> Iterator[IO[bytes]]:
    """Opens a file as it is stored, local or remote."""
    if "://" in path:
        import tensorflow as tf

        with tf.io.gfile.GFile(path, "rb") as remote, io.BufferedReader(_Remote(remote), _REMOTE_BUFFER) as buffered:
            yield cast("IO[bytes]", buffered)
        return
    with open(path, "rb") as local:
        yield local


class _Remote(io.RawIOBase):
    """TensorFlow's file as Python's, which is what Arrow reads through."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._file.size()}[whence]
        self._file.seek(start + offset)
        return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())


class _Transcoded:
    """A stream of text in another encoding as UTF-8, without the byte order mark."""

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._decoder: Any = codecs.getincrementaldecoder(encoding)("strict")
        self._ready = b""

    def read(self, size: int, /) -> bytes:
        # A character may take more bytes in UTF-8 than it did before: what does not fit waits for the next call.
        ended = False
        while not self._ready and not ended:
            data = self._stream.read(size)
            ended = not data
            self._ready = self._decoder.decode(data, ended).encode()
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken
