"""Lines to columns: every line is a row or a bad line, with its exact number and a reason."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.example_gen.table import TEXT_SHOWN, BlockReader, ColumnType, line_count
from evergreen.settings import CsvFormat

FLOAT, INT, STRING = ColumnType.FLOAT, ColumnType.INT, ColumnType.STRING


def read(data, *types, **csv_format):
    names = "abcdefg"[: len(types)]
    reader = BlockReader(list(names), dict(zip(names, types, strict=True)), CsvFormat(**csv_format))
    rows, bad = reader.read(data if isinstance(data, bytes) else data.encode())
    assert rows.schema.names == list(names)
    assert rows.schema.types == [type_.arrow for type_ in types]
    return rows.to_pydict(), bad


def test_types_and_empty_cells():
    rows, bad = read('1.5,2,x\n,,\n-.5e1, 7 ,""\nnan,-0,"a,b"\n', FLOAT, INT, STRING)
    assert rows == {"a": [1.5, None, -5.0, None], "b": [2, None, 7, 0], "c": ["x", None, None, "a,b"]}
    assert bad == []


def test_words_for_a_missing_value_are_missing_in_every_column():
    rows, bad = read('?,n/a,n/a\n1,2,"?"\nn/a,x,y\n', FLOAT, INT, STRING, missing=["?", "n/a"])
    assert rows == {"a": [None, 1.0], "b": [None, 2], "c": [None, None]}
    assert [line.reason for line in bad] == ["column b: 'x' is not a whole number"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,1", "column a: 'x' is not a number"),
        ("1,x", "column b: 'x' is not a whole number"),
        ("1,2.0", "column b: '2.0' is not a whole number"),
        ("x,y", "column a: 'x' is not a number; column b: 'y' is not a whole number"),
        ("inf,1", "column a: 'inf' is not a number"),
        ("1e99,1", "column a: '1e99' is too large for a number of 32 bits"),
        ("1,9223372036854775808", "column b: '9223372036854775808' is too large for a whole number of 64 bits"),
        ("1", "1 field instead of 2"),
        ("1,2,3", "3 fields instead of 2"),
        (b"\xe9,1", "byte 0xe9 is not UTF-8"),
        ("1,NA", "column b: 'NA' is not a whole number"),
        (" ,1", "column a: ' ' is not a number"),
    ],
)
def test_a_bad_line_is_told_exactly_and_costs_no_other(line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    rows, bad = read(b"1,2\n\n3,4\r\n" + line + b"\n5,6", FLOAT, INT)
    assert rows == {"a": [1.0, 3.0, 5.0], "b": [2, 4, 6]}
    (entry,) = bad
    assert (entry.line, entry.reason) == (3, reason)
    assert entry.text == line.decode("utf-8", "replace")


def test_the_columns_at_fault_are_named():
    _, bad = read("x,1,y\n1\n", FLOAT, INT, INT)
    assert [entry.columns for entry in bad] == [("a", "c"), ()]


def test_the_largest_whole_numbers_are_kept_beside_a_bad_line():
    rows, bad = read("9223372036854775807\n-9223372036854775808\n9223372036854775808\n", INT)
    assert rows == {"a": [2**63 - 1, -(2**63)]}
    assert [entry.line for entry in bad] == [2]


def test_quoted_newlines_are_one_row_and_count_as_lines():
    rows, bad = read('"a\n\nb",1\nc,x\n"d""\n",2\n', STRING, INT)
    assert rows == {"a": ["a\n\nb", 'd"\n'], "b": [1, 2]}
    assert [(entry.line, entry.text) for entry in bad] == [(3, "c,x")]


def test_an_unclosed_quote_costs_its_own_line_only():
    rows, bad = read('a,1\n"b,2\nc,3\n"d\ne",4\n', STRING, INT)
    assert rows == {"a": ["a", "c", "d\ne"], "b": [1, 3, 4]}
    assert [(entry.line, entry.text) for entry in bad] == [(1, '"b,2')]


def test_quotes_inside_an_unquoted_value_are_part_of_it():
    rows, bad = read('5" pipe,1\nx,y\n3" pipe,2\n', STRING, INT)
    assert rows == {"a": ['5" pipe', '3" pipe'], "b": [1, 2]}
    assert [entry.line for entry in bad] == [1]


def test_other_delimiter_and_quote():
    rows, bad = read("'a;b';1\nc;2;3\n", STRING, INT, delimiter=";", quote="'")
    assert rows == {"a": ["a;b"], "b": [1]}
    assert [entry.reason for entry in bad] == ["3 fields instead of 2"]


def test_decimal_commas():
    rows, bad = read('"1,5";2\n-,25;3\n1e-2;4\nnan;5\n', FLOAT, INT, delimiter=";", decimal=",")
    assert rows == {"a": [1.5, -0.25, pytest.approx(0.01), None], "b": [2, 3, 4, 5]}
    assert not bad
    rows, bad = read("1,5;2\n1.5;3\n1.234,5;4\n2,5;5,0\n", FLOAT, INT, delimiter=";", decimal=",")
    assert rows == {"a": [1.5], "b": [2]}
    assert [entry.reason for entry in bad] == [
        "column a: '1.5' is not a number",
        "column a: '1.234,5' is not a number",
        "column b: '5,0' is not a whole number",
    ]


def test_lone_carriage_returns_end_lines_everywhere():
    for extra in (b"", b"x,y\n"):
        rows, _ = read(b"1,2\r3,4\r\n5,6\n" + extra, FLOAT, INT)
        assert rows["a"] == [1.0, 3.0, 5.0]
    assert line_count(b"1,2\r3,4\r\n5,6\n\n") == 4


def test_text_is_cut():
    _, bad = read("x" * 10_000 + ",1\n", FLOAT, INT)
    assert bad[0].text == "x" * TEXT_SHOWN
    assert len(bad[0].reason) < 200


@pytest.mark.parametrize("data", ["", "\n", "\r\n\n"])
def test_blank_blocks_have_no_rows(data):
    rows, bad = read(data, FLOAT, STRING)
    assert rows == {"a": [], "b": []}
    assert bad == []


def test_only_bad_lines_leave_an_empty_table():
    rows, bad = read("x,1\ny,2\n", FLOAT, INT)
    assert rows == {"a": [], "b": []}
    assert len(bad) == 2


FIELD = st.one_of(
    st.sampled_from(
        ["", "1", "-2.5", "1e3", "7", "x", "nan", "inf", "1e400", "0x1F", "+1", "é", " 3 ", "99999999999999999999"]
    ),
    st.integers().map(str),
    st.floats(width=32).map(str),
    st.text(alphabet=st.characters(exclude_characters='\r\n,"', codec="utf-8"), max_size=5),
)
LINE = st.lists(FIELD, min_size=1, max_size=4).map(lambda fields: ",".join(fields).encode())
DIRT = st.one_of(LINE, LINE, LINE, st.binary(max_size=6).filter(lambda data: not set(data) & set(b'\r\n"')))


@settings(max_examples=150, deadline=None)
@given(st.lists(DIRT, max_size=30), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([b"1,2,3", b"\xff"], b"\n", True)
def test_every_line_is_a_row_or_a_bad_line(lines, end, last_end):
    data = end.join(lines) + (end if last_end else b"")
    rows, bad = read(data, FLOAT, INT, STRING)
    filled = [number for number, line in enumerate(lines) if line]
    assert len(rows["a"]) + len(bad) == len(filled)
    assert {entry.line for entry in bad} <= set(filled)
    # Those that are left are good on their own, with the same values: one bad line changes no other.
    good = [lines[number] for number in filled if number not in {entry.line for entry in bad}]
    again, none = read(end.join(good), FLOAT, INT, STRING)
    assert none == []
    assert again == rows


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(alphabet='ab\n", é', max_size=6), st.one_of(st.integers(-9, 9).map(str), st.just("bad"))),
        max_size=20,
    )
)
def test_quoted_rows_survive_bad_neighbours(records):
    sink = io.StringIO()
    csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(records)
    rows, bad = read(sink.getvalue(), STRING, INT)
    expected = [(text, int(number)) for text, number in records if number != "bad"]
    assert list(zip((text or "" for text in rows["a"]), rows["b"], strict=True)) == expected
    assert len(bad) == sum(number == "bad" for _, number in records)


def test_the_fast_path_stays_in_arrow(monkeypatch):
    monkeypatch.setattr(BlockReader, "_salvage", lambda *_: pytest.fail("good blocks are not taken apart"))
    rows, _ = read("1,2\nnan,3\n,\n", FLOAT, INT)
    assert pa.table(rows).num_rows == 3
