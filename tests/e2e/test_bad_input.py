"""Files that cannot be used: each stopped before training, with one message that names it and says what to do."""

from __future__ import annotations

import json

import pytest

from datagen import humidity
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e

FAULTS = {
    "empty": "empty",
    "header_only": "header",
    "no_header": "header",
    "wrong_delimiter": "delimiter",
    "utf16": "UTF-16",
    "renamed_column": "column",
    "text_in_numbers": "beta1",
    "null_column": "beta2",
    "truncated_gzip": "cut off",
}
"""Name of the fault in the generator, and a word that the message has to hold."""


@pytest.mark.parametrize(("fault", "word"), FAULTS.items())
def test_a_file_that_cannot_be_used_stops_the_run(run_here, tmp_path, fault: str, word: str):
    workspace = Workspace(tmp_path)
    workspace.configure(data__window=2, data__path=f"{workspace.data}/span-{{SPAN}}/v-{{VERSION}}/*")
    humidity.generate(workspace.data, spans=1, rows=500)
    span = humidity.add_span(workspace.data, rows=500, fault=fault)
    (file,) = span.rglob("humidity*")
    ended = run_here(workspace)
    assert ended.code in (2, 3), ended.out
    assert "Trainer" not in ended.states()
    assert file.name in ended.out
    assert word.lower() in ended.out.lower()
    assert ended.out.count("    do:       ") >= 1
    assert "Traceback" not in ended.out + ended.err
    assert workspace.published() == ([], None)


def test_a_malformed_line_goes_to_quarantine(run_here, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.configure(data__window=2)
    humidity.generate(workspace.data, spans=1, rows=500)
    humidity.add_span(workspace.data, rows=500, fault="malformed_line")
    ended = run_here(workspace, "--to", "ExampleGen")
    assert ended.code == 0, ended.out
    examples = workspace.latest("ExampleGen", "examples")
    summary = json.loads((examples / "summary.json").read_text())
    assert summary["quarantined"] >= 1
    assert sum(summary["rows"].values()) + summary["quarantined"] == 1_000
    (entry, *_) = [json.loads(line) for path in examples.glob("quarantine/*") for line in path.read_text().splitlines()]
    assert entry["line"] > 1
    assert entry["reason"]
    assert "span-2" in entry["file"]


def test_data_that_are_not_there_are_told_at_once(run_here, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.configure(data__generator=None)
    ended = run_here(workspace)
    assert ended.code == 2
    assert "span-{SPAN}" in ended.err


def _label(span, *, lacking: int | None = None, constant: str | None = None) -> None:
    """Rewrites the labels of a span, the last column: none in the first `lacking` rows, or the same in all."""
    (file,) = span.rglob("humidity*")
    header, *lines = file.read_text().splitlines()
    for row, line in enumerate(lines):
        if constant is not None or (lacking is not None and row < lacking):
            lines[row] = f"{line.rpartition(',')[0]},{constant or ''}"
    file.write_text("\n".join([header, *lines]) + "\n")


def test_rows_without_a_label_are_counted_on_the_screen_and_a_span_without_labels_stops_the_run(run_here, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.configure(data__window=2)
    humidity.generate(workspace.data, spans=1, rows=500)
    late = humidity.add_span(workspace.data, rows=500)
    _label(late, lacking=20)
    ended = run_here(workspace, "--to", "ExampleValidator")
    assert ended.code == 0, ended.out
    assert "980 rows of spans 1-2" in ended.out
    assert "20 quarantined, 20 of them without a label" in ended.out
    assert "0 errors, 0 warnings" in ended.out

    _label(late, lacking=500)
    ended = run_here(workspace)
    assert ended.code == 2, ended.out
    assert "span 2, column 'humidity'" in ended.out
    assert "500 of 500 rows without a label (100.00%)" in ended.out
    assert "data.max_unlabelled_share" in ended.out
    assert ended.out.count("    do:       ") == 1
    assert workspace.published() == ([], None)


def test_a_label_of_one_value_stops_the_run_and_names_it(run_here, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.configure(data__window=2)
    humidity.generate(workspace.data, spans=2, rows=500)
    for span in workspace.data.iterdir():
        _label(span, constant="7.5")
    ended = run_here(workspace)
    assert ended.code == 3, ended.out
    assert ended.states()["ExampleValidator"] == "refused"
    assert "Transform" not in ended.states()
    said = " ".join(ended.out.replace("│", " ").split())
    assert "1 error, 0 warnings" in said
    for word in ("humidity", "one label only: 7.5 in every row", "at least two different labels"):
        assert word in said
