"""The time that measurements take: what is done, and what is left."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from cosim.output import Step
from cosim.reproduce.lab import Lab
from cosim.reproduce.measurement import Measurement
from cosim.reproduce.timeline import Timeline

_PERIOD = 0.5
_TRUST = 20.0
"""After so many seconds of measuring the time taken counts as much as the guesses."""


class _Current(NamedTuple):
    """The measurement that is being made."""

    guess: float
    started: float
    done: float
    """From 0 to 1; 0 while its guest is being captured."""
    text: str


class Clock:
    """Tells ``step`` twice a second how many seconds were spent, and how many it will be in all.

    Nobody knows how long a capture takes. So the guesses of the measurements say what is left,
    corrected by the time that finished measurements really took.

    :param left: the guessed seconds of the measurements to be made, by their keys.
    """

    def __init__(self, step: Step, left: dict[str, float]) -> None:
        self._step = step
        self._left = dict(left)
        self._started = time.monotonic()
        self._guessed = 0.0
        self._took = 0.0
        self._current: _Current | None = None
        self._change = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="clock", daemon=True)

    def __enter__(self) -> Clock:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()

    def measure(self, name: str, lab: Lab, measurement: Measurement) -> Timeline:
        """Make ``measurement`` for the experiment ``name``."""
        guess = self._left.get(lab.key(measurement), 0.0)
        started = time.monotonic()

        def step(done: float, total: float | None = None, text: str | None = None) -> None:
            self._current = _Current(guess, started, done / (total or 1), f"{name}, {text}")

        with self._change:
            self._left.pop(lab.key(measurement), None)
            step(0, 1, measurement.spec.name)
        timeline = lab.measure(measurement, step)
        with self._change:
            self._current = None
            if guess:
                self._guessed += guess
                self._took += time.monotonic() - started
        return timeline

    def _tick(self) -> None:
        self._tell()
        while not self._over.wait(_PERIOD):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        with self._change:
            current = self._current
            pace = (self._took + _TRUST) / (self._guessed + _TRUST)
            left = pace * sum(self._left.values())
        if current is not None:
            whole = pace * current.guess
            if current.done:
                left += whole * (1 - current.done)
            else:
                # Half of it is the models', still to come.
                left += max(whole - (now - current.started), whole / 2)
        spent = now - self._started
        self._step(spent, spent + left, None if current is None else current.text)
