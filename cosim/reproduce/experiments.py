"""Doing experiments: what is missing is measured, then data and page are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import guest
from cosim.batch import sole
from cosim.output import Step
from cosim.reproduce import beyond, fig5, fig6, fig7, refs
from cosim.reproduce.figure import Figure
from cosim.reproduce.lab import Lab, write_text
from cosim.reproduce.measurement import Measurement
from cosim.reproduce.timeline import Timeline


class Experiment(Protocol):
    """One module of this package."""

    NAME: str

    def plan(self, *, quick: bool) -> dict[str, Measurement]:
        """What is measured, by names of its own."""
        ...

    def figure(self, results: Mapping[str, Timeline], *, quick: bool) -> Figure:
        """The figure made of what was measured."""
        ...


EXPERIMENTS: dict[str, Experiment] = {
    module.NAME: module for module in (fig5, fig6, refs, fig7, beyond)
}
"""By name, in the order of the page."""


def run(names: Iterable[str], folder: Path, *, quick: bool, step: Step) -> list[Figure]:
    """Do the experiments ``names`` and leave ``NAME.json`` and ``NAME.csv`` in ``folder``.

    What was measured before, also by an earlier call, is not measured again.  ``step`` is told
    the seconds done and in all, as guessed.

    :raise CosimError: a guest cannot be had, run or captured, ``folder`` cannot be written, or
        another process measures there.
    """
    plans = {name: EXPERIMENTS[name].plan(quick=quick) for name in names}
    for needed in sorted(
        {m.spec.guest for p in plans.values() for m in p.values() if m.spec.guest}
    ):
        guest.ensure(needed, step)
    with sole(folder):
        lab = Lab(folder)
        lab.drop_leftovers()
        wanted = [measurement for plan in plans.values() for measurement in plan.values()]
        left = {lab.key(m): m.seconds for m in wanted if not lab.is_measured(m)}
        clock = _Clock(step, left)
        figures = []
        for name, plan in plans.items():
            results = {key: clock.measure(name, lab, one) for key, one in plan.items()}
            made = EXPERIMENTS[name].figure(results, quick=quick)
            made = replace(made, notes=[*made.notes, checked(results.values())])
            write_text(folder / f"{name}.csv", made.to_csv())
            write_text(folder / f"{name}.json", json.dumps(made.to_json(), indent=1))
            figures.append(made)
    return figures


def checked(timelines: Iterable[Timeline]) -> str:
    """What the checks of the captures and of the models' answers found, as a note."""
    timelines = list(timelines)
    answers = [counts for timeline in timelines for counts in timeline.translations.values()]
    compared = sum(counts["compared"] for counts in answers)
    illegal = sum(counts["illegal"] for counts in answers)
    missed = sum(timeline.missed_writes for timeline in timelines)
    if illegal or missed:
        return (
            f"DO NOT RELY ON THIS: {illegal:,} of {compared:,} translations were illegal, and the"
            f" captures missed {missed:,} stores to page tables."
        )
    return (
        f"Checked: {compared:,} translations of QEMU's and the models' against what the guest's"
        " tables allowed at the time, none illegal; the captures missed no store to a page table."
    )


class _Clock:
    """Turns how far one measurement is into how far all of them are.

    ``left`` has the seconds of those to be made, by their keys.
    """

    def __init__(self, step: Step, left: dict[str, float]) -> None:
        self._step = step
        self._left = left
        self._total = sum(left.values()) or 1.0
        self._done = 0.0

    def measure(self, name: str, lab: Lab, measurement: Measurement) -> Timeline:
        """Make ``measurement`` for the experiment ``name``."""
        seconds = self._left.pop(lab.key(measurement), 0.0)

        def step(done: float, total: float | None = None, text: str | None = None) -> None:
            at = self._done + seconds * min(done / (total or 1), 1.0)
            self._step(at, self._total, f"{name}, {text}")

        timeline = lab.measure(measurement, step)
        self._done += seconds
        return timeline
