"""Executor inputs that KFP 2.14's real launcher handed to the nodes of a run, and the output metadata that it took.

`python -m tests.cluster.record` wrote the files; PUBLISH_LOGS was on, and the run was the second one, so that there was
a champion.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"
NODES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@functools.cache
def _text(node: str) -> str:
    return (FOLDER / f"{node}.json").read_text(encoding="utf-8")


def recording(node: str) -> dict[str, Any]:
    """Returns everything that was recorded of a node: its arguments, the launcher's places, the output metadata."""
    return json.loads(_text(node))


def option(node: str, name: str) -> str:
    """Returns one of the node's arguments."""
    arguments = recording(node)["arguments"]
    return arguments[arguments.index(name) + 1]


def executor_input(node: str) -> dict[str, Any]:
    """Returns what the launcher put in the place of `{{$}}`."""
    return json.loads(option(node, "--json_serialized_invocation_args"))


def inputs_spec(node: str) -> dict[str, Any]:
    """Returns the component's input definitions, as the container's argument has them."""
    return json.loads(option(node, "--json_serialized_inputs_spec_args"))


def outputs(node: str) -> list[str]:
    """Returns the outputs that the component declares."""
    return option(node, "--outputs").split(",")


def bindings(node: str) -> list[str]:
    """Returns which parameters of the run go into which properties."""
    arguments = recording(node)["arguments"]
    return [word for before, word in itertools.pairwise(arguments) if before == "--bind"]


def evaluator() -> dict[str, Any]:
    """Returns the executor input of the Evaluator: four inputs, the champion among them, and two outputs."""
    return executor_input("Evaluator")


def uri(given: dict[str, Any], key: str) -> str:
    """Returns the URI of an input or output."""
    sides = (given[side].get("artifacts", {}) for side in ("inputs", "outputs"))
    return next(side[key]["artifacts"][0]["uri"] for side in sides if key in side)


INPUTS_SPEC = inputs_spec("Evaluator")
_PARTS = uri(evaluator(), "model").split("/")
RUN = _PARTS[_PARTS.index("Trainer") - 1]
ROOT = "/".join(_PARTS[: _PARTS.index("Trainer")])
LOCAL = ROOT.replace("minio://", "/minio/")
EXAMPLES_TYPE, MODEL_TYPE = (
    INPUTS_SPEC["artifacts"][key]["artifactType"]["instanceSchema"] for key in ("examples", "model")
)
