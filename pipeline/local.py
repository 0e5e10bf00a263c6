"""Running the pipeline on this machine: one node after the other, with progress, a cache that sees code, and resume.

TFX's own parts do the work (the compiler, `Launcher`, ML Metadata). What is added is what a person needs: one run at
a time, a screen, logs in a file, and a cache key that holds the code and the files that a node depends on. A run that
was stopped anywhere goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from evergreen import memory, progress, spans
from evergreen.errors import BadInput, EvergreenError, ExitCode, GateRefusal, Problem
from evergreen.faults import of_the_machine
from evergreen.files import write_whole
from evergreen.lock import exclusive
from evergreen.registry import Registry
from evergreen.scratch import scratch_folder
from evergreen.screen import Screen, redirected_output
from evergreen.words import counted
from pipeline import data, figures, fingerprint, nodes, summary
from pipeline.config import Config, Environment
from pipeline.display import Display, State, open_display

CODE_OF_CANDIDATE = ("components.example_gen.executor", "transform.preprocessing", "trainer.train")
"""The modules that decide what the candidate is, up to and with the Trainer."""
_STAMP = "evergreen_fingerprint"
_PINNED = 100
"""Of how many different runs it is remembered what they began with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asked for."""

    config: Config
    environment: Environment
    command: str
    """The command that asks for the same without `--fresh`, `--no-cache` and `--from`: it resumes."""
    spans: str | None = None
    from_node: str | None = None
    to_node: str | None = None
    cache: bool = True
    fresh: bool = False


@dataclasses.dataclass
class Record:
    """What is written down of a node; one entry of `nodes.json`."""

    node: str
    state: str
    seconds: float
    figure: str
    peak_memory_mb: float | None


def run(request: Request) -> ExitCode:
    """Runs the pipeline and tells the user how it went.

    Raises:
        BadInput: when the request or the data cannot be used; nothing ran, or what ran is kept for the next run.
        Busy: when another run is going on in the same workspace.
    """
    check_nodes(request)
    root = request.environment.root(request.config.name)
    with (
        exclusive(root / ".lock", doing=request.command),
        _terminable(),
        scratch_folder(remembered_in=root / "scratch.txt"),
    ):
        if request.fresh:
            _forget(root)
        made = data.ensure(request.config)
        selection = spans.resolve(request.config.data, spans=request.spans)
        started = time.monotonic()
        run_id = datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        logs = root / "logs" / run_id
        logs.mkdir(parents=True)
        with redirected_output(logs / "run.log") as screen:
            return _Run(request, selection, run_id=run_id, logs=logs, screen=screen, started=started).go(made)


def check_nodes(request: Request) -> None:
    """Checks the nodes that the command line names.

    Raises:
        BadInput: when a name is unknown, or `--to` lies before `--from`.
    """
    known = list(_names(request.config))
    problems = [
        Problem(where=option, found=repr(name), expected=f"one of {', '.join(known)}", action="Correct the name.")
        for option, name in (("--from", request.from_node), ("--to", request.to_node))
        if name is not None and name not in known
    ]
    if problems:
        raise BadInput(problems)
    if request.from_node and request.to_node and known.index(request.from_node) > known.index(request.to_node):
        raise BadInput(
            [
                Problem(
                    where="--from, --to",
                    found=f"from {request.from_node} to {request.to_node}",
                    expected=f"an order of {', '.join(known)}",
                    action="Swap them.",
                )
            ]
        )


class _Run:
    """One run from the compiled pipeline to the summary."""

    def __init__(
        self,
        request: Request,
        selection: spans.Selection,
        *,
        run_id: str,
        logs: Path,
        screen: Screen,
        started: float,
    ) -> None:
        self._request = request
        self._selection = selection
        self._run_id = run_id
        self._logs = logs
        self._screen: TextIO = screen
        self._started = started
        self._root = request.environment.root(request.config.name)
        self._registry = Registry(request.environment.registry, request.config.name)
        self._names = _names(request.config)
        self._states = dict.fromkeys(self._names, State.WAITING)
        self._outputs: dict[str, figures.Outputs] = {}
        self._records: list[Record] = []

    def go(self, made: str | None) -> ExitCode:
        log = self._logs / "run.log"
        with open_display(self._names, stream=self._screen) as display:
            if made:
                display.say(made)
            display.say(f"Run {self._run_id} of {self._request.config.name}; the libraries' logs go to {log}")
            try:
                self._execute(display)
            except EvergreenError as error:
                failure: BaseException | None = error
            except KeyboardInterrupt as error:
                failure = error
            except Exception as error:
                logging.exception("The run failed.")
                failure = error
            else:
                failure = None
            if failure is not None:
                self._fail_running(display, failure)
        self._write_records()
        if failure is not None:
            return self._explain(failure, log)
        return summary.render(
            outputs=self._outputs,
            states=self._states,
            registry=Path(self._request.environment.registry) / self._request.config.name,
            seconds=time.monotonic() - self._started,
            log=log,
            command=self._request.command,
            built_in_data=self._request.config.data.generator is not None,
            stream=self._screen,
        )

    def _execute(self, display: Display) -> None:
        display.say("Loading TensorFlow and TFX ...")
        # The import takes seconds; nothing that needs it is touched before the request is known to be sound.
        from ml_metadata.metadata_store import metadata_store
        from tfx.orchestration import metadata

        from pipeline import lineage

        compiled = self._compile()
        memory.keep()
        connection = metadata.sqlite_metadata_connection_config(str(self._root / "metadata.db"))
        store = metadata_store.MetadataStore(connection)
        for note in lineage.reconcile(store, artifacts_root=self._root / "artifacts"):
            logging.warning(note)
        by_name = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled.nodes}
        # In the order of the names, which is one of the orders that the DAG allows, and the one that the screen shows.
        for node_id in self._names:
            if self._is_outside(node_id):
                self._end(display, node_id, State.SKIPPED)
                continue
            self._launch(display, compiled, by_name[node_id], connection=connection, store=store)

    def _compile(self) -> Any:
        from tfx.dsl.compiler import compiler

        from pipeline.pipeline import Pins, create_pipeline

        request = self._request
        run_fingerprint = self._run_fingerprint()
        pins = Pins(
            spans=",".join(str(span.number) for span in self._selection.spans),
            input_fingerprint=self._selection.fingerprint,
            champion=self._champion(run_fingerprint),
            run_fingerprint=run_fingerprint,
            run_id=self._run_id,
        )
        compiled = compiler.Compiler().compile(create_pipeline(request.config, request.environment, pins=pins))
        _substitute_run_id(compiled, self._run_id)
        for node in compiled.nodes:
            self._stamp(compiled, node.pipeline_node)
        return compiled

    def _run_fingerprint(self) -> str:
        """Returns a hash of all that decides the candidate: data, schema, features, model, training, their code."""
        config = self._request.config
        schema = fingerprint.files([Path(config.schema_path)]) if config.schema_path else ""
        return fingerprint.combine(
            self._selection.fingerprint,
            schema,
            config.data.model_dump_json(),
            config.trainer().model_dump_json(),
            fingerprint.code((*CODE_OF_CANDIDATE, *config.functions())),
        )

    def _champion(self, run_fingerprint: str) -> str:
        """Returns the version to compare with: what serves, or what the run that is continued here began with.

        A run that is resumed, or given again after it published, stays with the champion of its beginning; else it
        would be compared with itself, and no run would ever be found unchanged.
        """
        serving = self._registry.serving()
        champion = "none" if serving is None else str(serving)
        path = self._root / "champions.json"
        pinned: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if self._request.cache and run_fingerprint in pinned:
            ours = serving is not None and self._registry.manifest(serving).run_fingerprint == run_fingerprint
            if ours or pinned[run_fingerprint] == champion:
                return pinned[run_fingerprint]
        pinned.pop(run_fingerprint, None)
        pinned[run_fingerprint] = champion
        write_whole(path, json.dumps(dict(list(pinned.items())[-_PINNED:])))
        return champion

    def _stamp(self, compiled: Any, node: Any) -> None:
        """Adds to a node's properties, and so to TFX's cache key, what the key lacks: code and files' contents."""
        from tfx.orchestration.local import runner_utils

        deployment = runner_utils.extract_local_deployment_config(compiled)
        executor = runner_utils.extract_executor_spec(deployment, node.node_info.id)
        # Executors that use Beam wrap the specification that the others are.
        python = getattr(executor, "python_executor_spec", executor)
        modules, paths = [python.class_path], []
        for parameter in node.parameters.parameters.values():
            text = parameter.field_value.string_value
            if fingerprint.is_ours(text):
                modules.append(text)
            elif text.startswith(("{", "[")):  # JSON, and longer than a file's name may be
                modules += [function for function in self._request.config.functions() if f'"{function}"' in text]
            elif text and Path(text).is_file():
                paths.append(Path(text))
        stamp = fingerprint.combine(fingerprint.code(modules), fingerprint.files(paths))
        node.parameters.parameters[_STAMP].field_value.string_value = stamp
        node.execution_options.caching_options.enable_cache = self._may_use_cache(node.node_info.id)

    def _may_use_cache(self, node_id: str) -> bool:
        if not self._request.cache:
            return False
        if self._request.from_node is None:
            return True
        return self._names.index(node_id) < self._names.index(self._request.from_node)

    def _is_outside(self, node_id: str) -> bool:
        to_node = self._request.to_node
        return to_node is not None and self._names.index(node_id) > self._names.index(to_node)

    def _launch(self, display: Display, compiled: Any, node: Any, *, connection: Any, store: Any) -> None:
        from tfx.orchestration import metadata
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import launcher

        from pipeline import lineage

        node_id = node.node_info.id
        deployment = runner_utils.extract_local_deployment_config(compiled)
        self._node_started = time.monotonic()
        self._memory = memory.PeakMemory()
        self._states[node_id] = State.RUNNING
        display.begin(node_id)
        with _figures_to(display):
            info = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=compiled.pipeline_info,
                pipeline_runtime_spec=compiled.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch()
        outcome = lineage.outcome(store, info.execution_id)
        if not outcome.cached:
            lineage.seal(store, info.execution_id)
        self._outputs[node_id] = outcome.outputs
        state = State.CACHED if outcome.cached else State.DONE
        self._end(display, node_id, state, figure=figures.figure(node_id, outcome.outputs))

    def _end(self, display: Display, node_id: str, state: State, *, figure: str = "") -> None:
        self._states[node_id] = state
        ran = state is not State.SKIPPED
        seconds = time.monotonic() - self._node_started if ran else None
        display.end(node_id, state, figure=figure, seconds=seconds)
        peak = self._memory.megabytes() if ran else None
        memory.give_back()
        self._records.append(
            Record(node=node_id, state=state.value, seconds=seconds or 0.0, figure=figure, peak_memory_mb=peak)
        )

    def _fail_running(self, display: Display, failure: BaseException) -> None:
        running = [node for node, state in self._states.items() if state is State.RUNNING]
        state = State.REFUSED if isinstance(failure, GateRefusal) else State.FAILED
        for node in running:
            self._end(display, node, state, figure=_headline(failure))

    def _write_records(self) -> None:
        records = [dataclasses.asdict(record) for record in self._records]
        write_whole(self._logs / "nodes.json", json.dumps(records, indent=1))

    def _explain(self, failure: BaseException, log: Path) -> ExitCode:
        failed = [record.node for record in self._records if record.state in (State.FAILED.value, State.REFUSED.value)]
        at = f" in {failed[0]}" if failed else ""
        say = self._screen.write
        if isinstance(failure, KeyboardInterrupt):
            say(f"\nStopped{at}. Resume with: {self._request.command}\n")
            return ExitCode.INTERRUPTED
        if isinstance(failure, EvergreenError):
            what = "The data gate stopped the run" if isinstance(failure, GateRefusal) else "The run stopped"
            say(f"\n{what}{at}: {counted(len(failure.problems), 'problem')}.\n")
            self._say_problems(failure)
            say(f"\nThe registry is untouched. Logs: {log}\nThen resume with: {self._request.command}\n")
            return failure.exit_code
        problem = of_the_machine(failure, place=str(self._root))
        say(f"\nA fault{at}: {_headline(failure) if problem is None else problem.found}\n")
        summary.say_problems([] if problem is None else [problem], stream=self._screen)
        say(f"The whole story is at the end of {log}\nResume with: {self._request.command}\n")
        return ExitCode.FAULT

    def _say_problems(self, failure: EvergreenError) -> None:
        """Says every problem; what the data gate found goes into a table, and as JSON beside the log."""
        report = failure.report if isinstance(failure, GateRefusal) else None
        if report is None:
            summary.say_problems(failure.problems, stream=self._screen)
            return
        path = self._logs / "data_gate.json"
        write_whole(path, json.dumps(report, indent=1))
        summary.say_findings(report, stream=self._screen)
        self._screen.write(f"The same as JSON: {path}\n")


