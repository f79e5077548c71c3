"""A result document as a report: what ran, exits and counters by policy, translations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cosim.models.result import ResultDocument, VirtualCounts, missed, missed_text
from cosim.report import answer, from_profile, from_spread, number_text, settings
from cosim.report.content import (
    UNKNOWN,
    Axis,
    Bar,
    Bars,
    Cell,
    Group,
    Listing,
    Notes,
    Paragraphs,
    Part,
    Plot,
    PlotGroup,
    Report,
    Section,
    Table,
)
from cosim.report.divergence import describe
from cosim.report.series_looks import policy_label

FINDINGS = 3
"""Illegal translations and missed writes that are shown whole."""

_TRANSLATIONS = ("compared", "fresh", "stale_legal", "illegal", "undecided")

Policies = Mapping[str, Mapping[str, Any]]


def build(result: ResultDocument) -> Report:
    """Return the report of ``result``."""
    name = str(result["guest"].get("name", "guest"))
    region = result["region"]
    policies = result["policies"]
    profile = [*_profile(result)]
    return Report(
        title=f"{name}: {', '.join(policies) or 'no policy'}",
        lead=f"One guest, {region.get('from', '?')} to {region.get('to', '?')}. Every policy was"
        " given the same events. Counts, not times.",
        warnings=tuple(_warnings(result)),
        answer=answer.parts(result),
        sections=(
            *_findings(result),
            *from_spread.sections(result.get("spread")),
            *(one for one in profile if not one.slug.startswith("causes")),
            *_plots("exits", "VM exits by kind", _totals(policies), _kinds(policies)),
            *(one for one in profile if one.slug.startswith("causes")),
            *_plots("tlb", "TLB misses", _misses(policies), _references(result)),
            Section("counts", "All counts", tuple(_counts(result)), data=dict(result), detail=True),
            Section("set-up", "Set-up", tuple(_set_up(result)), detail=True),
        ),
    )


def _warnings(result: ResultDocument) -> Iterator[str]:
    if not result["complete"]:
        yield f"The run is incomplete: {_incomplete(result)}."
    for name, counts in result["translations"].items():
        if counts["illegal"]:
            number = counts["illegal"]
            yield f"{name}: {number:,} illegal translation{'s' if number > 1 else ''}."
    found = missed(result["audit"])
    if found["missed_writes"]:
        yield (
            f"The capture missed {found['missed_writes']:,} writes to page tables. "
            "Do not rely on the counts."
        )
    if found["dma_writes"]:
        yield (
            f"Devices wrote to {found['dma_writes']:,} entries of live page tables (DMA). No store "
            "tells when, so the models learnt of it late."
        )
    difference = _difference(result)
    if difference is not None:
        yield f"The sources differ at event {difference['event']:,}. Do not rely on the counts."


def _findings(result: ResultDocument) -> Iterator[Section]:
    found = (*_differences(result), *_missed_writes(result), *_divergences(result))
    if found:
        yield Section("findings", "Findings", found)


def _profile(result: ResultDocument) -> Iterator[Section]:
    if "profile" in result:
        policies = result["policies"]
        exiting = [name for name in policies if answer.can_exit(policies[name])]
        yield from from_profile.sections(result["profile"], exiting)


def _incomplete(result: ResultDocument) -> str:
    return result.get("incomplete_because", "it broke off")


# -- plots ---------------------------------------------------------------------------------------


def _plots(slug: str, heading: str, *plots: Plot | None) -> Iterator[Section]:
    known = tuple(plot for plot in plots if plot is not None)
    if known:
        yield Section(slug, heading, (PlotGroup(heading, known),), detail=True, drawn=True)


def _totals(policies: Policies) -> Plot | None:
    bars = {}
    for name, policy in policies.items():
        total = policy["exits"]["total"]
        known = total if total is not None else policy["exits"]["at_least"]
        bars[name] = Bar(known, at_least=total is None)
    return Bars("", Axis("VM exits, all kinds"), (Group("", bars),)) if bars else None


def _kinds(policies: Policies) -> Plot | None:
    exits = {name: policy["exits"] for name, policy in policies.items()}
    groups = []
    for kind in _keys(exits.values(), without=("total", "at_least")):
        bars = {name: Bar(counts[kind]) for name, counts in exits.items() if kind in counts}
        if any(bar.value != 0 for bar in bars.values()):
            groups.append(Group(kind, bars))
    return Bars("", Axis("VM exits by kind"), tuple(groups)) if groups else None


def _misses(policies: Policies) -> Plot | None:
    bars = {name: Bar(policy.get("tlb_misses")) for name, policy in policies.items()}
    return _if_known(Axis("TLB misses"), bars)


def _references(result: ResultDocument) -> Plot | None:
    per_miss = answer.derived_of(result)["references_per_miss"]
    bars = {name: Bar(per_miss.get(name)) for name in result["policies"]}
    return _if_known(Axis("references for each TLB miss", number_text.ratio), bars)


def _if_known(axis: Axis, bars: dict[str, Bar]) -> Plot | None:
    if all(bar.value is None for bar in bars.values()):
        return None
    return Bars("", axis, (Group("", bars),))


# -- counts --------------------------------------------------------------------------------------


def _counts(result: ResultDocument) -> Iterator[Part]:
    yield _run(result)
    if result["policies"]:
        yield _by_policy(result["policies"])
    if result["translations"]:
        yield _translations(result)
    reasons = _reasons(result)
    if reasons:
        yield Notes(reasons)


def _run(result: ResultDocument) -> Table:
    """Return what ran, and what was seen of it."""
    region = result["region"]
    text = f"{region.get('from', '?')} .. {region.get('to', '?')}"
    if region.get("instructions") is not None:
        text += f", {region['instructions']:,} instructions"
    if region.get("not_replayed"):
        text += f", up to {region['not_replayed']:,} more not re-executed"
    facts = {
        "guest": str(result["guest"].get("name", "?")),
        "region": text,
        "source": f"{result['backend']}, accesses: {result['accesses']}{_stepped(result)}",
        "events": _events(result),
    }
    reason = result["events"].get("reasons", {}).get("virtual")
    if reason is not None:
        virtual = result["events"]["virtual"]
        facts["left out"] = reason if virtual is None else f"{_virtual(virtual)}; {reason}"
    facts["audit"] = _audit(result)
    if not result["complete"]:
        facts["incomplete"] = _incomplete(result)
    rows = tuple((Cell(name), Cell(fact)) for name, fact in facts.items())
    return Table("", ("", ""), rows, numeric=False)


def _stepped(result: ResultDocument) -> str:
    stepped = result["stepped"]
    if stepped is None:
        return ""
    text = f", {stepped['instructions']:,} instructions stepped"
    if stepped["share"] is not None:
        text += f" ({number_text.percent(stepped['share'], 2)} of the region)"
    return text


def _events(result: ResultDocument) -> str:
    events, fence = result["events"], result["events"]["fence"]
    fences = fence["va"] + fence["va_asid"] + fence["asid"] + fence["all"]
    accesses = "unseen" if events["access"] is None else f"{events['access']:,}"
    remote = f"{events['remote_fence']:,} remote fences, " if "remote_fence" in events else ""
    return (
        f"{events['pte_write']:,} table stores, {fences:,} fences "
        f"({fence['va']:,} va, {fence['va_asid']:,} va+asid, {fence['asid']:,} asid, "
        f"{fence['all']:,} all), {remote}{events['satp_write']:,} satp writes, "
        f"{accesses} accesses"
    )


def _virtual(counts: VirtualCounts) -> str:
    shown = ((key.replace("_", " "), n) for key, n in counts.items() if n is not None)
    return ", ".join(f"{key} {n:,}" for key, n in shown)


def _audit(result: ResultDocument) -> str:
    audit = result["audit"]
    if audit is None:
        return "none was made"
    # Few guests have a device that could write to tables.
    found = (
        f"{n:,} {missed_text(key)}" for key, n in missed(audit).items() if n or key != "dma_writes"
    )
    return ", ".join([f"{audit['checks']:,} checks", *found])


def _missed_writes(result: ResultDocument) -> Iterator[Part]:
    """Give the first stores that no event explains: page, entry, and what happened before."""
    audit = result["audit"] or {}
    found = [("missed write", one) for one in audit.get("missed", [])]
    found += [("written by a device", one) for one in audit.get("dma", [])]
    for what, one in found[:FINDINGS]:
        before = "; ".join(one["last_events"][-3:]) or "none"
        yield Paragraphs(
            f"{what}: page {one['page']}, entry {one['index']}: {one['expected']} became "
            f"{one['found']}; last events: {before}"
        )


def _difference(result: ResultDocument) -> Mapping[str, Any] | None:
    difference: Mapping[str, Any] | None = result.get("agreement", {}).get("difference")
    return difference


def _differences(result: ResultDocument) -> Iterator[Part]:
    """Give the first event in which two sources differ, and each side's last events."""
    difference = _difference(result)
    if difference is None:
        return
    lines = [f"the sources differ at event {difference['event']:,}"]
    for source, last in difference["last_events"].items():
        lines += [f"  {source}, before: {event}" for event in last]
        lines.append(f"  {source}: {difference[source] or 'nothing more'}")
    if difference["fields"]:
        lines.append(f"  different: {', '.join(difference['fields'])}")
    yield Listing("\n".join(lines))


