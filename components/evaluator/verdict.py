"""The verdict: every reason against a candidate, in words; blessed is what nothing speaks against.

What can speak against it, each well-defined whatever else is configured:

* a metric that is no number;
* a bound broken, as TFMA's validation has it (over all rows, or in a slice whose config asks for it);
* the first metric worse than the champion's by more than the tolerated loss. Without a champion there is nothing to
  compare with, and that is no reason. TFMA divides by the champion's metric and so refuses everything beside a
  champion at zero; here the loss is held against `tolerated_loss * |champion|`, which is defined at zero too;
* the first metric not better than the trivial baseline's, unless that check is switched off.

So a candidate without bounds, champion and trivial check is blessed when its metrics are numbers, where TFX blesses
nothing: the configuration said that it wants no more.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfx.dsl.io import fileio

from evergreen import settings
from evergreen.errors import Problem

VERDICT_FILE = "verdict.json"

Metrics = Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """One threshold that TFMA's validation found broken."""

    metric: str
    slice: str
    """The slice in words; empty for all rows."""
    value: float
    lower: float | None
    upper: float | None
    message: str
    """TFMA's own words, for what is neither."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a verdict is made of."""

    candidate: Metrics
    champion: Metrics | None
    trivial: Metrics
    failures: Sequence[Failure]
    rows: int
    champion_version: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the candidate may replace the champion, and every reason why not."""

    measured: Measured
    reasons: Sequence[Problem]

    @property
    def blessed(self) -> bool:
        """Whether nothing speaks against the candidate."""
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict as a JSON object; a metric that is no number is null there."""
        measured = self.measured
        return {
            "blessed": self.blessed,
            "reasons": [dataclasses.asdict(reason) for reason in self.reasons],
            "metrics": {
                "candidate": _numbers(measured.candidate),
                "champion": None if measured.champion is None else _numbers(measured.champion),
                "trivial": _numbers(measured.trivial),
            },
            "rows": measured.rows,
            "champion_version": measured.champion_version,
        }

    def write(self, folder: str) -> None:
        """Writes the verdict into `folder`, whole or not at all."""
        path = os.path.join(folder, VERDICT_FILE)
        staged = f"{path}.partial"
        with fileio.open(staged, "w") as file:
            file.write(json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n")
        fileio.rename(staged, path, overwrite=True)

    def figure(self, metric: str) -> str:
        """Returns the telling figure: the metric beside the champion's and the trivial baseline's, and the verdict."""
        measured = self.measured
        others = [] if measured.champion is None else [f"champion {measured.champion[metric]:.4g}"]
        others.append(f"trivial {measured.trivial[metric]:.4g}")
        blessed = "blessed" if self.blessed else "not blessed"
        return f"{metric} {measured.candidate[metric]:.4g} ({', '.join(others)}), {blessed}"


def judge(measured: Measured, evaluation: settings.Evaluation) -> Verdict:
    """Returns the verdict on a candidate."""
    first = evaluation.metrics[0]
    reasons = [
        *_not_numbers(measured),
        *_broken_bounds(measured, evaluation),
        *_worse_than_champion(measured, first, evaluation.tolerated_loss),
        *(_not_better_than_trivial(measured, first) if evaluation.beat_trivial else ()),
    ]
    return Verdict(measured=measured, reasons=reasons)


def _not_numbers(measured: Measured) -> Iterator[Problem]:
    for metric, value in measured.candidate.items():
        if not math.isfinite(value):
            yield Problem(
                where=f"{metric} on the test split",
                found="no number",
                expected="a number",
                action=(
                    "Look whether the model's predictions are NaN (a learning rate that is too high), or whether the "
                    "split shows one class only."
                ),
            )


def _broken_bounds(measured: Measured, evaluation: settings.Evaluation) -> Iterator[Problem]:
    for failure in measured.failures:
        if not failure.slice and not math.isfinite(measured.candidate.get(failure.metric, math.nan)):
            continue  # said already
        limits = []
        if failure.lower is not None:
            limits.append(f"at least {failure.lower:g}")
        if failure.upper is not None:
            limits.append(f"at most {failure.upper:g}")
        bound = f"evaluation.bounds.{failure.metric}"
        yield Problem(
            where=f"{failure.metric} {_place(failure.slice)}",
            found=failure.message.strip() or f"{failure.value:.6g}",
            expected=f"{' and '.join(limits)} ({bound})" if limits else "what the evaluation's config asks for",
            action=(
                "Improve the features, the model or the data; where the limit was too strict, change "
                f"{bound if failure.metric in evaluation.bounds else 'it in the configuration'}."
            ),
        )


def _worse_than_champion(measured: Measured, metric: str, tolerated: float) -> Iterator[Problem]:
    if measured.champion is None:
        return
    candidate, champion = measured.candidate[metric], measured.champion[metric]
    if not math.isfinite(candidate) or not math.isfinite(champion):
        return  # a champion that cannot be measured holds nobody up; a candidate that cannot is refused already
    loss = champion - candidate if settings.HIGHER_IS_BETTER[metric] else candidate - champion
    if loss <= tolerated * abs(champion):
        return
    relative = f"{loss / abs(champion):.1%}" if champion else f"{loss:.4g}"
    version = f" (version {measured.champion_version})" if measured.champion_version is not None else ""
    yield Problem(
        where=f"{metric} on the test split",
        found=f"{candidate:.6g}, {relative} worse than the champion's {champion:.6g}{version}",
        expected=f"at most {tolerated:.1%} worse (evaluation.tolerated_loss)",
        action=(
            "The champion goes on serving. Improve the candidate, or raise evaluation.tolerated_loss where the newer "
            "data are worth the loss."
        ),
    )


def _not_better_than_trivial(measured: Measured, metric: str) -> Iterator[Problem]:
    candidate, trivial = measured.candidate[metric], measured.trivial[metric]
    if not math.isfinite(candidate):
        return
    if (candidate > trivial) if settings.HIGHER_IS_BETTER[metric] else (candidate < trivial):
        return
    side = "more" if settings.HIGHER_IS_BETTER[metric] else "less"
    yield Problem(
        where=f"{metric} on the test split",
        found=f"{candidate:.6g}, no better than the {trivial:.6g} of the best constant answer",
        expected=f"{side} than {trivial:.6g} (evaluation.beat_trivial)",
        action="The model learned nothing of use: look at the features, the label and the training's losses.",
    )


def _place(slice_: str) -> str:
    return f"in the slice {slice_} of the test split" if slice_ else "on the test split"


def _numbers(metrics: Metrics) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
