"""Trials in processes of their own, from the chief's side: it serves the oracle and has workers started and replaced.

    with serve(oracle) as port, Workers(setting, port=port, count=2) as workers:
        workers.share()
        workers.start("worker0")
        for name, status in workers.ended(timeout=1.0):
            ...

Each worker gets one GPU where there are GPUs, else an equal share of the cores and the same memory with the rows. All
of them end with the `with`, and with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import tensorflow as tf

from trainer import trials

_TEMPLATE = "template"


def devices() -> int:
    """Returns how many trials run at a time: one a GPU, else one a core."""
    gpus = tf.config.list_physical_devices("GPU")
    return len(gpus) or _cores()


@contextlib.contextmanager
def serve(oracle: Any) -> Iterator[int]:
    """Lets workers on this machine ask the oracle, by Keras Tuner's own protocol; gives the port."""
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute import oracle_chief

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    protos.get_service_grpc().add_OracleServicer_to_server(oracle_chief.OracleServicer(oracle), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


class Workers:
    """The workers of a search, forked from one process that has imported TensorFlow."""

    def __init__(self, setting: trials.Setting, *, port: int, count: int) -> None:
        """Begins the import; workers that are asked for meanwhile start after it.

        Args:
            setting: the search.
            port: where the oracle is asked.
            count: workers that share the machine.
        """
        self._setting, self._port, self._count = setting, port, count
        self._files = os.memfd_create("rows-to-train-on"), os.memfd_create("rows-to-judge-by")
        self._shared = False
        os.makedirs(os.path.dirname(self.log(_TEMPLATE)), exist_ok=True)
        with open(self.log(_TEMPLATE), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.tune_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=self._environment(),
                pass_fds=self._files,
                cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            )
        self._tell(json.loads(setting.as_json()))

    def __enter__(self) -> Workers:
        """Gives the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        for file in self._files:
            os.close(file)

    def share(self) -> None:
        """Reads the rows into memory that all workers have, while their process is still importing.

        With GPUs each worker reads for itself: what TensorFlow does here would take hold of all of them.

        Raises:
            BadInput: when the train split has too few rows with a label.
        """
        if tf.config.list_physical_devices("GPU"):
            return
        trials.share(self._setting, self._files)
        self._shared = True

    def start(self, name: str) -> None:
        """Starts a worker; the number at the end of its name says which GPU is its own."""
        environment = {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(self._port),
            "TF_NUM_INTRAOP_THREADS": str(self._threads),
            "TF_NUM_INTEROP_THREADS": str(self._threads),
        }
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            all_ = visible if len(visible) == len(gpus) else [str(place) for place in range(len(gpus))]
            environment["CUDA_VISIBLE_DEVICES"] = all_[int(name.removeprefix("worker")) % len(all_)]
        rows = self._files if self._shared else None
        self._tell({"name": name, "log": self.log(name), "environment": environment, "rows": rows})

    def ended(self, *, timeout: float) -> Iterator[tuple[str, int]]:
        """Yields name and exit status of workers that have ended, waiting at most `timeout` seconds for one.

        Raises:
            RuntimeError: when the process that starts workers is no more.
        """
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], timeout)[0]:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the process that starts workers has ended; see {self.log(_TEMPLATE)}")
            said = json.loads(line)
            yield said["name"], said["status"]
            timeout = 0.0

    def log(self, name: str) -> str:
        """Names the file that a worker's output goes to."""
        return os.path.join(self._setting.folder, "logs", f"{name}.log")

    def _environment(self) -> dict[str, str]:
        """The template's: no cluster of a distributed training, and no thread that a library starts on its import."""
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        return {**environment, "OMP_NUM_THREADS": str(self._threads), "OPENBLAS_NUM_THREADS": "1"}

    @property
    def _threads(self) -> int:
        return max(1, _cores() // self._count)

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
