"""``nested``: two-stage paging; needs the H extension, whatever the set-up of the other policies.

- PTE_WRITE, FENCE, SATP_WRITE: no exit.  The guest's own page faults are delegated: no exit.
- REMOTE_FENCE: exit ``remote_fence``, because the call goes to the hypervisor.
- A TLB miss walks both stages; the G-stage tables are real ones, in the hypervisor's memory.
- ``gstage_fault`` when a guest-physical page is touched first, page-table pages included; it is
  then mapped, 4 KiB or 2 MiB (``gstage_page`` of the machine), guest-physical = host-physical,
  and the access starts over.
- Device memory (outside RAM) is mapped from the start, with 4 KiB: no exit, no second miss, no walk
  that is cut short.  Its G-stage tables are made in time, when the TLB misses.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import tlb as tlbs
from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa import atp, pte
from hypervisor_model.isa.causes import GUEST_PAGE_FAULTS, access_fault
from hypervisor_model.jit import inlined, inner, kernel
from hypervisor_model.memory import Ram, apply, holds, load, sparse, store
from hypervisor_model.mmu import translate2
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies.event_fields import Event, event_at
from hypervisor_model.policies.hart import (
    COUNTERS,
    GUEST_ID,
    TAKEN,
    Hardware,
    access_flags,
    cache_of,
    count_refs,
    drop_fenced,
    envcfg_written,
    misses,
    take_exit,
    take_remote_fence_exit,
    tlb_of,
)
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import NoOptions
from hypervisor_model.policies.policy import ANSWER, EXITS, MISSES, Colour, Policy, Stream, register
from hypervisor_model.walk import OK, PROBE, Request, untranslated, walk1, walk2

HOST_BASE = 1 << 50
"""Host-physical address of the hypervisor's memory."""

_FENCE = int(Kind.FENCE)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)
_ENVCFG_WRITE = int(Kind.ENVCFG_WRITE)
_ACCESS = int(Kind.ACCESS)
_TAKEN, _ANSWER, _EXITS, _MISSES = TAKEN, ANSWER, EXITS, MISSES
_GSTAGE_FAULT = int(Exit.GSTAGE_FAULT)
_GSTAGE_PAGES = COUNTERS + int(Counter.GSTAGE_PAGES)
_VMID = GUEST_ID
_BARE = int(atp.Mode.BARE)
_VIEW = 0
_MACHINE = 3
_ROOT_PAGES = 4
_PER_EVENT = 64
"""More tables than one event can need: 7 pages (tables of 5 levels, one to be updated, the page
itself), each below 4 tables."""
_LEAF = pte.V | pte.R | pte.W | pte.X | pte.U | pte.A | pte.D


class _GStage(NamedTuple):
    """G-stage tables."""

    guest: Ram
    host: Ram
    """Page 0..3: the root; then the tables below it."""
    used: NDArray[np.int64]
    """[0]: pages of ``host`` in use."""
    hgatp: int
    page_bits: int
    """log2 of the size of a mapping."""


@register
class Nested(Policy):
    """Two-stage paging."""

    name: ClassVar[str] = "nested"
    label: ClassVar[str] = "nested paging"
    colour: ClassVar[Colour] = Colour("#2fa18f", "#66e9d5")
    place: ClassVar[int] = 20
    kinds: ClassVar[tuple[Exit, ...]] = (Exit.GSTAGE_FAULT, Exit.REMOTE_FENCE)
    extra: ClassVar[tuple[Counter, ...]] = (Counter.GSTAGE_PAGES,)

    def __init__(self, machine: MachineModel, options: NoOptions, stream: Stream) -> None:
        super().__init__(machine, stream, harts.make(machine))
        self.tables = _GStage(
            guest=Ram(sparse(machine.ram_size >> 3), machine.ram_base),
            host=Ram(np.zeros(2 * _PER_EVENT * pte.ENTRIES, np.int64), HOST_BASE),
            used=np.array([_ROOT_PAGES], np.int64),
            hgatp=atp.make(machine.gstage_mode, HOST_BASE, GUEST_ID),
            page_bits=machine.gstage_page.bit_length() - 1,
        )

    def _consume(self, batch: EventBatch, start: int, answers: NDArray[np.int64]) -> int:
        return int(_run(self.hardware, self.tables, batch, start, answers))

    def _grow(self) -> None:
        old = self.tables.host.words
        words = np.zeros(2 * len(old), np.int64)
        words[: len(old)] = old
        self.tables = self.tables._replace(host=Ram(words, HOST_BASE))


@kernel
def _run(
    hw: Hardware, g: _GStage, batch: EventBatch, start: int, answers: NDArray[np.int64]
) -> int:
    before = hw.counts[_TAKEN]
    for i in range(start, batch.shape[0]):
        if g.host.words.shape[0] // pte.ENTRIES - g.used[0] < _PER_EVENT:
            return i
        event = event_at(batch, i)
        kind, hart = event.kind, event.hart
        if kind == _ACCESS:
            missed = misses(hw, hart)
            answers[_ANSWER, i] = _access(hw, g, hart, event)
            answers[_MISSES, i] = misses(hw, hart) - missed
            answers[_EXITS, i] = hw.counts[_TAKEN] - before
            before = hw.counts[_TAKEN]
        elif kind == _FENCE:
            drop_fenced(hw, event, _VIEW, _VMID)
        elif kind == _REMOTE_FENCE:
            take_remote_fence_exit(hw, hart)
            drop_fenced(hw, event, _VIEW, _VMID)
            answers[_EXITS, i] = hw.counts[_TAKEN] - before
            before = hw.counts[_TAKEN]
        elif kind == _SATP_WRITE:
            hw.harts[hart].satp = event.b
        elif kind == _ENVCFG_WRITE:
            envcfg_written(hw, event)
        else:
            apply(g.guest, kind, event.a, event.c)
    return batch.shape[0]  # type: ignore[no-any-return]


