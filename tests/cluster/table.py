"""Prints the tables of docs/kubeflow.md out of the file of evidence: `python -m tests.cluster.table [FILE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.cluster.rig import REPOSITORY

EVIDENCE = REPOSITORY / "docs" / "cluster-evidence.json"


def runs(evidence: dict[str, Any]) -> list[str]:
    """Returns the lines of the table of runs: state, seconds of the whole, and of each node's two pods."""
    nodes = list(next(iter(evidence["runs"].values()))["nodes"])
    lines = [f"| run | state | all | {' | '.join(nodes)} |", "|---" * (len(nodes) + 3) + "|"]
    for name, run in evidence["runs"].items():
        cells = [_cell(run["nodes"].get(node, "")) for node in nodes]
        lines.append(f"| {name} | {run['state']} | {run['seconds']:.0f} | {' | '.join(cells)} |")
    return lines


def _cell(told: str) -> str:
    """Returns the seconds of a node; nothing where it did not run, and in words where it was spared."""
    state, _, seconds = told.partition(" ")
    if state == "unchanged" or told == "done 0 s":
        return "cached"
    return "" if state == "waiting" else seconds.removesuffix(" s")


def beside(evidence: dict[str, Any]) -> list[str]:
    """Returns the lines of the table that compares with the local runner."""
    lines = ["| version | rows | on the cluster | by the local runner |", "|---|---|---|---|"]
    for version, told in evidence["beside the local runner"].items():
        rows = ", ".join(f"{split} {count:,}" for split, count in told["rows"].items())
        lines.append(f"| {version} | {rows} | {_metrics(told['cluster'])} | {_metrics(told['laptop'])} |")
    return lines


def _metrics(told: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in told.items())


if __name__ == "__main__":
    read = json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else EVIDENCE).read_text(encoding="utf-8"))
    print(read["started"], read["image"], f"{read['seconds']} s\n", *runs(read), "", *beside(read), sep="\n")
