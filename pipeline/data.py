"""The built-in data: made where there are none, and a span more when asked for."""

from __future__ import annotations

import importlib
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from datagen import Generator
from evergreen import spans
from evergreen.errors import BadInput, Problem
from pipeline.config import Config


def ensure(config: Config) -> str | None:
    """Makes the built-in data where the configuration names a generator and there are none yet.

    Returns:
        A sentence about what was made, or None.
    """
    if config.data.generator is None:
        return None
    root = _root(config)
    if root.exists() and any(root.iterdir()):
        return None
    # All spans show at once: half of them, left by a run that was stopped, would be taken for all the data there are.
    staging = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        made = _generator(config).generate(staging)
        staging.replace(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return f"Made {len(made)} spans of data in {root}."


def add_span(config: Config, *, rows: int, seed: int | None, drift: float, fault: str | None) -> Path:
    """Adds the next span of the built-in data.

    Args:
        config: the problem, which has to name a generator.
        rows: rows of the span.
        seed: seed of the generator; its own where it is left out.
        drift: by how much the inputs move.
        fault: the name of a way to spoil the span.

    Returns:
        The folder of the new span.

    Raises:
        BadInput: when the problem's data are not built in, or the generator refuses an argument.
    """
    if config.data.generator is None:
        raise BadInput(
            [
                Problem(
                    where="new-span",
                    found=f"no data.generator in the configuration of {config.name}",
                    expected="a problem whose data are built in, such as humidity",
                    action="Put the new span's files where data.path looks for them.",
                )
            ]
        )
    generator = _generator(config)
    options: dict[str, Any] = {"rows": rows, "drift": drift, "fault": fault, "seed": seed}
    if problems := list(_problems(options, generator.FAULTS)):
        raise BadInput(problems)
    return generator.add_span(_root(config), **{name: value for name, value in options.items() if value is not None})


def _problems(options: Mapping[str, Any], faults: Collection[str]) -> Iterator[Problem]:
    seed, fault = options["seed"], options["fault"]
    for name, sound, expected in (
        ("rows", options["rows"] >= 1, "1 or more"),
        ("seed", seed is None or seed >= 0, "0 or more"),
        ("drift", math.isfinite(options["drift"]), "a finite number"),
        ("fault", fault is None or fault in faults, f"one of {', '.join(sorted(faults))}"),
    ):
        if not sound:
            where = f"new-span --{name}"
            yield Problem(where=where, found=repr(options[name]), expected=expected, action="Correct the option.")


def _root(config: Config) -> Path:
    return Path(spans.fixed_part(config.data.path))


def _generator(config: Config) -> Generator:
    return cast(Generator, importlib.import_module(str(config.data.generator)))
