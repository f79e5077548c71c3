"""One-stage and two-stage address translation, with every reference it makes.

Source: privileged specification, "Virtual Address Translation Process" (Sv32 chapter, taken over
by Sv39/48/57) and "Two-Stage Address Translation" (hypervisor extension).  :func:`walk1`
translates by ``satp``, :func:`walk2` by ``vsatp`` and ``hgatp``.  Both are kernels: callable from
other kernels and from Python; :mod:`hypervisor_model.mmu` is the typed way in.

``flags`` is 0 for a machine with Svnapot and Svade, without Svpbmt, with SUM and MXR clear; the
constants below change that.  ``FLAG_SUM`` and ``FLAG_MXR`` have the bits they have in an event.

References go into ``trace``, an array of :data:`REFERENCE` (:func:`trace_of` makes one).
References beyond its end are counted but not recorded; :data:`MAX_REFERENCES` of them hold any
walk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import FLAG_MXR, FLAG_SUM, Access, Priv
from hypervisor_model.isa import atp, pte
from hypervisor_model.isa.causes import access_fault, guest_page_fault, page_fault
from hypervisor_model.jit import inner, kernel, record_of
from hypervisor_model.memory import Ram, holds, load, store
from hypervisor_model.walk_cache import G_STAGE, VS_STAGE, WalkCache, fill, start_level

ADUE = 16
"""The first stage updates A and D (Svadu: ``menvcfg.ADUE``, or ``henvcfg.ADUE`` when V=1)."""
G_ADUE = 32
"""The G-stage updates A and D (``menvcfg.ADUE``)."""
PBMTE = 64
"""Svpbmt is on in the first stage (``menvcfg.PBMTE``, or ``henvcfg.PBMTE`` when V=1)."""
G_PBMTE = 128
"""Svpbmt is on in the G-stage (``menvcfg.PBMTE``)."""
NO_SVNAPOT = 256
"""The machine has no Svnapot: bit 63 of an entry is reserved."""
HS_MXR = 512
"""``sstatus.MXR`` while V=1: overrides execute-only in both stages (FLAG_MXR: the first only).

MXR applies to explicit accesses only.  The walker's own reads of VS-stage tables never have it.
"""
HLVX = 1024
"""The READ is an ``hlvx``: execute permission takes the place of read permission."""
PROBE = 2048
"""Write nothing: A and D are computed and counted but not stored; walk caches are not asked."""
RAM_ONLY = 4096
"""An access whose PA lies outside RAM faults, too (without: devices may live there)."""

READ = 0
UPDATE = 1
"""Kinds of a reference in ``trace``: an entry was read, or written to set A or D."""

REFERENCE = record_of("address", "stage", "level", "kind", "entry")
"""A reference in ``trace``: the physical address of the entry; the stage and the level of its
table; the kind (READ or UPDATE); the entry as read or as written."""

MAX_REFERENCES = 64
"""Sv57 on Sv57x4 makes 35 references; A/D updates add at most 6 + 6 + 7."""

OK = -1
"""``Walk.cause`` of a translation that did not fault."""

BARE_BITS = 56
"""``page_bits`` if no table limits the size of a translation, and the width of a physical
address: what lies above is an access fault."""

BARE_PERM = pte.PERMISSIONS & ~pte.G
"""Permissions of a stage that is Bare."""

IMPLICIT_READ = 1
IMPLICIT_UPDATE = 2
"""``Walk.implicit``: the guest-page fault met the read, or the A/D update, of a VS-stage entry
(``htinst`` 0x3000 and 0x3020)."""

POINTS_ON = -1
"""Result of :func:`outcome_of` for an entry that points to a table."""

_PAGE_FAULT = 1
_ACCESS_FAULT = 2
_POINTER, _LEAF, _STALE_AD, _BAD = range(4)
_ACCESS_READ = int(Access.READ)
_ACCESS_WRITE = int(Access.WRITE)
_ACCESS_FETCH = int(Access.FETCH)
_USER = int(Priv.U)
_SUPERVISOR = int(Priv.S)
_PRIV = 3
_NO_VMID = -1


class Request(NamedTuple):
    """One access that is to be translated."""

    va: int
    """Virtual address as an int64 (sign-extended if it is canonical)."""
    access: int
    """An :class:`~hypervisor_model.events.Access`."""
    priv: int
    """A :class:`~hypervisor_model.events.Priv`, U or S (VIRT is ignored)."""
    flags: int
    """See the module."""


class Walk(NamedTuple):
    """What a translation came to; all fields are int64."""

    cause: int
    """OK (-1), or the exception code."""
    pa: int
    """Physical address of the access; -1 after a fault."""
    level: int
    """Level of the first-stage leaf, -1 for Bare; after a fault, the level it was met at."""
    page_bits: int
    """log2 of the size of the translation: the smaller of both stages' pages."""
    perm: int
    """Bits 0..7 of the first-stage leaf (as updated; G also if a non-leaf above has it);
    BARE_PERM for Bare."""
    entry: int
    """The first-stage leaf entry (as updated); after a fault, the last entry read; else 0."""
    gpa: int
    """Two stages: guest-physical address of the access, or the one that a guest-page fault was
    met at; else -1."""
    g_level: int
    """Level of the G-stage leaf, -1 for Bare or if there was none."""
    g_page_bits: int
    """log2 of the size of the G-stage page alone; BARE_BITS for Bare."""
    vs_page_bits: int
    """log2 of the size of the first-stage page alone; BARE_BITS for Bare."""
    g_perm: int
    """Bits 0..7 of the G-stage leaf; BARE_PERM for Bare."""
    implicit: int
    """After a guest-page fault: 0 (the access itself), IMPLICIT_READ or IMPLICIT_UPDATE."""
    vs_refs: int
    """References to first-stage tables, A/D updates included."""
    g_refs: int
    """References to G-stage tables, A/D updates included."""