def _by_policy(policies: Policies) -> Table:
    """Return exits by kind and, below them, all other counters."""
    exits = [policy["exits"] for policy in policies.values()]
    rows = [(Cell("exits"), *map(answer.total, exits))]
    for kind in _keys(exits, without=("total", "at_least")):
        rows.append((Cell(f"  {kind}"), *(_count(counts, kind) for counts in exits)))
    counters = len(rows)
    absent = _absent(policies)
    for key in _keys(policies.values(), without=("exits", "reasons", *absent)):
        values = [policy.get(key) for policy in policies.values()]
        kinds = _keys([value for value in values if isinstance(value, Mapping)])
        for kind in kinds:
            cells = (_count_of(policy, key, kind) for policy in policies.values())
            rows.append((Cell(f"{key} {kind}"), *cells))
        if not kinds:
            rows.append((Cell(key), *(_count(policy, key) for policy in policies.values())))
    return Table("", ("", *policies), tuple(rows), rule_before=counters)


def _absent(policies: Policies) -> tuple[str, ...]:
    """Return the counters of parts that the machine does not have: they are not unknown."""
    return tuple(
        key
        for key in ("walk_cache_hits",)
        if all(policy.get(key) is None for policy in policies.values())
        and any("has no" in policy["reasons"].get(key, "") for policy in policies.values())
    )


