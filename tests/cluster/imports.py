"""Prints what a step costs before and after its work: loading the executor and ending, with TFX's entrypoint and ours.

An image without byte code is the first column: what TFX's entrypoint costs in every step of it.

python -m tests.cluster.imports
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

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
_TFX = """
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
import importlib
importlib.import_module({executor!r})
"""
_OURS = """
from components.entrypoint import __main__, lean
lean.prepare(without_tensorflow=True)
with lean.without_collecting():
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
    from tfx.orchestration.portable import outputs_utils
    import importlib
    importlib.import_module({executor!r})
__main__.leave(0)
"""


def measure(code: str, executor: str, *, times: int = 3, byte_code: bool = True) -> tuple[float, float]:
    """Returns CPU seconds and MiB of memory of a process that loads an executor and ends; the best of `times`."""
    nowhere = {} if byte_code else {"PYTHONPYCACHEPREFIX": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-W", "ignore", "-c", code.format(executor=executor)]
    took = []
    for _ in range(times):
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(words, env={**os.environ, **nowhere}, stdout=said, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            assert process.returncode == 0, said.read().decode()
        took.append((used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
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
