"""The hash of a node's code changes with whatever it imports, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import fingerprint


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "a/__init__.py": "",
        "a/one.py": "def f():\n    from b import two\n    return two\n",
        "a/other.py": "import os\n",
        "b/__init__.py": "",
        "b/two.py": "from . import three\n",
        "b/three.py": "X = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_code_reached_by_a_lazy_and_a_relative_import_counts(tree):
    before = fingerprint.code(["a.one"], root=tree)
    (tree / "b" / "three.py").write_text("X = 2\n")
    assert fingerprint.code(["a.one"], root=tree) != before


def test_code_that_is_not_imported_does_not_count(tree):
    before = fingerprint.code(["a.one"], root=tree)
    (tree / "a" / "other.py").write_text("import sys\n")
    assert fingerprint.code(["a.one"], root=tree) == before


def test_a_name_inside_a_module_stands_for_the_module(tree):
    assert fingerprint.code(["a.one.f"], root=tree) == fingerprint.code(["a.one"], root=tree)
    assert fingerprint.is_ours("a.one.f", root=tree)
    assert not fingerprint.is_ours("tensorflow.io", root=tree)
    assert not fingerprint.is_ours("some text, not a name", root=tree)


def test_files_count_by_their_contents(tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text("a")
    before = fingerprint.files([path])
    path.touch()
    assert fingerprint.files([path]) == before
    path.write_text("b")
    assert fingerprint.files([path]) != before


def test_the_order_of_parts_counts():
    assert fingerprint.combine("a", "b") != fingerprint.combine("b", "a")
    assert fingerprint.combine("ab", "") != fingerprint.combine("a", "b")
