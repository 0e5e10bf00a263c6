#!/usr/bin/env python3
"""The command line for Kubeflow Pipelines: compile the pipeline, check it, run it once or by schedule, watch it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import command_line
from pipeline.kubeflow import cli

ROOT = Path(__file__).resolve().parent


def main(arguments: Sequence[str]) -> int:
    """Does what the command line asks for.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 fault, 2 bad input, 3 refused by a gate, 130 stopped.
    """
    options = _parser().parse_args(arguments)
    return command_line.carry_out(options, options.do, root=ROOT, paths=("output", "file"))


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
    cli.add_verbs(verbs, common)
    return parser


def _common() -> argparse.ArgumentParser:
    parser = command_line.common_options(
        ROOT, environment="cluster.yaml", environment_help="the cluster: image, places, resources"
    )
    parser.add_argument("--image", metavar="IMAGE", help="the image of every node, instead of the environment's")
    return parser


def _compile(options: argparse.Namespace) -> int:
    from evergreen.files import write_whole
    from pipeline import config
    from pipeline.kubeflow import backend, compiler, rules

    problem, environment = config.load(options.config, options.environment, look_for_data=False)
    # What TensorFlow's C++ says of graphics cards does not concern a compiler.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment = compiler.with_image(environment, options.image)
    text = compiler.compile_pipeline(problem, environment, file=str(options.environment))
    path = options.output or ROOT / "runs" / "kubeflow" / f"{problem.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    print(f"Wrote {path}\n{rules.summary(rules.read(path))}")
    if options.no_backend:
        print("Kubeflow's own code: not asked (--no-backend)")
        return 0
    return _say(backend.check(path))


def _check(options: argparse.Namespace) -> int:
    from pipeline.kubeflow import backend, rules

    documents = rules.read(options.file)
    problems = rules.check(documents, allow_tag=options.allow_tag)
    if not problems:
        print(f"{rules.summary(documents)}\nOur rules: kept")
    verdict = backend.check(options.file, workflow=options.output)
    return _say(verdict, others=problems, required=options.require_backend)


def _say(verdict: object, *, others: Sequence[object] = (), required: bool = False) -> int:
    from evergreen.errors import BadInput
    from pipeline.kubeflow.backend import Verdict

    assert isinstance(verdict, Verdict)
    problems = [*others, *verdict.problems]
    if problems:
        raise BadInput(problems)  # type: ignore[arg-type]
    print(f"Kubeflow's own code: {verdict.words}")
    return 1 if required and not verdict.checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
