"""Prints what the imports of each node's executor cost a step, as TFX's own entrypoint loads them and as ours does.

An image without byte code is the first column: what TFX's entrypoint costs in every step of it.

python -m tests.cluster.imports
"""

from __future__ import annotations

import os
import subprocess
import sys

EXECUTORS = {
    "ExampleGen": "components.example_gen.executor",
    "StatisticsGen": "components.statistics_gen.executor",
    "ImportSchemaGen": "tfx.components.schema_gen.import_schema_gen.executor",
    "Champion": "components.champion.executor",
    "ExampleValidator": "components.example_validator.executor",
    "Transform": "components.transform.executor",
    "Trainer": "tfx.components.trainer.executor",
    "Evaluator": "components.evaluator.executor",
    "Pusher": "components.pusher.executor",
}
_TFX = "from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor"
_OURS = """
from components.entrypoint import lean
lean.prepare(without_tensorflow=True)
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.orchestration.portable import outputs_utils
"""
_MEASURED = """
import importlib, resource
importlib.import_module({executor!r})
used = resource.getrusage(resource.RUSAGE_SELF)
print("USED", used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def measure(loading: str, executor: str, *, times: int = 3, byte_code: bool = True) -> tuple[float, float]:
    """Returns the CPU seconds and the MiB of memory of a process that loads an executor; the best of `times`."""
    nowhere = {} if byte_code else {"PYTHONPYCACHEPREFIX": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}
    code = loading + _MEASURED.format(executor=executor)
    took = []
    for _ in range(times):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, **nowhere},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, mebibytes = ended.stdout.split("USED")[-1].split()
        took.append((float(seconds), float(mebibytes)))
    return min(took)


if __name__ == "__main__":
    print("| node | TFX's entrypoint, no byte code | TFX's entrypoint | ours |\n|---|---|---|---|")
    sums = [0.0, 0.0, 0.0]
    for node, executor in EXECUTORS.items():
        naive = measure(_TFX, executor, times=1, byte_code=False)
        taken = (naive, measure(_TFX, executor), measure(_OURS, executor))
        sums = [total + seconds for total, (seconds, _) in zip(sums, taken, strict=True)]
        print(f"| {node} | {' | '.join(f'{seconds:.1f} s, {size:.0f} MiB' for seconds, size in taken)} |", flush=True)
    print(f"| all | {' | '.join(f'{total:.1f} s' for total in sums)} |")
