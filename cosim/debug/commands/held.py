"""What each policy holds and has cost at this moment of a recorded run: tlb, shadow, exits."""

from __future__ import annotations

from typing import Any

import click

from cosim.debug.commands.arguments import NUMBER
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Answer
from cosim.errors import UsageError
from cosim.paging import rendering
from cosim.paging.explain import Explanation
from cosim.paging.find import frame_of
from cosim.paging.rendering import aligned
from cosim.paging.space import Space
from hypervisor_model.events import Access
from hypervisor_model.inspection import (
    TlbEntry,
    is_of_space,
    nested_walk,
    shadow_walks,
    tlb_entries,
)
from hypervisor_model.policies import Policy
from hypervisor_model.policies.nested import Nested
from hypervisor_model.policies.shadow_policy import ShadowPolicy

_SHOWN = 12

_policy = click.option("--policy", "wanted", metavar="NAME", help="Only this policy.")


def _policies(debuggee: Debuggee, wanted: str | None) -> dict[str, Policy]:
    recording = debuggee.recording
    found = recording.analysis.policies(recording.happened)
    if wanted is None:
        return found
    if wanted not in found:
        raise UsageError(f"there is no policy {wanted!r} here; there are {', '.join(found)}")
    return {wanted: found[wanted]}


@click.command()
@click.argument("va", metavar="[VA]", type=NUMBER, required=False)
@_policy
@click.option("--all", "everything", is_flag=True, help=f"Show all, not only the last {_SHOWN}.")
@click.pass_obj
def tlb(debuggee: Debuggee, va: int | None, wanted: str | None, everything: bool) -> Answer:
    """Show what the TLB of each policy holds now, the entry used last first.

    With VA, only what translates it.  `stale` marks an entry of this address space for which the
    guest's tables give another frame, or none.

    Example: paging tlb $sp
    """
    scan = debuggee.scan()
    lines, document = [], {}
    for name, policy in _policies(debuggee, wanted).items():
        entries = [one for one in tlb_entries(policy) if va is None or _holds(one, va)]
        shown = entries if everything else entries[:_SHOWN]
        satp = scan.space.first
        stale = [
            is_of_space(policy, one, satp) and frame_of(scan, one.va) != one.pa for one in shown
        ]
        document[name] = rendering.tlb_document(shown, stale)
        left_out = len(entries) - len(shown)
        more = f", of which {left_out:,} are not shown (--all)" if left_out else ""
        lines.append(
            f"{name}: {len(entries):,} {'entry' if len(entries) == 1 else 'entries'}{more}"
        )
        lines += [f"  {line}" for line in aligned(rendering.tlb_rows(shown, stale))]
    return Answer("\n".join(lines), document)


def _holds(one: TlbEntry, va: int) -> bool:
    return one.size is None or one.va <= va < one.va + one.size


@click.command()
@click.argument("va", metavar="VA", type=NUMBER)
@_policy
@click.pass_obj
def shadow(debuggee: Debuggee, va: int, wanted: str | None) -> Answer:
    """Show what the tables of each policy's hypervisor hold for VA, beside the guest's.

    `stale` marks a shadow entry that allows what the guest's entry does not say any more.  `nested`
    has no shadow: its walk goes through the guest's tables and the G-stage's.

    Example: paging shadow 0x900000000
    """
    lines: list[str] = []
    document: dict[str, Any] = {}
    for name, policy in _policies(debuggee, wanted).items():
        if isinstance(policy, ShadowPolicy):
            walks = shadow_walks(policy, va)
            document[name] = [rendering.shadow_document(walk) for walk in walks]
            own = [line for walk in walks for line in rendering.shadow_lines(walk)]
            own = own or ["no shadow table: satp is Bare"]
        elif isinstance(policy, Nested):
            status = debuggee.space().status
            found = nested_walk(policy, va, Access.READ, status)
            space = Space(vsatp=found.vsatp, hgatp=found.hgatp, status=status)
            answer = Explanation(space, Access.READ, found.translation, None, None)
            document[name] = rendering.walk_document(answer)
            own = rendering.walk_lines(answer)
        else:
            document[name] = None
            own = ["no tables of a hypervisor"]
        lines.append(f"{name}:")
        lines += [f"  {line}" for line in own]
    return Answer("\n".join(lines), document)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Since the recording began.")
@click.pass_obj
def exits(debuggee: Debuggee, everything: bool) -> Answer:
    """Show the exits of each policy since the last stop, and since the recording began.

    Example: paging exits
    """
    recording = debuggee.recording
    now = recording.happened
    last = 0 if everything else min(recording.since[0], now)
    since, whole = recording.analysis.exits(last, now), recording.analysis.exits(0, now)
    rows: list[tuple[str, ...]] = [("policy", "since the last stop", "since the recording began")]
    rows += [(name, f"{count:,}", f"{whole[name]:,}") for name, count in since.items()]
    if everything:
        rows = [(row[0], row[2]) for row in rows]
    text = aligned(rows, right=(1, 2))
    text.append(f"events {last:,} to {now:,} of the recording")
    document = {
        "from_event": last,
        "to_event": now,
        "exits": since,
        "exits_since_the_beginning": whole,
    }
    return Answer("\n".join(text), document)


COMMANDS: dict[str, click.Command] = {"tlb": tlb, "shadow": shadow, "exits": exits}
