"""The verbs of `kubeflow_runner.py` that talk to Kubeflow: run, schedule, unschedule, status, runs.

    cli.add_verbs(subparsers, common)          # options only; imports nothing that takes time
    options = parser.parse_args(arguments)
    return options.do(options)

Every verb says what it did and where to look at it; `--json` says it for programs, one document on standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.kubeflow.api import Api, Clock
    from pipeline.kubeflow.client import Package, Run, Version
    from pipeline.kubeflow.schedule import Outcome, Plan

VERBS = ("run", "schedule", "unschedule", "status", "runs")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


# --- options ---------------------------------------------------------------------------------------------------------


def add_verbs(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """Adds the verbs to a command line.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned. Each verb sets `options.do`, to be called with the
            options; it returns the exit code.
        common: the options `--config` and `--environment` of the pipeline to compile.
    """
    access, package = _access_options(), _package_options()
    run = subparsers.add_parser("run", parents=[common, access, package], help="upload the pipeline and run it once")
    run.add_argument("--name", help="the beginning of the run's name (default: the pipeline's name)")
    run.add_argument("--no-wait", action="store_true", help="start it and return, rather than show it to its end")
    run.add_argument("--timeout", type=_duration, metavar="TIME", help="stop waiting after this time; the run goes on")
    run.set_defaults(do=_run)

    plan = subparsers.add_parser(
        "schedule", parents=[common, access, package], help="run the pipeline again and again; replaces by name"
    )
    plan.add_argument("--name", help="the schedule's name; one schedule bears it (default: the pipeline's name)")
    when = plan.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="FIELDS", help='five fields, or six with the second first, UTC: "0 6 * * *"')
    when.add_argument("--interval", type=_duration, metavar="TIME", help="for example 90m, 6h, 1d")
    plan.add_argument(
        "--max-concurrency", type=int, default=1, metavar="N", help="runs under way at once, 1 to 10 (default: 1)"
    )
    plan.add_argument(
        "--catch-up", action="store_true", help="give every time that was missed its run, not the latest one only"
    )
    _add_drain(plan)
    plan.set_defaults(do=_schedule)

    stop = subparsers.add_parser("unschedule", parents=[access], help="remove a schedule")
    stop.add_argument("name", help="the schedule's name")
    _add_drain(stop)
    stop.set_defaults(do=_unschedule)

    status = subparsers.add_parser("status", parents=[access], help="show a run and its nodes")
    status.add_argument("run_id", nargs="?", help="the run (default: the latest one)")
    status.add_argument("--experiment", help="with no run given: the latest one of this experiment")
    status.add_argument("--wait", action="store_true", help="show it to its end")
    status.add_argument("--timeout", type=_duration, metavar="TIME", help="stop waiting after this time")
    status.set_defaults(do=_status)

    runs = subparsers.add_parser("runs", parents=[access], help="list the latest runs and the schedules")
    runs.add_argument("--experiment", help="only runs of this experiment")
    runs.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")
    runs.set_defaults(do=_runs)


def _access_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("the way to Kubeflow")
    group.add_argument("--endpoint", metavar="URL", help="Kubeflow Pipelines' API (default: KFP_ENDPOINT)")
    group.add_argument(
        "--token-file", metavar="FILE", help="a file with the token (default: KFP_TOKEN, which no process list shows)"
    )
    group.add_argument("--token", help="the token itself; other users of this machine can see it in the process list")
    group.add_argument("--kubeconfig", metavar="FILE", help="go through Kubernetes instead (default: KUBECONFIG)")
    group.add_argument("--context", help="the kubeconfig's context (default: its current one)")
    group.add_argument("--kubeflow-namespace", default="kubeflow", metavar="NAME", help="where Kubeflow itself runs")
    group.add_argument("--namespace", help="your namespace, where Kubeflow has several users (default: KFP_NAMESPACE)")
    group.add_argument("--ui", metavar="URL", help="Kubeflow's pages, for links (default: KFP_UI, else the endpoint)")
    group.add_argument("--ca-file", metavar="FILE", help="certificates that the endpoint's is checked against")
    group.add_argument("--json", action="store_true", help="answer with one JSON document")
    return parser


def _package_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--package", metavar="FILE", help="a compiled pipeline (default: compile it now)")
    parser.add_argument("--version", metavar="NAME", help="the version's name (default: made from the content)")
    parser.add_argument("--experiment", metavar="NAME", help="default: the pipeline's name")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="a runtime parameter; may be repeated"
    )
    parser.add_argument("--service-account", metavar="NAME", help="the Kubernetes service account of the pods")
    parser.add_argument("--pipeline-root", metavar="URI", help="where artifacts go (default: what was compiled)")
    return parser


def _add_drain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--drain",
        type=_duration,
        default=3600,
        metavar="TIME",
        help="how long to wait for runs of the old schedule that are under way (default: 1h); what is left then stays, "
        "disabled, until the next call",
    )


def _duration(text: str) -> int:
    """Reads 90, 90s, 15m, 6h or 1d as seconds."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write for example 90s, 15m, 6h or 1d")
    return int(found.group(1)) * _UNITS[found.group(2) or "s"]


