"""Generators of the built-in data: modules that write dated spans, so that a fresh clone has data to continue on.

`data.generator` of a configuration is the dotted path of such a module. It offers two functions; `root` is the part of
`data.path` before its first component with `{SPAN}`:

    generate(root, *, spans=7, rows=20_000, seed=..., drift=0.0, fault=None) -> list[pathlib.Path]
        writes spans 1 to `spans` where they are missing and returns their folders
    add_span(root, *, rows=20_000, seed=..., drift=0.0, fault=None) -> pathlib.Path
        writes the span after the highest one that is there and returns its folder

Both write `span-{SPAN}/v-{VERSION}/...` and make a span appear at once and whole, by renaming. The same seed, span and
options give the same bytes, whichever of the two wrote them. `drift` and `fault` ask for data that the pipeline has to
notice; a fault strikes the newest span written. `Generator` is the protocol for type checkers.
"""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import Protocol


class Generator(Protocol):
    """What a module named by `data.generator` offers."""

    FAULTS: Collection[str]
    """The names of the ways to spoil a span."""

    def generate(
        self,
        root: pathlib.Path,
        *,
        spans: int = ...,
        rows: int = ...,
        seed: int = ...,
        drift: float = ...,
        fault: str | None = ...,
    ) -> list[pathlib.Path]:
        """Writes spans 1 to `spans` where they are missing."""
        ...

    def add_span(
        self,
        root: pathlib.Path,
        *,
        rows: int = ...,
        seed: int = ...,
        drift: float = ...,
        fault: str | None = ...,
    ) -> pathlib.Path:
        """Writes the span after the highest one that is there."""
        ...
