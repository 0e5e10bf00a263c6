"""Each line comes with its number; a broken one is told, the others go on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from evergreen.errors import BadInput
from serving.rows import Format, Line, Text, read_rows


def numbered(lines: list[Line]) -> list[tuple[int, object]]:
    return [(line.number, line.row if line.problem is None else line.problem.found) for line in lines]


def read(content: str | bytes, format: Format | None = None, **options: str) -> list[tuple[int, object]]:
    file = io.BytesIO(content) if isinstance(content, bytes) else io.StringIO(content)
    return numbered(list(read_rows(file, format=format, **options)))


def test_json_lines_keep_their_types_and_numbers():
    assert read('{"a": 1, "b": "x"}\n\n  \n{"a": null, "b": 2.5}') == [
        (1, {"a": 1, "b": "x"}),
        (4, {"a": None, "b": 2.5}),
    ]


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ('{"a": 1', "Expecting ',' delimiter"),
        ("{'a': 1}", "Expecting property name"),
        ("3", "a number (3)"),
        ('"x"', 'a text ("x")'),
        ("null", "null"),
        ("true", "a truth value"),
        ("[1, 2]", "an array ([1, 2])"),
        ("[" * 100_000, "recursion"),
        ("1" * 10_000, "10000 digits"),
    ],
)
def test_a_broken_json_line_is_told_and_the_others_go_on(broken: str, found: str):
    first, second, third = list(read_rows(io.StringIO(f'{{"a": 1}}\n{broken}\n{{"a": 2}}\n'), format="jsonl"))
    assert (first.row, third.row) == ({"a": 1}, {"a": 2})
    assert second.number == 2
    assert second.row is None
    assert second.problem is not None
    assert second.problem.where == "standard input, line 2"
    assert found in second.problem.found


def test_csv_values_are_text_that_may_stand_for_numbers():
    lines = list(read_rows(io.StringIO('a,b\n1,"x,y"\n,z\n'), format="csv"))
    assert numbered(lines) == [(2, {"a": "1", "b": "x,y"}), (3, {"a": "", "b": "z"})]
    assert all(isinstance(value, Text) for line in lines if line.row for value in line.row.values())


def test_broken_csv_lines_are_told_and_the_others_go_on():
    content = b'a,b\n1,2\n1\n1,2,3\n"x"y,2\n\xff,2\n' + b"z" * 200_000 + b",1\n3,4\n"
    lines = read(content, "csv")
    assert lines[0] == (2, {"a": "1", "b": "2"})
    assert lines[1:3] == [(3, "1 fields"), (4, "3 fields")]
    assert [number for number, _ in lines] == [2, 3, 4, 5, 6, 7, 8]
    assert "expected after" in str(lines[3][1])
    assert lines[4][1] == "bytes that are not UTF-8"
    assert "field larger than field limit" in str(lines[5][1])
    assert lines[6] == (8, {"a": "3", "b": "4"})


def test_a_quote_that_is_never_closed_costs_its_own_line_only():
    assert read('a,b\n1,2\n"open,3\n\n"4",5\n', "csv") == [
        (2, {"a": "1", "b": "2"}),
        (3, "a quote that is not closed"),
        (5, {"a": "4", "b": "5"}),
    ]


def test_a_quoted_value_may_hold_line_ends():
    content = '"a\nb",c\n"one\n\ntwo",2\n"open,3\nx,4\n"5\r\n"",",6\n7,"8\n'
    assert read(content, "csv") == [
        (3, {"a\nb": "one\n\ntwo", "c": "2"}),
        (6, "a quote that is not closed"),
        (7, {"a\nb": "x", "c": "4"}),
        (8, {"a\nb": '5\r\n",', "c": "6"}),
        (10, "a quote that is not closed"),
    ]


@pytest.mark.parametrize("content", ['"a,b\n1,2\n', "a,b,b\n1,2,3\n"])
def test_a_broken_header_is_told_of_its_line(content: str):
    with pytest.raises(BadInput, match="standard input, line 1"):
        read(content, "csv")


def test_delimiter_and_quote_can_be_others():
    assert read("a;b\n'x;y';2\n", "csv", delimiter=";", quote="'") == [(2, {"a": "x;y", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"a": 1}\n', [(1, {"a": 1})]),
        ('\n \n{"a": 1}\n', [(3, {"a": 1})]),
        ("a,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
        ("\ufeffa,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
        ('\ufeff{"a": 1}\n', [(1, {"a": 1})]),
        ("a,b\r\n1,2\r\n", [(2, {"a": "1", "b": "2"})]),
        ("", []),
        ("\n\n", []),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_the_format_is_found_out_from_the_first_line(content: str, rows: list[tuple[int, object]], encoded: bool):
    assert read(content.encode() if encoded else content) == rows


def test_the_format_is_found_out_from_the_suffix(tmp_path: Path):
    (tmp_path / "a.csv").write_text("{x\n1\n")
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2,5\n")
    (tmp_path / "a.jsonl").write_text("a,b\n")
    assert numbered(list(read_rows(tmp_path / "a.csv"))) == [(2, {"{x": "1"})]
    assert numbered(list(read_rows(str(tmp_path / "a.tsv")))) == [(2, {"a": "1", "b": "2,5"})]
    (line,) = read_rows(tmp_path / "a.jsonl")
    assert line.problem is not None
    assert line.problem.where == f"{tmp_path}/a.jsonl, line 1"


@pytest.mark.parametrize(
    ("content", "format", "found"),
    [
        (b"", "csv", "an empty file"),
        ("a,b\n1,2\n".encode("utf-16"), "csv", "UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-le"), None, "UTF-16"),
        (b"a,b,a\n1,2,3\n", "csv", "the column 'a' more than once"),
        (b'[{"a": 1},\n {"a": 2}]\n', None, "a JSON array"),
        (b"[]\n", "jsonl", "a JSON array"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(content: bytes, format: Format | None, found: str):
    with pytest.raises(BadInput, match=found):
        list(read_rows(io.BytesIO(content), format=format))


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(BadInput, match="No such file") as caught:
        list(read_rows(tmp_path / "none.csv"))
    assert caught.value.problems[0].where == str(tmp_path / "none.csv")
