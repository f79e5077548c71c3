"""The MMU as a library: translate an address and see every reference, from plain Python.

    >>> from hypervisor_model.isa.atp import Mode, make
    >>> from hypervisor_model.memory import GuestMemory
    >>> from hypervisor_model.mmu import Mmu
    >>> ram = GuestMemory(0x8000_0000, 1 << 20)
    >>> for entry, value in ((0x80001008, 0x20000801), (0x80002000, 0x200000CF)):
    ...     ram.write(entry, value)
    >>> mmu = Mmu(ram, satp=make(Mode.SV39, 0x8000_1000))
    >>> t = mmu.translate(0x4000_0123)
    >>> hex(t.pa), t.level, t.page_size, [hex(r.address) for r in t.references]
    ('0x80000123', 1, 2097152, ['0x80001008', '0x80002000'])

:func:`translate1` and :func:`translate2` are the same for kernels: TLB first, then the walk, then
the fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hypervisor_model import tlb as tlbs
from hypervisor_model import walk as walks
from hypervisor_model import walk_cache as walk_caches
from hypervisor_model.errors import ModelError
from hypervisor_model.events import FLAG_MXR, FLAG_SUM, Access, Priv
from hypervisor_model.isa import atp, causes, pte
from hypervisor_model.isa.causes import access_fault
from hypervisor_model.jit import kernel, signed, unsigned
from hypervisor_model.memory import GuestMemory, Ram, holds
from hypervisor_model.tlb import Tlb
from hypervisor_model.walk import OK, Request, Walk, walk1, walk2
from hypervisor_model.walk_cache import WalkCache

_BARE = int(atp.Mode.BARE)


@kernel
def _from_entry(tlb: Tlb, row: int, ram: Ram, other: Ram, va: int, access: int, flags: int) -> Walk:
    """Return a TLB hit as a walk without references (``entry`` is not cached: 0)."""
    entry = tlb.entries[row]
    pa = tlbs.pa_of(tlb, row, va)
    if flags & walks.RAM_ONLY and not holds(ram, pa) and not holds(other, pa):
        # What is at a physical address is asked at every access, not at the fill.
        return Walk(
            cause=access_fault(access),
            pa=-1,
            level=-1,
            page_bits=0,
            perm=0,
            entry=0,
            gpa=-1,
            g_level=-1,
            g_page_bits=0,
            vs_page_bits=0,
            g_perm=0,
            implicit=0,
            vs_refs=0,
            g_refs=0,
        )
    has_vs = entry.vs_bits != walks.BARE_BITS
    has_g = entry.g_bits != walks.BARE_BITS
    gpa = pa if entry.vmid != tlbs.NO_GUEST else -1
    if has_g:
        gpa = entry.gpa + (va - entry.va)
    return Walk(
        cause=OK,
        pa=pa,
        level=(entry.vs_bits - pte.PAGE_BITS) // pte.INDEX_BITS if has_vs else -1,
        page_bits=min(entry.vs_bits, entry.g_bits),
        perm=entry.perm,
        entry=0,
        gpa=gpa,
        g_level=(entry.g_bits - pte.PAGE_BITS) // pte.INDEX_BITS if has_g else -1,
        g_page_bits=entry.g_bits,
        vs_page_bits=entry.vs_bits,
        g_perm=entry.g_perm,
        implicit=0,
        vs_refs=0,
        g_refs=0,
    )


@kernel
def translate1(
    tlb: Tlb,
    cache: WalkCache,
    ram: Ram,
    satp: int,
    request: Request,
    trace: NDArray[Any],
) -> Walk:
    """As :func:`~hypervisor_model.walk.walk1`, but through a TLB, which a walk then fills.

    A hit makes no reference.  With PROBE in ``flags`` neither TLB nor walk cache nor tables change.
    """
    va, access, priv, flags = request
    asid = atp.asid(satp) if atp.mode(satp) != _BARE else tlbs.NO_TABLES
    if flags & walks.PROBE:
        row = tlbs.probe(tlb, va, asid, tlbs.NO_GUEST, access, priv, flags)
    else:
        row = tlbs.lookup(tlb, va, asid, tlbs.NO_GUEST, access, priv, flags)
    if row >= 0:
        return _from_entry(tlb, row, ram, ram, va, access, flags)
    result = walk1(ram, cache, satp, request, trace)
    if not flags & walks.PROBE:
        tlbs.fill(tlb, va, asid, tlbs.NO_GUEST, access, result)
    return result


@kernel
def translate2(
    tlb: Tlb,
    cache: WalkCache,
    guest: Ram,
    host: Ram,
    vsatp: int,
    hgatp: int,
    request: Request,
    trace: NDArray[Any],
) -> Walk:
    """As :func:`~hypervisor_model.walk.walk2`, but through a TLB, which a walk then fills.

    A hit makes no reference.  With PROBE in ``flags`` neither TLB nor walk cache nor tables change.
    """
    va, access, priv, flags = request
    asid = atp.asid(vsatp) if atp.mode(vsatp) != _BARE else tlbs.NO_TABLES
    vmid = atp.vmid(hgatp)
    if flags & walks.PROBE:
        row = tlbs.probe(tlb, va, asid, vmid, access, priv, flags)
    else:
        row = tlbs.lookup(tlb, va, asid, vmid, access, priv, flags)
    if row >= 0:
        return _from_entry(tlb, row, guest, host, va, access, flags)
    result = walk2(guest, host, cache, vsatp, hgatp, request, trace)
    if not flags & walks.PROBE:
        tlbs.fill(tlb, va, asid, vmid, access, result)
    return result


@dataclass(frozen=True)
class Reference:
    """One access of a walk to a table."""

    address: int
    """Physical address of the entry."""
    stage: str
    """``"S"``, or ``"VS"`` and ``"G"`` if there are two stages."""
    level: int
    """Level of the table; 0 holds 4 KiB leaves."""
    update: bool
    """True if the entry was written (A, D) and not just read."""
    entry: int
    """The entry, as an unsigned 64-bit integer, as read or as written."""


@dataclass(frozen=True)
class Translation:
    """What became of one address.

    ``cause`` is None if the address was translated, and then ``pa`` is not None.  Otherwise it is
    the exception code, ``tval`` the faulting address, and, for a guest-page fault, ``gpa`` the
    guest-physical address (``htval`` holds it shifted right by two) and ``implicit`` whether an
    access to a VS-stage table met the fault (None, "read" or "update").
    """

    va: int
    pa: int | None
    cause: int | None
    tval: int | None
    gpa: int | None
    implicit: str | None
    level: int | None
    """Level of the first-stage leaf; None for Bare and after a fault."""
    g_level: int | None
    """Level of the G-stage leaf of the access itself; None for Bare, one stage, and after a
    fault."""
    page_size: int | None
    """Bytes of the largest aligned block around ``va`` that both stages translate alike; None
    if no table limits it, and after a fault."""
    perm: str
    """Letters of the first-stage leaf's bits (V R W X U G A D); "" for Bare and after a fault."""
    g_perm: str
    """The same of the G-stage leaf.  With two stages an access needs the permission of both."""
    references: tuple[Reference, ...]
    """Every reference in order; empty for a TLB hit."""

    @property
    def cause_name(self) -> str:
        """The specification's name of the exception, "" if there was none."""
        return "" if self.cause is None else causes.NAMES[self.cause]

    def count(self, stage: str) -> int:
        """References of one stage."""
        return sum(r.stage == stage for r in self.references)


