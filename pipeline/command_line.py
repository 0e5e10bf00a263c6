"""What the two command lines share: options, the project's own Python, and problems told with their exit code."""

# Standard library only: it runs before the project's environment is found.
from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_NOBODY_READS = 141
"""What a shell reports of a process that wrote into a closed pipe (128 and SIGPIPE)."""


def common_options(root: Path, *, environment: str, environment_help: str) -> argparse.ArgumentParser:
    """Returns the parent parser of every verb that reads a configuration.

    Args:
        root: the project's folder.
        environment: the default environment file, below `configs/environments`.
        environment_help: what such a file says.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--config",
        default=str(root / "configs" / "humidity.yaml"),
        metavar="FILE",
        help="the problem: data, features, model, gates (default: configs/humidity.yaml)",
    )
    parser.add_argument(
        "--environment",
        default=str(root / "configs" / "environments" / environment),
        metavar="FILE",
        help=f"{environment_help} (default: configs/environments/{environment})",
    )
    return parser


def carry_out(
    options: argparse.Namespace, do: Callable[[argparse.Namespace], int], *, root: Path, paths: Sequence[str] = ()
) -> int:
    """Does one verb from the project's folder, and tells a user's mistakes without a traceback.

    Args:
        options: the parsed command line; `called_from` is added: the folder in which the command was given.
        do: what the verb does; returns the exit code.
        root: the project's folder, in which `do` works.
        paths: options that are paths beside `config` and `environment`; relative ones start at `called_from`.

    Returns:
        The exit code: that of `do`, of the `EvergreenError` that it raised, 1 where the machine failed (a full disk, a
        folder that may not be written), 130 when it was stopped, 141 when nobody reads the output any more.
    """
    _use_project_python(root)
    from evergreen.errors import EvergreenError
    from evergreen.faults import of_the_machine
    from evergreen.words import counted
    from pipeline.summary import say_problems

    options.called_from = Path.cwd()
    for name in ("config", "environment", *paths):
        if getattr(options, name, None) is not None:
            setattr(options, name, (options.called_from / getattr(options, name)).resolve())
    # Paths inside the configuration are relative to the project, wherever the command is given.
    os.chdir(root)
    try:
        _check_place(root)
        code = int(do(options))
        sys.stdout.flush()
        return code
    except EvergreenError as error:
        print(f"{counted(len(error.problems), 'problem')}:", file=sys.stderr)
        say_problems(error.problems, stream=sys.stderr)
        return int(error.exit_code)
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `... | head`; Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except OSError as error:
        problem = of_the_machine(error, place=str(root))
        if problem is None:
            raise
        say_problems([problem], stream=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _check_place(root: Path) -> None:
    """Refuses a project whose own path is a pattern to the libraries: what they write below it they do not find.

    Raises:
        BadInput: when it is.
    """
    from evergreen.errors import BadInput, Problem
    from evergreen.files import PATTERN_SIGNS

    if set(str(root)) & set(PATTERN_SIGNS):
        expected = f"a folder without {' '.join(PATTERN_SIGNS)} in its path, which name patterns of files"
        raise BadInput(
            [Problem(where="the project", found=str(root), expected=expected, action="Move or rename the folder.")]
        )


def _use_project_python(root: Path) -> None:
    """Goes on in the project's own environment when it was started with another Python."""
    python = root / ".venv" / "bin" / "python"
    if importlib.util.find_spec("tfx") is not None:
        return
    if python.is_file() and Path(sys.prefix).resolve() != (root / ".venv").resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - the project's own interpreter
    sys.exit("Evergreen's environment is not there yet: `make run` makes it (or activate the one that holds tfx).")
