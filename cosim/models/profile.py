"""Where and when each policy exits: over the guest's time, and by the kernel's functions.

A policy says for each event how many exits it caused.  The profile adds these up by the instruction
count of the event and by its pc.  It keeps a fixed number of windows of time: if the run is longer,
they are twice as wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import EventBatch, Kind, Priv
from hypervisor_model.jit import unsigned

WINDOWS = 128
"""Windows of time at most."""
FUNCTIONS = 20
"""Functions that are named; the others are added up."""
MARKS = 100
"""Marks that are kept."""
USER = "user programs"
"""Stands for all code in U-mode."""
_NARROWEST = 64
"""Instructions of the first windows."""
_UNTIMED = "the source does not say how many instructions the guest had executed at each event"
_PARTIAL = "its exits of some kinds are not counted, and cannot be told from the others here"

_NAMELESS = "no symbols: the kernel has none, or its file is not there or has changed"

Lookup = Callable[[int], str | None]
"""Returns the symbol at an address, ``name+0x12``; None if there is none."""


class Mark(TypedDict):
    """A mark of the guest: instructions since the start of the region, and its label."""

    at: int
    label: str


class OverTime(TypedDict):
    """Exits in windows of time."""

    window: int
    """Instructions of each window; the first begins with the region."""
    exits: dict[str, list[int]]
    """By policy; window by window."""
    marks: list[Mark]


class ByFunction(TypedDict):
    """Exits by the function that caused them."""

    function: str
    """Its name; the address of the instruction if there is no symbol."""
    exits: dict[str, int]
    """By policy."""


class Profile(TypedDict):
    """The part ``profile`` of a result."""

    over_time: OverTime | None
    by_function: list[ByFunction]
    """At most :data:`FUNCTIONS`, most exits first."""
    other_functions: dict[str, int]
    """Exits of all other functions, by policy."""
    reasons: dict[str, str]
    """Why ``over_time`` is None, ``functions`` are addresses, or a policy is missing."""


class Profiler:
    """Adds up the exits of each policy by time and by place.

    :param policies: the names of the models.
    """

    def __init__(self, policies: Sequence[str]) -> None:
        self._policies = tuple(policies)
        self._start: int | None = None
        self._timed = True
        self._window = _NARROWEST
        self._end = 0
        self._over_time = np.zeros((len(self._policies), WINDOWS), np.int64)
        self._places: dict[int | None, NDArray[np.int64]] = {}
        """By pc; None for all of U-mode."""
        self._marks: list[tuple[int, int]] = []

    def feed(self, batch: EventBatch, taken: Sequence[NDArray[np.int64]]) -> None:
        """Add ``batch``; ``taken`` are the exits of each policy at each event."""
        if not len(batch):
            return
        if self._timed:
            self._advance(batch)
        if not any(exits.any() for exits in taken):
            return
        exits = np.stack(taken)
        where = np.flatnonzero(exits.any(axis=0))
        exits = exits[:, where]
        icounts = batch["icount"][where]
        # Only samples of a second source may have no time; they are no exits.
        self._timed &= bool((icounts >= 0).all())
        if self._timed:
            assert self._start is not None
            times = np.maximum(icounts - self._start, 0) // self._window
            for row, counted in zip(self._over_time, exits, strict=True):
                np.add.at(row, times, counted)
        user = batch["priv"][where] == Priv.U
        if user.any():
            self._add(None, exits[:, user].sum(axis=1))
        places, inverse = np.unique(batch["pc"][where][~user], return_inverse=True)
        sums = np.zeros((len(places), len(self._policies)), np.int64)
        np.add.at(sums, inverse, exits[:, ~user].T)
        for place, counted in zip(places.tolist(), sums, strict=True):
            self._add(place, counted)

    def _advance(self, batch: EventBatch) -> None:
        """Make the windows reach to the end of ``batch``; note its marks."""
        batch = batch[batch["icount"] >= 0]
        if not len(batch):
            return
        if self._start is None:
            self._start = int(batch["icount"][0])
        self._end = max(self._end, int(batch["icount"].max()) - self._start)
        while self._end >= self._window * WINDOWS:
            pairs = self._over_time.reshape(len(self._policies), WINDOWS // 2, 2).sum(axis=2)
            self._over_time = np.concatenate([pairs, np.zeros_like(pairs)], axis=1)
            self._window *= 2
        marks = batch[batch["kind"] == Kind.MARK][: MARKS - len(self._marks)]
        for icount, number in zip(marks["icount"].tolist(), marks["a"].tolist(), strict=True):
            self._marks.append((icount - self._start, number))

    def _add(self, place: int | None, counted: NDArray[np.int64]) -> None:
        known = self._places.get(place)
        self._places[place] = counted if known is None else known + counted

    def profile(
        self, totals: Mapping[str, int], lookup: Lookup | None, labels: Mapping[int, str]
    ) -> Profile:
        """Return what was added up.

        :param totals: the exits of each policy as its result counts them.  A policy that does not
            count all its exits is left out.
        :param lookup: names the addresses of the kernel; None: nothing does.
        :param labels: the texts of the marks, by number.
        """
        reasons = {}
        sums = sum(self._places.values(), np.zeros(len(self._policies), np.int64)).tolist()
        kept = []
        for index, name in enumerate(self._policies):
            if sums[index] == totals[name]:
                kept.append(index)
            else:
                reasons[name] = _PARTIAL
        over_time = None
        if not self._timed or self._start is None:
            reasons["over_time"] = _UNTIMED
        else:
            used = self._end // self._window + 1
            over_time = OverTime(
                window=self._window,
                exits={self._policies[at]: self._over_time[at, :used].tolist() for at in kept},
                marks=[
                    Mark(at=at, label=labels.get(number, f"mark {number}"))
                    for at, number in self._marks
                ],
            )
        if lookup is None:
            reasons["functions"] = _NAMELESS
        functions = self._functions(lookup)
        ordered = sorted(functions, key=lambda name: (-int(functions[name][kept].sum()), name))
        ordered = [name for name in ordered if functions[name][kept].any()]
        rest = ordered[FUNCTIONS:]
        return Profile(
            over_time=over_time,
            by_function=[
                ByFunction(function=name, exits=self._named(functions[name], kept))
                for name in ordered[:FUNCTIONS]
            ],
            other_functions=self._named(
                sum((functions[name] for name in rest), np.zeros(len(self._policies), np.int64)),
                kept,
            ),
            reasons=reasons,
        )

    def _functions(self, lookup: Lookup | None) -> dict[str, NDArray[np.int64]]:
        found: dict[str, NDArray[np.int64]] = {}
        for place, counted in self._places.items():
            name = USER if place is None else _function(unsigned(place), lookup)
            found[name] = found[name] + counted if name in found else counted
        return found

    def _named(self, counted: NDArray[np.int64], kept: Iterable[int]) -> dict[str, int]:
        return {self._policies[at]: int(counted[at]) for at in kept}


def _function(pc: int, lookup: Lookup | None) -> str:
    symbol = None if lookup is None else lookup(pc)
    return f"{pc:#x}" if symbol is None else symbol.rpartition("+0x")[0] or symbol
