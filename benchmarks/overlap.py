"""Whether two nodes at once are faster than one after the other on this machine: StatisticsGen beside Transform.

    python -m benchmarks.overlap

Both read the same splits of the table of `benchmarks.data`. Each is a process that has imported everything before the
clock runs; once they run one after the other, once together.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import data, harness
from benchmarks.pipeline import OUT, ROOT

NODES = ("StatisticsGen", "Transform")
BEAM = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]


def main(arguments: Sequence[str]) -> int:
    """Measures, prints the table and writes `benchmarks/out/overlap.json`; with `--node` it is one of the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap", description="Two nodes at once.")
    parser.add_argument("--rows", type=int, default=data.SMALL, help=f"of the table (default: {data.SMALL})")
    parser.add_argument("--node", choices=("ExampleGen", *NODES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.node:
        return _be(options.node, options.folder)
    with tempfile.TemporaryDirectory(prefix="evergreen-overlap-") as name:
        folder = Path(name)
        data.write_problem(folder, rows=options.rows)
        (folder / "schema").mkdir()
        shutil.copy(folder / "schema.pbtxt", folder / "schema")
        _run(folder, ["ExampleGen"])
        apart = {node: _run(folder, [node]) for node in NODES}
        together = _run(folder, NODES)
    figures = [
        harness.Figure(case=node, metric="seconds", unit="s", ours=taken, stock=None) for node, taken in apart.items()
    ]
    figures += [
        harness.Figure(case="one after the other", metric="seconds", unit="s", ours=sum(apart.values()), stock=None),
        harness.Figure(case="together", metric="seconds", unit="s", ours=together, stock=None),
    ]
    print(f"{options.rows:,} rows; {harness.machine()}")
    print(harness.table(figures))
    harness.write(figures, OUT / "overlap.json")
    return 0


def _run(folder: Path, nodes: Sequence[str]) -> float:
    """Starts the nodes at the same moment, when all of them are ready; returns the seconds until all are done."""
    command = [sys.executable, "-m", "benchmarks.overlap", "--folder", str(folder), "--node"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*command, node], cwd=ROOT, text=True, **pipes) for node in nodes]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    if any(process.returncode for process in processes):
        raise harness.Failed(f"{', '.join(nodes)} ended with {[process.returncode for process in processes]}")
    return time.monotonic() - began


def _be(node: str, folder: Path) -> int:
    """Imports everything, says so, and runs the node when it is told to."""
    work = _prepared(node, folder)
    print("ready", flush=True)
    sys.stdin.readline()
    work()
    return 0


def _prepared(node: str, folder: Path) -> Any:
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    from components.example_gen.component import ExampleGen
    from pipeline import config

    problem = config.load_config(folder / "taxi.yaml")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=BEAM, tmp_dir=str(folder / "tmp" / node), unique_id="1"
    )
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    examples.split_names = json.dumps(list(problem.data.splits))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    if node == "ExampleGen":
        from components.example_gen import executor as example_gen

        spec = ExampleGen(problem.data, schema_path=problem.schema_path).spec
        return lambda: example_gen.Executor(context).Do({}, {"examples": [examples]}, dict(spec.exec_properties))
    if node == "StatisticsGen":
        from components.statistics_gen import executor as statistics_gen

        statistics = standard_artifacts.ExampleStatistics()
        statistics.uri = str(folder / "statistics" / str(time.time_ns()))
        return lambda: statistics_gen.Executor(context).Do({"examples": [examples]}, {"statistics": [statistics]}, {})
    from components.transform import executor as transform

    schema, graph = standard_artifacts.Schema(), standard_artifacts.TransformGraph()
    transformed = standard_artifacts.Examples()
    # TFX reads the only file of the folder.
    schema.uri = str(folder / "schema")
    out = folder / "transform" / str(time.time_ns())
    graph.uri, transformed.uri = str(out / "graph"), str(out / "examples")
    properties = {
        "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
        "custom_config": json.dumps(problem.preprocessing().model_dump(mode="json")),
        "disable_statistics": 1,
        "force_tf_compat_v1": 0,
    }
    outputs = {"transform_graph": [graph], "transformed_examples": [transformed]}
    return lambda: transform.Executor(context).Do({"examples": [examples], "schema": [schema]}, outputs, properties)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
