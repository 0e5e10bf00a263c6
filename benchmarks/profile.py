"""Where the time of each data node goes, ours or stock: a profile of every node of a run over the taxi-like table.

    python -m benchmarks.profile                             # ours, 300,000 rows
    python -m benchmarks.profile --side stock
    python -m benchmarks.profile --rows 3000                 # what does not grow with the rows

Each node runs under cProfile, which makes Python slower and C++ not: the shares are to be read with that in mind. A
function's own time counts for the package that it belongs to, that of C code for the package that called it; what a
node does in other threads is in none. The profiles themselves are kept in `benchmarks/out/profile-SIDE`, one a node,
for `python -m pstats`.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import re
import runpy
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import data, harness
from benchmarks.pipeline import OUT, QUIET, ROLES, ROOT

WORK = {
    "tracing of graphs": r"polymorphic_function/tracing_compilation.py:\d+\(trace_function\)",
    "signatures of DoFns": r"apache_beam/transforms/userstate.py:\d+\(get_dofn_specs\)",
    "pickling": r"apache_beam/internal/pickler.py:\d+\((dumps|loads)\)",
    "tf.Examples, reading and decoding": r"(records/reading.py:\d+\(read\)|example_coder.py:\d+\(DecodeBatch\))",
    "tf.Examples, encoding": r"(records/encoding.py:\d+\(encode\)|example_coder.py:\d+\(encode\))",
    "TFRecord, writing": r"(records/writing.py:\d+\(append\)|tfrecordio.py:\d+\(write_record\))",
}
"""What to tell besides: the functions, by what they do. One may call another, and all count for a package."""


def main(arguments: Sequence[str]) -> int:
    """Runs a side under the profiler and prints the shares of each node."""
    options = _parser().parse_args(arguments)
    if options.child:
        _child(options.child, options.rest[1:])  # the first one only parts the two commands
        return 0
    kept = OUT / f"profile-{options.side}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    work = Path(tempfile.mkdtemp(prefix="evergreen-profile-"))
    try:
        config = data.write_problem(work / "table", rows=options.rows)
        make = data.our_command if options.side == "ours" else data.stock_command
        (work / "run").mkdir()
        command = make(config, work / "run")
        profiled = [sys.executable, "-m", "benchmarks.profile", "--child", str(kept), "--", *command[1:]]
        harness.run_measured(profiled, cwd=ROOT, log=OUT / f"profile-{options.side}.log", environment=QUIET)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{options.side}, {options.rows:,} rows; {harness.machine()}; profiles in {kept}")
    for name in data.NODES:
        print("\n" + "\n".join(told(name, kept / f"{name}.prof")))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Where the time of a node goes.")
    parser.add_argument("--side", choices=("ours", "stock"), default="ours")
    parser.add_argument("--rows", type=int, default=data.SMALL, help=f"rows of the table (default: {data.SMALL})")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _child(kept: Path, command: Sequence[str]) -> None:
    """Runs a command of Python in this process, each node's launch under a profiler of its own."""
    from tfx.orchestration.portable import launcher

    class ProfilingLauncher(launcher.Launcher):
        """TFX's launcher with a profiler around it."""

        def launch(self) -> Any:
            name = self._pipeline_node.node_info.id
            profile = cProfile.Profile()
            try:
                return profile.runcall(super().launch)
            finally:
                profile.dump_stats(kept / f"{ROLES.get(name, name)}.prof")

    # Both runners make their launchers themselves, from the class that they find in its module.
    launcher.Launcher = ProfilingLauncher
    is_module = command[0] == "-m"
    sys.argv = list(command[1:] if is_module else command)
    try:
        if is_module:
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise


def told(name: str, path: Path) -> list[str]:
    """Returns the lines about one node: seconds by package, and of the work that `WORK` names."""
    stats: Any = pstats.Stats(str(path))
    own, work = by_package(stats.stats), by_work(stats.stats)
    lines = [f"{name}: {stats.total_tt:.1f} s under the profiler"]
    lines += [f"  {seconds:6.1f} s  {package}" for package, seconds in own.most_common(8) if seconds >= 0.05]
    return lines + [f"  {seconds:6.1f} s  of it {what}" for what, seconds in work.most_common() if seconds >= 0.05]


def by_package(stats: dict[Any, Any]) -> Counter[str]:
    """Adds up the functions' own seconds by package; those of C code go to who called it."""
    found: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, callers) in stats.items():
        if file != "~":
            found[_package(file)] += own
            continue
        for (caller, _, _), (_, _, seconds, _) in callers.items():
            found[_package(caller) if caller != "~" else f"C code ({name})"] += seconds
    return found


def by_work(stats: dict[Any, Any]) -> Counter[str]:
    """Adds up the seconds of the functions that `WORK` names, with all that they call."""
    found: Counter[str] = Counter()
    for (file, line, name), (_, _, _, seconds, _) in stats.items():
        for what, pattern in WORK.items():
            if re.search(pattern, f"{file}:{line}({name})"):
                found[what] += seconds
    return found


def _package(file: str) -> str:
    if "site-packages/" in file:
        return file.split("site-packages/")[1].split("/", maxsplit=1)[0].removesuffix(".py")
    if file.startswith(str(ROOT)):
        return "/".join(Path(file).relative_to(ROOT).parts[:2]).removesuffix(".py")
    return "Python's own library"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
