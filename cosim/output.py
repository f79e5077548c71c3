"""What the commands print: JSON on stdout, everything for people on stderr or as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would exit with status 1, which is a finding.
        raise


messages = _Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notes, the live view: always stderr."""

WIDTH = 100
"""Columns that every table fits."""


def print_json(document: Any) -> None:
    """Write ``document`` as the one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_table(table: RenderableType) -> None:
    """Write ``table`` (or several, as a group) to stdout, at most :data:`WIDTH` columns wide."""
    console = _Console(highlight=False)
    if console.width > WIDTH or not sys.stdout.isatty():
        console = _Console(highlight=False, width=WIDTH)
    console.print(table)


def note(text: str) -> None:
    """Write one line for people to stderr."""
    messages.print(text, markup=False)


class Step(Protocol):
    """Advances one piece of long work: ``step(done, total, text)``; ``total`` None = unknown."""

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Report that ``done`` of ``total`` units are finished."""
        ...


class SecondsLeft(ProgressColumn):
    """The time left of work whose units are seconds: what is not done."""

    def render(self, task: Task) -> Text:
        """The time left of ``task``, as H:MM:SS."""
        if task.total is None:
            return Text("-:--:--", style="progress.remaining")
        minutes, seconds = divmod(round(max(task.total - task.completed, 0)), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")


@contextmanager
def progress(title: str, *, seconds: bool = False) -> Iterator[Step]:
    """Show a progress bar with time left on stderr; silent when stderr is no terminal.

    ``seconds``: the work's units are seconds as its doer estimates them; else the time left comes
    from the speed so far.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        SecondsLeft() if seconds else TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    ) as bar:
        task = bar.add_task(title, total=None)

        def step(done: float, total: float | None = None, text: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=text or title)

        yield step
