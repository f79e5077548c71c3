"""The report of a sweep: what matters, curves, heat maps, break-even costs, Pareto fronts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from cosim.output import one_line
from cosim.report import number_text
from cosim.report.answer import can_exit
from cosim.report.content import (
    UNKNOWN,
    Axis,
    Cell,
    HeatMap,
    Lines,
    Notes,
    Paragraphs,
    Part,
    PlotGroup,
    Report,
    Section,
    Series,
    Table,
)
from cosim.sweep import cases, result_files, sensitivity
from cosim.sweep.cases import COUNTERS, Case, Parameter, Value, names

_MATTERS = 0.01
"""A parameter that explains less of a count's differences gets no curve and no heat map (ours)."""
_HARDLY = 0.01
"""A count that moves by a smaller share of itself hardly moves (ours)."""
Shares = Mapping[tuple[str, str, str], float | None]
"""How much of a count's differences a parameter explains, by policy, parameter and count."""
_EFFECT = (
    "Each number is the share of the differences in a count that the parameter alone explains, "
    "within each trace (the correlation ratio of an analysis of variance). What is missing from "
    "100 % comes from parameters acting together."
)


def build(folder: Path) -> Report:
    """Return the report of the sweep in ``folder``, with the rows that are there now.

    :raises UsageError: when there are none.
    """
    rows = cases.read(folder)
    varied = cases.parameters(rows)
    shares = _all_shares(rows, varied)
    state = result_files.read_state(folder)
    sections = [
        *_effects(rows, varied, shares),
        *_curves(rows, varied, shares),
        *_heat_maps(rows, varied, shares),
        *_break_evens(rows),
        *_fronts(rows, varied),
    ]
    title = f"Sweep {one_line(folder.resolve().name)}"
    lead = _lead(rows, varied)
    answer = (Paragraphs(_sentences(rows, varied, shares)), *_ranges(rows))
    return Report(title, lead, tuple(sections), tuple(_warnings(state)), answer)


