#!/usr/bin/env python3
"""The command line on one machine: run the pipeline, add a span of data, ask the serving model."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent
VERBS = ("run", "new-span", "predict")


def main(arguments: Sequence[str]) -> int:
    """Does what the command line asks for.

    Args:
        arguments: the command line without the program's name; without a verb it means `run`.

    Returns:
        The exit code: 0 done, 1 fault, 2 bad input, 3 refused by a gate, 4 busy, 130 stopped.
    """
    options = _parser().parse_args(_with_verb(arguments))
    _use_project_python()
    from evergreen.errors import EvergreenError
    from pipeline.summary import say_problems

    options.called_from = Path.cwd()
    for name in ("config", "environment"):
        setattr(options, name, (options.called_from / getattr(options, name)).resolve())
    # Paths inside the configuration are relative to the project, wherever the command is given.
    os.chdir(ROOT)
    try:
        return int({"run": _run, "new-span": _new_span, "predict": _predict}[options.verb](options))
    except EvergreenError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}:", file=sys.stderr)
        say_problems(error.problems, stream=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        default=str(ROOT / "configs" / "humidity.yaml"),
        metavar="FILE",
        help="the problem: data, features, model, gates (default: configs/humidity.yaml)",
    )
    common.add_argument(
        "--environment",
        default=str(ROOT / "configs" / "environments" / "local.yaml"),
        metavar="FILE",
        help="where it runs: folders, registry, Beam (default: configs/environments/local.yaml)",
    )
    parser = argparse.ArgumentParser(
        prog="local_runner.py",
        description="Evergreen on one machine. Without a verb it runs the pipeline.",
        epilog="`local_runner.py run --help` lists the options of a run. Exit codes: 0 done, 1 fault, 2 bad input, "
        "3 refused by a gate, 4 another run is going on, 130 stopped.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="{run,new-span,predict}", required=True)

    run = verbs.add_parser("run", parents=[common], help="run the pipeline; what has not changed is not done again")
    run.add_argument("--spans", metavar="N or N-M", help="train on these spans rather than on the latest window")
    run.add_argument("--from", dest="from_node", metavar="NODE", help="do this node and all after it again")
    run.add_argument("--to", dest="to_node", metavar="NODE", help="stop after this node")
    run.add_argument("--no-cache", action="store_true", help="do every node again")
    run.add_argument(
        "--fresh", action="store_true", help="forget artifacts and metadata of earlier runs (the registry stays)"
    )

    span = verbs.add_parser("new-span", parents=[common], help="add the next span of the built-in data")
    span.add_argument("--rows", type=int, default=20_000, help="rows of the span (default: 20000)")
    span.add_argument("--seed", type=int, help="seed of the generator (default: the built-in one)")
    span.add_argument("--drift", type=float, default=0.0, help="by how much the inputs move (default: 0)")
    span.add_argument("--fault", metavar="NAME", help="spoil the span, to see what the gates do (try: help)")

    predict = verbs.add_parser("predict", parents=[common], help="ask the serving model")
    predict.add_argument(
        "file", nargs="?", default="-", help="JSON lines, or CSV with a header (default: standard input)"
    )
    predict.add_argument(
        "--format", choices=("jsonl", "csv"), help="default: by the file's name, else by its first line"
    )
    predict.add_argument("--version", type=int, help="a version of the model (default: the one that serves)")
    predict.add_argument("--output", metavar="FILE", help="where the answers go (default: standard output)")
    return parser


def _with_verb(arguments: Sequence[str]) -> Sequence[str]:
    """Puts `run` first where no verb is given; `--help` alone shows all verbs."""
    if arguments and (arguments[0] in VERBS or arguments[0] in ("-h", "--help")):
        return arguments
    return ["run", *arguments]


def _use_project_python() -> None:
    """Goes on in the project's own environment when it was started with another Python."""
    python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("tfx") is not None:
        return
    if python.is_file() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - the project's own interpreter
    sys.exit("Evergreen's environment is not there yet: `make run` makes it (or activate the one that holds tfx).")


def _command(options: argparse.Namespace) -> str:
    """Returns the command that resumes: the same run without what would do finished work again."""
    words = ["python", "local_runner.py"]
    for name, default in (("config", "configs/humidity.yaml"), ("environment", "configs/environments/local.yaml")):
        path = getattr(options, name)
        shown = os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)
        if shown != default:
            words += [f"--{name}", shown]
    if getattr(options, "spans", None):
        words += ["--spans", options.spans]
    return shlex.join(words)


def _run(options: argparse.Namespace) -> int:
    from pipeline import config

    problem, environment = config.load(options.config, options.environment)
    from pipeline import local

    return local.run(
        local.Request(
            config=problem,
            environment=environment,
            command=_command(options),
            spans=options.spans,
            from_node=options.from_node,
            to_node=options.to_node,
            cache=not options.no_cache,
            fresh=options.fresh,
        )
    )


def _new_span(options: argparse.Namespace) -> int:
    from pipeline import config, data

    problem, _ = config.load(options.config, options.environment)
    path = data.add_span(problem, rows=options.rows, seed=options.seed, drift=options.drift, fault=options.fault)
    print(f"Added {path}. Next: {_command(options)}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    # TensorFlow's start-up chatter would stand between the answers; what goes wrong reaches the user as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    from pipeline import config
    from serving.predictor import run_predict

    problem, environment = config.load(options.config, options.environment)
    with _opened(options.output, options.called_from) as out:
        return run_predict(
            registry=environment.registry,
            name=problem.name,
            version=options.version,
            source=None if options.file == "-" else options.called_from / options.file,
            format=options.format,
            out=out,
        )


@contextlib.contextmanager
def _opened(output: str | None, folder: Path) -> Iterator[TextIO]:
    """Yields standard output, or the file; the file shows only when it is complete."""
    if output is None:
        yield sys.stdout
        return
    path = folder / output
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