@inlined
def _access(hw: Hardware, g: _GStage, hart: int, event: Event) -> int:
    va, kind, priv = event.a, event.sub, event.priv
    if priv & 3 == _MACHINE:
        return untranslated(va, kind)
    vsatp = hw.harts[hart].satp
    flags = access_flags(hw, hart, event.flags)
    if event.flags & FLAG_STOP:
        return _probe(hw, g, hart, vsatp, Request(va, kind, priv, flags | PROBE))
    request = Request(va, kind, priv, flags)
    tlb = tlb_of(hw, hart)
    asid = atp.asid(vsatp) if atp.mode(vsatp) != _BARE else tlbs.NO_TABLES
    while True:
        row = tlbs.lookup(tlb, va, asid, _VMID, kind, priv, flags)
        if row >= 0:
            return tlbs.pa_of(tlb, row, va)
        _map_device(hw, g, vsatp, request)
        walk = walk2(
            g.guest,
            g.host,
            cache_of(hw, hart, _VIEW),
            vsatp,
            g.hgatp,
            request,
            hw.no_trace,
        )
        count_refs(hw.counts, walk)
        if walk.cause == OK:
            tlbs.fill(tlb, va, asid, _VMID, kind, walk)
            return walk.pa
        if not _is_guest_page_fault(walk.cause):
            return -1 - walk.cause
        if not _is_mappable(g, walk.gpa):
            # Beyond the width of the G-stage: no memory is there, the hypervisor emulates it.
            return _first_stage(hw, g, vsatp, request)
        take_exit(hw, hart, _GSTAGE_FAULT)
        hw.counts[_GSTAGE_PAGES] += 1
        _map(g, walk.gpa)


@inner
def _map_device(hw: Hardware, g: _GStage, vsatp: int, request: Request) -> None:
    """Map the device page that an access is to, or that its walk takes for a table."""
    va, kind, priv, flags = request
    probe = Request(va, kind, priv, flags | PROBE)
    walk = walk1(g.guest, hw.no_cache, vsatp, probe, hw.no_trace)
    gpa = walk.pa
    if walk.cause == access_fault(kind) and walk.level >= 0:
        gpa = pte.target(walk.entry) if walk.entry else atp.root(vsatp)
    elif walk.cause != OK:
        return
    if not holds(g.guest, gpa) and _is_mappable(g, gpa):
        _map(g, gpa)


@inner
def _is_guest_page_fault(cause: int) -> bool:
    return cause in GUEST_PAGE_FAULTS


@inner
def _is_mappable(g: _GStage, gpa: int) -> bool:
    bits = pte.level_bits(atp.levels(atp.mode(g.hgatp))) + atp.GPA_EXTRA_BITS
    return gpa >> bits == 0


@inner
def _first_stage(hw: Hardware, g: _GStage, vsatp: int, request: Request) -> int:
    """Return what the guest's own tables say; the G-stage never changes an address."""
    va, kind, priv, flags = request
    probe = Request(va, kind, priv, flags | PROBE)
    walk = walk1(g.guest, hw.no_cache, vsatp, probe, hw.no_trace)
    return walk.pa if walk.cause == OK else -1 - walk.cause


@inner
def _map(g: _GStage, gpa: int) -> None:
    """Map the page of a guest-physical address."""
    bits = g.page_bits
    first = gpa >> bits << bits
    if not (holds(g.guest, first) and holds(g.guest, first + (1 << bits) - 1)):
        bits = pte.PAGE_BITS
        first = gpa >> bits << bits
    level = atp.levels(atp.mode(g.hgatp)) - 1
    leaf_level = (bits - pte.PAGE_BITS) // pte.INDEX_BITS
    table = HOST_BASE
    # The root has no upper bits to mask: it is four times as wide.
    index = gpa >> pte.level_bits(level)
    while level > leaf_level:
        where = table + index * 8
        entry = load(g.host, where)
        if entry == 0:
            entry = (HOST_BASE >> 12) + g.used[0] << pte.PPN_SHIFT | pte.V
            g.used[0] += 1
            store(g.host, where, entry)
        table = pte.target(entry)
        level -= 1
        index = (gpa >> pte.level_bits(level)) & (pte.ENTRIES - 1)
    store(g.host, table + index * 8, first >> 12 << pte.PPN_SHIFT | _LEAF)


@inner
def _probe(
    hw: Hardware,
    g: _GStage,
    hart: int,
    vsatp: int,
    request: Request,
) -> int:
    """Return the translation that an access would get now; changes and counts nothing."""
    walk = translate2(
        tlb_of(hw, hart),
        hw.no_cache,
        g.guest,
        g.host,
        vsatp,
        g.hgatp,
        request,
        hw.no_trace,
    )
    if _is_guest_page_fault(walk.cause):
        return _first_stage(hw, g, vsatp, request)
    return walk.pa if walk.cause == OK else -1 - walk.cause