# --- verbs -----------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, *, clock: Clock | None = None) -> int:
    from pipeline.kubeflow import client

    package, arguments = _package(options)
    api = _connect(options, clock)
    version = client.upload(api, package, version=options.version)
    run = client.start(
        api,
        version,
        experiment_name=options.experiment or package.name,
        parameters=arguments,
        name=options.name,
        service_account=options.service_account,
        pipeline_root=options.pipeline_root or package.pipeline_root,
    )
    say = _sayer(options)
    say(_uploaded(version))
    say(f"Run {run.run_id}: {run.link}")
    if not options.no_wait:
        run = _watched(api, run.run_id, package.nodes, options)
    _answer(options, {"version": _plain(version), "run": _plain(run)})
    return _end(run, options)


def _schedule(options: argparse.Namespace, *, clock: Clock | None = None) -> int:
    from pipeline.kubeflow import client, cron, schedule

    # A mistake in the time shows before anything is compiled or uploaded.
    when = cron.parse(options.cron) if options.cron else None
    package, arguments = _package(options)
    api = _connect(options, clock)
    version = client.upload(api, package, version=options.version)
    plan = schedule.Plan(
        name=options.name or package.name,
        version=version,
        experiment_name=options.experiment or package.name,
        cron=when,
        interval_seconds=options.interval,
        parameters=arguments,
        max_concurrency=options.max_concurrency,
        catch_up=options.catch_up,
        service_account=options.service_account,
        pipeline_root=options.pipeline_root or package.pipeline_root,
    )
    say = _sayer(options)
    outcome = schedule.schedule(api, plan, drain_seconds=options.drain, say=say)
    say(_uploaded(version))
    times = _say_plan(plan, outcome, api.clock.now(), say)
    _answer(options, {"version": _plain(version), "schedule": _plain(outcome), "next": times})
    return 0


def _unschedule(options: argparse.Namespace, *, clock: Clock | None = None) -> int:
    from pipeline.kubeflow import schedule

    say = _sayer(options)
    outcome = schedule.unschedule(_connect(options, clock), options.name, drain_seconds=options.drain, say=say)
    say(f"Schedule {options.name} is off.")
    _say_retired(outcome, f"kubeflow_runner.py unschedule {options.name}", say)
    _answer(options, {"schedule": _plain(outcome)})
    return 0


def _status(options: argparse.Namespace, *, clock: Clock | None = None) -> int:
    from pipeline.kubeflow import client

    api = _connect(options, clock)
    run_id = options.run_id or _latest(api, options.experiment)
    run = _watched(api, run_id, None, options) if options.wait else client.get_run(api, run_id)
    say = _sayer(options)
    say(f"{run.name}: {run.state}{_took(run)}")
    for node in run.nodes:
        say(f"  {node.name:24} {node.state.value}{f' {node.seconds:.0f} s' if node.seconds is not None else ''}")
    say(run.link)
    _answer(options, {"run": _plain(run)})
    return _end(run, options)