class _Tables(NamedTuple):
    """The tables of one stage, at physical addresses, and what a walk of them is tagged with."""

    stage: int
    """VS_STAGE or G_STAGE."""
    root: int
    levels: int
    root_bits: int
    """Bits of address that the root translates."""
    asid: int
    vmid: int


class _Stage(NamedTuple):
    """What one stage over flat memory came to."""

    outcome: int
    pa: int
    level: int
    page_bits: int
    perm: int
    entry: int
    refs: int


def trace_of(references: int) -> NDArray[Any]:
    """Return an empty trace with room for so many references; 0: none is recorded."""
    return np.zeros(references, REFERENCE)


@kernel
def record(
    trace: NDArray[Any], row: int, address: int, stage: int, level: int, kind: int, entry: int
) -> None:
    """Write one reference into ``trace`` if it has the row."""
    if row < trace.shape[0]:
        reference = trace[row]
        reference.address = address
        reference.stage = stage
        reference.level = level
        reference.kind = kind
        reference.entry = entry


@kernel
def allows(perm: int, access: int, priv: int, flags: int) -> bool:
    """Return True if leaf permissions allow the access, A and D aside."""
    if perm & pte.U:
        if priv != _USER and (access == _ACCESS_FETCH or not flags & FLAG_SUM):
            return False
    elif priv == _USER:
        return False
    if access == _ACCESS_WRITE:
        return perm & pte.W != 0
    if access == _ACCESS_FETCH or flags & HLVX:
        return perm & pte.X != 0
    return perm & pte.R != 0 or (perm & pte.X != 0 and flags & FLAG_MXR != 0)


@kernel
def _examine(entry: int, level: int, access: int, priv: int, flags: int) -> int:
    """Steps 3 to 9 of the translation process for one entry: pointer, leaf, leaf whose A or D
    must be set first, or page fault."""
    if not entry & pte.V or entry & (pte.R | pte.W) == pte.W or entry & pte.RESERVED:
        return _BAD
    if not entry & (pte.R | pte.X):
        if level == 0 or not pte.is_link(entry):
            return _BAD
        return _POINTER
    memory_type = (entry >> pte.PBMT_SHIFT) & 3
    if memory_type and (not flags & PBMTE or memory_type == 3):
        return _BAD
    ppn = (entry >> pte.PPN_SHIFT) & pte.PPN_MASK
    if entry & pte.N:
        if flags & NO_SVNAPOT or level != 0 or ppn & 15 != pte.NAPOT_64K:
            return _BAD
    elif ppn & ((1 << pte.INDEX_BITS * level) - 1):
        return _BAD
    if not allows(entry, access, priv, flags):
        return _BAD
    if not entry & pte.A or (access == _ACCESS_WRITE and not entry & pte.D):
        return _STALE_AD if flags & ADUE else _BAD
    return _LEAF


