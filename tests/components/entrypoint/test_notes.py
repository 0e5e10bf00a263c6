from __future__ import annotations

import pytest

from components.entrypoint import notes
from evergreen.errors import ExitCode

PROBLEM = {"where": "w", "found": "f", "expected": "e", "action": "a"}


@pytest.fixture
def left(tmp_path):
    return notes.Notes(str(tmp_path / ".runs"), "run-1")


def test_a_note_says_how_it_ended_and_who_worked_on_it(left):
    left.begin("Trainer", pod="p-0")
    left.end("Trainer", exit_code=ExitCode.FAULT, fault="OSError: x")
    left.begin("Trainer", pod="p-1")
    left.end("Trainer", exit_code=ExitCode.REFUSED, problems=[PROBLEM])
    note = left.read("Trainer")
    assert (note.attempts, note.exit_code, note.problems) == (["p-0", "p-1"], ExitCode.REFUSED, [PROBLEM])
    assert note.is_final()


@pytest.mark.parametrize(
    ("code", "final"), [(ExitCode.FAULT, False), (ExitCode.BAD_INPUT, True), (ExitCode.REFUSED, True)]
)
def test_only_what_a_retry_does_not_change_is_final(left, code, final):
    left.begin("Trainer", pod="p-0")
    left.end("Trainer", exit_code=code)
    assert left.begin("Trainer", pod="p-1").is_final() is final


def test_a_killed_attempt_leaves_a_note_that_is_not_final(left):
    left.begin("Trainer", pod="p-0")
    assert not left.begin("Trainer", pod="p-1").is_final()
    assert left.read("Trainer").attempts == ["p-0", "p-1"]


def test_a_final_note_is_dropped_when_the_attempts_are_counted_anew(left):
    left.begin("Trainer", pod="p-0")
    left.end("Trainer", exit_code=ExitCode.REFUSED)
    assert not left.begin("Trainer", pod="p-0").is_final()
    assert left.read("Trainer").attempts == ["p-0"]


def test_done_removes_the_note_and_the_empty_folder_only(left, tmp_path):
    left.begin("Trainer", pod="p-0")
    left.begin("Champion", pod="c-0")
    left.end("Trainer", exit_code=ExitCode.OK)
    assert [note.task for note in left.all()] == ["Champion"]
    left.end("Champion", exit_code=ExitCode.OK)
    assert list((tmp_path / ".runs").iterdir()) == []


def test_runs_do_not_see_one_another(left, tmp_path):
    left.begin("Trainer", pod="p-0")
    assert notes.Notes(str(tmp_path / ".runs"), "run-2").all() == []


def test_a_note_that_cannot_be_read_counts_as_none(left, tmp_path):
    left.begin("Trainer", pod="p-0")
    (tmp_path / ".runs" / "run-1" / "Trainer.json").write_text("{")
    assert left.read("Trainer") is None
    assert left.all() == []


def test_clear_leaves_nothing(left, tmp_path):
    left.begin("Trainer", pod="p-0")
    left.clear()
    assert list((tmp_path / ".runs").iterdir()) == []
