"""How long a session through gdb will take, told while there is time to choose another way."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cosim.run.names import Names

WINDOW = 3.0
"""Seconds over which the guest's speed is taken."""
_LONG = 60.0
"""A shorter rest is not worth a line."""


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
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._since = time.monotonic()
        self._stops = 0
        self._instruction: int | None = None
        self._slow = False
        self.told = False
        """True if the user was told; there is nothing more to do."""

    @property
    def due(self) -> bool:
        """True if it is time for :meth:`update`."""
        return not self.told and time.monotonic() - self._since >= WINDOW

    def update(self, stops: int, instruction: int) -> Speed | None:
        """Take in how far the guest is; return its speed if it was slow twice in a row."""
        now = time.monotonic()
        before, self._instruction = self._instruction, instruction
        if before is None:
            speed = None
        else:
            speed = Speed(
                now - self._since,
                stops - self._stops,
                instruction - before,
                self._total - instruction,
            )
        self._since, self._stops = now, stops
        slow = speed is not None and speed.rest > _LONG
        self.told, self._slow = slow and self._slow, slow
        return speed if self.told else None


def warning(speed: Speed, left: float, names: Names) -> str:
    """Return a line for the user.

    :param left: seconds to the time limit; infinite if there is none.
    """
    text = (
        f"gdb stops the guest {speed.stops / speed.seconds:,.0f} times a second; at this rate its "
        f"recording ends in about {_minutes(speed.rest)}"
    )
    if speed.rest > left:
        text += f", and {names.option('time_limit')} leaves {_minutes(left)}"
    return f"{text}; {names.setting('backend', 'plugin')} sees the same events in seconds"


def long_rest(passed: float, done: int, total: int, names: Names) -> str | None:
    """Return a line for the user if the rest of a known number of events takes long, else None.

    :param passed: seconds since the first event.
    :param done: how many events there were in them.
    """
    left = passed * (total - done) / max(done, 1)
    if passed < WINDOW or left <= _LONG:
        return None
    return (
        f"gdb has come to {done:,} of {total:,} events and needs about {_minutes(left)} for the "
        f"rest; {names.setting('backend', 'plugin')} sees the same events in seconds"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