@kernel
def usable_leaf(entry: int, level: int, flags: int) -> bool:
    """Return True if an entry at ``level`` is a leaf that an access could use without setting A."""
    access = _ACCESS_READ if entry & pte.R else _ACCESS_FETCH
    priv = _USER if entry & pte.U else _SUPERVISOR
    return _examine(entry, level, access, priv, flags & ~ADUE) == _LEAF


@kernel
def _leaf_bits(entry: int, level: int) -> int:
    return pte.NAPOT_BITS if entry & pte.N else pte.level_bits(level)


@kernel
def _leaf_pa(entry: int, page_bits: int, address: int) -> int:
    # Below the page's size the PPN is zero (superpage) or says NAPOT: the address takes over.
    offset = (1 << page_bits) - 1
    return (pte.target(entry) & ~offset) | (address & offset)


@kernel
def _with_ad(entry: int, access: int) -> int:
    return entry | (pte.A | pte.D if access == _ACCESS_WRITE else pte.A)


@kernel
def outcome_of(entry: int, level: int, va: int, access: int, priv: int, flags: int) -> int:
    """Return what a one-stage walk of ``va`` comes to if it meets ``entry`` at ``level``.

    That is a PA, ``fault_pa`` of the page fault, or POINTS_ON.  A and D are taken as updated.
    """
    verdict = _examine(entry, level, access, priv & _PRIV, flags)
    if verdict == _BAD:
        return -1 - page_fault(access)
    if verdict == _POINTER:
        return POINTS_ON
    return _leaf_pa(entry, _leaf_bits(entry, level), va)


@kernel
def is_canonical(va: int, levels: int) -> bool:
    """Return True if an address has the width that tables of so many levels translate."""
    above = va >> (pte.level_bits(levels) - 1)
    return above == 0 or above == -1


@kernel
def is_physical(address: int) -> bool:
    """Return True if an address has no more bits than a physical address."""
    return address >> BARE_BITS == 0


@kernel
def untranslated(address: int, access: int) -> int:
    """Return what an access without translation (Bare, M-mode) comes to: the address itself, or
    ``fault_pa`` of an access fault if it is above the physical address space."""
    return address if is_physical(address) else -1 - access_fault(access)


@inner
def _flat(
    ram: Ram,
    other: Ram,
    cache: WalkCache,
    tables: _Tables,
    request: Request,
    counting: int,
    trace: NDArray[Any],
    row: int,
) -> _Stage:
    """Walk tables that are addressed physically: a one-stage walk, or the G-stage.

    The width of the address has been checked.  Tables are looked for in ``ram``, then in
    ``other``.  With ``counting`` 0 no reference is counted.  References go into ``trace`` from
    ``row`` on.
    """
    address, access, priv, flags = request
    stage, table, levels, root_bits, asid, vmid = tables
    refs = 0
    start = -1
    if counting:
        start = levels - 1
        if not flags & PROBE:
            start = start_level(cache, stage, address, levels, asid, vmid)
    inherited = 0
    entry = 0
    level = levels - 1
    index = (address >> pte.level_bits(level)) & ((1 << root_bits) - 1)
    while True:
        where = table + index * 8
        here = holds(ram, where)
        if not here and not holds(other, where):
            return _Stage(
                outcome=_ACCESS_FAULT,
                pa=-1,
                level=level,
                page_bits=0,
                perm=0,
                entry=entry,
                refs=refs,
            )
        entry = load(ram, where) if here else load(other, where)
        if level <= start:
            record(trace, row + refs, where, stage, level, READ, entry)
            refs += 1
        verdict = _examine(entry, level, access, priv, flags)
        if verdict == _BAD:
            return _Stage(
                outcome=_PAGE_FAULT, pa=-1, level=level, page_bits=0, perm=0, entry=entry, refs=refs
            )
        if verdict != _POINTER:
            break
        inherited |= entry & pte.G
        level -= 1
        if level < start and not flags & PROBE:
            fill(cache, stage, address, level, asid, vmid, inherited)
        table = pte.target(entry)
        index = (address >> pte.level_bits(level)) & (pte.ENTRIES - 1)
    if verdict == _STALE_AD:
        entry = _with_ad(entry, access)
        if not flags & PROBE:
            if here:
                store(ram, where, entry)
            else:
                store(other, where, entry)
        if counting:
            record(trace, row + refs, where, stage, level, UPDATE, entry)
            refs += 1
    page_bits = _leaf_bits(entry, level)
    perm = (entry & pte.PERMISSIONS) | inherited
    pa = _leaf_pa(entry, page_bits, address)
    return _Stage(
        outcome=OK, pa=pa, level=level, page_bits=page_bits, perm=perm, entry=entry, refs=refs
    )


