"""Text for people: it stays on its line and within its width."""

from __future__ import annotations

from evergreen.words import aligned, counted, on_one_line, short


def test_a_long_text_is_cut():
    assert short("abcdef", 6) == "abcdef"
    assert short("abcdefg", 6) == "abc..."


def test_one_is_singular():
    assert [counted(count, "row") for count in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]


def test_what_does_not_print_is_written_out():
    assert on_one_line("a\nb\tü🎉\u202e") == r"a\nb\tü🎉\u202e"
    assert on_one_line("größe") == "größe"


def test_cells_stand_below_each_other():
    assert aligned([("name", "type"), ("a", "text"), ("longer", "")]) == ["name    type", "a       text", "longer"]
