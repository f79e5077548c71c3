"""How the counts of a sweep move with its parameters: effects, curves, grids, Pareto fronts.

All of this is arithmetic over the rows.  Rows whose count is not known are left out, together with
the rows that they would be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean, median
from typing import NamedTuple

from cosim.sweep.cases import Case, Parameter, Value, groups
from hypervisor_model.costs import break_even

Measure = Callable[[Case], float | None]


def counter(key: str) -> Measure:
    """Return what reads the count ``key`` of a case."""
    return lambda case: case.counts[key]


def effect(cases: Sequence[Case], parameter: Parameter, measure: Measure) -> float | None:
    """Return the share of the differences in ``measure`` that ``parameter`` alone explains.

    This is the correlation ratio of an analysis of variance: the squared distances of the mean of
    each value from the mean of all, divided by those of the cases.  Each trace and policy has its
    own means, because a parameter may move one guest up, and another one down or not at all.
    Counts are divided by the mean over their trace and policy, so that a large guest does not
    outweigh a small one.

    :param cases: all with a value of ``parameter``.
    :return: 0 to 1; None if the measure is not known, or never differs.
    """
    scaled = [
        ((case.trace, case.policy, case.settings[parameter.name]), number)
        for case, number in _scaled(cases, parameter, measure)
    ]
    # After scaling the mean of each trace and policy is 1, and so is that of all.
    return _correlation_ratio(scaled)


def _correlation_ratio(pairs: Sequence[tuple[Hashable, float]]) -> float | None:
    if not pairs:
        return None
    mean = fmean(number for _, number in pairs)
    whole = sum((number - mean) ** 2 for _, number in pairs)
    if whole <= 1e-18 * len(pairs) * mean * mean:
        return None
    by_key: dict[Hashable, list[float]] = {}
    for key, number in pairs:
        by_key.setdefault(key, []).append(number)
    return sum(len(one) * (fmean(one) - mean) ** 2 for one in by_key.values()) / whole


def _scaled(
    cases: Sequence[Case], parameter: Parameter, measure: Measure
) -> list[tuple[Case, float]]:
    found = []
    for _, _, members in groups(cases):
        matched = _matched(members, parameter, measure)
        mean = fmean([value for _, value in matched] or [0])
        if mean:
            found += [(case, value / mean) for case, value in matched]
    return found


def _matched(
    cases: Sequence[Case], parameter: Parameter, measure: Measure
) -> list[tuple[Case, float]]:
    """Return the cases that can be compared: known at every value, with all else equal."""
    rest: dict[tuple[object, ...], list[tuple[Case, float | None]]] = {}
    for case in cases:
        rest.setdefault(_others(case, {parameter.name}), []).append((case, measure(case)))
    present = {case.settings[parameter.name] for case in cases}
    return [
        (case, value)
        for members in rest.values()
        if {case.settings[parameter.name] for case, value in members if value is not None}
        == present
        for case, value in members
        if value is not None
    ]


def _others(case: Case, left_out: Iterable[str]) -> tuple[object, ...]:
    left = set(left_out)
    kept = sorted((name, value) for name, value in case.settings.items() if name not in left)
    return (case.trace, case.policy, *kept)


def curve(
    cases: Sequence[Case], parameter: Parameter, measure: Measure
) -> list[tuple[Value, float | None]]:
    """Return the mean of ``measure`` at each value of ``parameter``.

    :param cases: of one policy over one trace.
    :return: None for a value that nothing is known of.
    """
    matched = _matched(cases, parameter, measure)
    means = []
    for value in parameter.values:
        here = [number for case, number in matched if case.settings[parameter.name] == value]
        means.append((value, fmean(here) if here else None))
    return means


Grid = dict[tuple[Value, Value], float]
"""A number for each pair of values; a pair that nothing is known of is missing."""


def grid(cases: Iterable[Case], down: Parameter, across: Parameter, measure: Measure) -> Grid:
    """Return the mean of ``measure`` at each pair of values."""
    found: dict[tuple[Value, Value], list[float]] = {}
    for case in cases:
        number = measure(case)
        if number is not None:
            pair = case.settings[down.name], case.settings[across.name]
            found.setdefault(pair, []).append(number)
    return {pair: fmean(numbers) for pair, numbers in found.items()}


class Duel(NamedTuple):
    """Two policies on one machine, over one trace."""

    settings: Mapping[str, Value]
    """Of the machine and of both policies, without the cost of an exit."""
    cost: float | None
    """The cost of an exit at which both cost the same, in cycles; None: there is none."""
    cheaper: str | None
    """If there is none: the policy that is cheaper at any cost of an exit; None: they are equal."""


def duels(cases: Sequence[Case], one: str, other: str, trace: str) -> list[Duel]:
    """Return how ``one`` and ``other`` compare on each machine of the sweep.

    Pairs of which a count is not known are left out.
    """
    mine = _by_machine(cases, one, trace)
    theirs = _by_machine(cases, other, trace)
    found: dict[tuple[tuple[str, Value], ...], Duel] = {}
    for machine in mine.keys() & theirs.keys():
        for a, b in product(mine[machine], theirs[machine]):
            settings = {**a.settings, **b.settings}
            settings.pop("costs.exit")
            duel = _duel(a, b, settings)
            if duel is not None:
                found[tuple(sorted(settings.items()))] = duel
    return [found[key] for key in sorted(found)]


def _by_machine(
    cases: Sequence[Case], policy: str, trace: str
) -> dict[tuple[tuple[str, Value], ...], list[Case]]:
    found: dict[tuple[tuple[str, Value], ...], list[Case]] = {}
    for case in cases:
        if (case.policy, case.trace) == (policy, trace):
            common = {
                name: value
                for name, value in case.settings.items()
                if not name.startswith("options.")
            }
            found.setdefault(tuple(sorted(common.items())), []).append(case)
    return found


def _duel(a: Case, b: Case, settings: Mapping[str, Value]) -> Duel | None:
    mine, theirs = a.counts["cycles_total"], b.counts["cycles_total"]
    if mine is None or theirs is None:
        return None
    cost = break_even(a.result, b.result, a.costs)
    if cost is not None:
        return Duel(settings, cost, None)
    cheaper = a.policy if mine < theirs else b.policy
    return Duel(settings, None, None if mine == theirs else cheaper)


def duel_effect(found: Sequence[Duel], parameter: Parameter) -> float:
    """Return the share of the differences between break-even costs that ``parameter`` explains."""
    pairs = [(duel.settings[parameter.name], duel.cost) for duel in found if duel.cost is not None]
    return _correlation_ratio(pairs) or 0


def break_even_at(duels_there: Sequence[Duel]) -> tuple[str, float | None]:
    """Return what a cell says of several duels: the median cost, or who is cheaper at any cost.

    :return: a text for duels without a cost, and the median of the costs.
    """
    costs = [duel.cost for duel in duels_there if duel.cost is not None]
    if costs:
        return "", median(costs)
    cheaper = {duel.cheaper for duel in duels_there}
    (name,) = cheaper if len(cheaper) == 1 else {None}
    return f"always {name}" if name else "none", None


def front(cases: Iterable[Case], x: Measure, y: Measure) -> list[list[Case]]:
    """Return the cases that no other beats: none has less of one and no more of the other.

    :return: by ascending ``x``; equal cases together.
    """
    points: dict[tuple[float, float], list[Case]] = {}
    for case in cases:
        a, b = x(case), y(case)
        if a is not None and b is not None:
            points.setdefault((a, b), []).append(case)
    best = []
    lowest = float("inf")
    for a, b in sorted(points):
        if b < lowest:
            best.append(points[a, b])
            lowest = b
    return best