@dataclass(frozen=True)
class Status:
    """The state of a hart, apart from the address-translation registers, that translation
    depends on.  Field names are the specification's; defaults are a guest kernel's on a machine
    with Svade and Svnapot."""

    priv: Priv = Priv.S
    """U, S or M: the privilege of the instruction."""
    sum: bool = False
    mxr: bool = False
    """``sstatus.MXR``; with V=1 it concerns both stages."""
    vs_mxr: bool = False
    """``vsstatus.MXR`` with V=1: concerns the first stage."""
    mprv: bool = False
    """``mstatus.MPRV``: loads and stores of M-mode take the privilege ``mpp``."""
    mpp: Priv = Priv.U
    adue: bool = False
    """Svadu in the first stage (``menvcfg.ADUE``; ``henvcfg.ADUE`` with V=1)."""
    g_adue: bool = False
    pbmte: bool = False
    g_pbmte: bool = False
    svnapot: bool = True
    ram_only: bool = False
    """True if an access outside RAM is an access fault (no devices)."""

    def effective(self, access: Access) -> Priv:
        """Return the privilege of an access: MPRV redirects loads and stores of M-mode."""
        if self.priv is Priv.M and self.mprv and access is not Access.FETCH:
            return self.mpp
        return self.priv

    def flags(self, *, two_stage: bool) -> int:
        """Return the ``flags`` of the kernels."""
        chosen = (
            (self.sum, FLAG_SUM),
            (self.vs_mxr or (self.mxr and not two_stage), FLAG_MXR),
            (self.mxr and two_stage, walks.HS_MXR),
            (self.adue, walks.ADUE),
            (self.g_adue, walks.G_ADUE),
            (self.pbmte, walks.PBMTE),
            (self.g_pbmte, walks.G_PBMTE),
            (not self.svnapot, walks.NO_SVNAPOT),
            (self.ram_only, walks.RAM_ONLY),
        )
        return sum(flag for on, flag in chosen if on)


