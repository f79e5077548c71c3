"""The live view: one line on stderr that says where a session is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.text import Text

from cosim.output import messages, one_line
from cosim.session.forecast import duration
from cosim.session.protocol import Progress, View

_PLACE = 30
"""Columns for the place; the exits need the rest."""


class _Rate:
    """Events per second over the last few seconds."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._events = 0
        self._rate = 0.0

    def update(self, events: int) -> float:
        now = time.monotonic()
        if now - self._at >= 1:
            self._rate = (events - self._events) / (now - self._at)
            self._at, self._events = now, events
        return self._rate


def line(progress: Progress, rate: float) -> str:
    """Return ``progress`` as one line of at most 100 columns."""
    text = f"{progress.phase} {progress.seconds:5.1f} s"
    if progress.events:
        total = f" of {progress.of:,}" if progress.of is not None else ""
        text += f"  {progress.events:,}{total} events, {rate:,.0f}/s"
    if progress.left is not None:
        text += f", about {duration(progress.left)} left"
    elif progress.remark:
        text += f" ({progress.remark})"
    if progress.place:
        text += f"  {progress.place[:_PLACE]}"
    if progress.exits:
        text += "  exits: " + ", ".join(f"{k} {v:,}" for k, v in progress.exits.items())
    return text[:100]


@contextmanager
def live_view() -> Iterator[View]:
    """Yield a view that redraws one line on stderr.  It is silent if stderr is not a terminal."""
    if not messages.is_terminal:
        yield lambda progress: None
        return
    rate = _Rate()
    with Live(console=messages, refresh_per_second=4, transient=True) as live:

        def show(progress: Progress) -> None:
            text = one_line(line(progress, rate.update(progress.events)))
            live.update(Text(text, no_wrap=True))

        yield show
