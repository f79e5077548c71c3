"""Run experiments: measure what is missing, then write the figures' data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import guest
from cosim.files import write_atomically
from cosim.output import Step
from cosim.reproduce import beyond, fig5, fig6, fig7, refs
from cosim.reproduce.clock import Clock
from cosim.reproduce.figure import Figure
from cosim.reproduce.lab import Lab
from cosim.reproduce.measurement import Measurement
from cosim.reproduce.timeline import LINUX, Timeline
from cosim.run.batch import sole
from guest.workloads.packages import PROGRAMS


class Experiment(Protocol):
    """One module of this package."""

    NAME: str

    def plan(self, *, quick: bool) -> dict[str, Measurement]:
        """Return what is measured, by name."""
        ...

    def figure(self, results: Mapping[str, Timeline], *, quick: bool) -> Figure:
        """Return the figure made of what was measured."""
        ...


EXPERIMENTS: dict[str, Experiment] = {
    module.NAME: module for module in (fig5, fig6, refs, fig7, beyond)
}
"""By name, in the order of the page."""

_PACKAGES = (*PROGRAMS, "busybox-static", "libc6")
"""Packages, besides the kernel's, whose versions change what the guest does."""


def prepare(names: Iterable[str], *, quick: bool, step: Step) -> None:
    """Fetch or build the guests that the experiments ``names`` need.

    :param step: is told how far downloads are.
    :raises CosimError: when a guest cannot be fetched or built.
    """
    plans = (EXPERIMENTS[name].plan(quick=quick) for name in names)
    for needed in sorted({m.spec.guest for plan in plans for m in plan.values() if m.spec.guest}):
        guest.ensure(needed, step)


def run(names: Iterable[str], folder: Path, *, quick: bool, step: Step) -> list[Figure]:
    """Run the experiments ``names`` and write ``NAME.json`` and ``NAME.csv`` in ``folder``.

    What an earlier call measured is not measured again.

    :param step: is told twice a second how many seconds are done, and an estimate of all.
    :raises CosimError: when a guest cannot be run or captured, ``folder`` cannot be written, or
        another process measures there.
    """
    plans = {name: EXPERIMENTS[name].plan(quick=quick) for name in names}
    figures = []
    with sole(folder):
        lab = Lab(folder)
        lab.drop_leftovers()
        wanted = [measurement for plan in plans.values() for measurement in plan.values()]
        with Clock(step, to_do(lab, wanted)) as clock:
            for name, plan in plans.items():
                results = {key: clock.measure(name, lab, one) for key, one in plan.items()}
                made = EXPERIMENTS[name].figure(results, quick=quick)
                for one in (made, *made.also):
                    figure = finished(one, made_of(one, results), quick=quick)
                    write_atomically(folder / f"{figure.figure}.csv", figure.to_csv())
                    document = json.dumps(figure.to_json(), indent=1)
                    write_atomically(folder / f"{figure.figure}.json", document)
                    figures.append(figure)
    return figures


def to_do(lab: Lab, wanted: Iterable[Measurement]) -> dict[str, float]:
    """Return the guessed seconds of those measurements that are still to be made, by their keys.

    A measurement takes no time if those before it measure all that it asks for.
    """
    left: dict[str, float] = {}
    counts: set[str] = set()
    for measurement in wanted:
        own = set(lab.key(measurement).split())
        if not lab.is_measured(measurement) and not own <= counts:
            left[lab.key(measurement)] = measurement.seconds
        counts |= own
    return left


def made_of(figure: Figure, results: Mapping[str, Timeline]) -> list[Timeline]:
    """Return those ``results`` of its experiment that ``figure`` is made of."""
    names = results if figure.made_of is None else figure.made_of
    return [results[name] for name in names]


def finished(made: Figure, timelines: Iterable[Timeline], *, quick: bool) -> Figure:
    """Return ``made`` with what every figure says: checks, versions, and if it is a quick run."""
    timelines = list(timelines)
    found, warnings = checked(timelines)
    if quick:
        made = replace(
            made,
            title=f"{made.title} (quick run)",
            measured=f"{made.measured}\n\nThis is a quick run, at sizes far below the paper's:"
            " its shapes can be compared, its numbers cannot.",
        )
    return replace(
        made,
        quick=quick,
        settings={**made.settings, **ran_on(timelines)},
        notes=[*made.notes, *found],
        warnings=[*made.warnings, *warnings],
    )


def checked(timelines: Iterable[Timeline]) -> tuple[list[str], list[str]]:
    """Return notes and warnings: what the checks of captures and of the models' answers found."""
    timelines = list(timelines)
    answers = [counts for timeline in timelines for counts in timeline.translations.values()]
    compared = sum(counts["compared"] for counts in answers)
    illegal = sum(counts["illegal"] for counts in answers)
    missed = sum(timeline.missed_writes for timeline in timelines)
    if illegal or missed:
        return [], [
            f"DO NOT RELY ON THIS: {illegal:,} of {compared:,} translations were illegal, and the"
            f" captures missed {missed:,} stores to page tables."
        ]
    return [
        f"Checked: {compared:,} translations of QEMU's and the models' against what the guest's"
        " tables allowed at the time, none illegal; the captures missed no store to a page table."
    ], []


def ran_on(timelines: Iterable[Timeline]) -> dict[str, Any]:
    """Return the emulator, its CPU and what the guests were made of, as settings."""
    guests = [timeline.guest for timeline in timelines]
    settings: dict[str, Any] = {
        name: " and ".join(sorted({one[key] for one in guests if key in one}))
        for name, key in (("QEMU", "qemu"), ("CPU", "cpu"))
    }
    versions = {
        package: version
        for one in guests
        for package, version in one.get("versions", {}).items()
        if package.startswith(LINUX) or package in _PACKAGES
    }
    return settings | ({"Debian packages in the guest": versions} if versions else {})