def _runs(options: argparse.Namespace, *, clock: Clock | None = None) -> int:
    from pipeline.kubeflow import client, schedule

    api = _connect(options, clock)
    runs = client.list_runs(api, limit=options.limit, experiment_name=options.experiment)
    schedules = schedule.list_schedules(api)
    say = _sayer(options)
    for run in runs:
        say(f"{_stamp(run.created_at)}  {run.state:10} {run.run_id}  {run.name}{_took(run)}")
    if not runs:
        say("No runs yet.")
    for item in schedules:
        when = _words(item.cron, item.interval_seconds)
        say(f"schedule {item.name}: {when}, {'on' if item.enabled else 'off'}  {item.recurring_run_id}")
    _answer(options, {"runs": [_plain(run) for run in runs], "schedules": [_plain(item) for item in schedules]})
    return 0


# --- parts -----------------------------------------------------------------------------------------------------------


def _package(options: argparse.Namespace) -> tuple[Package, dict[str, Any]]:
    from evergreen.errors import BadInput, Problem
    from pipeline.kubeflow import client

    given: dict[str, str] = {}
    problems: list[Problem] = []
    for text in options.param:
        name, equals, value = text.partition("=")
        if not equals or not name:
            problems.append(
                Problem(where="--param", found=repr(text), expected="NAME=VALUE", action="Write the value after a '='.")
            )
        given[name] = value
    if problems:
        raise BadInput(problems)
    path = _from_where_typed(options, options.package) if options.package else _compiled(options)
    package = client.read_package(path)
    return package, package.arguments(given)


def _compiled(options: argparse.Namespace) -> Path:
    """Compiles the pipeline; what the environment says of the cluster counts where the command line says nothing."""
    from evergreen.files import write_whole
    from pipeline import config
    from pipeline.kubeflow import compiler

    problem, environment = config.load(Path(options.config), Path(options.environment), look_for_data=False)
    # What TensorFlow's C++ says of graphics cards does not concern a compiler.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment = compiler.with_image(environment, options.image)
    text = compiler.compile_pipeline(problem, environment, file=str(options.environment))
    path = Path("runs") / "kubeflow" / f"{problem.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    if environment.kubeflow is not None:
        options.service_account = options.service_account or environment.kubeflow.service_account
        options.ui = options.ui or environment.kubeflow.page
    return path


def _connect(options: argparse.Namespace, clock: Clock | None) -> Api:
    from pipeline.kubeflow import api

    access = api.Access(
        endpoint=options.endpoint,
        token=_token(options),
        ui=options.ui,
        namespace=options.namespace,
        kubeconfig=options.kubeconfig and str(_from_where_typed(options, options.kubeconfig)),
        context=options.context,
        install_namespace=options.kubeflow_namespace,
        ca_file=options.ca_file and str(_from_where_typed(options, options.ca_file)),
    )
    return api.connect(api.find_endpoint(access, environ=os.environ), clock=clock)


def _token(options: argparse.Namespace) -> str | None:
    from evergreen.errors import BadInput, Problem

    if options.token_file is None:
        return str(options.token) if options.token else None
    try:
        return _from_where_typed(options, options.token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            where=f"--token-file {options.token_file}",
            found=getattr(error, "strerror", None) or "letters that no token has",
            expected="a file with the token",
            action="Correct the path.",
        )
        raise BadInput([problem]) from error


def _from_where_typed(options: argparse.Namespace, path: str) -> Path:
    """Returns a path relative to where the command was typed; the runner itself works in the project's folder."""
    return Path(getattr(options, "called_from", None) or Path.cwd()) / path


def _latest(api: Api, experiment: str | None) -> str:
    from evergreen.errors import BadInput, Problem
    from pipeline.kubeflow import client

    runs = client.list_runs(api, limit=1, experiment_name=experiment)
    if not runs:
        raise BadInput(
            [
                Problem(
                    where="status",
                    found="no run at all",
                    expected="a run to show",
                    action="Start one: `kubeflow_runner.py run`.",
                )
            ]
        )
    return runs[0].run_id


