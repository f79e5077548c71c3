"""What has happened to the page tables, and the ways to get there: who, watch, break-on, back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from cosim.debug.commands.arguments import NUMBER
from cosim.debug.debuggee import Debuggee, Recording, StopRule
from cosim.debug.link import Answer
from cosim.errors import UsageError
from cosim.paging.history import EntryChange, entry_history, translation_history
from cosim.paging.rendering import aligned
from cosim.trace import describe
from hypervisor_model.events import Kind, PteOp
from hypervisor_model.mmu import letters

_SHOWN = 20


def stopped(debuggee: Debuggee) -> Answer:
    """Answer the part inside gdb, which has seen the guest stop: say why."""
    if not debuggee.is_recorded:
        return Answer()
    recording = debuggee.recording
    recording.note_stop()
    reason = recording.line.reason
    return Answer(f"paging: {reason}" if reason else "")


# -- who ------------------------------------------------------------------------------------------


@click.command()
@click.argument("address", metavar="VA|PTE", type=NUMBER)
@click.option("--entry", is_flag=True, help="The address is the physical one of an entry.")
@click.option("--satp", type=NUMBER, metavar="X", help="Use this satp.")
@click.option("--later", is_flag=True, help="Show also what the recording has behind this moment.")
@click.option("--all", "everything", is_flag=True, help=f"Show all, not only the last {_SHOWN}.")
@click.pass_obj
def who(
    debuggee: Debuggee,
    address: int,
    entry: bool,
    satp: int | None,
    later: bool,
    everything: bool,
) -> Answer:
    """Show who wrote the entries that translate VA: when, where, what, and the fence behind it.

    Entries of every level are shown.  With --entry, the address is that of one entry.

    Example: paging who 0x900000000
    """
    recording = debuggee.recording
    events = recording.timeline.events
    if entry:
        changes = entry_history(events, address)
        what = f"entry {address & ~7:#x}"
    else:
        satp = debuggee.registers().satp if satp is None else satp
        changes = translation_history(events, satp, address)
        what = f"{address:#x} under satp {satp:#x}"
    now = recording.happened
    if not later:
        changes = [change for change in changes if change.event < now]
    documents = [_document(debuggee, change, now) for change in changes]
    shown = documents if everything else documents[-_SHOWN:]
    lines = []
    if len(shown) < len(documents):
        lines.append(f"({len(documents) - len(shown)} earlier changes are left out; --all)")
    for one in shown:
        lines += _who_lines(one)
    lines.append(
        f"{what}: {_count(len(documents), 'change')} since the recording began"
        + (" (all of it)" if later else " and until now")
    )
    if not documents and len(events):
        lines.append("what the tables held when the recording began was written before it")
    return Answer("\n".join(lines), {"what": what, "changes": documents})


def _document(debuggee: Debuggee, change: EntryChange, now: int) -> dict[str, Any]:
    recording = debuggee.recording
    places = recording.places
    fence = change.fence
    document: dict[str, Any] = {
        "event": change.event,
        "instruction": recording.timeline.place(change.event).count,
        "in_the_future": change.event >= now,
        "pc": change.pc,
        "symbol": places.symbol(change.pc),
        "source": places.source(change.pc),
        "hart": change.hart,
        "op": change.op.name.lower(),
        "entry": change.entry,
        "level": change.level,
        "old": change.old,
        "new": change.new,
        "fence": None,
    }
    if fence is not None:
        event = recording.timeline.events[fence]
        pc = recording.timeline.place(fence).pc or 0
        document["fence"] = {
            "event": fence,
            "instruction": recording.timeline.place(fence).count,
            "in_the_future": fence >= now,
            "pc": pc,
            "symbol": places.symbol(pc),
            "text": describe.details(event, {}),
        }
    return document


def _who_lines(one: dict[str, Any]) -> list[str]:
    level = "" if one["level"] is None else f"level {one['level']} "
    by = "the MMU, near" if one["op"] == PteOp.HARDWARE_AD.name.lower() else "by"
    later = "  (later)" if one["in_the_future"] else ""
    lines = [
        f"#{one['event']}  instruction {one['instruction']:,}{later}",
        f"    {level}entry {one['entry']:#x}: {one['old']:#x} -> {one['new']:#x}"
        f"  {letters(one['old'])} -> {letters(one['new'])}",
        f"    {by} {_place(one)}",
    ]
    fence = one["fence"]
    if fence is None:
        # Which addresses an entry maps is known only on the path of an address.
        without = " without address" if one["level"] is None else ""
        lines.append(f"    no fence{without} of the recording covers it")
    else:
        later = " (later)" if fence["in_the_future"] else ""
        lines.append(
            f"    covered by #{fence['event']} {fence['text']} at {_place(fence)}, "
            f"instruction {fence['instruction']:,}{later}"
        )
    return lines


def _place(one: dict[str, Any]) -> str:
    text = f"{one['pc']:#x}"
    if one.get("symbol"):
        text += f" {one['symbol']}"
    if one.get("source"):
        text += f" ({one['source']})"
    return text


# -- stops ----------------------------------------------------------------------------------------

_KINDS = ("fence", "satp", "finding", "divergence")


@click.command("break-on")
@click.argument(
    "kinds", nargs=-1, metavar="[fence|satp|finding|divergence]...", type=click.Choice(_KINDS)
)
@click.option("--delete", is_flag=True, help="Stop there no longer.")
@click.pass_obj
def break_on(debuggee: Debuggee, kinds: Sequence[str], delete: bool) -> Answer:
    """Let `continue` stop before each instruction of this kind.

    fence: a fence of the first stage.  satp: a write of satp.  finding: the first access of
    each finding of `cosim check`.  divergence: an access of which a model's translation is
    illegal.  Without a kind, show what is set.

    Example: paging break-on finding
    """
    recording = debuggee.recording
    for kind in kinds:
        if delete:
            recording.rules.pop(kind, None)
        else:
            recording.rules[kind] = rule(recording, kind)
    return _rules(recording)


def rule(recording: Recording, kind: str) -> StopRule:
    """Return the stops of one kind of ``break-on``."""
    timeline, events = recording.timeline, recording.timeline.events
    if kind == "fence":
        numbers = timeline.select([Kind.FENCE])
        return StopRule(numbers, lambda n: f"fence: {describe.details(events[n], {})}")
    if kind == "satp":
        numbers = timeline.select([Kind.SATP_WRITE])
        named = timeline.processes
        return StopRule(numbers, lambda n: f"satp write: {describe.details(events[n], {}, named)}")
    rows: dict[int, str] = {}
    note = ""
    if kind == "finding":
        for row in recording.analysis.findings:
            rows.setdefault(int(row["access"]["event"]), _finding_text(row))
    else:
        for row in recording.analysis.divergences:
            rows.setdefault(int(row["event"]), _divergence_text(row))
        left_out = recording.analysis.divergences_left_out
        if left_out:
            note = f"the first ones; {_count(left_out, 'further translation')} are illegal"
    return StopRule(np.array(sorted(rows), np.int64), lambda n: rows[n], note)


def _finding_text(row: dict[str, Any]) -> str:
    store = row["store"]
    where = f"{row['store_pc']:#x}"
    if row["store_symbol"]:
        where += f" {row['store_symbol']}"
    if row["store_source"]:
        where += f" ({row['store_source']})"
    entry = "satp" if store["entry"] is None else f"entry {store['entry']:#x}"
    return (
        f"{row['kind']} at {row['va']:#x}: {row['effect']}\n"
        f"    the store at {where} owed a fence: {entry} {store['old']:#x} -> {store['new']:#x}\n"
        f"    fence: {row['fence']['text']}"
    )


def _divergence_text(row: dict[str, Any]) -> str:
    return (
        f"divergence: {row['party']} translates {row['va']:#x} ({row['access']}) to "
        f"{_translation(row['answer'])}; the tables say {_translation(row['today'])}"
    )


def _translation(answer: dict[str, Any]) -> str:
    return f"{answer['pa']:#x}" if "pa" in answer else f"a {answer['name']}"


def _rules(recording: Recording) -> Answer:
    rows = [
        (name, _count(len(one.numbers), "place"), one.note) for name, one in recording.rules.items()
    ]
    text = "\n".join(aligned(rows)) if rows else "nothing is set; `continue` stops for gdb only"
    value = {name: len(one.numbers) for name, one in recording.rules.items()}
    return Answer(text, value)


@click.command()
@click.argument("va", metavar="[VA]", type=NUMBER, required=False)
@click.option("--satp", type=NUMBER, metavar="X", help="Use this satp.")
@click.option("--delete", is_flag=True, help="Watch it no longer; without VA, watch nothing.")
@click.pass_obj
def watch(debuggee: Debuggee, va: int | None, satp: int | None, delete: bool) -> Answer:
    """Let `continue` stop before each store that changes the translation of VA, at any level.

    Without VA, show what is watched.

    Example: paging watch 0x900000000
    """
    recording = debuggee.recording
    if va is None:
        if delete:
            for name in [name for name in recording.rules if name.startswith("watch ")]:
                del recording.rules[name]
        return _rules(recording)
    name = f"watch {va:#x}"
    if delete:
        recording.rules.pop(name, None)
        return _rules(recording)
    changes = _changes_of(debuggee, va, satp)
    texts = {change.event: _change_text(va, change) for change in changes}
    recording.rules[name] = StopRule(np.array(sorted(texts), np.int64), lambda n: texts[n])
    left = sum(change.event >= recording.happened for change in changes)
    return Answer(f"{name}: {_count(left, 'change')} to come", {"to_come": left})


def _changes_of(debuggee: Debuggee, va: int, satp: int | None) -> list[EntryChange]:
    """Return the changes of the translation of ``va`` that an instruction made."""
    satp = debuggee.registers().satp if satp is None else satp
    changes = translation_history(debuggee.recording.timeline.events, satp, va)
    return [change for change in changes if change.op is not PteOp.HARDWARE_AD]


def _change_text(va: int, change: EntryChange) -> str:
    return (
        f"translation of {va:#x}, level {change.level}: entry {change.entry:#x}: "
        f"{change.old:#x} -> {change.new:#x}"
    )


@click.command()
@click.argument("va", metavar="[VA]", type=NUMBER, required=False)
@click.option("--satp", type=NUMBER, metavar="X", help="Use this satp.")
@click.pass_obj
def back(debuggee: Debuggee, va: int | None, satp: int | None) -> Answer:
    """Go back to the last store to an entry; with VA, to the last change of its translation.

    The guest then stands before that store.

    Example: paging back 0x900000000
    """
    recording = debuggee.recording
    now = recording.happened
    if va is None:
        numbers = recording.timeline.select([Kind.PTE_WRITE], _BY_INSTRUCTION)
        earlier = numbers[numbers < now].tolist()
        events = recording.timeline.events
        texts = [f"store to {describe.details(events[number], {})}" for number in earlier[-1:]]
    else:
        changes = [change for change in _changes_of(debuggee, va, satp) if change.event < now]
        earlier = [change.event for change in changes]
        texts = [_change_text(va, change) for change in changes[-1:]]
    if not earlier:
        of = "an entry" if va is None else f"what translates {va:#x}"
        raise UsageError(f"the recording has no earlier store to {of}; it began at its region")
    recording.line.aim = recording.aim(earlier[-1], texts[-1])
    return Answer(value={"event": earlier[-1]}, run=["reverse-stepi"])


_BY_INSTRUCTION = tuple(int(op) for op in PteOp if op not in (PteOp.HARDWARE_AD, PteOp.OTHER))


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


COMMANDS: dict[str, click.Command] = {
    "who": who,
    "watch": watch,
    "break-on": break_on,
    "back": back,
}
