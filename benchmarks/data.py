"""The data nodes on a taxi-like table, ours against stock: rows a second, ratio and peak memory of each node.

    make bench-data                                     # both sides, 300,000 rows: benchmarks/out/data.json
    make bench-data ARGS="large"                        # ours, 3,000,000 rows: benchmarks/out/data-3000000.json
    make bench-data ARGS="large --rows 10000000"

Both sides run their whole pipeline over the same CSV file, each in a fresh process and folder, in turn; training is the
same short one and is left out of the DAG's figures. Our ExampleGen runs on the same rows as Parquet, too. Ours alone
runs on larger tables, for its speed and for how its memory grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import harness
from benchmarks.pipeline import OUT, QUIET, ROLES, ROOT
from datagen import taxi

NODES = ("ExampleGen", "StatisticsGen", "Transform", "Evaluator")
"""The nodes that have a bar."""
SMALL = 300_000
"""Rows of the race, and what the memory of larger tables is compared with."""
WITHOUT = ("Trainer", "Pusher")
"""What the DAG's figures leave out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """What one run of one side took."""

    nodes: Mapping[str, Mapping[str, Any]]
    seconds: float
    """Wall time of the process without `WITHOUT`."""
    run_seconds: float
    """Wall time of the process."""
    cpu_seconds: float
    """Processor time of the process, training included: what another process on the machine does not change."""
    peak_memory_mb: float


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark, prints the table and writes the JSON file."""
    options = _parser().parse_args(arguments)
    options.rows = options.rows or (SMALL if options.part == "race" else 10 * SMALL)
    work = Path(tempfile.mkdtemp(prefix="evergreen-bench-data-"))
    try:
        _say(f"{len(taxi.COLUMNS)} columns; {harness.machine()}; logs in {OUT}")
        figures = _race(work, options) if options.part == "race" else _large(work, options)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(harness.table(figures))
    path = OUT / ("data.json" if options.part == "race" else f"data-{options.rows}.json")
    harness.write(figures, path)
    _say(f"Written: {path}")
    return 0


def _race(work: Path, options: argparse.Namespace) -> list[harness.Figure]:
    """Runs both sides on the same CSV, in turn, and our ExampleGen on the same rows as Parquet."""
    config = write_problem(work / "csv", rows=options.rows)
    ours: list[Side] = []
    stock: list[Side] = []
    for turn in range(options.repeat):
        sides = [("stock", stock), ("ours", ours)]
        for name, runs in sides if turn % 2 == 0 else reversed(sides):
            runs.append((_run_ours if name == "ours" else _run_stock)(config, work / f"{name}-{turn}"))
            _say(f"{name}: {runs[-1].seconds:.1f} s without training")
    parquet = write_problem(work / "parquet", rows=options.rows, file_format="parquet")
    from_parquet = _run_ours(parquet, work / "ours-parquet", "--to", "ExampleGen")
    return [
        *compare(ours, stock, rows=options.rows),
        harness.Figure(
            case="ExampleGen, Parquet (stock: CSV)",
            metric="rows/s",
            unit="rows/s",
            ours=options.rows / from_parquet.nodes["ExampleGen"]["seconds"],
            stock=harness.median(options.rows / side.nodes["ExampleGen"]["seconds"] for side in stock),
            lower_is_better=False,
        ),
    ]


def _large(work: Path, options: argparse.Namespace) -> list[harness.Figure]:
    """Runs ours alone on a large table, and once on `SMALL` rows to tell by how much memory grows."""
    small = _run_ours(write_problem(work / "small", rows=SMALL), work / "ours-small")
    large = _run_ours(write_problem(work / "large", rows=options.rows), work / "ours-large")
    return growth(small, large, rows=options.rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-data", description="Our data nodes against the stock ones.")
    parser.add_argument(
        "part",
        nargs="?",
        choices=("race", "large"),
        default="race",
        help="race: both sides on one table (default); large: ours alone, and how its memory grows",
    )
    parser.add_argument("--rows", type=int, help=f"rows of the table (default: {SMALL}; of large {10 * SMALL})")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each side; medians are told (default: 1)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and artifacts")
    return parser


def write_problem(folder: Path, *, rows: int, file_format: taxi.Format = "csv") -> Path:
    """Writes the table, its schema and the configuration of a model of the tip.

    Args:
        folder: gets all of it; made if missing.
        rows: of the table, in files of 300,000 rows.
        file_format: of the table.

    Returns:
        The path of the configuration; the data lie in `folder/data`.
    """
    taxi.write(folder / "data", rows=rows, file_format=file_format, parts=max(1, rows // 300_000))
    schema = folder / "schema.pbtxt"
    kinds = {"string": "BYTES", "int64": "INT", "double": "FLOAT"}
    schema.write_text(
        "".join(
            f'feature {{ name: "{field.name}" type: {kinds[str(field.type)]} presence {{ min_count: 1 }}'
            " value_count { min: 1 max: 1 } }\n"
            for field in taxi.table(rows=10).schema
        ),
        encoding="utf-8",
    )
    numbers = ("trip_miles", "fare", "trip_seconds", *(name for name in taxi.COLUMNS if name.endswith("tude")))
    document = {
        "name": "taxi",
        "data": {"path": str(folder / "data" / "span-{SPAN}" / "v-{VERSION}" / f"*.{file_format}")}
        | {"format": file_format},
        "schema": str(schema),
        "label": {"column": taxi.LABEL, "task": "regression"},
        "features": {
            **{name: {"kind": "numeric"} for name in numbers},
            **{
                name: {"kind": "vocabulary", "top_k": 1000, "out_of_vocabulary": 10}
                for name in ("company", "payment_type", "taxi_id")
            },
            **{f"{end}_community_area": {"kind": "identity", "size": 78} for end in ("pickup", "dropoff")},
            "day_hour": {
                "kind": "cross",
                "parts": [{"column": "trip_start_day", "size": 8}, {"column": "trip_start_hour", "size": 24}],
            },
        },
        "model": {"kind": "linear"},
        "training": {"epochs": 1, "max_steps": 100, "early_stopping_patience": None},
        "evaluation": {
            "metrics": ["rmse", "mae"],
            "slices": [["payment_type"], ["trip_start_hour"], ["company"]],
            "beat_trivial": False,
        },
    }
    config = folder / "taxi.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return config


def _run_stock(config: Path, root: Path) -> Side:
    process, cpu = _measured(stock_command(config, root), OUT / "data-stock.log")
    return _side(json.loads((root / "stock.json").read_text(encoding="utf-8"))["nodes"], process, cpu)


def stock_command(config: Path, root: Path) -> list[str]:
    """Returns what runs the stock pipeline in a folder of its own."""
    command = [sys.executable, "-m", "benchmarks.stock.pipeline"]
    return [*command, "--config", str(config), "--data", str(config.parent / "data"), "--root", str(root)]


def _run_ours(config: Path, root: Path, *arguments: str) -> Side:
    """Runs `python local_runner.py` with a workspace of its own."""
    root.mkdir(parents=True)
    process, cpu = _measured([*our_command(config, root), *arguments], OUT / "data-ours.log")
    (records,) = root.glob("runs/*/logs/*/nodes.json")
    return _side(json.loads(records.read_text(encoding="utf-8")), process, cpu)


def our_command(config: Path, root: Path) -> list[str]:
    """Returns what runs our pipeline with a workspace in an existing folder, in which it writes the environment."""
    environment = root / "environment.yaml"
    beam = yaml.safe_load((ROOT / "configs" / "environments" / "local.yaml").read_text(encoding="utf-8"))["beam"]
    environment.write_text(
        yaml.safe_dump({"workspace": str(root / "runs"), "registry": str(root / "registry"), "beam": beam})
    )
    return [sys.executable, "local_runner.py", "--config", str(config), "--environment", str(environment)]


def _measured(command: Sequence[str], log: Path) -> tuple[harness.Process, float]:
    before = _children()
    process = harness.run_measured(command, cwd=ROOT, log=log, environment=QUIET)
    return process, _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _side(records: Sequence[Mapping[str, Any]], process: harness.Process, cpu_seconds: float) -> Side:
    nodes = {ROLES.get(record["node"], record["node"]): record for record in records}
    without = sum(nodes[name].get("seconds") or 0.0 for name in WITHOUT if name in nodes)
    return Side(
        nodes=nodes,
        seconds=process.seconds - without,
        run_seconds=process.seconds,
        cpu_seconds=cpu_seconds,
        peak_memory_mb=process.peak_memory_mb,
    )


def compare(ours: Sequence[Side], stock: Sequence[Side], *, rows: int) -> list[harness.Figure]:
    """Puts the medians of both sides beside each other: rows a second and memory by node, and the whole DAG."""

    def both(case: str, metric: str, unit: str, value: Any, *, lower_is_better: bool = True) -> harness.Figure:
        medians = [harness.median(value(side) for side in sides) for sides in (ours, stock)]
        return harness.Figure(
            case=case, metric=metric, unit=unit, ours=medians[0], stock=medians[1], lower_is_better=lower_is_better
        )

    figures = []
    for name in NODES:
        rate = both(
            name, "rows/s", "rows/s", lambda side, n=name: rows / side.nodes[n]["seconds"], lower_is_better=False
        )
        figures += [rate, both(name, "peak memory", "MiB", lambda side, n=name: side.nodes[n]["peak_memory_mb"])]
    whole = "DAG without training"
    figures.append(both(whole, "rows/s", "rows/s", lambda side: rows / side.seconds, lower_is_better=False))
    figures.append(both("whole run", "processor time", "s", lambda side: side.cpu_seconds))
    figures.append(both("whole run", "peak memory", "MiB", lambda side: side.peak_memory_mb))
    return figures


def growth(small: Side, large: Side, *, rows: int) -> list[harness.Figure]:
    """Tells ours on the larger table: seconds, rows a second, memory, and that as a multiple of the smaller one's."""

    def ours(case: str, seconds: float, before: float | None, after: float | None) -> list[harness.Figure]:
        values = (
            ("time", "s", seconds),
            ("rows/s", "rows/s", rows / seconds),
            ("peak memory", "MiB", after),
            (f"memory beside {SMALL:,} rows", "x", after / before if before and after else None),
        )
        return [
            harness.Figure(case=f"{case}, {rows:,}", metric=metric, unit=unit, ours=value, stock=None)
            for metric, unit, value in values
        ]

    figures: list[harness.Figure] = []
    for name in NODES:
        before, after = small.nodes[name], large.nodes[name]
        figures += ours(name, after["seconds"], before["peak_memory_mb"], after["peak_memory_mb"])
        figures += cost(name, before["seconds"], after["seconds"], rows=rows)
    figures += ours("DAG without training", large.seconds, _peak(small), _peak(large))
    whole = "whole run with training"
    return figures + ours(whole, large.run_seconds, small.peak_memory_mb, large.peak_memory_mb)


def cost(case: str, small: float, large: float, *, rows: int) -> list[harness.Figure]:
    """Tells the line through two runs: a node takes so many seconds, and so many microseconds more for every row.

    Args:
        case: the node.
        small: seconds for `SMALL` rows.
        large: seconds for `rows` rows.
        rows: of the larger table.
    """
    slope = (large - small) / (rows - SMALL)
    values = (("of it whatever the rows", "s", small - slope * SMALL), ("of it for a row", "us", slope * 1e6))
    return [
        harness.Figure(case=f"{case}, {rows:,}", metric=metric, unit=unit, ours=value, stock=None)
        for metric, unit, value in values
    ]


def _peak(side: Side) -> float | None:
    """Returns the highest peak of a node but for `WITHOUT`."""
    peaks = [record["peak_memory_mb"] for name, record in side.nodes.items() if name not in WITHOUT]
    return max((peak for peak in peaks if peak), default=None)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