@kernel
def _fault(cause: int, stage: _Stage) -> Walk:
    return Walk(
        cause=cause,
        pa=-1,
        level=stage.level,
        page_bits=0,
        perm=0,
        entry=stage.entry,
        gpa=-1,
        g_level=-1,
        g_page_bits=0,
        vs_page_bits=0,
        g_perm=0,
        implicit=0,
        vs_refs=stage.refs,
        g_refs=0,
    )


@kernel
def walk1(ram: Ram, cache: WalkCache, satp: int, request: Request, trace: NDArray[Any]) -> Walk:
    """Translate an address by the tables of ``satp`` in ``ram``.

    :param ram: holds the tables; A/D updates (ADUE) are stored there.
    :param cache: walk cache; entries are tagged with the ASID and VMID -1.
    :param satp: mode, ASID and root; Bare translates to the same address, and faults above the
        physical address space.
    :param request: the access.
    :param trace: see the module.
    :raises ValueError: when the mode of ``satp`` is a reserved one, which no register can hold.
    """
    va, access, priv, flags = request
    levels = atp.levels(atp.mode(satp))
    if levels < 0:
        raise ValueError("satp holds a reserved MODE")
    if levels == 0:
        if not is_physical(va) or (flags & RAM_ONLY and not holds(ram, va)):
            return _fault(
                access_fault(access),
                _Stage(
                    outcome=_ACCESS_FAULT, pa=-1, level=-1, page_bits=0, perm=0, entry=0, refs=0
                ),
            )
        return Walk(
            cause=OK,
            pa=va,
            level=-1,
            page_bits=BARE_BITS,
            perm=BARE_PERM,
            entry=0,
            gpa=-1,
            g_level=-1,
            g_page_bits=BARE_BITS,
            vs_page_bits=BARE_BITS,
            g_perm=BARE_PERM,
            implicit=0,
            vs_refs=0,
            g_refs=0,
        )
    if not is_canonical(va, levels):
        return _fault(
            page_fault(access),
            _Stage(
                outcome=_PAGE_FAULT, pa=-1, level=levels - 1, page_bits=0, perm=0, entry=0, refs=0
            ),
        )
    tables = _Tables(
        stage=VS_STAGE,
        root=atp.root(satp),
        levels=levels,
        root_bits=pte.INDEX_BITS,
        asid=atp.asid(satp),
        vmid=_NO_VMID,
    )
    own = Request(va, access, priv & _PRIV, flags)
    s = _flat(ram, ram, cache, tables, own, 1, trace, 0)
    if s.outcome == _PAGE_FAULT:
        return _fault(page_fault(access), s)
    if s.outcome == _ACCESS_FAULT or (flags & RAM_ONLY and not holds(ram, s.pa)):
        return _fault(access_fault(access), s)
    return Walk(
        cause=OK,
        pa=s.pa,
        level=s.level,
        page_bits=s.page_bits,
        perm=s.perm,
        entry=s.entry,
        gpa=-1,
        g_level=-1,
        g_page_bits=BARE_BITS,
        vs_page_bits=s.page_bits,
        g_perm=BARE_PERM,
        implicit=0,
        vs_refs=s.refs,
        g_refs=0,
    )


