"""What a run looks like: a live table on a terminal, plain lines elsewhere; every node with state, time and a figure.

with open_display(nodes, stream=stream) as display:
    display.begin("ExampleGen")
    display.figure("40,000 rows")
    display.end("ExampleGen", State.DONE, figure="140,000 rows")
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class State(enum.Enum):
    """What has become of a node; the value is what the screen and `nodes.json` call it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CACHED = "unchanged"
    """Nothing that it depends on changed: the earlier output was taken."""
    SKIPPED = "skipped"
    """Outside of what the command line asked for."""
    REFUSED = "refused"
    """The node is a gate and stopped the candidate."""
    FAILED = "failed"


_LOOKS = {
    State.WAITING: (" ", "dim"),
    State.RUNNING: ("", "bold cyan"),
    State.DONE: ("✓", "green"),
    State.CACHED: ("=", "blue"),
    State.SKIPPED: ("-", "dim"),
    State.REFUSED: ("✗", "bold yellow"),
    State.FAILED: ("✗", "bold red"),
}


class Display(Protocol):
    """Shows the run while it goes on."""

    def say(self, text: str) -> None:
        """Shows a line above the nodes."""

    def begin(self, node: str) -> None:
        """Shows that a node started."""

    def figure(self, text: str) -> None:
        """Shows the latest figure of the node that is running."""

    def end(self, node: str, state: State, *, figure: str = "", seconds: float | None = None) -> None:
        """Shows how a node ended."""


@contextlib.contextmanager
def open_display(nodes: Sequence[str], *, stream: TextIO) -> Iterator[Display]:
    """Yields the display that suits the stream: live on a terminal, plain lines on anything else.

    Args:
        nodes: the node ids in the order in which they run.
        stream: where the screen is, which need not be `sys.stdout`.
    """
    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(stream)
        return
    display = LiveDisplay(nodes, console=console)
    with Live(get_renderable=display.render, console=console, refresh_per_second=8, transient=False):
        yield display


class PlainDisplay:
    """One line when a node starts and one when it ends, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream`."""
        self._stream = stream

    def say(self, text: str) -> None:
        """Writes the line."""
        print(text, file=self._stream, flush=True)

    def begin(self, node: str) -> None:
        """Writes that the node started."""
        self.say(f"{node}: running")

    def figure(self, text: str) -> None:
        """Leaves the figures in between out: they are for eyes that watch."""

    def end(self, node: str, state: State, *, figure: str = "", seconds: float | None = None) -> None:
        """Writes how the node ended."""
        took = f" in {seconds:.1f} s" if seconds is not None else ""
        self.say(f"{node}: {state.value}{took}{f', {figure}' if figure else ''}")


class LiveDisplay:
    """A table that is drawn over again several times a second."""

    def __init__(self, nodes: Sequence[str], *, console: Console) -> None:
        """Starts with every node waiting."""
        self._console = console
        self._states = dict.fromkeys(nodes, State.WAITING)
        self._figures = dict.fromkeys(nodes, "")
        self._seconds: dict[str, float] = {}
        self._spinner = Spinner("dots", style="bold cyan")
        self._running: tuple[str, float] | None = None

    def say(self, text: str) -> None:
        """Prints the line above the table."""
        self._console.print(text, highlight=False, markup=False)  # a path may hold brackets

    def begin(self, node: str) -> None:
        """Marks the node as running."""
        self._states[node] = State.RUNNING
        self._running = (node, time.monotonic())

    def figure(self, text: str) -> None:
        """Shows the figure beside the running node."""
        if self._running:
            self._figures[self._running[0]] = text

    def end(self, node: str, state: State, *, figure: str = "", seconds: float | None = None) -> None:
        """Marks how the node ended."""
        self._running = None
        self._states[node] = state
        self._figures[node] = figure or self._figures[node]
        if seconds is not None:
            self._seconds[node] = seconds

    def render(self) -> Table:
        """Returns the table as it stands."""
        table = Table.grid(padding=(0, 2))
        table.add_column(width=1)
        table.add_column(min_width=16)
        table.add_column(min_width=9)
        table.add_column(justify="right", min_width=7)
        table.add_column(overflow="fold")
        for node, state in self._states.items():
            sign, style = _LOOKS[state]
            table.add_row(
                self._spinner if state is State.RUNNING else Text(sign, style=style),
                Text(node, style=style),
                Text(state.value, style=style),
                self._time(node),
                Text(self._figures[node]),
            )
        return table

    def _time(self, node: str) -> str:
        if self._running and self._running[0] == node:
            return f"{time.monotonic() - self._running[1]:.0f} s"
        return f"{self._seconds[node]:.1f} s" if node in self._seconds else ""
