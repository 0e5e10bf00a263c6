#!/usr/bin/env python3
"""The command line on one machine: describe a table, run the pipeline, review the schema, ask the serving model."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pipeline import command_line

ROOT = Path(__file__).resolve().parent
VERBS = ("run", "new", "schema", "new-span", "predict")


def main(arguments: Sequence[str]) -> int:
    """Does what the command line asks for.

    Args:
        arguments: the command line without the program's name; without a verb it means `run`.

    Returns:
        The exit code: 0 done, 1 fault, 2 bad input, 3 refused by a gate, 4 busy, 130 stopped.
    """
    options = _parser().parse_args(_with_verb(arguments))
    return command_line.carry_out(options, _DOES[options.verb], root=ROOT)


def _parser() -> argparse.ArgumentParser:
    common = command_line.common_options(
        ROOT, environment="local.yaml", environment_help="where it runs: folders, registry, Beam"
    )
    parser = argparse.ArgumentParser(
        prog="local_runner.py",
        description="Evergreen on one machine. Without a verb it runs the pipeline.",
        epilog="`local_runner.py run --help` lists the options of a run. Exit codes: 0 done, 1 fault, 2 bad input, "
        "3 refused by a gate, 4 another run is going on, 130 stopped.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="{run,new,schema,new-span,predict}", required=True)

    run = verbs.add_parser("run", parents=[common], help="run the pipeline; what has not changed is not done again")
    run.add_argument("--spans", metavar="N or N-M", help="train on these spans rather than on the latest window")
    run.add_argument("--from", dest="from_node", metavar="NODE", help="do this node and all after it again")
    run.add_argument("--to", dest="to_node", metavar="NODE", help="stop after this node")
    run.add_argument("--no-cache", action="store_true", help="do every node again")
    run.add_argument(
        "--fresh", action="store_true", help="forget artifacts and metadata of earlier runs (the registry stays)"
    )

    _add_new(verbs)
    _add_schema(verbs, common)

    span = verbs.add_parser("new-span", parents=[common], help="add the next span of the built-in data")
    span.add_argument("--rows", type=int, default=20_000, help="rows of the span (default: 20000)")
    span.add_argument("--seed", type=int, help="seed of the generator (default: the built-in one)")
    span.add_argument("--drift", type=float, default=0.0, help="by how much the inputs move (default: 0)")
    span.add_argument("--fault", metavar="NAME", help="spoil the span, to see what the gates do (try: help)")

    predict = verbs.add_parser("predict", parents=[common], help="ask the serving model")
    predict.add_argument(
        "files",
        nargs="*",
        metavar="file",
        help="JSON lines, or CSV with a header (default: standard input); with --batch CSV and Parquet files and globs",
    )
    predict.add_argument(
        "--batch",
        choices=("csv", "parquet"),
        help="answer whole files through Beam: --output becomes a folder of parts in this format",
    )
    predict.add_argument(
        "--format", choices=("jsonl", "csv"), help="default: by the file's name, else by its first line"
    )
    predict.add_argument("--version", type=int, help="a version of the model (default: the one that serves)")
    predict.add_argument("--output", metavar="FILE", help="where the answers go (default: standard output)")
    return parser


def _add_new(verbs: Any) -> None:
    new = verbs.add_parser("new", help="look at a table and write its configuration and schema")
    new.add_argument("--data", required=True, metavar="PATH", help="a file, a folder, a glob, or a pattern with {SPAN}")
    new.add_argument("--label", required=True, metavar="COLUMN", help="the column to predict")
    new.add_argument("--name", help="of the pipeline and the model (default: the file's or folder's)")
    new.add_argument(
        "--task", choices=("regression", "binary", "multiclass"), help="what the model predicts (default: by the label)"
    )
    new.add_argument("--config", metavar="FILE", help="where the configuration goes (default: configs/NAME.yaml)")
    new.add_argument("--schema", metavar="FILE", help="where the schema goes (default: schemas/NAME/schema.pbtxt)")
    new.add_argument("--force", action="store_true", help="replace what is there; the old files stay beside as .bak")


def _add_schema(verbs: Any, common: argparse.ArgumentParser) -> None:
    schema = verbs.add_parser("schema", help="show the schema, what the newest data would change, and accept it")
    actions = schema.add_subparsers(dest="action", metavar="{show,diff,accept}", required=True)
    actions.add_parser("show", parents=[common], help="the columns in words")
    for name, words in (("diff", "what the newest data would change"), ("accept", "take these changes over")):
        action = actions.add_parser(name, parents=[common], help=words)
        action.add_argument("--spans", metavar="N or N-M", help="look at these spans rather than at the newest one")
        if name == "accept":
            action.add_argument(
                "--column", action="append", metavar="NAME", help="only the changes of this column (may be repeated)"
            )


def _with_verb(arguments: Sequence[str]) -> Sequence[str]:
    """Puts the verb first, before options that all verbs have, and `run` where none is given."""
    if arguments and arguments[0] in ("-h", "--help"):
        return arguments
    before = 0
    while arguments[before : before + 1] and arguments[before] in ("--config", "--environment"):
        before += 2
    verb = arguments[before : before + 1]
    if verb and verb[0] in VERBS:
        return [*verb, *arguments[before + 1 :], *arguments[:before]]
    return ["run", *arguments]


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
    _share_gpus()
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


def _new(options: argparse.Namespace) -> int:
    _without_chatter()
    from evergreen.settings import Task
    from pipeline.drafting import new

    request = new.Request(
        data=options.data,
        label=options.label,
        name=options.name,
        task=Task(options.task) if options.task else None,
        config=str(options.config) if options.config else None,
        schema=options.schema,
        force=options.force,
    )
    print(new.create(request, called_from=options.called_from, root=ROOT).told())
    return 0


def _schema(options: argparse.Namespace) -> int:
    _without_chatter()
    from pipeline import config, schema_review

    problem = config.load_config(options.config)
    if options.action == "show":
        print(schema_review.show(problem))
        return 0
    command = _command(options).replace("local_runner.py", "local_runner.py schema accept", 1)
    changes = schema_review.diff(problem, spans_=options.spans, command=command)
    if options.action == "diff":
        print(changes.told())
        return 0
    print(schema_review.accept(problem, changes, columns=options.column))
    return 0


def _new_span(options: argparse.Namespace) -> int:
    from pipeline import config, data

    problem, _ = config.load(options.config, options.environment)
    path = data.add_span(problem, rows=options.rows, seed=options.seed, drift=options.drift, fault=options.fault)
    print(f"Added {path}. Next: {_command(options)}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    _without_chatter()
    from pipeline import config
    from serving.predictor import run_predict

    problem, environment = config.load(options.config, options.environment)
    if options.batch:
        return _predict_files(options, problem, environment)
    if len(options.files) > 1:
        raise _wrong_line(f"{len(options.files)} files", "one", "Answer several with --batch csv or --batch parquet.")
    source = None if options.files in ([], ["-"]) else options.called_from / options.files[0]
    with _opened(options.output, options.called_from) as out:
        return run_predict(
            registry=environment.registry,
            name=problem.name,
            version=options.version,
            source=source,
            format=options.format,
            out=out,
        )


def _share_gpus() -> None:
    """Has TensorFlow take a GPU's memory as it needs it: a search's trials train in processes beside this one."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def _without_chatter() -> None:
    """Keeps what the libraries say when they are loaded off the screen; what goes wrong arrives as exceptions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")


def _predict_files(options: argparse.Namespace, problem: Any, environment: Any) -> int:
    from serving import batch

    if not options.files or options.output is None:
        lacking = "an --output" if options.files else "files"
        raise _wrong_line(f"--batch without {lacking}", "files, and a new folder for the answers", f"Add {lacking}.")
    # A path of a remote filesystem is not one below the folder that the command was given in.
    paths = [path if "://" in path else str(options.called_from / path) for path in [*options.files, options.output]]
    return batch.run_batch(
        registry=environment.registry,
        name=problem.name,
        version=options.version,
        sources=paths[:-1],
        output=paths[-1],
        format=options.batch,
        beam_arguments=environment.beam.arguments(),
    )


def _wrong_line(found: str, expected: str, action: str) -> Exception:
    from evergreen.errors import BadInput, Problem

    return BadInput([Problem(where="predict", found=found, expected=expected, action=action)])


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


_DOES = {"run": _run, "new": _new, "schema": _schema, "new-span": _new_span, "predict": _predict}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
