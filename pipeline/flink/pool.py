"""Beam's external worker pool with workers that have imported TFX before they are asked for.

`python -m pipeline.flink.pool --port 50000 --logs DIR` serves `BeamFnExternalWorkerPool` on loopback. Beam's own pool
starts a bare Python for every worker of every job, which then imports TensorFlow and TFX for ten seconds. Here one
process does that once and forks: a worker starts in a tenth of a second, whatever the number of jobs, and shares the
libraries' memory. The process that forks has one thread and never speaks gRPC, for neither threads nor gRPC survive a
fork; the server is a small process beside it, and both talk over a pair of sockets, a line of JSON each way.

Guarantee: no worker outlives the pool, and neither half of it the other, however they end; a worker runs the code that
is on the disk when it starts: where a module of this project has changed since, the worker imports everything itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

WARM = (
    "apache_beam.runners.worker.sdk_worker_main",
    "components.evaluator.executor",
    "components.example_gen.executor",
    "components.statistics_gen.executor",
    "components.transform.executor",
    "transform.preprocessing",
)
"""What a worker finds imported already."""
_PR_SET_PDEATHSIG = 1
_REAP_EVERY = 1.0


def main(arguments: Sequence[str]) -> int:
    """Serves until it is terminated."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.flink.pool")
    parser.add_argument("--port", type=int, default=50000)
    parser.add_argument("--logs", type=Path, required=True, help="folder of the workers' logs, a file each")
    parser.add_argument("--worker", metavar="JSON", help="be one worker rather than a pool")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.worker:
        _work(json.loads(options.worker))
        return 0
    ours, servers = socket.socketpair()
    server = _fork()
    if server == 0:
        ours.close()
        _exit_with(lambda: _serve(options.port, servers))
    servers.close()
    _terminate_on_sigterm()
    _Forge(ours, options.logs).work()
    return 0


def _fork() -> int:
    """Forks a process that dies with this one."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _exit_with(work: Any) -> NoReturn:
    """Does the work of a forked process, and nothing of what its parent would do afterwards."""
    status = 0
    try:
        work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 nothing may get past the fork
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _terminate_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


# --- the server ------------------------------------------------------------------------------------------------------


def _serve(port: int, forge: socket.socket) -> None:
    """Answers Beam's runner; asks the other half for every worker."""
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

    lines = forge.makefile("rw", encoding="utf-8")
    one_at_a_time = threading.Lock()

    def ask(question: Mapping[str, Any]) -> str:
        with one_at_a_time:
            lines.write(json.dumps(question) + "\n")
            lines.flush()
            answer = lines.readline()
        if not answer:
            os._exit(0)
        return str(json.loads(answer)["error"])

    class Servicer(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
        def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 Beam's interface
            error = ask(
                {
                    "start": request.worker_id,
                    "control": request.control_endpoint.url,
                    "logging": request.logging_endpoint.url,
                    "provision": request.provision_endpoint.url,
                }
            )
            return beam_fn_api_pb2.StartWorkerResponse(error=error)

        def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 Beam's interface
            return beam_fn_api_pb2.StopWorkerResponse(error=ask({"stop": request.worker_id}))

    server = grpc.server(futures.ThreadPoolExecutor(4))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Servicer(), server)
    if not server.add_insecure_port(f"127.0.0.1:{port}"):
        raise OSError(f"port {port} is taken")
    server.start()
    server.wait_for_termination()


# --- the process that forks ------------------------------------------------------------------------------------------


class _Forge:
    """Imports once, then forks a worker for every request."""

    def __init__(self, server: socket.socket, logs: Path) -> None:
        self._server = server
        self._logs = logs
        self._workers: dict[str, int] = {}
        self._count = 0
        self._imported: Mapping[str, int] = {}

    def work(self) -> None:
        began = time.monotonic()
        for name in WARM:
            importlib.import_module(name)
        self._imported = _modules()
        logging.info("Warm after %.1f s.", time.monotonic() - began)
        with self._server.makefile("rw", encoding="utf-8") as lines:
            for question in self._questions(lines):
                try:
                    if "start" in question:
                        self._start(question)
                    else:
                        self._stop(question["stop"])
                    error = ""
                except OSError as failure:
                    error = str(failure)
                lines.write(json.dumps({"error": error}) + "\n")
                lines.flush()

    def _questions(self, lines: Any) -> Iterator[Mapping[str, str]]:
        """Yields what the server asks for, until it is gone; takes note of workers that ended in between."""
        while True:
            while not select.select([self._server], [], [], _REAP_EVERY)[0]:
                self._reap()
            self._reap()
            line = lines.readline()
            if not line:
                return
            yield json.loads(line)

    def _start(self, request: Mapping[str, str]) -> None:
        self._count += 1
        log = self._logs / f"worker-{self._count:04d}.log"
        began = time.monotonic()
        pid = _fork()
        if pid == 0:
            self._server.close()
            _exit_with(lambda: self._become(request, log))
        self._workers[request["start"]] = pid
        logging.info("Worker %s is process %d after %.3f s.", request["start"], pid, time.monotonic() - began)

    def _become(self, request: Mapping[str, str], log: Path) -> None:
        """Is a worker, in a process of its own."""
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if _modules() != self._imported:
            # The wish to die with the pool outlives `exec`.
            command = [sys.executable, "-m", __spec__.name, "--logs", str(self._logs), "--worker", json.dumps(request)]
            os.execv(sys.executable, command)  # noqa: S606 this very program
        _work(request)

    def _stop(self, worker: str) -> None:
        pid = self._workers.pop(worker, None)
        if pid is None:
            return
        # A worker whose job is over has nothing to save, and one that waits for a lost runner would wait for long.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        logging.info("Worker %s (process %d) is stopped.", worker, pid)

    def _reap(self) -> None:
        for worker, pid in list(self._workers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._workers[worker]
                logging.info("Worker %s (process %d) ended with %d.", worker, pid, os.waitstatus_to_exitcode(status))


def _modules() -> dict[str, int]:
    """Returns when the files of this project's imported modules were written."""
    root = Path(__file__).resolve().parents[2]
    files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    ours = [file for file in files if file.is_relative_to(root) and "site-packages" not in file.parts]
    return {str(file): file.stat().st_mtime_ns if file.exists() else 0 for file in ours}


# --- a worker --------------------------------------------------------------------------------------------------------


def _work(request: Mapping[str, str]) -> None:
    """Is a worker of Beam until its runner has no more use for it."""
    from apache_beam.runners.worker import sdk_worker_main

    logging.info("Process %d is worker %s.", os.getpid(), request["start"])
    _, harness, _ = sdk_worker_main.create_harness(
        {
            "WORKER_ID": request["start"],
            "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{request["control"]}"',
            "LOGGING_API_SERVICE_DESCRIPTOR": f'url: "{request["logging"]}"',
            "PIPELINE_OPTIONS": _pipeline_options(request["provision"], request["start"]),
        }
    )
    # What Beam's main does beyond this is for Google's profiler.
    with contextlib.suppress(KeyboardInterrupt):
        harness.run()


def _pipeline_options(endpoint: str, worker: str) -> str:
    """Asks the runner for the options of the job, as JSON."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from google.protobuf import json_format

    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        response = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", worker)], timeout=60
        )
    return json_format.MessageToJson(response.info.pipeline_options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
