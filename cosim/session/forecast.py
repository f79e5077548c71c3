"""How long a session through gdb will take, told while there is time to choose another way."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cosim.run.names import Names

WINDOW = 1.0
"""Seconds over which the guest's speed is taken."""
_KNOWN_SECONDS = 3.0
"""If the number of events is known, how long to wait before the rest is judged."""
_KNOWN_EVENTS = 1_000
"""And how many events must be done: the first ones wait for gdb and the models."""
_LONG = 60.0
"""A shorter rest is not worth a line."""
_VERY_LONG = 600.0
_SLOW_WINDOWS = 8
"""A guest that changes many entries at once has many stops for a while: Linux, at the start of its
init, for 4 s on two busy cores, and looks as if it needed two minutes (measured)."""
_VERY_SLOW_WINDOWS = 2
_STOPS = 50
"""Stops in a window that tell a speed.  With fewer, something else holds the guest up, such as
other work on the machine."""


@dataclass(frozen=True)
class Speed:
    """What the last seconds have brought."""

    seconds: float
    stops: int
    instructions: int
    left: int
    """Instructions up to the recording's end, where the region ends at the latest."""

    @property
    def rest(self) -> float:
        """Seconds to the end if the stops go on as densely."""
        return self.seconds * max(self.left, 0) / max(self.instructions, 1)


class Forecast:
    """Follows one region.

    :param total: instructions of the whole recording.
    :param first: the instruction at which the region begins.
    :param stops: how many stops there were before it.
    """

    def __init__(self, total: int, first: int, stops: int = 0) -> None:
        self._total = total
        self._since = time.monotonic()
        self._stops = stops
        self._instruction = first
        self._speed: Speed | None = None
        self._slow = 0
        """For how many windows in a row a long rest lay ahead."""
        self._very_slow = 0
        self.told = False
        """True if the user was told."""

    @property
    def due(self) -> bool:
        """True if it is time for :meth:`update`."""
        return time.monotonic() - self._since >= WINDOW

    @property
    def left(self) -> float | None:
        """Seconds to the recording's end at the last speed; None before the first one."""
        if self._speed is None:
            return None
        return max(self._speed.rest - (time.monotonic() - self._since), 0.0)

    def update(self, stops: int, instruction: int) -> Speed | None:
        """Take in how far the guest is; return its speed once, if it stays slow."""
        now = time.monotonic()
        speed = Speed(
            now - self._since,
            stops - self._stops,
            instruction - self._instruction,
            self._total - instruction,
        )
        self._since, self._stops, self._instruction = now, stops, instruction
        self._speed = speed
        rest = speed.rest if speed.stops >= _STOPS else 0.0
        self._slow = self._slow + 1 if rest > _LONG else 0
        self._very_slow = self._very_slow + 1 if rest > _VERY_LONG else 0
        if self.told or (self._slow < _SLOW_WINDOWS and self._very_slow < _VERY_SLOW_WINDOWS):
            return None
        self.told = True
        return speed


def warning(speed: Speed, left: float, names: Names) -> str:
    """Return a line for the user.

    :param left: seconds to the time limit; infinite if there is none.
    """
    text = (
        f"gdb stops the guest {speed.stops / speed.seconds:,.0f} times a second; at this rate its "
        f"recording ends in about {duration(speed.rest)}"
    )
    if speed.rest > left:
        text += f", and {names.option('time_limit')} leaves {duration(left)}"
    return f"{text}; {names.setting('backend', 'plugin')} sees the same events in seconds"


def known_warning(last: float, left: float, names: Names) -> str | None:
    """Return a line for the user if gdb's part of the same run took long the last time.

    None if it did not; then the speed is no reason for a line either.

    :param last: how many seconds it took.
    :param left: seconds to the time limit; infinite if there is none.
    """
    if last <= _LONG:
        return None
    text = f"gdb needed about {duration(last)} for this run the last time"
    if last > left:
        text += f", and {names.option('time_limit')} leaves {duration(left)}"
    return f"{text}; {names.setting('backend', 'plugin')} sees the same events in seconds"


def long_rest(passed: float, done: int, total: int, names: Names) -> str | None:
    """Return a line for the user if the rest of a known number of events takes long, else None.

    :param passed: seconds since the first event.
    :param done: how many events there were in them.
    """
    left = passed * (total - done) / max(done, 1)
    if passed < _KNOWN_SECONDS or done < _KNOWN_EVENTS or left <= _LONG:
        return None
    return (
        f"gdb has come to {done:,} of {total:,} events and needs about {duration(left)} for the "
        f"rest; {names.setting('backend', 'plugin')} sees the same events in seconds"
    )


def duration(seconds: float) -> str:
    """Return a time for people, in seconds or in minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
