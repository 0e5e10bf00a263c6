"""Streams and blocks: every byte once, cut at line ends only, whatever the file is stored as."""

from __future__ import annotations

import bz2
import gzip
import io
from collections import deque

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.example_gen import source

TEXT = "a,b\n1,é\n2,ü\n" * 500


def cut(data, size, **options):
    return list(source.blocks(io.BytesIO(data), quote=b'"', size=size, **options))


@given(st.lists(st.text(alphabet="ab,\r", max_size=8)), st.integers(1, 40))
def test_blocks_are_whole_lines_and_all_bytes(lines, size):
    data = "\n".join(lines).encode()
    parts = cut(data, size)
    assert b"".join(parts) == data
    assert all(part.endswith(b"\n") for part in parts[:-1])


@given(st.lists(st.text(alphabet='a\n,"', max_size=6), max_size=8))
def test_quoted_newlines_do_not_end_a_block(values):
    records = ['"' + value.replace('"', '""') + '"\n' for value in values]
    size = max([8, *map(len, records)])
    for part in cut("".join(records).encode(), size):
        assert part.count(b'"') % 2 == 0


def test_a_stray_quote_costs_no_more_than_two_blocks():
    data = b'5" pipe,1\n' + b"x,2\n" * 1000
    parts = cut(data, 100)
    assert b"".join(parts) == data
    assert max(map(len, parts)) <= 200


def test_a_range_stops_where_it_is_told():
    assert b"".join(cut(b"1\n2\n3\n4\n", 3, length=4)) == b"1\n2\n"


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE", 50)
    with pytest.raises(source.LineTooLong):
        cut(b"x" * 100, 10)


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("latin-1"), "latin-1"),
        (TEXT.encode("utf-16"), "utf-16"),
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (gzip.compress(TEXT.encode()), "utf-8"),
        (gzip.compress(TEXT.encode()[:2000]) + gzip.compress(TEXT.encode()[2000:]), "utf-8"),
        (gzip.compress(TEXT.encode("cp1252")), "cp1252"),
        (pa.Codec("zstd").compress(TEXT.encode(), asbytes=True), "utf-8"),
        (bz2.compress(TEXT.encode()), "utf-8"),
    ],
)
@pytest.mark.parametrize("start", [0, 1234])
def test_every_storage_gives_the_same_stream(tmp_path, stored, encoding, start):
    path = tmp_path / "x"
    path.write_bytes(stored)
    with source.opened(str(path), encoding=encoding, start=start) as stream:
        assert b"".join(iter(lambda: stream.read(97), b"")) == TEXT.encode()[start:]


def test_only_plain_utf8_can_be_cut():
    assert source.seekable(b"a,b", encoding="UTF8")
    assert not source.seekable(b"a,b", encoding="latin-1")
    assert not source.seekable(gzip.compress(b"a"), encoding="utf-8")


@pytest.mark.parametrize("missing", [1, 30])
def test_truncated_gzip_is_an_error(tmp_path, missing):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(TEXT.encode())[:-missing])
    with source.opened(str(path), encoding="utf-8") as stream, pytest.raises(OSError, match="Truncated"):
        deque(iter(lambda: stream.read(1 << 20), b""), maxlen=0)
