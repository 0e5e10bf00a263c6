"""The entrypoint of every node's container: TFX's executor under Kubeflow's launcher, with an exit code that tells why.

    python -m components.entrypoint --executor_class_path ... --json_serialized_invocation_args '{{$}}'
        --json_serialized_inputs_spec_args '{...}' --task Trainer --outputs model,model_run [Beam's options]

The reason of a failure is the last line of the log and a note beside the registry (`notes.py`). TFX is imported only
when there is work to do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from components.entrypoint import execute, lean, logs, mismatch, notes, parameters, translate
from evergreen.errors import BadInput, EvergreenError, ExitCode

_log = logging.getLogger("evergreen.entrypoint")


def main(arguments: Sequence[str]) -> int:
    """Runs one node.

    Args:
        arguments: the container's arguments; what is not known here goes to Beam.

    Returns:
        The exit code: 0 done, 1 fault, 2 bad input, 3 refused by a gate.
    """
    options, beam_arguments = _parser().parse_known_args(arguments)
    given = json.loads(options.json_serialized_invocation_args)
    run = translate.run_id(given, task=options.task)
    pod = os.environ.get("KFP_POD_NAME", "")
    logs.configure({"task": options.task, "run": run, "pod": pod})
    left = notes.Notes(options.notes, run) if options.notes and run else None
    before = None
    with _noting():
        before = left.begin(options.task, pod=pod) if left else None
    if before and before.is_final():
        return _refuse_again(before)
    started = time.monotonic()
    code, problems, fault = _attempt(options, given, run=run, beam_arguments=beam_arguments)
    with _noting():
        if left:
            kept = left.keep(options.task, _outputs(options, given)) if code in notes.FINAL else ""
            left.end(options.task, exit_code=code, problems=problems, fault=fault, kept=kept)
    _log.info("%s in %.1f s", code.name.lower(), time.monotonic() - started)
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.entrypoint", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True, help="the executor, <module>.<class>")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="the launcher's executor input")
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}", help="the component's input definitions")
    parser.add_argument("--task", required=True, help="the node's id")
    parser.add_argument("--outputs", default="", help="the outputs that the component declares, with commas between")
    parser.add_argument("--bind", action="append", default=[], help="property[.key]=parameter of the run")
    parser.add_argument("--image", default="", help="the image that this is, for the records")
    parser.add_argument("--code", default="", help="the digest of the code that the pipeline was compiled with")
    parser.add_argument("--notes", default="", help="folder for what attempts leave for those after them")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="SCHEME", help="leave URIs of gs:// to Beam's workers elsewhere"
    )
    parser.add_argument("--root", default="/", help="under which the launcher keeps its files")
    parser.add_argument("--eager", dest="lean", action="store_false", help="load TFX whole, as its own entrypoint does")
    return parser


@contextlib.contextmanager
def _noting() -> Iterator[None]:
    """Lets a node work where no note can be left, on a volume that is full or may only be read."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - TensorFlow's file systems have errors of their own
        _log.warning("No note can be left beside the registry: %s", error)


def _attempt(
    options: argparse.Namespace, given: translate.Json, *, run: str, beam_arguments: Sequence[str]
) -> tuple[ExitCode, Sequence[dict[str, str]], str]:
    """Does the work; returns how it ended, the problems that were told, and the headline of a fault."""
    try:
        _execute(options, given, run=run, beam_arguments=beam_arguments)
    except Exception as error:
        told = _told(error) or mismatch.explained(_chain(error), compiled_with=options.code, task=options.task)
        if told is not None:
            problems = [dataclasses.asdict(problem) for problem in told.problems]
            _say(told.exit_code, problems)
            return told.exit_code, problems, ""
        # Whatever it is, the note has to say it before the process ends.
        logging.exception("The node failed.")
        return ExitCode.FAULT, (), f"{type(error).__name__}: {str(error).strip() or 'without a word'}"[:1000]
    return ExitCode.OK, (), ""


def _told(error: BaseException) -> EvergreenError | None:
    """Returns the error that is meant for people, also where a library has wrapped it in one of its own."""
    return next((one for one in _chain(error) if isinstance(one, EvergreenError)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that it was raised from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        # An error that was raised while another was dealt with is that other one only if it repeats its words.
        wrapped = error.__context__ if str(error.__context__) in str(error) else None
        error = error.__cause__ or wrapped


def _execute(options: argparse.Namespace, given: translate.Json, *, run: str, beam_arguments: Sequence[str]) -> None:
    outputs = [key for key in options.outputs.split(",") if key]
    inputs_spec = json.loads(options.json_serialized_inputs_spec_args)
    wrong = list(parameters.problems(_parameters(options, given), where="the run's parameter {}"))
    if wrong:
        raise BadInput(wrong)
    bound = translate.bind(given, options.bind, known={"run_id": run, "image": options.image})
    translated = translate.to_tfx(bound, inputs_spec, declared_outputs=outputs, root=options.root, kept=options.keep)
    _log.info("loading TFX")
    if options.lean:
        lean.prepare(without_tensorflow=translate.is_local(translated))
    execute.run(
        executor_class_path=options.executor_class_path,
        executor_input=json.dumps(translated),
        inputs_spec=options.json_serialized_inputs_spec_args,
        beam_arguments=beam_arguments,
    )
    missing = translate.missing_outputs(given, declared_outputs=outputs, root=options.root, kept=options.keep)
    if missing:
        raise mismatch.OutputsMissingError(f"no files in {', '.join(missing)}")
    path = Path(given["outputs"]["outputFile"])
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(translate.to_launcher(written, given, root=options.root)), encoding="utf-8")


def _parameters(options: argparse.Namespace, given: translate.Json) -> translate.Json:
    """Returns the run's parameters that are bound to properties of the node."""
    bound = {binding.partition("=")[2] for binding in options.bind}
    values = given.get("inputs", {}).get("parameterValues", {})
    return {name: value for name, value in values.items() if name in bound}


def _outputs(options: argparse.Namespace, given: translate.Json) -> dict[str, Path]:
    """Returns where each declared output lies in this container."""
    artifacts = given.get("outputs", {}).get("artifacts", {})
    keys = [key for key in options.outputs.split(",") if artifacts.get(key, {}).get("artifacts")]
    uris = {key: artifacts[key]["artifacts"][0]["uri"] for key in keys}
    return {key: Path(translate.local_path(uri, root=options.root)) for key, uri in uris.items()}


def _refuse_again(note: notes.Note) -> int:
    _log.error("An attempt before ended for a reason that a retry does not change; it is told again.")
    _say(ExitCode(note.exit_code or ExitCode.FAULT), note.problems)
    return int(note.exit_code or ExitCode.FAULT)


def _say(code: ExitCode, problems: Sequence[dict[str, Any]]) -> None:
    what = {ExitCode.BAD_INPUT: "bad input", ExitCode.REFUSED: "refused by a gate"}.get(code, code.name.lower())
    for problem in problems:
        _log.error(
            "%s: %s: found %s; expected %s. %s",
            what,
            problem["where"],
            problem["found"],
            problem["expected"],
            problem["action"],
        )


def leave(code: int) -> NoReturn:
    """Ends the process at once: what the interpreter takes apart of TensorFlow at its end takes seconds."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
