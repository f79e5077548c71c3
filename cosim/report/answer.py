"""The answer: what a result says first, in sentences and one small table to be read aloud."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cosim.models.derived import BreakEven, Derived, derive, models_of
from cosim.models.result import ResultDocument, missed, missed_text
from cosim.output import one_line
from cosim.report import from_spread, number_text
from cosim.report.content import UNKNOWN, Cell, Notes, Paragraphs, Part, Table

Policies = Mapping[str, Mapping[str, Any]]


def parts(result: ResultDocument) -> tuple[Part, ...]:
    """Return the answer of ``result``."""
    policies, derived = result["policies"], derived_of(result)
    said = [_what_ran(result), *_exits(policies, derived)]
    said += [*_cycles(policies, derived), *_break_even(derived)]
    said += from_spread.sentences(result.get("spread"))
    made: list[Part] = [Paragraphs("\n".join(said))]
    if policies:
        made.append(_table(policies, derived))
    notes = tuple(_notes(result, derived))
    if notes:
        made.append(Notes(notes))
    made.append(Paragraphs(f"Checked: {'; '.join(_checked(result))}."))
    return tuple(made)


def headline(result: ResultDocument) -> str:
    """Return the answer in one sentence, for a list of runs."""
    exits = "".join(_exits(result["policies"], derived_of(result)))
    return exits or f"Checked: {'; '.join(_checked(result))}."


def derived_of(result: ResultDocument) -> Derived:
    """Return what follows from the counts; results of older versions do not have it."""
    return result.get("derived") or derive(result["policies"])


# -- sentences -----------------------------------------------------------------------------------


def _what_ran(result: ResultDocument) -> str:
    region, events = result["region"], result["events"]
    name = result["guest"].get("name", "guest")
    fences = sum(events["fence"][form] for form in ("va", "va_asid", "asid", "all"))
    counts = [
        (region.get("instructions"), "instruction"),
        (events["pte_write"], "table store"),
        (fences, "fence"),
        (events.get("remote_fence"), "remote fence"),
        (events["satp_write"], "satp write"),
    ]
    seen = _listed([_count(number, what) for number, what in counts if number is not None])
    # Names of files and patterns for the console may hold line feeds.
    return one_line(f"{name}, from {region.get('from', '?')} to {region.get('to', '?')}: {seen}.")


def _exits(policies: Policies, derived: Derived) -> Iterator[str]:
    """Say how often each policy exits, next to shadow paging."""
    with_exits = {name: policy["exits"] for name, policy in policies.items() if can_exit(policy)}
    totals = {name: exits["total"] for name, exits in with_exits.items()}
    against = derived["exits_vs_shadow"]
    base = next(iter(models_of(with_exits, "shadow")), None)
    if base is not None and totals[base]:
        others = [name for name in totals if name != base and against.get(name) is not None]
        if others:
            compared = [f"{name} {_more_or_fewer(against[name])}" for name in others]
            compared[0] = compared[0].replace(" ", " takes ", 1)
            yield f"Against the {totals[base]:,} exits of {base}, {_listed(compared)}."
            return
    known = [f"{name} takes {_count(n, 'exit')}" for name, n in totals.items() if n is not None]
    least = [
        f"{name} {exits['at_least']:,} or more"
        for name, exits in with_exits.items()
        if exits["total"] is None
    ]
    if known:
        yield f"{_listed(known)}."
    if least:
        yield f"Exits are known only in part: {_listed(least)}."


def _cycles(policies: Policies, derived: Derived) -> Iterator[str]:
    # Without a hypervisor it is cheapest, which is no answer.
    known = {
        name: cycles["total"]
        for name, cycles in derived["cycles"].items()
        if cycles is not None and can_exit(policies[name])
    }
    if not known:
        return
    table = derived["cost_table"]
    least = min(known.values())
    cheapest = [name for name, total in known.items() if total == least]
    verb = "costs" if len(cheapest) == 1 else "cost"
    yield (
        f"By the cost table `{table['name']}` ({table['exit']:,} cycles for an exit, "
        f"{table['reference']:,} for a reference; assumed, not measured), "
        f"{_listed(cheapest)} {verb} least: {number_text.scaled(least)} cycles."
    )


def _break_even(derived: Derived) -> Iterator[str]:
    for pair in derived["break_even"]:
        yield _compared(pair)


def _compared(pair: BreakEven) -> str:
    one, other, cost = pair["one"], pair["other"], pair["exit_cost"]
    if cost is not None:
        return (
            f"{one} and {other} break even if an exit costs {number_text.number(round(cost))} "
            f"cycles: below that {pair['below']} is cheaper, above it {pair['above']}."
        )
    if pair["below"] is None:
        return f"{one} and {other} cost the same, whatever an exit costs."
    dearer = other if pair["below"] == one else one
    return f"{pair['below']} is cheaper than {dearer}, whatever an exit costs."


def _checked(result: ResultDocument) -> Iterator[str]:
    """Say what was compared, and what was found."""
    counts = result["translations"].values()
    compared = sum(one["compared"] for one in counts)
    illegal = sum(one["illegal"] for one in counts)
    undecided = sum(one["undecided"] for one in counts)
    wrong = f"{illegal:,}" if illegal else "none"
    text = f"{_count(compared, 'translation')} compared, {wrong} illegal"
    yield f"{text}, {undecided:,} undecided" if undecided else text
    agreement = result.get("agreement")
    if agreement is not None:
        yield _agreed(agreement)
    audit = result["audit"]
    if audit is None:
        yield "no audit looked for missed writes"
        return
    found = missed(audit)
    if not any(found.values()):
        yield "0 missed"
        return
    yield ", ".join(f"{n:,} {missed_text(key)}" for key, n in found.items() if n)


def _agreed(agreement: Mapping[str, Any]) -> str:
    text = f"{agreement['equal']:,} of {agreement['events']:,} events equal in both sources"
    left = agreement.get("not_reached") or 0
    return f"{text} ({left:,} seen by one source only)" if left else text


# -- the table -----------------------------------------------------------------------------------


def _table(policies: Policies, derived: Derived) -> Table:
    """Return a row for each policy; a column of which nothing is known is left out."""
    against, cycles = derived["exits_vs_shadow"], derived["cycles"]
    columns: dict[str, list[Cell]] = {"exits": [total(p["exits"]) for p in policies.values()]}
    if against:
        columns["against shadow"] = [_against(name, policies, against) for name in policies]
    columns["TLB misses"] = [Cell.of(policy.get("tlb_misses")) for policy in policies.values()]
    columns["references per miss"] = [
        Cell.of(derived["references_per_miss"].get(name), number_text.ratio) for name in policies
    ]
    columns["estimated cycles"] = [_estimated(cycles.get(name)) for name in policies]
    known = {
        name: cells
        for name, cells in columns.items()
        if any(cell.text not in ("", UNKNOWN) for cell in cells)
    }
    rows = tuple(zip(map(Cell, policies), *known.values(), strict=True))
    return Table("", ("", *known), rows)


def total(exits: Mapping[str, Any]) -> Cell:
    """Return the exits of all kinds, or how many there are at least."""
    if exits["total"] is not None:
        return Cell.of(exits["total"])
    return Cell(f">= {exits['at_least']:,}", exits["at_least"])


def _against(name: str, policies: Policies, against: Mapping[str, float | None]) -> Cell:
    base = models_of(policies, "shadow")[0]
    if name == base or not can_exit(policies[name]):
        return Cell("")
    if policies[base]["exits"]["total"] == 0:
        return Cell("")
    value = against.get(name)
    return Cell(UNKNOWN) if value is None else Cell(_more_or_fewer(value), value - 1)


def _estimated(cycles: Mapping[str, Any] | None) -> Cell:
    return Cell.of(None if cycles is None else cycles["total"], number_text.scaled)


def _more_or_fewer(ratio: float | None) -> str:
    assert ratio is not None
    if ratio == 1:
        return "as many"
    return f"{number_text.percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'}"


# -- footnotes -----------------------------------------------------------------------------------


def _notes(result: ResultDocument, derived: Derived) -> Iterator[str]:
    """Say in words why something is not known, or only in part."""
    policies = result["policies"]
    yield from _partial_exits(policies)
    unknown: dict[str, list[str]] = {}
    for name, policy in policies.items():
        reason = policy.get("reasons", {}).get("tlb_misses")
        if reason is not None:
            unknown.setdefault(reason, []).append(name)
    for reason, names in unknown.items():
        yield f"TLB misses and references{_of(names, policies)}: {reason}"
    if not unknown:
        for reason, names in _grouped(derived["reasons"]).items():
            yield f"cycles{_of(names, policies)}: {reason}"
    elif any(cycles is None for cycles in derived["cycles"].values()):
        yield "cycles and the break-even exit cost need all of these counts"
    # Only gdb steps, and with both sources their agreement is there.
    alone = bool(result["stepped"]) and "agreement" not in result
    if result["accesses"] != "all" and policies and alone:
        yield "`--backend plugin` sees every access"
    yield from _unrepeated(result)
    virtual = result["events"].get("reasons", {}).get("virtual")
    if virtual is not None:
        yield f"left out: {virtual}"
    if result["region"].get("not_replayed"):
        yield f"up to {result['region']['not_replayed']:,} more instructions were not re-executed"


def _unrepeated(result: ResultDocument) -> Iterator[str]:
    """Say that another run gives other counts."""
    if result["guest"].get("repeats", True):
        return
    text = "the guest ran in real time, so another run gives other counts"
    if result["machine"].get("harts", 1) > 1 and "spread" not in result:
        text += "; `--runs 5` gives each count's median and spread"
    yield text


def _partial_exits(policies: Policies) -> Iterator[str]:
    for in_part in (False, True):
        grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name, policy in policies.items():
            kinds: dict[str, list[str]] = {}
            for key, reason in policy.get("reasons", {}).items():
                part, _, kind = key.partition(".")
                if part != "exits" or kind == "total":
                    continue
                if (policy["exits"][kind] is not None) == in_part:
                    kinds.setdefault(reason, []).append(kind)
            for reason, found in kinds.items():
                grouped.setdefault((reason, tuple(found)), []).append(name)
        how = "counted only in part" if in_part else "not counted"
        for (reason, kinds_found), names in grouped.items():
            yield f"exits of {_listed(names)}: {_listed(kinds_found)} {how}: {reason}"


def _grouped(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(reason, []).append(name)
    return grouped


def _of(names: list[str], policies: Policies) -> str:
    return "" if len(names) == len(policies) else f" of {_listed(names)}"


def can_exit(policy: Mapping[str, Any]) -> bool:
    """Return True if the policy has a kind of exit; without a hypervisor there is none."""
    return any(key not in ("total", "at_least") for key in policy["exits"])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(texts: Iterable[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last