def _count_of(policy: Mapping[str, Any], key: str, kind: str) -> Cell:
    counts = policy.get(key, {})
    return Cell(UNKNOWN) if counts is None else _count(counts, kind)


def _count(counts: Mapping[str, Any], key: str) -> Cell:
    """Return the count; an empty cell if the policy has no such count."""
    return Cell.of(counts[key]) if key in counts else Cell("")


def _translations(result: ResultDocument) -> Table:
    counted: Mapping[str, Mapping[str, Any]] = result["translations"]
    rows = tuple(
        (Cell(name), *(Cell.of(counts[key]) for key in _TRANSLATIONS))
        for name, counts in counted.items()
    )
    columns = (key.replace("_", "-") for key in _TRANSLATIONS)
    return Table("", ("translations", *columns), rows)


def _divergences(result: ResultDocument) -> Iterator[Part]:
    """Give the first illegal translations, with both walks level by level."""
    illegal = result["illegal_translations"]
    for finding in illegal[:FINDINGS]:
        yield Listing(describe(finding))
    if len(illegal) > FINDINGS:
        yield Paragraphs(
            f"{len(illegal) - FINDINGS} more of the first {len(illegal)} are in --json"
        )


def _reasons(result: ResultDocument) -> tuple[str, ...]:
    """Return one line for each reason why counts are missing, with the counts."""
    concerned: dict[str, dict[str, None]] = {}
    for policy in result["policies"].values():
        for key, reason in policy.get("reasons", {}).items():
            concerned.setdefault(reason, {})[key.removeprefix("exits.")] = None
    return tuple(f"{', '.join(keys)}: {reason}" for reason, keys in concerned.items())


def _keys(rows: Iterable[Mapping[str, Any]], without: tuple[str, ...] = ()) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key not in without))


# -- set-up --------------------------------------------------------------------------------------


def _set_up(result: ResultDocument) -> Iterator[Table]:
    labels = {name: policy_label(name) for name in result["policies"]}
    known = {name: label for name, label in labels.items() if label is not None}
    if known:
        yield settings.table("Policies", known)
    yield settings.table("Guest", result["guest"])
    yield settings.table("Region", result["region"])
    yield settings.table("Modelled machine", result["machine"])
