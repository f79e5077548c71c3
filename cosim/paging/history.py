"""What a recorded run did to an entry of a page table, or to all that translates one address.

The events of a run (:mod:`hypervisor_model.events`) say what each live table held when it was
found, and every store to it since.  So the path of an address can be followed through the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.errors import UsageError
from hypervisor_model.events import FLAG_STOP, EventBatch, Fence, Kind, PteOp
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.walk import is_canonical

_STATE = (Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.TABLE_DROP, Kind.PTE_WRITE)


@dataclass(frozen=True)
class EntryChange:
    """One entry that got another value; numbers are unsigned."""

    event: int
    """Number of the event."""
    icount: int
    """Instructions retired before it; -1 if the source did not say."""
    pc: int
    hart: int
    op: PteOp
    entry: int
    """Address of the entry."""
    level: int | None
    """Its level in the path of the address; None if no address was asked about."""
    old: int
    new: int
    fence: int | None
    """Number of the first event after it that is a fence and covers it; None if there is none."""


def entry_history(events: EventBatch, entry: int) -> list[EntryChange]:
    """Return the changes of the entry at the physical address ``entry``, in order.

    A fence by address is not counted as covering it, since one entry may map any address.
    """
    address = np.asarray(events["a"]) & ~7
    writes = (events["kind"] == int(Kind.PTE_WRITE)) & (address == signed(entry & ~7))
    return [
        _change(events, number, None, None, None)
        for number in np.flatnonzero(writes).tolist()
        if events["b"][number] != events["c"][number]
    ]


def translation_history(events: EventBatch, satp: int, va: int) -> list[EntryChange]:
    """Return the changes of every entry that translated ``va``, at whatever level, in order.

    :param satp: selects the address space.
    :param va: unsigned.
    :raises UsageError: when the address space has no tables, or cannot have the address.
    """
    return [
        _change(events, number, level, va, satp) for number, level in _path_writes(events, satp, va)
    ]


def _path_writes(events: EventBatch, satp: int, va: int) -> Iterator[tuple[int, int]]:
    """Yield the number of each event that changed the path of ``va``, and the entry's level."""
    levels = int(atp.levels(atp.mode(signed(satp))))
    if levels <= 0:
        raise UsageError(
            f"satp {satp:#x} is Bare: nothing translates addresses, so nothing changes"
        )
    if not is_canonical(signed(va), levels):
        raise UsageError(f"{va:#x} is not an address of {levels} levels")
    root = atp.root(signed(satp))
    numbers = np.flatnonzero(np.isin(events["kind"], [int(kind) for kind in _STATE]))
    columns: Any = (events[name][numbers].tolist() for name in ("kind", "a", "b", "c"))
    tables: dict[int, dict[int, int]] = {}
    path: dict[int, int] | None = None
    for number, kind, a, b, c in zip(numbers.tolist(), *columns, strict=True):
        entry = a & ~7
        if kind == Kind.PTE_WRITE:
            if path is None:
                path = _path(tables, root, va, levels)
            level = path.get(entry)
            tables.setdefault(entry & ~(pte.PAGE - 1), {})[entry] = c
            if level is not None:
                path = None
                if b != c:
                    yield number, level
            continue
        path = None
        page = a & ~(pte.PAGE - 1)
        if kind == Kind.TABLE_ENTRY:
            tables.setdefault(page, {})[entry] = c
        elif kind == Kind.TABLE_ADD:
            tables[page] = {}
        else:
            tables.pop(page, None)


def _path(tables: dict[int, dict[int, int]], root: int, va: int, levels: int) -> dict[int, int]:
    """Return the level of each entry that a walk of ``va`` reads, by its address."""
    path = {}
    table = root
    for level in range(levels - 1, -1, -1):
        index = (va >> pte.level_bits(level)) & (pte.ENTRIES - 1)
        entry = table + 8 * index
        path[entry] = level
        value = tables.get(table, {}).get(entry, 0)
        if not pte.is_link(value):
            break
        table = pte.target(value)
    return path


def _change(
    events: EventBatch, number: int, level: int | None, va: int | None, satp: int | None
) -> EntryChange:
    event = events[number]
    old, new = unsigned(int(event["b"])), unsigned(int(event["c"]))
    asid = None if satp is None else satp >> 44 & 0xFFFF
    is_link = (level or 0) > 0 and bool(pte.is_link(signed(old)) or pte.is_link(signed(new)))
    return EntryChange(
        event=number,
        icount=int(event["icount"]),
        pc=unsigned(int(event["pc"])),
        hart=int(event["hart"]),
        op=PteOp(int(event["sub"])),
        entry=unsigned(int(event["a"]) & ~7),
        level=level,
        old=old,
        new=new,
        fence=_covering(
            events,
            number,
            va=None if is_link else va,
            page_bits=pte.level_bits(level or 0),
            asid=None if (old | new) & pte.G else asid,
        ),
    )


def _covering(
    events: EventBatch, after: int, *, va: int | None, page_bits: int, asid: int | None
) -> int | None:
    """Return the first fence behind the event ``after`` that covers an entry.

    :param va: the address that it translates; None: no fence by address covers it.
    :param page_bits: log2 of what the entry translates.
    :param asid: of the address space; None: no fence by ASID covers it.
    """
    rest = events[after + 1 :]
    is_sfence = (rest["kind"] == int(Kind.FENCE)) & (rest["sub"] < int(Fence.HFENCE_VVMA))
    is_sfence &= rest["flags"] & FLAG_STOP == 0
    form = rest["sub"] & int(Fence.FORM)
    names_va, names_asid = form & int(Fence.VA) != 0, form & int(Fence.ASID) != 0
    covers = is_sfence
    if va is None:
        covers = covers & ~names_va
    else:
        covers = covers & (~names_va | (rest["a"] >> page_bits == signed(va) >> page_bits))
    if asid is None:
        covers = covers & ~names_asid
    else:
        covers = covers & (~names_asid | (rest["b"] & 0xFFFF == asid))
    found = np.flatnonzero(covers)
    return after + 1 + int(found[0]) if len(found) else None
