from __future__ import annotations

import pytest

from components.entrypoint import parameters


@pytest.mark.parametrize("parameter", parameters.PARAMETERS, ids=lambda parameter: parameter.name)
def test_the_default_fits(parameter):
    assert parameter.fits(parameter.default)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("spans", value) for value in ("3", "2-5", "1,3-4", "2024-02-29")),
        *(("window", value) for value in (7, 7.0)),
        ("train_steps", 100.0),
        *(("tune", value) for value in ("always", "once")),
        ("push", False),
    ],
)
def test_what_a_run_may_say(name, value):
    assert list(parameters.problems({name: value}, where="{}")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("spans", value) for value in ("x", "5-2", "2024-02-30", 3)),
        *(("window", value) for value in (-1, 2.5, "3", True, float("inf"), None)),
        *(("train_steps", value) for value in (-1, "many")),
        *(("tune", value) for value in ("Always", "never", True, None)),
        *(("push", value) for value in ("false", 1, 0.0, None)),
    ],
)
def test_what_a_run_may_not_say(name, value):
    (problem,) = parameters.problems({name: value, "of somebody else": value}, where="--param {}")
    assert problem.where == f"--param {name}"
    assert problem.found == repr(value)