def _lead(rows: Sequence[Case], varied: Sequence[Parameter]) -> str:
    traces = names(one.trace for one in rows)
    policies = names(one.policy for one in rows)
    said = ", ".join(one.name for one in varied) or "nothing"
    return (
        f"{len(rows):,} rows: {', '.join(policies)} over "
        f"{_counted(len(traces), 'trace')} ({', '.join(map(one_line, traces))}). Varied: {said}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _warnings(state: dict[str, Any]) -> Iterator[str]:
    outcome = state.get("outcome") or {}
    missing = outcome.get("missing")
    if state.get("status") in (result_files.CAPTURING, result_files.RUNNING):
        yield "The sweep was running when this was made, or its command was killed."
    elif state.get("status") not in (None, "done"):
        yield f"The last invocation of the sweep ended so: {one_line(str(state['status']))}."
    if missing:
        yield f"{missing:,} rows are missing; type the command of the sweep again."


def _sentences(rows: Sequence[Case], varied: Sequence[Parameter], shares: Shares) -> str:
    """Say which parameter matters most for which count."""
    return "\n".join(_sentence(rows, varied, shares, key) for key in COUNTERS)


def _sentence(rows: Sequence[Case], varied: Sequence[Parameter], shares: Shares, key: str) -> str:
    strongest: dict[str, list[str]] = {}
    steady = []
    for policy in names(one.policy for one in rows):
        width = _width(rows, policy, key)
        if width is None:
            continue
        mine = {one.name: shares[policy, one.name, key] or 0 for one in varied}
        name = max(mine, key=lambda one: mine[one], default="")
        if width < _HARDLY or mine.get(name, 0) < _MATTERS:
            steady.append(policy)
        else:
            share = number_text.percent(mine[name], 0)
            strongest.setdefault(name, []).append(f"{policy} {share}")
    noun = COUNTERS[key][0].upper() + COUNTERS[key][1:]
    said = "; ".join(f"{name} ({', '.join(who)})" for name, who in strongest.items())
    if not said:
        return f"{noun} hardly move." if steady else f"{noun} are not known."
    still = f" Those of {', '.join(steady)} hardly move." if steady else ""
    return f"{noun} move most with {said}.{still}"


def _width(rows: Sequence[Case], policy: str, key: str) -> float | None:
    """Return how far a count moves within a trace, as a share of its largest value there."""
    widths = []
    for _, name, members in cases.groups(rows):
        known = [number for one in members if (number := one.counts[key]) is not None]
        if name == policy and known:
            widths.append((max(known) - min(known)) / (max(known) or 1))
    return max(widths, default=None)


def _all_shares(rows: Sequence[Case], varied: Sequence[Parameter]) -> Shares:
    found: dict[tuple[str, str, str], float | None] = {}
    for policy in names(one.policy for one in rows):
        for parameter in varied:
            mine = [one for one in rows if one.policy == policy and parameter.name in one.settings]
            for key in COUNTERS:
                share = sensitivity.effect(mine, parameter, sensitivity.counter(key))
                found[policy, parameter.name, key] = share
    return found


def _ranges(rows: Sequence[Case]) -> Iterator[Part]:
    """Yield the median of each count over all configurations, and its ends."""
    for trace in names(one.trace for one in rows):
        lines = []
        for policy in names(one.policy for one in rows):
            mine = [one for one in rows if (one.trace, one.policy) == (trace, policy)]
            lines.append((Cell(policy), *(_range(mine, key) for key in COUNTERS)))
        caption = f"{one_line(trace)}: median (lowest to highest)"
        yield Table(caption, ("", *COUNTERS.values()), tuple(lines))


def _range(mine: Sequence[Case], key: str) -> Cell:
    known = [number for one in mine if (number := one.counts[key]) is not None]
    if not known:
        return Cell(UNKNOWN)
    middle, low, high = median(known), min(known), max(known)
    if low == high:
        return Cell(number_text.number(middle), middle)
    return Cell(f"{_brief(middle)} ({_brief(low)} to {_brief(high)})", middle)


def _brief(value: float) -> str:
    return number_text.scaled(value) if value >= 1e6 else number_text.number(round(value))


def _effects(
    rows: Sequence[Case], varied: Sequence[Parameter], shares: Shares
) -> Iterator[Section]:
    policies = names(one.policy for one in rows)
    parts: list[Part] = [Paragraphs(_EFFECT)]
    data: dict[str, Any] = {}
    for key, noun in COUNTERS.items():
        table = {
            parameter.name: {policy: shares[policy, parameter.name, key] for policy in policies}
            for parameter in varied
        }
        kept = {name: row for name, row in table.items() if any(row.values())}
        data[key] = table
        if not kept:
            continue
        order = sorted(kept, key=lambda name: -max(share or 0 for share in kept[name].values()))
        lines = tuple(
            (Cell(name), *(Cell.of(kept[name][policy], _share) for policy in policies))
            for name in order
        )
        parts.append(Table(f"{noun[0].upper()}{noun[1:]}", ("parameter", *policies), lines))
    unknown = sum(one.counts["tlb_misses"] is None for one in rows)
    if unknown:
        parts.append(Notes((f"{unknown:,} rows do not know their TLB misses and are left out.",)))
    yield Section("effects", "Which parameter matters", tuple(parts), data=data)


def _share(value: float) -> str:
    return number_text.percent(value, 1) if value >= 0.0005 or value == 0 else "<0.1 %"


def _curves(rows: Sequence[Case], varied: Sequence[Parameter], shares: Shares) -> Iterator[Section]:
    """Yield a plot for each numeric parameter and count that it moves, one panel a trace."""
    figures: list[Part] = []
    for parameter in varied:
        if not parameter.numeric:
            continue
        for key, noun in COUNTERS.items():
            policies = [
                policy
                for policy in names(one.policy for one in rows)
                if (shares[policy, parameter.name, key] or 0) >= _MATTERS
            ]
            if not policies:
                continue
            plots = []
            for trace in names(one.trace for one in rows):
                series = tuple(_curve(rows, trace, policy, parameter, key) for policy in policies)
                if any(y is not None for one in series for _, y in one.points):
                    x, y = Axis(parameter.label), Axis(noun)
                    plots.append(Lines(one_line(trace), x, y, series))
            if plots:
                caption = f"{noun[0].upper()}{noun[1:]} against {parameter.label}"
                figures.append(PlotGroup(caption, tuple(plots)))
    if figures:
        text = "Each point is the mean over all other parameters, which are the same at each point."
        parts = (Paragraphs(text), *figures)
        yield Section("curves", "Counts against one parameter", parts, detail=True)


def _curve(rows: Sequence[Case], trace: str, policy: str, parameter: Parameter, key: str) -> Series:
    mine = [
        one
        for one in rows
        if (one.trace, one.policy) == (trace, policy) and parameter.name in one.settings
    ]
    points = sensitivity.curve(mine, parameter, sensitivity.counter(key))
    return Series(policy, tuple((value.number or 0.0, y) for value, y in points))


def _heat_maps(
    rows: Sequence[Case], varied: Sequence[Parameter], shares: Shares
) -> Iterator[Section]:
    """Yield a map for each policy and count over the two parameters that move it most."""
    maps: list[Part] = []
    for key, noun in COUNTERS.items():
        for policy in names(one.policy for one in rows):
            moves = {one: shares[policy, one.name, key] or 0 for one in varied}
            down_across = sorted(moves, key=lambda one: -moves[one])[:2]
            if len(down_across) < 2 or moves[down_across[1]] < _MATTERS:
                continue
            for trace in names(one.trace for one in rows):
                mine = [one for one in rows if (one.trace, one.policy) == (trace, policy)]
                down, across = down_across
                found = sensitivity.grid(mine, down, across, sensitivity.counter(key))
                if not found:
                    continue
                caption = f"{noun[0].upper()}{noun[1:]} of {policy}, {one_line(trace)}"
                cells = {pair: Cell.of(value, _brief) for pair, value in found.items()}
                maps.append(_heat_map(caption, down, across, cells))
    if maps:
        text = "The two parameters that move the count of a policy most; means over the others."
        parts = (Paragraphs(text), *maps)
        yield Section("heat", "Counts over two parameters", parts, detail=True)


def _heat_map(
    caption: str,
    down: Parameter,
    across: Parameter,
    cells: dict[tuple[Value, Value], Cell],
) -> HeatMap:
    corner = f"{down.name} / {across.name}"
    lines = tuple(
        (Cell(y.text), *(cells.get((y, x), Cell(UNKNOWN)) for x in across.values))
        for y in down.values
    )
    columns = (corner, *(value.text for value in across.values))
    return HeatMap(Table(caption, columns, lines), detail=True)


def _break_evens(rows: Sequence[Case]) -> Iterator[Section]:
    """Yield the exit cost at which two policies cost the same, over two parameters."""
    summary, maps = [], []
    data = []
    pairs = list(combinations(_hypervisors(rows), 2))
    for trace in names(one.trace for one in rows):
        for one, other in pairs:
            duels = sensitivity.duels(rows, one, other, trace)
            if not duels:
                continue
            summary.append(_duel_row(trace, one, other, duels))
            heat = _duel_map(trace, one, other, duels)
            if heat is not None:
                maps.append(heat)
            data += [
                {
                    "trace": trace,
                    "one": one,
                    "other": other,
                    "exit_cost": duel.cost,
                    "cheaper": duel.cheaper,
                    "settings": {name: value.text for name, value in duel.settings.items()},
                }
                for duel in duels
            ]
    if not summary:
        return
    text = (
        "The cost of an exit, in cycles, at which two policies cost the same on the same machine. "
        "Below it the policy with more exits is the cheaper one, above it the other."
    )
    columns = (
        "trace",
        "policies",
        "machines",
        "median",
        "lowest",
        "highest",
        "cheaper at any cost",
    )
    table = Table("", columns, tuple(summary), numeric=False)
    parts = (Paragraphs(text), table, *maps)
    yield Section("break-even", "Break-even cost of an exit", parts, data=data)


def _hypervisors(rows: Sequence[Case]) -> Sequence[str]:
    """Return the policies that can exit: `native` is a floor, and beats them all."""
    first = {one.policy: one for one in reversed(rows)}
    return [name for name in names(one.policy for one in rows) if can_exit(first[name].result)]


def _duel_row(
    trace: str, one: str, other: str, duels: Sequence[sensitivity.Duel]
) -> tuple[Cell, ...]:
    costs = [duel.cost for duel in duels if duel.cost is not None]
    always = {
        name: sum(duel.cheaper == name for duel in duels if duel.cost is None)
        for name in (one, other)
    }
    said = ", ".join(f"{name}: {count:,}" for name, count in always.items() if count)
    ends = [median(costs), min(costs), max(costs)] if costs else [None] * 3
    return (
        Cell(one_line(trace)),
        Cell(f"{one}, {other}"),
        Cell.of(len(duels)),
        *(Cell.of(value, _brief) for value in ends),
        Cell(said),
    )


def _duel_map(
    trace: str, one: str, other: str, duels: Sequence[sensitivity.Duel]
) -> HeatMap | None:
    """Return the map over the two parameters that move the break-even cost most."""
    values: dict[str, set[Value]] = {}
    for duel in duels:
        for name, value in duel.settings.items():
            values.setdefault(name, set()).add(value)
    varied = [
        Parameter(name, tuple(sorted(found, key=cases.by_size)))
        for name, found in values.items()
        if len(found) > 1
    ]
    shares = {parameter: sensitivity.duel_effect(duels, parameter) for parameter in varied}
    if len(varied) < 2 or not any(shares.values()):
        return None
    down, across = sorted(varied, key=lambda parameter: -shares[parameter])[:2]
    cells = {}
    for y in down.values:
        for x in across.values:
            here = [
                duel
                for duel in duels
                if (duel.settings[down.name], duel.settings[across.name]) == (y, x)
            ]
            if here:
                text, cost = sensitivity.break_even_at(here)
                cells[y, x] = Cell(text) if cost is None else Cell(_brief(cost), cost)
    caption = f"{one} and {other}, {one_line(trace)}: median break-even cost of an exit"
    return _heat_map(caption, down, across, cells)


def _fronts(rows: Sequence[Case], varied: Sequence[Parameter]) -> Iterator[Section]:
    """Yield the configurations that no other beats in both exits and page-walk references."""
    exits, references = sensitivity.counter("exits"), sensitivity.counter("walk_refs")
    plots, tables, data = [], [], []
    rivals = _hypervisors(rows)
    shown = [one for one in varied if not one.name.startswith("costs.")]
    for trace in names(one.trace for one in rows):
        mine = [one for one in rows if one.trace == trace and one.policy in rivals]
        best = sensitivity.front(mine, exits, references)
        if not best:
            continue
        series = []
        for policy in names(one.policy for one in mine):
            own = sensitivity.front(
                [one for one in mine if one.policy == policy], exits, references
            )
            points = tuple((one.counts["exits"] or 0, one.counts["walk_refs"]) for one, *_ in own)
            if points:
                series.append(Series(policy, points))
        x, y = Axis(COUNTERS["exits"]), Axis(COUNTERS["walk_refs"])
        plots.append(Lines(one_line(trace), x, y, tuple(series)))
        equals = [members for point in best for _, _, members in cases.groups(point)]
        lines = tuple(
            (
                Cell(members[0].policy),
                Cell.of(members[0].counts["exits"]),
                Cell.of(members[0].counts["walk_refs"]),
                Cell.of(len(members)),
                Cell(_said(members, shown)),
            )
            for members in equals
        )
        columns = ("policy", COUNTERS["exits"], COUNTERS["walk_refs"], "configurations", "all with")
        tables.append(Table(f"{one_line(trace)}: the front", columns, lines, numeric=False))
        data.append({"trace": trace, "front": [_told(members, shown) for members in equals]})
    if not plots:
        return
    text = (
        "A configuration is on the front if no other has fewer of one and no more of the other. "
        "Each curve is the front of one policy; the table has the front of all. Configurations "
        "with the same counts share a line, which has what all of them have. `native` has no "
        "hypervisor and is left out."
    )
    figure = PlotGroup("VM exits and page-walk references", tuple(plots), detail=True)
    parts = (Paragraphs(text), *tables, figure)
    yield Section("front", "Exits against references", parts, data=data)


def _shared(members: Sequence[Case], shown: Sequence[Parameter]) -> dict[str, str]:
    """Return the settings that all of ``members`` have alike."""
    first = members[0].settings
    return {
        p.name: first[p.name].text
        for p in shown
        if p.name in first and all(one.settings[p.name] == first[p.name] for one in members)
    }


def _said(members: Sequence[Case], shown: Sequence[Parameter]) -> str:
    shared = _shared(members, shown)
    return ", ".join(f"{name.removeprefix('machine.')} {text}" for name, text in shared.items())


def _told(members: Sequence[Case], shown: Sequence[Parameter]) -> dict[str, Any]:
    return {
        "policy": members[0].policy,
        "exits": members[0].counts["exits"],
        "walk_refs": members[0].counts["walk_refs"],
        "configurations": len(members),
        "settings": _shared(members, shown),
    }
