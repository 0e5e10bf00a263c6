"""Training outside of a pipeline: `run_fn` with arguments out of a JSON file, for a TFJob that trains on many machines.

    python -m trainer.job /mnt/data/training/job.json

Every machine runs the same command; which part it plays it reads from TF_CONFIG, which the training operator sets. The
file has the arguments that TFX's Trainer gives: paths as they are inside the pods, and the configuration.
"""

from __future__ import annotations

import glob
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from evergreen.errors import BadInput, EvergreenError, Problem
from evergreen.settings import Section, TrainerConfig


class Job(Section):
    """The arguments of one training, named as TFX names them in `FnArgs`."""

    train_files: list[str]
    """Patterns of the transformed TFRecord files to train on."""
    eval_files: list[str]
    """Patterns of those that are held against it."""
    transform_graph_path: str
    """The folder of Transform's graph."""
    schema_path: str
    """The schema of the raw data, in text form."""
    serving_model_dir: str
    """Where the SavedModel goes."""
    model_run_dir: str
    """Where logs, checkpoints and training.json go."""
    base_model: str | None = None
    """The SavedModel to start from; a folder that does not exist means none."""
    train_steps: int | None = None
    """Stops after so many steps."""
    eval_steps: int | None = None
    """How many batches of the eval files are looked at after an epoch."""
    custom_config: TrainerConfig
    """Features, model and training, as in the problem's configuration."""


def read_job(path: Path) -> Job:
    """Reads and checks a job file.

    Args:
        path: a JSON file.

    Raises:
        BadInput: with every key that is wrong or missing, and every path that leads nowhere.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        job = Job.model_validate(document)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput([_problem(str(path), str(error), "a JSON file", "Correct the path or the file.")]) from error
    except pydantic.ValidationError as error:
        raise BadInput([_key_problem(path, dict(detail)) for detail in error.errors()]) from error
    problems = list(_missing(job, path))
    if problems:
        raise BadInput(problems)
    return job


def run(job: Job) -> None:
    """Trains.

    Args:
        job: from `read_job`.
    """
    from tfx.components.trainer import fn_args_utils

    from trainer import train

    arguments = job.model_dump(mode="json")
    # `run_fn` tells by a folder that is not there that it starts from nothing.
    arguments["base_model"] = job.base_model or str(Path(job.model_run_dir) / "no-base-model")
    train.run_fn(fn_args_utils.FnArgs(**arguments))


def _missing(job: Job, path: Path) -> Iterator[Problem]:
    for key in ("train_files", "eval_files"):
        for pattern in getattr(job, key):
            if "://" not in pattern and not glob.glob(pattern):
                yield _problem(f"{path}, {key}", f"no file like {pattern}", "TFRecord files", "Correct the pattern.")
    for key in ("transform_graph_path", "schema_path"):
        place = getattr(job, key)
        if "://" not in place and not Path(place).exists():
            yield _problem(f"{path}, {key}", f"nothing at {place}", "what the pipeline wrote", "Correct the path.")


def _key_problem(path: Path, detail: dict[str, Any]) -> Problem:
    key = ".".join(str(part) for part in detail["loc"])
    found = "nothing" if detail["type"] == "missing" else repr(detail.get("input"))[:80]
    return _problem(f"{path}, {key}", found, detail["msg"][:1].lower() + detail["msg"][1:], "Correct the key.")


def _problem(where: str, found: str, expected: str, action: str) -> Problem:
    return Problem(where=where, found=found, expected=expected, action=action)


def main(arguments: Sequence[str]) -> int:
    """Trains what the command line names.

    Args:
        arguments: the job file.

    Returns:
        The exit code: 0 trained, 2 bad input.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if len(arguments) != 1:
            found = f"{len(arguments)} arguments"
            raise BadInput([_problem("trainer.job", found, "one, the job file", "Write python -m trainer.job FILE.")])
        run(read_job(Path(arguments[0])))
    except EvergreenError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