@kernel
def _g_stage(
    guest: Ram,
    host: Ram,
    cache: WalkCache,
    hgatp: int,
    gpa: int,
    access: int,
    flags: int,
    counting: int,
    trace: NDArray[Any],
    row: int,
) -> _Stage:
    """Translate a guest-physical address; every access counts as one of U-mode."""
    levels = atp.levels(atp.mode(hgatp))
    if levels == 0 and not is_physical(gpa):
        return _Stage(outcome=_ACCESS_FAULT, pa=-1, level=-1, page_bits=0, perm=0, entry=0, refs=0)
    if levels == 0:
        return _Stage(
            outcome=OK, pa=gpa, level=-1, page_bits=BARE_BITS, perm=BARE_PERM, entry=0, refs=0
        )
    root_bits = pte.INDEX_BITS + atp.GPA_EXTRA_BITS
    if gpa >> (pte.level_bits(levels) + atp.GPA_EXTRA_BITS):
        return _Stage(
            outcome=_PAGE_FAULT, pa=-1, level=levels - 1, page_bits=0, perm=0, entry=0, refs=0
        )
    tables = _Tables(
        stage=G_STAGE,
        root=atp.root(hgatp),
        levels=levels,
        root_bits=root_bits,
        asid=0,
        vmid=atp.vmid(hgatp),
    )
    return _flat(
        host, guest, cache, tables, Request(gpa, access, _USER, flags), counting, trace, row
    )


@kernel
def _g_fault(
    access: int, g: _Stage, level: int, gpa: int, implicit: int, vs_refs: int, g_refs: int
) -> Walk:
    # htval is written for guest-page faults only.
    if g.outcome == _PAGE_FAULT:
        return Walk(
            cause=guest_page_fault(access),
            pa=-1,
            level=level,
            page_bits=0,
            perm=0,
            entry=g.entry,
            gpa=gpa,
            g_level=g.level,
            g_page_bits=0,
            vs_page_bits=0,
            g_perm=0,
            implicit=implicit,
            vs_refs=vs_refs,
            g_refs=g_refs,
        )
    return Walk(
        cause=access_fault(access),
        pa=-1,
        level=level,
        page_bits=0,
        perm=0,
        entry=g.entry,
        gpa=-1,
        g_level=g.level,
        g_page_bits=0,
        vs_page_bits=0,
        g_perm=0,
        implicit=0,
        vs_refs=vs_refs,
        g_refs=g_refs,
    )


@kernel
def _vs_fault(cause: int, level: int, entry: int, vs_refs: int, g_refs: int) -> Walk:
    return Walk(
        cause=cause,
        pa=-1,
        level=level,
        page_bits=0,
        perm=0,
        entry=entry,
        gpa=-1,
        g_level=-1,
        g_page_bits=0,
        vs_page_bits=0,
        g_perm=0,
        implicit=0,
        vs_refs=vs_refs,
        g_refs=g_refs,
    )


