"""When each policy exits over the guest's time, and what causes its exits and TLB misses.

A policy says for each event how many exits and misses it had there.  The profile adds these up by
the instruction count of the event, and by what caused it (:mod:`cosim.models.attribution`).  It
keeps a fixed number of windows of time: if the run is longer, they are twice as wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cosim.capture.processes import Process
from cosim.models.attribution import ROWS, Causes, CausesDocument, Kept, Lookup
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.policies import PolicyResult

WINDOWS = 128
"""Windows of time at most."""
MARKS = 100
"""Marks that are kept."""
_NARROWEST = 64
"""Instructions of the first windows."""
_UNTIMED = "the source does not say how many instructions the guest had executed at each event"
_PARTIAL = "its exits of some kinds are not counted, and cannot be told from the others here"

_NAMELESS = "no symbols: the kernel has none, or its file is not there or has changed"


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


class Profile(TypedDict):
    """The part ``profile`` of a result."""

    over_time: OverTime | None
    causes: NotRequired[CausesDocument]
    """Older results lack it."""
    reasons: dict[str, str]
    """Why ``over_time`` is None, ``functions`` are addresses, no ``processes`` are named, a policy
    is missing, or its misses are (``POLICY.misses``)."""


class Profiler:
    """Adds up the exits and TLB misses of each policy by time and by cause.

    :param policies: the names of the models.
    :param harts: of the guest.
    """

    def __init__(self, policies: Sequence[str], harts: int = 1) -> None:
        self._policies = tuple(policies)
        self._start: int | None = None
        self._timed = True
        self._window = _NARROWEST
        self._end = 0
        self._over_time = np.zeros((len(self._policies), WINDOWS), np.int64)
        self._causes = Causes(2 * len(self._policies), harts)
        self._marks: list[tuple[int, int]] = []

    def feed(
        self,
        batch: EventBatch,
        exits: Sequence[NDArray[np.int64]],
        misses: Sequence[NDArray[np.int64]],
    ) -> None:
        """Add ``batch``, with the exits and the misses of each policy at each event."""
        if not len(batch):
            return
        if self._timed:
            self._advance(batch)
        rows = [*exits, *misses]
        any_taken = np.zeros(len(batch), np.int64)
        for row in rows:
            any_taken |= row
        where = np.flatnonzero(any_taken)
        taken = np.stack([row[where] for row in rows])
        self._causes.feed(batch, taken, where)
        taken = taken[: len(self._policies)]
        exiting = np.flatnonzero(taken.any(axis=0))
        if not len(exiting):
            return
        icounts = batch["icount"][where[exiting]]
        # Only samples of a second source may have no time; they are no exits.
        self._timed &= bool((icounts >= 0).all())
        if self._timed:
            assert self._start is not None
            times = np.maximum(icounts - self._start, 0) // self._window
            for row, counted in zip(self._over_time, taken[:, exiting], strict=True):
                np.add.at(row, times, counted)

    def _advance(self, batch: EventBatch) -> None:
        """Make the windows reach to the end of ``batch``; note its marks."""
        icounts = batch["icount"]
        last = int(icounts.max())
        if last < 0:
            return
        if self._start is None:
            # Samples of a second source have no time.
            self._start = int(icounts[np.argmax(icounts >= 0)])
        self._end = max(self._end, last - self._start)
        while self._end >= self._window * WINDOWS:
            pairs = self._over_time.reshape(len(self._policies), WINDOWS // 2, 2).sum(axis=2)
            self._over_time = np.concatenate([pairs, np.zeros_like(pairs)], axis=1)
            self._window *= 2
        marks = batch[np.flatnonzero(batch["kind"] == Kind.MARK)]
        marks = marks[marks["icount"] >= 0][: MARKS - len(self._marks)]
        for icount, number in zip(marks["icount"].tolist(), marks["a"].tolist(), strict=True):
            self._marks.append((icount - self._start, number))

    def profile(
        self,
        results: Mapping[str, PolicyResult],
        lookup: Lookup | None,
        labels: Mapping[int, str],
        rows: int = ROWS,
        *,
        processes: Mapping[int, Process] | None = None,
        nameless: str | None = None,
    ) -> Profile:
        """Return what was added up.

        :param results: what each policy counted.  A policy that does not count all its exits is
            left out; so are the misses of one that does not count them.
        :param lookup: names the addresses of the kernel; None: nothing does.
        :param labels: the texts of the marks, by number.
        :param rows: lists at most this many functions, sites and address spaces.
        :param processes: the processes, by the number in SATP_WRITE events.
        :param nameless: why no process is known; None if they were looked for.
        """
        reasons = {}
        sums = self._causes.totals().tolist()
        kept = Kept({}, {})
        for index, (name, result) in enumerate(results.items()):
            if sums[index] == result.at_least:
                kept.exits[name] = index
            else:
                reasons[name] = _PARTIAL
            if result.tlb_misses is not None:
                kept.misses[name] = index + len(results)
            else:
                reasons[f"{name}.misses"] = result.reasons["tlb_misses"]
        over_time = None
        if not self._timed or self._start is None:
            reasons["over_time"] = _UNTIMED
        else:
            used = self._end // self._window + 1
            over_time = OverTime(
                window=self._window,
                exits={
                    name: self._over_time[at, :used].tolist() for name, at in kept.exits.items()
                },
                marks=[
                    Mark(at=at, label=labels.get(number, f"mark {number}"))
                    for at, number in self._marks
                ],
            )
        if lookup is None:
            reasons["functions"] = _NAMELESS
        if nameless is not None and not processes:
            reasons["processes"] = nameless
        causes = self._causes.document(kept, lookup, rows, processes)
        return Profile(over_time=over_time, causes=causes, reasons=reasons)
