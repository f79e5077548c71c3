"""The page of one run: a result document with its exits and misses drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group as RichGroup
from rich.table import Table as RichTable

from cosim.models.result import ResultDocument
from cosim.report import scale, table, tables
from cosim.report.page import Figure, Page, Section
from cosim.report.plot import Axis, Bar, Bars, Group, Plot

Policies = Mapping[str, Mapping[str, Any]]


def page(result: ResultDocument) -> Page:
    """The page of ``result``: what ran, exits by kind, TLB misses and walks, all counters."""
    name = str(result["guest"].get("name", "guest"))
    region = result["region"]
    policies = result["policies"]
    sections = []
    exits = _there(_totals(policies), _kinds(policies))
    if exits:
        figure = Figure("VM exits", exits)
        sections.append(Section("exits", "VM exits", figures=(figure,)))
    misses = _there(_misses(policies), _walks(policies))
    if misses:
        figure = Figure("TLB misses", misses)
        sections.append(Section("tlb", "TLB misses", figures=(figure,)))
    return Page(
        title=f"{name}: {', '.join(policies) or 'no policy'}",
        lead=f"One guest, {region.get('from', '?')} to {region.get('to', '?')}, every policy fed "
        "with the same events. Counts, not times.",
        warnings=tuple(_warnings(result)),
        sections=(*sections, _numbers(result), _set_up(result)),
    )


def _there(*plots: Plot | None) -> tuple[Plot, ...]:
    return tuple(plot for plot in plots if plot is not None)


def _totals(policies: Policies) -> Plot | None:
    bars = {}
    for name, policy in policies.items():
        total = policy["exits"]["total"]
        known = total if total is not None else policy["exits"]["at_least"]
        bars[name] = Bar(known, at_least=total is None)
    return Bars("", Axis("VM exits, all kinds"), (Group("", bars),)) if bars else None


def _kinds(policies: Policies) -> Plot | None:
    kinds = dict.fromkeys(kind for policy in policies.values() for kind in policy["exits"])
    groups = []
    for kind in kinds:
        counts = {name: policy["exits"] for name, policy in policies.items()}
        bars = {name: Bar(count[kind]) for name, count in counts.items() if kind in count}
        if kind not in ("total", "at_least") and any(bar.value != 0 for bar in bars.values()):
            groups.append(Group(kind, bars))
    return Bars("", Axis("VM exits by kind"), tuple(groups)) if groups else None


def _misses(policies: Policies) -> Plot | None:
    bars = {name: Bar(policy.get("tlb_misses")) for name, policy in policies.items()}
    return _known(Axis("TLB misses"), bars)


def _walks(policies: Policies) -> Plot | None:
    bars = {}
    for name, policy in policies.items():
        refs, misses = policy.get("walk_refs"), policy.get("tlb_misses")
        bars[name] = Bar(sum(refs.values()) / misses if refs and misses else None)
    return _known(Axis("references for each TLB miss", scale.ratio), bars)


def _known(axis: Axis, bars: dict[str, Bar]) -> Plot | None:
    if all(bar.value is None for bar in bars.values()):
        return None
    return Bars("", axis, (Group("", bars),))


def _numbers(result: ResultDocument) -> Section:
    """What the terminal shows: the same tables and the same reasons for what is missing."""
    shown = table.render(result)
    parts: Iterable[Any] = shown.renderables if isinstance(shown, RichGroup) else [shown]
    made, notes = [], []
    for part in parts:
        if isinstance(part, RichTable):
            made.append(tables.of_rich(part))
        elif isinstance(part, table.Policies):
            made.extend(map(tables.of_rich, part.parts()))
        else:
            notes.append(str(part).removeprefix("- "))
    return Section(
        "counts", "All counts", tables=tuple(made), notes=tuple(notes), data=dict(result)
    )


def _set_up(result: ResultDocument) -> Section:
    return Section(
        "set-up",
        "Set-up",
        tables=(
            tables.of_mapping("Guest", result["guest"]),
            tables.of_mapping("Region", result["region"]),
            tables.of_mapping("Modelled machine", result["machine"]),
        ),
    )


def _warnings(result: ResultDocument) -> Iterable[str]:
    if not result["complete"]:
        yield f"The run is incomplete: {result.get('incomplete_because', 'it broke off')}."
    for name, counts in result["translations"].items():
        if counts["illegal"]:
            yield f"{name}: {counts['illegal']:,} illegal translations."
    missed = (result["audit"] or {}).get("missed_writes")
    if missed:
        yield f"The capture missed {missed:,} writes to page tables; the counts are not reliable."
