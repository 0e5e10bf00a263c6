"""The worker processes of a search: one process imports TensorFlow and forks itself for every worker.

    python -m trainer.tune_worker       # the chief's `trainer.workers` starts it

The import takes seconds of a core, which N workers would spend N times; after it no thread runs that a fork would lose,
and TensorFlow has not looked at devices or numbers of threads yet: each worker still gets its own. The first line of
standard input is the search, each further one a worker to start; each line of standard output is a worker that ended.
When standard input ends, because the chief is through or was killed, all workers end too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from typing import IO, Any

from trainer import trials


def main() -> None:
    """Starts workers until there is nobody left to ask for one."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0) as asked:
        setting = trials.Setting.from_json(asked.readline().decode())
        running: dict[int, tuple[str, int]] = {}
        try:
            _follow(setting, asked, answers, running)
        finally:
            for _, process in running.values():
                os.kill(process, signal.SIGKILL)


def _follow(setting: trials.Setting, asked: IO[bytes], answers: IO[str], running: dict[int, tuple[str, int]]) -> None:
    """Starts what is asked for and says what has ended; `running` are name and process by the pipe that each holds."""
    while True:
        ready, _, _ = select.select([asked.fileno(), *running], [], [])
        for ended in ready:
            if ended == asked.fileno():
                continue
            name, process = running.pop(ended)
            os.close(ended)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            print(json.dumps({"name": name, "status": status}), file=answers, flush=True)
        if asked.fileno() in ready:
            line = asked.readline()
            if not line:
                return
            wanted = json.loads(line)
            until, process = _fork(setting, wanted)
            running[until] = (wanted["name"], process)


def _fork(setting: trials.Setting, wanted: dict[str, Any]) -> tuple[int, int]:
    """Starts a worker; returns a pipe that is readable as soon as it has ended, and its process."""
    until, held = os.pipe()
    process = os.fork()
    if process:
        os.close(held)
        return until, process
    status = 1
    try:
        log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(wanted["environment"])
        shared = None if wanted["rows"] is None else tuple(wanted["rows"])
        trials.TrialRunner(setting, trials.oracle(setting), shared=shared).search()
        status = 0
    except BaseException:  # noqa: BLE001  a fork must not run on in what its parent was doing
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