def _watched(api: Api, run_id: str, nodes: Sequence[str] | None, options: argparse.Namespace) -> Run:
    from pipeline import display
    from pipeline.kubeflow import client

    if nodes is None:
        nodes = [node.name for node in client.get_run(api, run_id).nodes]
    stream = sys.stderr if options.json else sys.stdout
    try:
        with display.open_display(nodes, stream=stream) as shown:
            return client.watch(api, run_id, nodes, display=shown, timeout_seconds=options.timeout)
    except KeyboardInterrupt:
        print(f"The run goes on. `kubeflow_runner.py status {run_id}` shows it.", file=sys.stderr)
        raise


def _end(run: Run, options: argparse.Namespace) -> int:
    """Returns the exit code: a run that ended otherwise than well is a fault, one that goes on is not."""
    if not run.ended or run.state == "SUCCEEDED":
        return 0
    failed = run.failed()
    print(f"The run ended as {run.state}{f' at {_and(failed)}' if failed else ''}{_took(run)}.", file=sys.stderr)
    if run.error:
        print(run.error, file=sys.stderr)
    namespace = options.namespace or options.kubeflow_namespace
    print(
        f"Logs: `kubectl logs -n {namespace} -l pipeline/runid={run.run_id} --tail=-1`, or {run.link}", file=sys.stderr
    )
    return 1


def _uploaded(version: Version) -> str:
    state = "uploaded" if version.new else "is there already"
    return f"Version {version.name} of pipeline {version.pipeline} {state}: {version.link}"


def _say_plan(plan: Plan, outcome: Outcome, now: datetime.datetime, say: Callable[[str], None]) -> list[str]:
    when = _words(plan.cron.expression if plan.cron else None, plan.interval_seconds)
    did = "is at work" if outcome.changed else "is at work already, nothing had to be changed"
    say(f"Schedule {plan.name} {did}: {when}. {outcome.link}")
    times = [_stamp(time) for time in plan.cron.upcoming(now, 3)] if plan.cron else []
    if times:
        say(f"Next: {', '.join(times)} (UTC)")
    _say_retired(outcome, "the same command", say)
    return times


def _say_retired(outcome: Outcome, command: str, say: Callable[[str], None]) -> None:
    for identity in outcome.retired:
        say(
            f"The old schedule {identity} is off but still there: deleting it would kill its run under way. "
            f"When that has ended, {command} deletes it."
        )


def _words(cron_expression: str | None, interval_seconds: int | None) -> str:
    from evergreen.errors import BadInput
    from pipeline.kubeflow import cron

    if interval_seconds is not None:
        unit = next(unit for unit in ("d", "h", "m", "s") if interval_seconds % _UNITS[unit] == 0)
        count = interval_seconds // _UNITS[unit]
        name = {"d": "day", "h": "hour", "m": "minute", "s": "second"}[unit]
        return f"every {name}" if count == 1 else f"every {count} {name}s"
    try:
        return cron.parse(cron_expression or "").describe()
    except BadInput:
        return repr(cron_expression)


def _stamp(moment: datetime.datetime | None) -> str:
    return f"{moment.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M:%S}" if moment else " " * 19


def _took(run: Run) -> str:
    return f" after {run.seconds:.0f} s" if run.seconds is not None else ""


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _sayer(options: argparse.Namespace) -> Callable[[str], None]:
    """Returns what speaks to people: on standard output, or beside it where a program reads that."""
    stream = sys.stderr if options.json else sys.stdout
    return lambda text: print(text, file=stream, flush=True)


def _answer(options: argparse.Namespace, document: Mapping[str, Any]) -> None:
    if options.json:
        print(json.dumps(document, indent=2))


def _plain(record: Any) -> Any:
    """Returns a record as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=_text))


def _text(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", str(value))
