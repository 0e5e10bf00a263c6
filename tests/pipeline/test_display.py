"""The screen: plain lines in a pipe, a table on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from pipeline.display import LiveDisplay, State, open_display


def test_a_pipe_gets_a_line_at_each_end():
    stream = io.StringIO()
    with open_display(["ExampleGen", "Trainer"], stream=stream) as display:
        display.say("hello")
        display.begin("ExampleGen")
        display.figure("10 rows")
        display.end("ExampleGen", State.DONE, figure="20 rows", seconds=1.23)
        display.end("Trainer", State.SKIPPED)
    assert stream.getvalue().splitlines() == [
        "hello",
        "ExampleGen: running",
        "ExampleGen: done in 1.2 s, 20 rows",
        "Trainer: skipped",
    ]


def test_the_table_has_state_time_and_figure_of_every_node():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    display = LiveDisplay(["ExampleGen", "Trainer", "Pusher"], console=console)
    display.begin("ExampleGen")
    display.end("ExampleGen", State.CACHED, figure="20 rows", seconds=0.1)
    display.begin("Trainer")
    display.figure("epoch 3/10")
    console.print(display.render())
    text = console.file.getvalue()
    for expected in ("ExampleGen", "unchanged", "0.1 s", "20 rows", "Trainer", "running", "epoch 3/10", "waiting"):
        assert expected in text


def test_brackets_in_paths_are_shown():
    stream = io.StringIO()
    display = LiveDisplay([], console=Console(file=stream, force_terminal=True, width=100))
    display.say("logs go to /data/[red]/[/x]/run.log")
    assert "/data/[red]/[/x]/run.log" in stream.getvalue()
