"""What a job costs on Apache Flink before it works: a job of three elements, from its submission to its end.

    make flink-up
    python -m benchmarks.flink_start
    python -m benchmarks.flink_start --environment configs/environments/elsewhere.yaml

The first job also makes the Python workers' pool warm; the others are what every node of a run pays.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness
from benchmarks.pipeline import OUT, ROOT


def main(arguments: Sequence[str]) -> int:
    """Runs the jobs, prints the table and writes `benchmarks/out/flink-start.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flink_start", description="What a job on Flink costs before it works."
    )
    default = ROOT / "configs" / "environments" / "flink.yaml"
    parser.add_argument("--environment", type=Path, default=default, help="environment (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=6, help="jobs to run (default: 6)")
    options = parser.parse_args(arguments)
    seconds = _seconds(options.environment, jobs=options.jobs)
    figures = [
        harness.Figure(case=case, metric="time", unit="s", ours=value, stock=None)
        for case, value in (("first job", seconds[0]), ("each later job, median", harness.median(seconds[1:])))
    ]
    print(harness.machine())
    print(harness.table(figures))
    harness.write(figures, OUT / "flink-start.json")
    return 0


def _seconds(environment: Path, *, jobs: int) -> list[float]:
    """Returns how long each of some jobs took."""
    import apache_beam as beam

    from pipeline.config import load_environment

    arguments = load_environment(environment).beam.arguments()
    found = []
    for _ in range(jobs):
        began = time.monotonic()
        with beam.Pipeline(argv=arguments) as pipeline:
            _ = pipeline | beam.Create([1, 2, 3]) | beam.Reshuffle() | beam.Map(str)
        found.append(time.monotonic() - began)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
