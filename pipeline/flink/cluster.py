"""A Flink cluster, Beam's job server and a pool of Python workers, on this machine and for it.

    up(Layout(folder=Path("runs/.flink")), workers=2)     # then: python local_runner.py --environment flink
    down(Layout(folder=Path("runs/.flink")))

One JobManager, one TaskManager with a slot for each worker, the job server that Beam's PortableRunner speaks to, and
the pool of `pool.py`. Each is a process with a file of its own in the folder, beside its log. All listen on loopback,
but for the job server's ports for jobs and artifacts: Beam's server takes no address to listen on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from evergreen.errors import BadInput, EvergreenError, Problem
from evergreen.files import write_whole
from evergreen.lock import exclusive
from pipeline.flink import install, processes

HOST = "127.0.0.1"
_PATIENCE = 120.0
"""Seconds that a process has until it answers."""
_OPENED = ("java.lang", "java.util", "java.nio", "java.net", "sun.nio.ch", "java.util.concurrent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ports:
    """Where each server listens."""

    rest: int = 8081
    """Flink's page and its REST interface."""
    rpc: int = 6123
    job: int = 8099
    """What a pipeline's `job_endpoint` names."""
    artifact: int = 8098
    expansion: int = 8097
    pool: int = 50000
    """What a pipeline's `environment_config` names."""

    @classmethod
    def free(cls) -> Ports:
        """Finds ports that nobody listens on now."""
        with contextlib.ExitStack() as stack:
            names = [field.name for field in dataclasses.fields(cls)]
            found = {}
            for name in names:
                listener = stack.enter_context(socket.socket())
                listener.bind((HOST, 0))
                found[name] = listener.getsockname()[1]
            return cls(**found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a cluster lives."""

    folder: Path
    ports: Ports = Ports()
    cache: Path = dataclasses.field(default_factory=install.default_cache)

    @property
    def workers(self) -> Path:
        """The folder of the Python workers' logs."""
        return self.folder / "workers"


def up(layout: Layout, *, workers: int, say: Callable[[str], None] = print) -> None:
    """Starts what does not run yet, and waits until all of it answers.

    Args:
        layout: folder, ports and cache.
        workers: slots of the TaskManager, each served by a Python worker of its own.
        say: is told what goes on.

    Raises:
        BadInput: a port is taken, or something cannot be fetched.
        Fault: a process ended, or does not answer; all that was started is ended again.
        Busy: another command is at work in the folder.
    """
    flink, server = install.jars(cache=layout.cache, say=say)
    folder, ports = layout.folder, layout.ports
    with exclusive(folder / ".lock", doing="flink-up"):
        if processes.names(folder) and all(processes.running(folder, name) for name in processes.names(folder)):
            say(f"Flink runs already: http://{HOST}:{ports.rest}")
            return
        _down(layout)
        _check_ports(ports)
        layout.workers.mkdir(parents=True, exist_ok=True)
        _configure(layout, workers)
        try:
            for name, command in _commands(layout, flink, server).items():
                processes.start(folder, name, command, environment=_environment(layout))
            _wait(layout, workers)
        except BaseException:
            _down(layout)
            raise
    say(f"Flink has {workers} slots: http://{HOST}:{ports.rest}; logs and ids of its processes are in {folder}")


def down(layout: Layout, *, say: Callable[[str], None] = print) -> None:
    """Ends the processes of the folder, each by its own id, the last one that was started first."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(layout.folder / ".lock", doing="flink-down"):
        ended = _down(layout)
    say(f"Ended: {', '.join(ended)}." if ended else "Nothing of Flink runs here.")


def _down(layout: Layout) -> list[str]:
    return [name for name in reversed(processes.names(layout.folder)) if processes.stop(layout.folder, name)]


class Fault(EvergreenError):
    """A process of the cluster does not do what it should."""


def options(ports: Ports, *, workers: int) -> dict[str, str | int]:
    """Returns the pipeline options that bring Beam's work to the cluster."""
    return {
        "job_endpoint": f"{HOST}:{ports.job}",
        "artifact_endpoint": f"{HOST}:{ports.artifact}",
        "environment_type": "EXTERNAL",
        "environment_config": f"{HOST}:{ports.pool}",
        "parallelism": workers,
        "sdk_worker_parallelism": workers,
    }


# --- before ----------------------------------------------------------------------------------------------------------


def _check_ports(ports: Ports) -> None:
    problems = []
    for name, port in dataclasses.asdict(ports).items():
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                problems.append(
                    Problem(
                        where=f"port {port} ({name})",
                        found=str(error),
                        expected="a free port on loopback",
                        action=f"End what listens there, or name another one: --{name}-port.",
                    )
                )
    if problems:
        raise BadInput(problems)


def _configure(layout: Layout, workers: int) -> None:
    """Writes Flink's configuration; without Flink's own scripts every part of the memory has to be told."""
    ports = layout.ports
    network = 320 + 320 * workers
    settings = {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": ports.rpc,
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": ports.rest,
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": workers,
        "taskmanager.cpu.cores": float(workers),
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.task.heap.size": f"{512 + 256 * workers}m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.off-heap.size": "256m",
        "taskmanager.memory.managed.size": f"{128 * workers}m",
        "taskmanager.memory.network.min": f"{network}m",
        "taskmanager.memory.network.max": f"{network}m",
        "taskmanager.memory.jvm-metaspace.size": "384m",
        "taskmanager.memory.jvm-overhead.min": "128m",
        "taskmanager.memory.jvm-overhead.max": "128m",
        # The many small shuffles of TFX's pipelines take more buffers than there are by default.
        "taskmanager.network.sort-shuffle.min-buffers": 64,
        "io.tmp.dirs": str((layout.folder / "tmp").resolve()),
        # A worker that dies fails what it worked on, which is done again; nothing is done again for ever.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 3,
        "restart-strategy.fixed-delay.delay": "1 s",
        "web.submit.enable": False,
        "parallelism.default": workers,
    }
    (layout.folder / "tmp").mkdir(exist_ok=True)
    conf = layout.folder / "conf"
    conf.mkdir(exist_ok=True)
    write_whole(conf / "config.yaml", yaml.safe_dump(settings))
    write_whole(conf / "log4j.properties", _LOG4J)


_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
logger.beam.name = org.apache.beam
logger.beam.level = INFO
logger.flink.name = org.apache.flink.runtime
logger.flink.level = INFO
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


def _commands(layout: Layout, flink: Sequence[Path], server: Sequence[Path]) -> dict[str, list[str]]:
    """Returns the command of each process, in the order in which they start."""
    ports, conf = layout.ports, layout.folder.resolve() / "conf"
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    java = ["java", *opened, f"-Dlog4j.configurationFile={conf}/log4j.properties", "-XX:+UseSerialGC"]
    # Flink runs what Beam made of a pipeline with the jars that it starts with; see `install`.
    cluster_classpath = _classpath([*flink, *_without(server, "flink-", "slf4j-")])
    entry = "org.apache.flink.runtime"
    job_server = "org.apache.beam.runners.flink.FlinkJobServerDriver"
    addresses = {"job": ports.job, "artifact": ports.artifact, "expansion": ports.expansion}
    return {
        "pool": [
            sys.executable, "-m", "pipeline.flink.pool",
            "--port", str(ports.pool), "--logs", str(layout.workers.resolve()),
        ],
        "jobmanager": [
            *java, "-Xmx768m", "-cp", cluster_classpath,
            f"{entry}.entrypoint.StandaloneSessionClusterEntrypoint", "--configDir", str(conf),
        ],
        "taskmanager": [
            *java, "-Xmx1280m", "-XX:MaxDirectMemorySize=1536m", "-cp", cluster_classpath,
            f"{entry}.taskexecutor.TaskManagerRunner", "--configDir", str(conf),
        ],
        "job-server": [
            *java, "-Xmx768m", "-cp", _classpath([*server, *_only(flink, "log4j-")]), job_server,
            f"--job-host={HOST}", *(f"--{name}-port={port}" for name, port in addresses.items()),
            f"--flink-master={HOST}:{ports.rest}", f"--artifacts-dir={layout.folder.resolve() / 'artifacts'}",
            f"--flink-conf-dir={conf}",
        ],
    }  # fmt: skip


def _only(jars: Sequence[Path], *beginnings: str) -> list[Path]:
    return [jar for jar in jars if jar.name.startswith(beginnings)]


def _without(jars: Sequence[Path], *beginnings: str) -> list[Path]:
    return [jar for jar in jars if not jar.name.startswith(beginnings)]


def _classpath(jars: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, jars))


