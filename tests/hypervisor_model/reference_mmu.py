"""Address translation straight from the text of the privileged specification, slow and plain.

Nothing here is taken from ``hypervisor_model``: bit numbers, step numbers and words are the
specification's (Volume II, "Sv32 ... Virtual Address Translation Process" as amended by Sv39,
Sv48, Sv57, Svnapot, Svpbmt, Svade and Svadu, and "Two-Stage Address Translation").  Memory is a
dictionary from the address of a doubleword to its unsigned value; numbers are unsigned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


class PageFault(Exception):
    """Step "stop and raise a page-fault exception"."""


class AccessFault(Exception):
    """An access that violates a PMA or PMP check."""


class GuestPageFault(Exception):
    """A page fault of the G-stage: guest-physical address, and the kind of implicit access."""

    def __init__(self, gpa: int, implicit: str | None) -> None:
        super().__init__()
        self.gpa = gpa
        self.implicit = implicit


MODES = {8: (3, 39), 9: (4, 48), 10: (5, 57)}
"""MODE: LEVELS and the width of a virtual address."""


@dataclass
class Memory:
    """Doublewords of RAM; every address inside ``[base, base + size)`` not named holds 0."""

    base: int
    size: int
    words: dict[int, int] = field(default_factory=dict)

    def check(self, address: int) -> None:
        if not self.base <= address < self.base + self.size:
            raise AccessFault

    def read(self, address: int) -> int:
        self.check(address)
        return self.words.get(address & ~7, 0)

    def write(self, address: int, value: int) -> None:
        self.check(address)
        self.words[address & ~7] = value


@dataclass
class Hart:
    """What translation depends on."""

    memory: Memory
    satp: int = 0
    hgatp: int | None = None
    """None: one stage; else ``satp`` stands for ``vsatp``."""
    supervisor: bool = True
    sum: bool = False
    mxr_first: bool = False
    mxr_both: bool = False
    """``sstatus.MXR`` with V=1."""
    adue: bool = False
    g_adue: bool = False
    pbmte: bool = False
    g_pbmte: bool = False
    hlvx: bool = False


@dataclass
class Outcome:
    """PA, or the exception; and the references (address, stage, level, written)."""

    pa: int | None = None
    cause: int | None = None
    gpa: int | None = None
    implicit: str | None = None
    leaf_level: int | None = None
    leaf_type: int | None = None
    """PBMT of the leaf of the first stage."""
    references: list[tuple[int, str, int, bool]] = field(default_factory=list)


def translate(hart: Hart, va: int, access: str) -> Outcome:
    """Translate ``va`` for ``access`` ("load", "store" or "fetch")."""
    out = Outcome()
    number = {"fetch": 0, "load": 1, "store": 3}[access]
    try:
        if hart.hgatp is None:
            out.pa = first_stage(hart, va, access, out)
        else:
            out.gpa = first_stage(hart, va, access, out)
            out.pa = g_stage(hart, out.gpa, access, hart.hlvx, None, out)
    except PageFault:
        out.cause = 12 + number
    except AccessFault:
        out.cause = {"fetch": 1, "load": 5, "store": 7}[access]
    except GuestPageFault as fault:
        out.cause = 20 + number
        out.gpa = fault.gpa
        out.implicit = fault.implicit
    if out.cause is not None and out.cause < 20:
        out.gpa = None
    return out


def first_stage(hart: Hart, va: int, access: str, out: Outcome) -> int:
    mode = hart.satp >> 60
    if mode == 0:
        return va if hart.hgatp is not None else physical_address(va)
    levels, width = MODES[mode]
    # "... must have bits 63-39 all equal to bit 38, or else a page-fault exception will occur."
    top = va >> (width - 1)
    if top not in (0, (1 << (64 - width + 1)) - 1):
        raise PageFault

    def implicit(address: int, kind: str) -> int:
        if hart.hgatp is None:
            return address
        return g_stage(hart, address, "load" if kind == "read" else "store", False, kind, out)

    vpn = [(va >> (12 + 9 * i)) & 0x1FF for i in range(levels)]
    return process(
        hart,
        root=(hart.satp & ((1 << 44) - 1)) * 4096,
        vpn=vpn,
        va=va,
        access=access,
        stage="first",
        user=not hart.supervisor,
        sum_bit=hart.sum,
        mxr=hart.mxr_first or hart.mxr_both,
        hlvx=hart.hlvx,
        adue=hart.adue,
        pbmte=hart.pbmte,
        physical=implicit,
        out=out,
    )


def g_stage(
    hart: Hart, gpa: int, access: str, hlvx: bool, implicit: str | None, out: Outcome
) -> int:
    assert hart.hgatp is not None
    mode = hart.hgatp >> 60
    if mode == 0:
        return physical_address(gpa)
    levels, width = MODES[mode]
    try:
        # "Address bits 63:41 must all be zeros, or else a guest-page-fault exception occurs."
        if gpa >> (width + 2):
            raise PageFault
        vpn = [(gpa >> (12 + 9 * i)) & 0x1FF for i in range(levels)]
        vpn[-1] = (gpa >> (12 + 9 * (levels - 1))) & 0x7FF
        return process(
            hart,
            root=(hart.hgatp & ((1 << 44) - 1)) * 4096,
            vpn=vpn,
            va=gpa,
            access=access,
            stage="G",
            # "... the current privilege mode is always taken to be U-mode".
            user=True,
            sum_bit=False,
            # MXR is for explicit accesses; the read of a VS-stage table is an implicit one.
            mxr=hart.mxr_both and implicit is None,
            hlvx=hlvx,
            adue=hart.g_adue,
            pbmte=hart.g_pbmte,
            physical=lambda address, kind: address,
            out=out,
        )
    except PageFault:
        raise GuestPageFault(gpa, implicit) from None


def physical_address(address: int) -> int:
    """An address that no table limits; a physical address has 56 bits."""
    if address >> 56:
        raise AccessFault
    return address


def process(
    hart: Hart,
    *,
    root: int,
    vpn: list[int],
    va: int,
    access: str,
    stage: str,
    user: bool,
    sum_bit: bool,
    mxr: bool,
    hlvx: bool,
    adue: bool,
    pbmte: bool,
    physical: Callable[[int, str], int],
    out: Outcome,
) -> int:
    # 1. Let a be satp.ppn x PAGESIZE, and let i=LEVELS-1.
    a = root
    i = len(vpn) - 1
    while True:
        # 2. Let pte be the value of the PTE at address a+va.vpn[i] x PTESIZE.
        address = a + vpn[i] * 8
        at = physical(address, "read")
        pte = hart.memory.read(at)
        out.references.append((at, stage, i, False))
        v, r, w, x, u, _, accessed, dirty = ((pte >> bit) & 1 for bit in range(8))
        ppn = (pte >> 10) & ((1 << 44) - 1)
        # 3. If pte.v=0, or if pte.r=0 and pte.w=1, or if any bits or encodings that are reserved
        #    for future standard use are set within pte: page fault.
        if not v or (not r and w):
            raise PageFault
        if (pte >> 54) & 0x7F:
            raise PageFault
        pbmt = (pte >> 61) & 3
        n = (pte >> 63) & 1
        if pbmt == 3 or (pbmt and not pbmte):
            raise PageFault
        # 4. Otherwise, the PTE is valid. If pte.r=1 or pte.x=1, go to step 5; else a pointer.
        if r or x:
            break
        # "For non-leaf PTEs, the D, A, and U bits are reserved", as are N and PBMT.
        if accessed or dirty or u or n or pbmt:
            raise PageFault
        i -= 1
        if i < 0:
            raise PageFault
        a = ppn * 4096
    # 5. ... if i>0 and pte.ppn[i-1:0] != 0, this is a misaligned superpage.
    if i > 0 and ppn % (1 << (9 * i)):
        raise PageFault
    # Svnapot: N is reserved but at i=0 with ppn[3:0] = 1000.
    if n and (i != 0 or ppn % 16 != 8):
        raise PageFault
    # 6.-8. Is the access allowed by r, w, x, u, given the privilege mode, SUM and MXR?
    if user and not u:
        raise PageFault
    if not user and u and (access == "fetch" or not sum_bit):
        raise PageFault
    if access == "fetch" or (access == "load" and hlvx):
        permitted = x
    elif access == "load":
        permitted = r or (mxr and x)
    else:
        permitted = w
    if not permitted:
        raise PageFault
    # 9. If pte.a=0, or if the access is a store and pte.d=0: Svade raises, Svadu updates.
    if not accessed or (access == "store" and not dirty):
        if not adue:
            raise PageFault
        at = physical(address, "update")
        pte |= 1 << 6
        if access == "store":
            pte |= 1 << 7
        hart.memory.write(at, pte)
        out.references.append((at, stage, i, True))
    # 10. The translation is successful.
    if stage == "first":
        out.leaf_level = i
        out.leaf_type = pbmt
    size = 1 << (16 if n else 12 + 9 * i)
    return ppn * 4096 // size * size + va % size
