"""The runtime parameters: what a person may say anew for each run, which node gets it, and which values it can have.

The compiler writes them into the pipeline, the client refuses a wrong value before a run starts, and the entrypoint one
that came another way, through Kubeflow's pages for example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evergreen.errors import BadInput, Problem


def _is_choice(value: Any) -> bool:
    # Only who reads spans loads the settings that come with them.
    from evergreen import spans

    try:
        return isinstance(value, str) and (not value or bool(spans.ranges(value)))
    except BadInput:
        return False


def _is_count(value: Any) -> bool:
    # The numbers of the launcher's JSON are all doubles.
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and float(value).is_integer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """Something that a person may say anew for each run."""

    name: str
    default: str | int | bool
    """What leaves everything as it was compiled ("", 0), or the value itself."""
    node: str
    target: str
    """The execution property that gets it, with the way into it where it is a JSON object."""
    description: str
    expected: str
    """Which values it can have, in words."""
    fits: Callable[[Any], bool]
    """Tells whether it can have a value."""


PARAMETERS = (
    Parameter(
        name="spans",
        default="",
        node="ExampleGen",
        target="spans",
        description='The spans to train on ("3", "2-5"); the latest window where it is empty.',
        expected='spans ("3", "2-5", "1,3-4", "2024-02-29"), or "" for the latest window',
        fits=_is_choice,
    ),
    Parameter(
        name="window",
        default=0,
        node="ExampleGen",
        target="data.window",
        description="How many of the latest spans to train on; what the configuration says where it is 0.",
        expected="a number of spans, or 0 for what the configuration says",
        fits=_is_count,
    ),
    Parameter(
        name="train_steps",
        default=0,
        node="Trainer",
        target="train_args.numSteps",
        description="Steps of training; what the configuration says where it is 0.",
        expected="a number of steps, or 0 for what the configuration says",
        fits=_is_count,
    ),
    Parameter(
        name="tune",
        default="",
        node="Tuner",
        target="custom_config.tuning.when",
        description='Whether to search for hyperparameters anew ("always") or to take the champion\'s ("once").',
        expected='"always", "once", or "" for what the configuration says',
        fits=lambda value: value in ("", "always", "once"),
    ),
    Parameter(
        name="push",
        default=True,
        node="Pusher",
        target="push",
        description="Whether a blessed model is published; a back-fill says false.",
        expected="true or false",
        fits=lambda value: isinstance(value, bool),
    ),
)
"""The runtime parameters of the pipeline, for those of its nodes that there are."""


def problems(given: Mapping[str, Any], *, where: str) -> Iterator[Problem]:
    """Yields what is wrong with the values of a run.

    Args:
        given: values by name; names that are not among `PARAMETERS` are somebody else's.
        where: what names a parameter to the reader, with `{}` in the place of its name.
    """
    for parameter in PARAMETERS:
        if parameter.name in given and not parameter.fits(given[parameter.name]):
            yield Problem(
                where=where.format(parameter.name),
                found=repr(given[parameter.name]),
                expected=parameter.expected,
                action="Start the run again with another value.",
            )
