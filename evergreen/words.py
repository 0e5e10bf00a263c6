"""Text for people to read: shortened, counted, kept on its line, set in columns."""

from __future__ import annotations

from collections.abc import Sequence


def short(text: str, length: int) -> str:
    """Cuts a text to a length; three dots stand for what is left out."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def counted(count: int, word: str) -> str:
    """Returns `1 error`, `2 errors`, `0 errors`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def on_one_line(text: str) -> str:
    """Writes out what does not print, so that a text stays on its line: a line feed becomes a backslash and an n."""
    return text if text.isprintable() else "".join(s if s.isprintable() else repr(s)[1:-1] for s in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row; its cells begin below those of the row before.

    Args:
        rows: of equally many cells, without line feeds.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
