"""What the commands print: JSON or tables on stdout, messages and progress on stderr."""

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
        # Rich would exit with status 1, but that is a finding.
        raise


messages = _Console(stderr=True, highlight=False, soft_wrap=True)
"""The console for progress, notes and the live view: always stderr."""

WIDTH = 100
"""The width in columns that every table keeps to."""


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
    """Write one line for the user to stderr."""
    messages.print(text, markup=False)


class Step(Protocol):
    """Reports how far long work is: ``step(done, total, text)``; ``total`` is None if unknown."""

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Report that ``done`` of ``total`` units are finished."""
        ...


class SecondsLeft(ProgressColumn):
    """Shows the time left of work that is measured in seconds."""

    def render(self, task: Task) -> Text:
        """Return the time left of ``task``, as H:MM:SS."""
        if task.total is None:
            return Text("-:--:--", style="progress.remaining")
        minutes, seconds = divmod(round(max(task.total - task.completed, 0)), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")


@contextmanager
def progress(title: str, *, seconds: bool = False) -> Iterator[Step]:
    """Show a progress bar with the time left on stderr, if stderr is a terminal.

    :param title: what is done; a step may replace it.
    :param seconds: True if the work's units are estimated seconds.  Otherwise the time left is
        computed from the speed so far.
    :return: the function that reports progress.
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
