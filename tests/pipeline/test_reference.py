"""The page of all configuration keys is what the types say."""

from __future__ import annotations

from evergreen.revision import ROOT
from pipeline import reference


def test_the_committed_page_is_up_to_date():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.render(), "write it anew with `make docs`"


def test_every_key_says_what_it_means():
    empty = [line for line in reference.render().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert empty == []
