"""The whole first run, ours against the stock components: time and peak memory of each node and of all.

    make bench
    make bench ARGS="--rows 2000 --repeat 3"

Both sides read the same files, on the same machine, in the same environment, one after the other, each in a fresh
process and a fresh folder. Ours is `python local_runner.py` exactly as a person types it. What a node of ours has no
stock counterpart for (the champion) counts in our total. Results go to `benchmarks/out/pipeline.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import harness

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
ROLES = {"CsvExampleGen": "ExampleGen"}
"""The names of stock nodes that differ from ours."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """What one run of one side took, and how good its model is."""

    process: harness.Process
    nodes: Mapping[str, Mapping[str, Any]]
    """The record of each node, by the name of its role."""
    rmse: float
    published: bool
    again: harness.Process
    """The same command given once more, with nothing changed."""


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark, prints the table and writes the JSON file."""
    options = _parser().parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="evergreen-bench-"))
    try:
        config = _problem(work, rows=options.rows, spans=options.spans, seed=options.seed)
        _say(f"{options.spans} x {options.rows:,} rows; {harness.machine()}; logs in {OUT}")
        _import_libraries(work)  # reads them from disk once, so that the first side does not pay for both
        ours: list[Side] = []
        stock: list[Side] = []
        for repetition in range(options.repeat):
            # The order changes from round to round, so that neither side always finds the machine warmer.
            order = [("stock", stock), ("ours", ours)]
            for name, runs in order if repetition % 2 == 0 else reversed(order):
                side = _run_side(name, config, work / f"{name}-{repetition}")
                runs.append(side)
                _say(f"{name}: {side.process.seconds:.1f} s, RMSE {side.rmse:.4f}, published: {side.published}")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
        importing = _import_libraries(work)
    figures = compare(ours, stock)
    figures.append(
        harness.Figure(case="import of the libraries", metric="seconds", unit="s", ours=importing, stock=importing)
    )
    print(harness.table(figures))
    harness.write(figures, OUT / "pipeline.json")
    _say(f"Written: {OUT / 'pipeline.json'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Our whole first run against the stock components.")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a span (default: 20000)")
    parser.add_argument("--spans", type=int, default=7, help="spans (default: 7)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the data (default: 7)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each side; medians are told (default: 1)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with data, artifacts and models")
    return parser


def compare(ours: Sequence[Side], stock: Sequence[Side]) -> list[harness.Figure]:
    """Puts the medians of both sides beside each other: every node's time and memory, the totals, the quality."""
    names = list(dict.fromkeys([*ours[0].nodes, *stock[0].nodes]))
    figures = []
    for metric, field, unit in (("seconds", "seconds", "s"), ("peak memory", "peak_memory_mb", "MiB")):
        figures += [
            harness.Figure(
                case=name,
                metric=metric,
                unit=unit,
                ours=harness.median(side.nodes.get(name, {}).get(field) for side in ours),
                stock=harness.median(side.nodes.get(name, {}).get(field) for side in stock),
            )
            for name in names
        ]
    outside = [
        harness.median(side.process.seconds - sum(node["seconds"] for node in side.nodes.values()) for side in sides)
        for sides in (ours, stock)
    ]
    figures.append(harness.Figure(case="start and end", metric="seconds", unit="s", ours=outside[0], stock=outside[1]))
    seconds = [harness.median(side.again.seconds for side in sides) for sides in (ours, stock)]
    figures.append(
        harness.Figure(case="unchanged second run", metric="seconds", unit="s", ours=seconds[0], stock=seconds[1])
    )
    for metric, unit, values in (
        ("seconds", "s", [[side.process.seconds for side in sides] for sides in (ours, stock)]),
        ("peak memory", "MiB", [[side.process.peak_memory_mb for side in sides] for sides in (ours, stock)]),
        ("rmse", "", [[side.rmse for side in sides] for sides in (ours, stock)]),
    ):
        figures.append(
            harness.Figure(
                case="whole run",
                metric=metric,
                unit=unit,
                ours=harness.median(values[0]),
                stock=harness.median(values[1]),
            )
        )
    return figures


def _problem(work: Path, *, rows: int, spans: int, seed: int) -> Path:
    """Generates the data and writes the humidity configuration for them.

    Returns:
        The path of the configuration; its data lie in `work/data`.
    """
    data = work / "data"
    importlib.import_module("datagen.humidity").generate(data, spans=spans, rows=rows, seed=seed)
    document = yaml.safe_load((ROOT / "configs" / "humidity.yaml").read_text(encoding="utf-8"))
    document["schema"] = str(ROOT / document["schema"])
    document["data"].pop("generator", None)
    document["data"].update(path=str(data / "span-{SPAN}" / "v-{VERSION}" / "*.csv"), window=spans)
    config = work / "humidity.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return config


def _import_libraries(work: Path) -> float:
    """Imports TFX and what its components import, in a fresh process; returns the seconds."""
    process = harness.run_measured(
        [sys.executable, "-c", "from tfx import v1; import tensorflow_model_analysis"],
        cwd=ROOT,
        log=work / "import.log",
        environment=QUIET,
    )
    return process.seconds


def _run_side(name: str, config: Path, root: Path) -> Side:
    return (_run_ours if name == "ours" else _run_stock)(config, root)


def _run_stock(config: Path, root: Path) -> Side:
    """Runs the stock pipeline in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.stock.pipeline"]
    command += ["--config", str(config), "--data", str(config.parent / "data"), "--root", str(root)]
    process = harness.run_measured(command, cwd=ROOT, log=OUT / "stock.log", environment=QUIET)
    report = json.loads((root / "stock.json").read_text(encoding="utf-8"))
    return Side(
        process=process,
        nodes=_by_role(report["nodes"]),
        rmse=report["metrics"]["root_mean_squared_error"],
        published=report["pushed"],
        again=harness.run_measured(command, cwd=ROOT, log=OUT / "stock-again.log", environment=QUIET),
    )


def _run_ours(config: Path, root: Path) -> Side:
    """Runs `python local_runner.py` in a fresh process and a fresh workspace."""
    root.mkdir(parents=True)
    environment = root / "environment.yaml"
    beam = yaml.safe_load((ROOT / "configs" / "environments" / "local.yaml").read_text(encoding="utf-8"))["beam"]
    document = {"workspace": str(root / "runs"), "registry": str(root / "registry"), "beam": beam}
    environment.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "local_runner.py", "--config", str(config), "--environment", str(environment)]
    process = harness.run_measured(command, cwd=ROOT, log=OUT / "ours.log", environment=QUIET)
    records = json.loads(_only(root, "runs/*/logs/*/nodes.json").read_text(encoding="utf-8"))
    verdict = json.loads(
        _only(root, "runs/*/artifacts/Evaluator/evaluation/*/verdict.json").read_text(encoding="utf-8")
    )
    return Side(
        process=process,
        nodes=_by_role(records),
        rmse=verdict["metrics"]["candidate"]["rmse"],
        published=verdict["blessed"],
        again=harness.run_measured(command, cwd=ROOT, log=OUT / "ours-again.log", environment=QUIET),
    )


def _by_role(records: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {ROLES.get(record["node"], record["node"]): record for record in records}


def _only(root: Path, pattern: str) -> Path:
    """Returns the one file that a fresh run leaves."""
    found = list(root.glob(pattern))
    if len(found) != 1:
        raise harness.Failed(f"{root} should hold one {pattern}, it holds {len(found)}")
    return found[0]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