@kernel
def walk2(
    guest: Ram,
    host: Ram,
    cache: WalkCache,
    vsatp: int,
    hgatp: int,
    request: Request,
    trace: NDArray[Any],
) -> Walk:
    """Translate an address by ``vsatp`` and then, as every access to a VS-stage table, by
    ``hgatp``.

    :param guest: the guest's RAM at its host-physical address; holds the VS-stage tables.
    :param host: the hypervisor's memory; holds the G-stage tables.  Either kind of table is looked
        for in the other memory, too; both arguments may be the same.
    :param cache: walk cache; entries are tagged with ASID and VMID.
    :param vsatp: mode, ASID and root (a guest-physical address); Bare: the address is
        guest-physical.
    :param hgatp: mode, VMID and root; Bare: guest-physical is host-physical.
    :param request: the access.
    :param trace: see the module.
    :raises ValueError: when a mode is a reserved one, which no register can hold.
    """
    va, access, priv, flags = request
    levels = atp.levels(atp.mode(vsatp))
    if levels < 0 or atp.levels(atp.mode(hgatp)) < 0:
        raise ValueError("vsatp or hgatp holds a reserved MODE")
    asid = atp.asid(vsatp)
    vmid = atp.vmid(hgatp)
    vs_flags = flags | (FLAG_MXR if flags & HS_MXR else 0)
    g_flags = (
        (flags & (NO_SVNAPOT | PROBE))
        | (ADUE if flags & G_ADUE else 0)
        | (PBMTE if flags & G_PBMTE else 0)
    )
    vs_refs = 0
    g_refs = 0
    gpa = va
    entry = 0
    perm = BARE_PERM
    vs_bits = BARE_BITS
    level = levels - 1
    if levels:
        if not is_canonical(va, levels):
            return _vs_fault(page_fault(access), level, 0, 0, 0)
        start = level
        if not flags & PROBE:
            start = start_level(cache, VS_STAGE, va, levels, asid, vmid)
        table = atp.root(vsatp)
        inherited = 0
        while True:
            where = table + ((va >> pte.level_bits(level)) & (pte.ENTRIES - 1)) * 8
            counting = 1 if level <= start else 0
            g = _g_stage(
                guest,
                host,
                cache,
                hgatp,
                where,
                _ACCESS_READ,
                g_flags,
                counting,
                trace,
                vs_refs + g_refs,
            )
            g_refs += g.refs
            if g.outcome != OK:
                return _g_fault(access, g, level, where, IMPLICIT_READ, vs_refs, g_refs)
            here = holds(guest, g.pa)
            if not here and not holds(host, g.pa):
                return _vs_fault(access_fault(access), level, entry, vs_refs, g_refs)
            entry = load(guest, g.pa) if here else load(host, g.pa)
            if counting:
                record(trace, vs_refs + g_refs, g.pa, VS_STAGE, level, READ, entry)
                vs_refs += 1
            verdict = _examine(entry, level, access, priv & _PRIV, vs_flags)
            if verdict == _BAD:
                return _vs_fault(page_fault(access), level, entry, vs_refs, g_refs)
            if verdict != _POINTER:
                break
            inherited |= entry & pte.G
            level -= 1
            if level < start and not flags & PROBE:
                fill(cache, VS_STAGE, va, level, asid, vmid, inherited)
            table = pte.target(entry)
        if verdict == _STALE_AD:
            # The update is an implicit store: the G-stage must allow it as one.
            g = _g_stage(
                guest,
                host,
                cache,
                hgatp,
                where,
                _ACCESS_WRITE,
                g_flags,
                1,
                trace,
                vs_refs + g_refs,
            )
            g_refs += g.refs
            if g.outcome != OK:
                return _g_fault(access, g, level, where, IMPLICIT_UPDATE, vs_refs, g_refs)
            entry = _with_ad(entry, access)
            if not flags & PROBE:
                if here:
                    store(guest, g.pa, entry)
                else:
                    store(host, g.pa, entry)
            record(trace, vs_refs + g_refs, g.pa, VS_STAGE, level, UPDATE, entry)
            vs_refs += 1
        vs_bits = _leaf_bits(entry, level)
        perm = (entry & pte.PERMISSIONS) | inherited
        gpa = _leaf_pa(entry, vs_bits, va)
    g = _g_stage(
        guest,
        host,
        cache,
        hgatp,
        gpa,
        access,
        # Only the access itself is explicit: MXR and hlvx are not for the walker's own accesses.
        g_flags | (flags & HLVX) | (FLAG_MXR if flags & HS_MXR else 0),
        1,
        trace,
        vs_refs + g_refs,
    )
    g_refs += g.refs
    if g.outcome != OK:
        return _g_fault(access, g, level, gpa, 0, vs_refs, g_refs)
    if flags & RAM_ONLY and not holds(guest, g.pa) and not holds(host, g.pa):
        return _vs_fault(access_fault(access), level, entry, vs_refs, g_refs)
    return Walk(
        cause=OK,
        pa=g.pa,
        level=level,
        page_bits=min(vs_bits, g.page_bits),
        perm=perm,
        entry=entry,
        gpa=gpa,
        g_level=g.level,
        g_page_bits=g.page_bits,
        vs_page_bits=vs_bits,
        g_perm=g.perm,
        implicit=0,
        vs_refs=vs_refs,
        g_refs=g_refs,
    )