class Mmu:
    """One hart's MMU over a memory, with an optional TLB and walk cache.

    Either ``satp`` (one stage), or ``vsatp`` and ``hgatp`` (two stages) is in force; the values
    may be given signed or unsigned.  As after a write of the register, bits of ``hgatp`` that
    can only be zero are.

    :raises ModelError: when both or neither are given, or a MODE is a reserved one.
    """

    def __init__(
        self,
        memory: GuestMemory,
        *,
        satp: int | None = None,
        vsatp: int | None = None,
        hgatp: int | None = None,
        host: GuestMemory | None = None,
        status: Status | None = None,
        tlb: Tlb | None = None,
        walk_cache: WalkCache | None = None,
    ) -> None:
        given = (satp is not None, vsatp is not None, hgatp is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise ModelError("give either satp, or vsatp and hgatp")
        for name, value in (("satp", satp), ("vsatp", vsatp), ("hgatp", hgatp)):
            if value is not None and atp.levels(atp.mode(signed(value))) < 0:
                raise ModelError(f"{name} {unsigned(value):#x} has a reserved MODE")
        self.memory = memory
        self.host = host or memory
        self.two_stage = satp is None
        self.satp = signed((vsatp if satp is None else satp) or 0)
        """``satp``, or ``vsatp`` if there are two stages."""
        self.hgatp = atp.legalise_hgatp(0, hgatp or 0)
        self.status = status or Status()
        self.tlb = tlb or tlbs.make(tlbs.TlbConfig((1, 1), None, None))
        self._has_tlb = tlb is not None
        self.walk_cache = walk_cache or walk_caches.make()
        self._trace = walks.trace_of(walks.MAX_REFERENCES)

    def translate(
        self,
        va: int,
        access: Access = Access.READ,
        *,
        status: Status | None = None,
        hlvx: bool = False,
        probe: bool = False,
    ) -> Translation:
        """Translate ``va`` (signed or unsigned), with every reference it takes.

        ``status`` overrides the MMU's own for this access; ``hlvx`` says that a READ is an
        ``hlvx``.  With ``probe`` nothing changes: neither tables (A and D) nor TLB nor walk cache.
        M-mode without MPRV is not translated at all.
        """
        now = status or self.status
        priv = now.effective(access)
        flags = now.flags(two_stage=self.two_stage) | (walks.HLVX if hlvx else 0)
        flags |= walks.PROBE if probe else 0
        satp, hgatp = (0, 0) if priv is Priv.M else (self.satp, self.hgatp)
        request = Request(signed(va), int(access), int(priv), flags)
        ram, host, cache, trace = self.memory.ram, self.host.ram, self.walk_cache, self._trace
        # What is not translated asks no TLB: its entries have no tag for M-mode.
        has_tlb = self._has_tlb and priv is not Priv.M
        if self.two_stage and has_tlb:
            w = translate2(self.tlb, cache, ram, host, satp, hgatp, request, trace)
        elif self.two_stage:
            w = walk2(ram, host, cache, satp, hgatp, request, trace)
        elif has_tlb:
            w = translate1(self.tlb, cache, ram, satp, request, trace)
        else:
            w = walk1(ram, cache, satp, request, trace)
        return self._typed(unsigned(va), w)

    def fence(self, instruction: int, address: int = 0, identifier: int = 0) -> None:
        """Execute a fence on this hart's TLB and walk cache; arguments as
        :func:`hypervisor_model.tlb.fence` takes them."""
        vmid = int(atp.vmid(self.hgatp)) if self.two_stage else tlbs.NO_GUEST
        named = int(atp.fence_identifier(int(instruction), signed(identifier)))
        tlbs.fence(self.tlb, self.walk_cache, int(instruction), signed(address), named, vmid)

    def _typed(self, va: int, w: Walk) -> Translation:
        first = "VS" if self.two_stage else "S"
        references = tuple(
            Reference(
                address=unsigned(line.address),
                stage="G" if line.stage == walk_caches.G_STAGE else first,
                level=int(line.level),
                update=bool(line.kind == walks.UPDATE),
                entry=unsigned(line.entry),
            )
            for line in self._trace[: w.vs_refs + w.g_refs]
        )
        if w.cause != OK:
            implicit = {walks.IMPLICIT_READ: "read", walks.IMPLICIT_UPDATE: "update"}
            return Translation(
                va=va,
                pa=None,
                cause=int(w.cause),
                tval=va,
                gpa=unsigned(w.gpa) if w.cause in causes.GUEST_PAGE_FAULTS else None,
                implicit=implicit.get(w.implicit),
                level=None,
                g_level=None,
                page_size=None,
                perm="",
                g_perm="",
                references=references,
            )
        return Translation(
            va=va,
            pa=unsigned(w.pa),
            cause=None,
            tval=None,
            gpa=unsigned(w.gpa) if self.two_stage else None,
            implicit=None,
            level=None if w.level < 0 else int(w.level),
            g_level=None if w.g_level < 0 else int(w.g_level),
            page_size=None if w.page_bits == walks.BARE_BITS else 1 << int(w.page_bits),
            perm="" if w.level < 0 else letters(w.perm),
            g_perm="" if w.g_level < 0 else letters(w.g_perm),
            references=references,
        )


def letters(perm: int) -> str:
    """Return the bits of an entry as letters: ``DAGUXWRV``, with ``-`` for a clear one."""
    return "".join(
        letter if perm >> bit & 1 else "-"
        for bit, letter in zip(range(7, -1, -1), "DAGUXWRV", strict=True)
    )
