"""``paging tlb``, ``shadow`` and ``exits``: what the models hold and have counted by now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from cosim.debug.commands.arguments import NUMBER
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Answer
from cosim.errors import UsageError
from cosim.paging.rendering import aligned, size_text
from hypervisor_model.mmu import letters
from hypervisor_model.policies import Policy
from hypervisor_model.policies.contents import ONE_VIEW, Held, held, shadows

_SHOWN = 32


@click.command()
@click.argument("va", metavar="[VA]", type=NUMBER, required=False)
@click.option("--policy", metavar="NAME", help="Only this model.")
@click.option("--all", "everything", is_flag=True, help=f"Show all entries, not only {_SHOWN}.")
@click.pass_obj
def tlb(debuggee: Debuggee, va: int | None, policy: str | None, everything: bool) -> Answer:
    """Show what the TLB of each model holds; with VA, only what translates it.

    The models see the recorded run from where the region begins, and start with empty TLBs.

    Example: paging tlb $sp --policy lsp
    """
    lines: list[str] = []
    value: dict[str, Any] = {}
    for name, model in _models(debuggee, policy).items():
        entries = _matching(held(model), va)
        value[name] = [one._asdict() for one in entries]
        shown = entries if everything else entries[:_SHOWN]
        lines.append(f"{name}: {len(entries):,} entries")
        lines += [f"  {line}" for line in aligned([_cells(one) for one in shown])]
        if len(shown) < len(entries):
            lines.append(f"  ... {len(entries) - len(shown):,} more (--all)")
    return Answer("\n".join(lines), value)


def _matching(entries: Iterable[Held], va: int | None) -> list[Held]:
    return [one for one in entries if va is None or one.va <= va < one.va + one.size]


def _cells(one: Held) -> tuple[str, ...]:
    asid = "no ASID" if one.asid is None else f"ASID {one.asid}"
    return (
        one.buffer,
        f"va {one.va:#018x}",
        f"pa {one.pa:#x}",
        size_text(one.size),
        letters(one.perm),
        asid,
    )


@click.command()
@click.argument("va", metavar="VA", type=NUMBER)
@click.option("--satp", type=NUMBER, metavar="X", help="Use this satp.")
@click.option("--policy", metavar="NAME", help="Only this model.")
@click.pass_obj
def shadow(debuggee: Debuggee, va: int, satp: int | None, policy: str | None) -> Answer:
    """Show what the shadow tables of each model hold for VA, in each privilege view.

    Example: paging shadow 0x900000000
    """
    satp = debuggee.registers().satp if satp is None else satp
    lines: list[str] = []
    value: dict[str, Any] = {}
    for name, model in _models(debuggee, policy).items():
        found = shadows(model, satp, va)
        value[name] = None if found is None else [one._asdict() for one in found]
        if found is None:
            lines.append(f"{name}: no shadow tables; it walks the guest's own")
            continue
        if not found:
            lines.append(f"{name}: no shadow of satp {satp:#x}")
        for one in found:
            holds = "nothing" if one.pa is None else f"pa {one.pa:#x} {letters(one.entry & 0xFF)}"
            view = "" if one.view == ONE_VIEW else f"{one.view} view: "
            lines.append(f"{name}: {view}{holds} (level {one.level})")
    return Answer("\n".join(lines), value)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Since the region began.")
@click.pass_obj
def exits(debuggee: Debuggee, everything: bool) -> Answer:
    """Count the VM exits of each model since the last stop.

    Example: paging exits
    """
    recording = debuggee.recording
    now = recording.happened
    first = 0 if everything else min(recording.since[0], now)
    counts = recording.analysis.exits(first, now)
    since = "since the region began" if everything else "since the last stop"
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    text = "\n".join([f"VM exits {since} ({now - first:,} events):", *aligned(rows, right=(1,))])
    return Answer(text, counts)


def _models(debuggee: Debuggee, policy: str | None) -> Mapping[str, Policy]:
    recording = debuggee.recording
    models = recording.analysis.models_at(recording.happened)
    if policy is None:
        return models
    if policy not in models:
        raise UsageError(f"there is no model {policy!r} here; the models are {', '.join(models)}")
    return {policy: models[policy]}


COMMANDS: dict[str, click.Command] = {"tlb": tlb, "shadow": shadow, "exits": exits}
