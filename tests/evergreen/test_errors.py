"""Errors carry every problem, across processes too."""

from __future__ import annotations

import pickle

import pytest

from evergreen.errors import BadInput, ExitCode, GateRefusal, Problem

PROBLEM = Problem(where="a.csv, line 7", found="3 fields", expected="5 fields", action="Repair the line.")


def test_all_problems_are_in_the_message():
    error = BadInput([PROBLEM, PROBLEM])
    assert str(error).count("a.csv, line 7: found 3 fields; expected 5 fields. Repair the line.") == 2


def test_an_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(GateRefusal([PROBLEM])))
    assert isinstance(error, GateRefusal)
    assert error.problems == (PROBLEM,)
    assert error.exit_code is ExitCode.REFUSED


def test_an_error_says_something():
    with pytest.raises(ValueError, match="at least one"):
        BadInput([])
