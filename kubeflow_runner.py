#!/usr/bin/env python3
"""The command line for Kubeflow Pipelines: compile the pipeline, check it, run it once or by schedule, watch it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import kubeflow_cli

ROOT = Path(__file__).resolve().parent


def main(arguments: Sequence[str]) -> int:
    """Does what the command line asks for.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 fault, 2 bad input, 3 refused by a gate, 130 stopped.
    """
    options = _parser().parse_args(arguments)
    _use_project_python()
    from evergreen.errors import EvergreenError
    from pipeline.summary import say_problems

    options.called_from = Path.cwd()
    for name in ("config", "environment", "output", "file"):
        if getattr(options, name, None) is not None:
            setattr(options, name, (options.called_from / getattr(options, name)).resolve())
    # Paths inside the configuration are relative to the project, wherever the command is given.
    os.chdir(ROOT)
    try:
        return int(options.do(options))
    except EvergreenError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}:", file=sys.stderr)
        say_problems(error.problems, stream=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubeflow_runner.py",
        description="Evergreen on Kubeflow Pipelines.",
        epilog="Exit codes: 0 done, 1 fault, 2 bad input, 3 refused by a gate, 130 stopped.",
    )
    common = _common()
    verbs = parser.add_subparsers(dest="verb", required=True)
    compiling = verbs.add_parser("compile", parents=[common], help="write the pipeline as Kubeflow takes it; check it")
    compiling.add_argument("--output", metavar="FILE", help="where it goes (default: runs/kubeflow/<name>.yaml)")
    compiling.add_argument("--no-backend", action="store_true", help="do not ask Kubeflow's own code")
    compiling.set_defaults(do=_compile)

    checking = verbs.add_parser("check", help="check a compiled pipeline: our rules, and Kubeflow's own code")
    checking.add_argument("file", metavar="FILE", help="the compiled pipeline")
    checking.add_argument("--allow-tag", action="store_true", help="an image may be named by a tag")
    checking.add_argument("--require-backend", action="store_true", help="fail where Kubeflow's code cannot be asked")
    checking.add_argument("--workflow", dest="output", metavar="FILE", help="write the Argo Workflow of a run")
    checking.set_defaults(do=_check)
    kubeflow_cli.add_verbs(verbs, common)
    return parser


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--config",
        default=str(ROOT / "configs" / "humidity.yaml"),
        metavar="FILE",
        help="the problem: data, features, model, gates (default: configs/humidity.yaml)",
    )
    parser.add_argument(
        "--environment",
        default=str(ROOT / "configs" / "environments" / "cluster.yaml"),
        metavar="FILE",
        help="the cluster: image, places, resources (default: configs/environments/cluster.yaml)",
    )
    parser.add_argument("--image", metavar="IMAGE", help="the image of every node, instead of the environment's")
    return parser


def _use_project_python() -> None:
    """Goes on in the project's own environment when it was started with another Python."""
    python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("tfx") is not None:
        return
    if python.is_file() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - the project's own interpreter
    sys.exit("Evergreen's environment is not there yet: `make run` makes it (or activate the one that holds tfx).")


def _compile(options: argparse.Namespace) -> int:
    from evergreen.files import write_whole
    from pipeline import config, kubeflow, kubeflow_backend, kubeflow_rules

    problem, environment = config.load(options.config, options.environment, look_for_data=False)
    # What TensorFlow's C++ says of graphics cards does not concern a compiler.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment = kubeflow.with_image(environment, options.image)
    text = kubeflow.compile_pipeline(problem, environment, file=str(options.environment))
    path = options.output or ROOT / "runs" / "kubeflow" / f"{problem.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    print(f"Wrote {path}\n{kubeflow_rules.summary(kubeflow_rules.read(path))}")
    if options.no_backend:
        print("Kubeflow's own code: not asked (--no-backend)")
        return 0
    return _say(kubeflow_backend.check(path))


def _check(options: argparse.Namespace) -> int:
    from pipeline import kubeflow_backend, kubeflow_rules

    documents = kubeflow_rules.read(options.file)
    problems = kubeflow_rules.check(documents, allow_tag=options.allow_tag)
    if not problems:
        print(f"{kubeflow_rules.summary(documents)}\nOur rules: kept")
    verdict = kubeflow_backend.check(options.file, workflow=options.output)
    return _say(verdict, others=problems, required=options.require_backend)


def _say(verdict: object, *, others: Sequence[object] = (), required: bool = False) -> int:
    from evergreen.errors import BadInput
    from pipeline.kubeflow_backend import Verdict

    assert isinstance(verdict, Verdict)
    problems = [*others, *verdict.problems]
    if problems:
        raise BadInput(problems)  # type: ignore[arg-type]
    print(f"Kubeflow's own code: {verdict.words}")
    return 1 if required and not verdict.checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
