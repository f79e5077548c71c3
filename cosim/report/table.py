"""A result document as tables for people, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cosim.models.result import ResultDocument, VirtualCounts, missed
from cosim.output import WIDTH
from cosim.report.divergence import describe
from cosim.report.scale import PERCENT

POLICIES_A_TABLE = 5
"""More policies than this go into a further table below."""

DIVERGENCES = 3
"""Illegal translations that are shown whole."""

_NONE = object()


def render(result: ResultDocument) -> RenderableType:
    """The whole result: the run, exits and counters by policy, translations, what is missing."""
    parts: list[RenderableType] = [_run(result), *_missed(result)]
    if result["policies"]:
        parts.append(Policies(result["policies"]))
    if result["translations"]:
        parts.append(_translations(result))
        parts.extend(_divergences(result))
    parts.extend(Text(line) for line in _notes(result))
    return Group(*parts)


@dataclass(frozen=True)
class Policies:
    """Exits and counters by policy, in as many tables as the width of the terminal needs."""

    policies: Mapping[str, Mapping[str, Any]]

    def parts(self, at_most: int = POLICIES_A_TABLE) -> Iterator[Table]:
        """Tables of ``at_most`` policies each."""
        names = list(self.policies)
        for start in range(0, len(names), at_most):
            yield _policies({name: self.policies[name] for name in names[start : start + at_most]})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many policies a table as fit, so that no number is broken."""
        for at_most in range(POLICIES_A_TABLE, 0, -1):
            made = list(self.parts(at_most))
            widest = max(_wanted(console, options, one) for one in made)
            if widest <= options.max_width:
                break
        yield from made


def _wanted(console: Console, options: ConsoleOptions, table: Table) -> int:
    """The columns that ``table`` takes where nothing limits it."""
    return Measurement.get(console, options.update(width=10 * WIDTH), table).maximum


def _missed(result: ResultDocument) -> Iterable[Text]:
    """The first stores that no event explains: page, entry, and what happened before."""
    missed = (result["audit"] or {}).get("missed", [])
    for one in missed[:DIVERGENCES]:
        before = "; ".join(one["last_events"][-3:]) or "none"
        yield Text(
            f"missed write: page {one['page']}, entry {one['index']}: {one['expected']} became "
            f"{one['found']}; last events: {before}\n"
        )


def _run(result: ResultDocument) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    guest, events, fence = result["guest"], result["events"], result["events"]["fence"]
    fences = fence["va"] + fence["va_asid"] + fence["asid"] + fence["all"]
    table.add_row("guest", str(guest.get("name", "?")))
    region = result["region"]
    text = f"{region.get('from', '?')} .. {region.get('to', '?')}"
    if region.get("instructions") is not None:
        text += f", {region['instructions']:,} instructions"
    if region.get("not_replayed"):
        text += f", up to {region['not_replayed']:,} more not replayed"
    table.add_row("region", text)
    stepped = result["stepped"]
    share = ""
    if stepped is not None:
        share = f", {stepped['instructions']:,} instructions stepped"
        if stepped["share"] is not None:
            share += f" ({100 * stepped['share']:.2f}{PERCENT} of the region)"
    table.add_row("source", f"{result['backend']}, accesses: {result['accesses']}{share}")
    accesses = "unseen" if events["access"] is None else f"{events['access']:,}"
    table.add_row(
        "events",
        f"{events['pte_write']:,} table stores, {fences:,} fences "
        f"({fence['va']:,} va, {fence['va_asid']:,} va+asid, {fence['asid']:,} asid, "
        f"{fence['all']:,} all), {events['satp_write']:,} satp writes, "
        f"{accesses} accesses",
    )
    reasons = events.get("reasons", {})
    if "virtual" in reasons:
        virtual = events["virtual"]
        seen = "" if virtual is None else f"{_virtual(virtual)}; "
        table.add_row("left out", f"{seen}{reasons['virtual']}")
    audit = result["audit"]
    if audit is None:
        table.add_row("audit", "none was made")
    else:
        found = (f"{n:,} {key.replace('_', ' ')}" for key, n in missed(audit).items())
        table.add_row("audit", ", ".join([f"{audit['checks']:,} checks", *found]))
    if not result["complete"]:
        table.add_row("incomplete", result.get("incomplete_because", "the run broke off"))
    return table


def _virtual(counts: VirtualCounts) -> str:
    shown = ((key.replace("_", " "), n) for key, n in counts.items() if n is not None)
    return ", ".join(f"{key} {n:,}" for key, n in shown)


def _policies(policies: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for name in policies:
        table.add_column(name, justify="right", overflow="fold")
    exits = {name: policy["exits"] for name, policy in policies.items()}
    table.add_row("exits", *(_total(counts) for counts in exits.values()))
    for kind in _keys(exits.values(), without=("total", "at_least")):
        table.add_row(f"  {kind}", *(_cell(counts.get(kind, _NONE)) for counts in exits.values()))
    table.add_section()
    for key in _keys(policies.values(), without=("exits", "reasons")):
        values = [policy.get(key, _NONE) for policy in policies.values()]
        parts = list(dict.fromkeys(p for v in values if isinstance(v, dict) for p in v))
        for part in parts:
            row = [v.get(part, _NONE) if isinstance(v, dict) else v for v in values]
            table.add_row(f"{key} {part}", *map(_cell, row))
        if not parts:
            table.add_row(key, *map(_cell, values))
    return table


def _translations(result: ResultDocument) -> Table:
    table = Table("translations", box=box.SIMPLE)
    columns = ("compared", "fresh", "stale_legal", "illegal", "undecided")
    for column in columns:
        table.add_column(column.replace("_", "-"), justify="right")
    for name, counts in result["translations"].items():
        row: Mapping[str, Any] = counts
        table.add_row(name, *(_cell(row[column]) for column in columns))
    return table


def _divergences(result: ResultDocument) -> Iterable[Text]:
    """The first illegal translations, both walks level by level."""
    illegal = result["illegal_translations"]
    for finding in illegal[:DIVERGENCES]:
        yield Text(describe(finding) + "\n")
    if len(illegal) > DIVERGENCES:
        yield Text(f"{len(illegal) - DIVERGENCES} more of the first {len(illegal)} are in --json\n")


def _notes(result: ResultDocument) -> list[str]:
    """One line for each reason why counts are missing, with the policies that it concerns."""
    concerned: dict[str, dict[str, list[str]]] = {}
    for name, policy in result["policies"].items():
        for key, reason in policy.get("reasons", {}).items():
            concerned.setdefault(reason, {}).setdefault(key, []).append(name)
    lines = []
    for reason, keys in concerned.items():
        shown = ", ".join(key.removeprefix("exits.") for key in keys)
        lines.append(f"- {shown}: {reason}")
    return lines


def _total(counts: Mapping[str, int | None]) -> str:
    total = counts.get("total")
    return f"{total:,}" if total is not None else f">= {counts.get('at_least') or 0:,}"


def _cell(value: Any) -> str:
    """The count; ``-`` where it is not known, nothing where the policy has no such count."""
    if value is _NONE:
        return ""
    return "-" if value is None else f"{value:,}"


def _keys(rows: Iterable[Mapping[str, Any]], without: tuple[str, ...] = ()) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key not in without))
