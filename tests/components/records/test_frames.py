"""Ranges of TFRecord files: every record once wherever the cuts are, and damage at a cut is never silent."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.records import frames


def _write(path: Path, records: list[bytes]) -> list[int]:
    """Writes the records and returns where each begins."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return np.cumsum([0, *(len(record) + frames.FRAME for record in records)]).tolist()


def _read(path: Path, start: int, end: int | None, rows: int = 7) -> list[bytes]:
    return [
        record for batch in frames.read(str(path), start=start, end=end, rows=rows) for record in batch.numpy().tolist()
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # Zeros look like lengths; a record may hold a whole TFRecord file.
    st.lists(st.one_of(st.binary(max_size=60), st.integers(0, 300).map(bytes)), max_size=12),
    st.lists(st.integers(0, 2000), max_size=5),
)
def test_adjacent_ranges_hold_every_record_once(tmp_path: Path, records: list[bytes], cuts: list[int]) -> None:
    path = tmp_path / "x"
    size = _write(path, records)[-1]
    borders = [0, *sorted(cut % (size + 1) for cut in cuts), size]
    parts = [_read(path, start, end) for start, end in itertools.pairwise(borders)]
    assert [record for part in parts for record in part] == records
    assert _read(path, 0, None) == records


def test_a_record_belongs_where_its_first_byte_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    begins = _write(path, [b"a" * 10, b"b" * 5000, b"c" * 3])
    for start in range(begins[1] + 1, begins[2] + 1, 97):
        assert _read(path, start, None) == [b"c" * 3]
    assert _read(path, begins[0] + 1, begins[1] + 1) == [b"b" * 5000]
    assert _read(path, begins[1] + 1, begins[2]) == []
    assert frames.records_before(str(path), begins[1] + 1) == 2
    assert frames.next_record(str(path), begins[3]) is None


def test_records_within_a_record_are_not_taken_for_its_neighbours(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    _write(inner, [b"x" * 40] * 3)
    path = tmp_path / "x"
    begins = _write(path, [inner.read_bytes(), b"end"])
    # Whoever starts within the first record finds a record that is none: the range before it notices.
    with pytest.raises(frames.Damaged):
        _read(path, 0, 20)
    assert _read(path, 0, begins[1]) == [inner.read_bytes()]


@pytest.mark.parametrize("cut", [-1, 0, 5])
def test_a_damaged_length_at_a_border_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x"
    begins = _write(path, [b"%030d" % number for number in range(20)])
    data = bytearray(path.read_bytes())
    data[begins[10]] ^= 1
    path.write_bytes(data)
    border = begins[10] + cut
    errors = (frames.Damaged, tf.errors.DataLossError)
    failed = 0
    for start, end in ((0, border), (border, None)):
        try:
            _read(path, start, end)
        except errors:
            failed += 1
    assert failed


def test_a_damaged_record_is_no_other_records_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    begins = _write(path, [b"%030d" % number for number in range(20)])
    data = bytearray(path.read_bytes())
    data[begins[10] + 14] ^= 1
    path.write_bytes(data)
    assert frames.next_record(str(path), begins[9] + 1) == begins[10]
    with pytest.raises(tf.errors.DataLossError):
        _read(path, begins[10], None)