def _environment(layout: Layout) -> dict[str, str]:
    # What a variable of the user's own cluster says is not meant for this one.
    return {"FLINK_CONF_DIR": str(layout.folder.resolve() / "conf"), "TF_CPP_MIN_LOG_LEVEL": "2"}


# --- after -----------------------------------------------------------------------------------------------------------


def _wait(layout: Layout, workers: int) -> None:
    """Waits until every server answers and the TaskManager has reported its slots."""
    ports = layout.ports
    checks: dict[str, tuple[str, Callable[[], bool]]] = {
        "pool": ("listens", lambda: _listens(ports.pool)),
        "jobmanager": ("listens", lambda: _listens(ports.rest)),
        "taskmanager": ("has reported its slots", lambda: _slots(ports.rest) >= workers),
        "job-server": ("listens", lambda: _listens(ports.job) and _listens(ports.artifact)),
    }
    for name, (what, is_so) in checks.items():
        for _ in _moments(_PATIENCE):
            if is_so():
                break
            if processes.running(layout.folder, name) is None:
                raise Fault([_fault(layout, name, "the process has ended")])
        else:
            raise Fault([_fault(layout, name, f"no sign that it {what} after {_PATIENCE:.0f} s")])


def _moments(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)


def _fault(layout: Layout, name: str, found: str) -> Problem:
    log = layout.folder / f"{name}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if log.exists() else []
    return Problem(
        where=name,
        found="\n".join([found, *lines]),
        expected="a server that answers",
        action=f"Read {log}; all that was started is ended again.",
    )


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _slots(port: int) -> int:
    """Returns how many slots the JobManager knows."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/overview", timeout=2) as answer:
            return int(json.load(answer)["slots-total"])
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return 0