def _headline(failure: BaseException) -> str:
    if isinstance(failure, EvergreenError):
        first = failure.problems[0]
        more = len(failure.problems) - 1
        return f"{first.where}: {first.found}" + (f" (and {more} more)" if more else "")
    if isinstance(failure, KeyboardInterrupt):
        return "stopped"
    if problem := of_the_machine(failure, place="this machine"):
        return f"{problem.where}: {problem.found}"
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0] if lines else 'without a word'}"[:300]


def _substitute_run_id(compiled: Any, run_id: str) -> None:
    from tfx.orchestration.portable import runtime_parameter_utils

    runtime_parameter_utils.substitute_runtime_parameter(compiled, {"pipeline-run-id": run_id})


def _names(config: Config) -> Sequence[str]:
    return nodes.names(curated_schema=config.schema_path is not None, tuner=config.tuning is not None)


def _forget(root: Path) -> None:
    """Removes artifacts and metadata of earlier runs; the registry and the logs stay."""
    for folder in ("artifacts", "checkpoints"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path in [*root.glob("metadata.db*"), *root.glob("champions.json")]:
        path.unlink()


@contextlib.contextmanager
def _figures_to(display: Display) -> Iterator[None]:
    """Shows what executors report through `evergreen.progress` while they run."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.figure(record.getMessage())

    logger, handler = logging.getLogger(progress.LOGGER), Handler(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM end the run as Ctrl-C does, so that a scheduler's stop is as orderly as a person's."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
