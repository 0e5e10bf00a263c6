"""The command line of Flink on this machine: up, down, status."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from evergreen.errors import EvergreenError
from pipeline.flink import cluster, processes
from pipeline.summary import say_problems


def main(arguments: Sequence[str]) -> int:
    """Does what the command line asks for.

    Returns:
        0 done, 1 fault, 2 bad input; of `status` 1 where something does not run.
    """
    options = _parser().parse_args(arguments)
    ports = cluster.Ports(**{name: getattr(options, f"{name}_port") for name in _port_names()})
    layout = cluster.Layout(folder=options.folder, ports=ports)
    try:
        if options.verb == "up":
            cluster.up(layout, workers=options.workers)
        elif options.verb == "down":
            cluster.down(layout)
        else:
            return _status(layout)
    except EvergreenError as error:
        say_problems(error.problems, stream=sys.stderr)
        return int(error.exit_code)
    return 0


def _status(layout: cluster.Layout) -> int:
    names = processes.names(layout.folder)
    for name in names:
        pid = processes.running(layout.folder, name)
        print(f"{name}: " + ("gone" if pid is None else f"process {pid}"))
    if not names:
        print("Nothing of Flink runs here.")
    return 0 if names and all(processes.running(layout.folder, name) for name in names) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.flink", description="Apache Flink on this machine.")
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--workers", type=int, default=2, help="slots and Python workers (default: 2)")
    parser.add_argument("--folder", type=Path, default=Path("runs/.flink"), help="ids, logs (default: runs/.flink)")
    for name in _port_names():
        default = getattr(cluster.Ports(), name)
        parser.add_argument(f"--{name}-port", type=int, default=default, help=f"default: {default}")
    return parser


def _port_names() -> list[str]:
    return [field.name for field in dataclasses.fields(cluster.Ports)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
