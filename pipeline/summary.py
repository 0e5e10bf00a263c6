"""What the screen says when a run is over: the metrics side by side, the verdict in words, what lies where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evergreen.errors import ExitCode, Problem
from evergreen.words import counted
from pipeline.display import State
from pipeline.figures import Outputs, read_json


def render(
    *,
    outputs: Mapping[str, Outputs],
    states: Mapping[str, State],
    registry: Path,
    seconds: float,
    log: Path,
    command: str,
    built_in_data: bool,
    stream: TextIO,
) -> ExitCode:
    """Writes the end of a run that came through without a fault.

    Args:
        outputs: the folders of each finished node's outputs, by node id.
        states: how each node ended.
        registry: the folder of this model's versions.
        seconds: wall time of the run.
        log: the file with the libraries' logs.
        command: how the runner was called, options included, to which a verb can be added.
        built_in_data: whether `new-span` can add data.
        stream: where the screen is.

    Returns:
        `ExitCode.REFUSED` where a candidate was judged and not blessed, else `ExitCode.OK`.
    """
    # Paths and names are no markup, whatever brackets they hold.
    console = Console(file=stream, highlight=False, soft_wrap=True, markup=False)
    if "ExampleValidator" in outputs:
        say_findings(read_json(outputs["ExampleValidator"], "anomalies", "report.json"), stream=stream)
    verdict = read_json(outputs["Evaluator"], "evaluation", "verdict.json") if "Evaluator" in outputs else None
    pushed = read_json(outputs["Pusher"], "pushed_model", "pushed.json") if "Pusher" in outputs else None
    if verdict:
        console.print()
        console.print(_metrics(verdict))
        _say_verdict(console, verdict)
    console.print(_work_done(states, seconds))
    if pushed and pushed["version"] is not None:
        console.print(f"Model:  {pushed['destination']}  (version {pushed['version']} of {registry})")
    if "SchemaGen" in outputs:
        inferred = outputs["SchemaGen"]["schema"][0] / "schema.pbtxt"
        console.print(f"Schema: inferred from these data: {inferred}")
        console.print(
            f"        {_with_verb(command, 'schema accept')}   keeps one as schemas/{registry.name}/schema.pbtxt;"
        )
        console.print(
            "        review it and name it as `schema` in the configuration: then data that differ are refused."
        )
    console.print(f"Logs:   {log}")
    if "Trainer" in outputs:
        console.print(f"Curves: tensorboard --logdir {outputs['Trainer']['model_run'][0]}")
    refused = verdict is not None and not verdict["blessed"]
    console.print(_next(command, refused=refused, partial=verdict is None, built_in_data=built_in_data))
    return ExitCode.REFUSED if refused else ExitCode.OK


def say_findings(report: Mapping[str, Any], *, stream: IO[str]) -> None:
    """Writes what the data gate found as a table: errors first, what is missing from a row is about the whole table."""
    findings = [*report["errors"], *report["warnings"]]
    if not findings:
        return
    errors, warnings = counted(len(report["errors"]), "error"), counted(len(report["warnings"]), "warning")
    title = f"What the data gate found: {errors}, {warnings}"
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=True)
    for column, ratio in (("column", 2), ("check", 3), ("found", 6), ("expected", 4), ("for example", 3), ("do", 5)):
        table.add_column(column, overflow="fold", ratio=ratio)
    for finding in findings:
        table.add_row(
            finding["column"] or "(all)",
            f"{finding['check']}\n{finding['severity']}, {_place(finding)}",
            finding["found"],
            finding["expected"],
            "\n".join(finding["examples"]),
            finding["action"],
        )
    # Text from the data is no markup. A pipe has no width of its own: a wide table is easier to read than a narrow one.
    console = Console(file=stream, highlight=False, markup=False)
    console = console if console.is_terminal else Console(file=stream, highlight=False, markup=False, width=180)
    console.print()
    console.print(table)


def _place(finding: Mapping[str, Any]) -> str:
    word, places = ("span", finding["spans"]) if finding.get("spans") else ("split", finding["splits"])
    return f"{word}{'s' if len(places) > 1 else ''} {', '.join(map(str, places))}"


def say_problems(problems: Iterable[Problem], *, stream: IO[str]) -> None:
    """Writes every problem as a short paragraph: where, what was found, what was expected, what to do."""
    for problem in problems:
        print(f"\n  {problem.where}", file=stream)
        print(f"    found:    {problem.found}", file=stream)
        print(f"    expected: {problem.expected}", file=stream)
        print(f"    do:       {problem.action}", file=stream, flush=True)


def _metrics(verdict: Mapping[str, Any]) -> Table:
    metrics = verdict["metrics"]
    title = f"Metrics on the {verdict['rows']:,} rows of the test split"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("metric")
    for column in ("candidate", _champion_name(verdict), "trivial baseline"):
        table.add_column(column, justify="right")
    for name, value in metrics["candidate"].items():
        others = [(metrics[who] or {}).get(name) for who in ("champion", "trivial")]
        table.add_row(name, *("-" if v is None else f"{v:.4f}" for v in [value, *others]))
    return table


def _champion_name(verdict: Mapping[str, Any]) -> str:
    version = verdict["champion_version"]
    return "champion" if version is None else f"champion (version {version})"


def _say_verdict(console: Console, verdict: Mapping[str, Any]) -> None:
    if verdict["blessed"]:
        against = "the trivial baseline" if verdict["metrics"]["champion"] is None else "the champion"
        reason = f": within its bounds and good enough against {against}."
        console.print("Verdict: ", Text("blessed", "bold green"), reason, sep="")
        return
    console.print("Verdict: ", Text("refused", "bold yellow"), ". What serves goes on serving. Why:", sep="")
    say_problems((Problem(**reason) for reason in verdict["reasons"]), stream=console.file)
    console.print()


def _work_done(states: Mapping[str, State], seconds: float) -> str:
    done = [node for node, state in states.items() if state is State.DONE]
    cached = [node for node, state in states.items() if state is State.CACHED]
    skipped = [node for node, state in states.items() if state is State.SKIPPED]
    took = f"{seconds:.0f} s"
    if not done:
        return f"Nothing changed since the last run: no work was done ({took})."
    ran = f"all {len(done)} nodes" if len(done) == len(states) else _list(done, of=len(states))
    text = f"Done in {took}: {ran} ran"
    text += f"; {_list(cached, of=len(states))} unchanged" if cached else ""
    text += f"; {_list(skipped, of=len(states))} skipped" if skipped else ""
    return text + "."


def _list(nodes: Sequence[str], *, of: int) -> str:
    return f"{len(nodes)} of {of} nodes" if len(nodes) > 6 else ", ".join(nodes)


def _next(command: str, *, refused: bool, partial: bool, built_in_data: bool) -> str:
    if partial:
        return f"Next:   {command}   runs the rest."
    if refused:
        return f"Next:   change the features, the model or the bounds in the configuration, then: {command}"
    ask = f"Next:   {_with_verb(command, 'predict FILE')}   asks the serving model"
    if not built_in_data:
        return f"{ask};\n        {command}   trains again when there are new data."
    return f"{ask};\n        {_with_verb(command, 'new-span')}   adds a day of data, after which a run trains on it."


def _with_verb(command: str, verb: str) -> str:
    """Puts a verb behind the script's name, before the options."""
    head, script, options = command.partition("local_runner.py")
    return f"{head}{script} {verb}{options}"
