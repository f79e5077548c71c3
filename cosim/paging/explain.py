"""One walk, level by level, and why it faults.

:class:`~hypervisor_model.mmu.Mmu` does the walk, so it is the one that the models use.  It needs
the tables in one array: the pages that the walk comes to are copied there, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.errors import UnreadableMemory
from cosim.paging import entries as entry_kinds
from cosim.paging.physical import PhysicalMemory
from cosim.paging.space import Space
from hypervisor_model.events import Access, Priv
from hypervisor_model.isa import atp, causes, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Reference, Translation
from hypervisor_model.walk import is_canonical

_MOST_PAGES = 64
"""More table pages than any walk reads."""
_WIDEST = 1 << 40
"""Bytes of physical memory that one array spans at most (ours); no board has as much."""


@dataclass(frozen=True)
class Explanation:
    """What became of one address, and why."""

    space: Space
    access: Access
    translation: Translation
    why: str | None
    """Why the access faults; None if it does not."""
    unreadable: int | None
    """Address of a table page that could not be read; the walk beyond it is not known."""

    @property
    def va(self) -> int:
        """The address, unsigned."""
        return self.translation.va

    @property
    def pa(self) -> int | None:
        """Where the access goes; None if it faults."""
        return self.translation.pa


def explain(
    memory: PhysicalMemory, space: Space, va: int, access: Access = Access.READ
) -> Explanation:
    """Translate ``va`` (unsigned), and say why if it faults.

    Nothing is written: A and D that a machine with Svadu would set are in the references only.
    """
    low, end = memory.span
    low, end = low & ~(pte.PAGE - 1), -(-end // pte.PAGE) * pte.PAGE
    window = GuestMemory(low, min(max(end - low, pte.PAGE), _WIDEST))
    known: set[int] = set()
    unreadable: int | None = None
    while True:
        mmu = Mmu(
            window,
            satp=space.satp,
            vsatp=space.vsatp,
            hgatp=space.hgatp,
            status=space.status,
        )
        result = mmu.translate(va, access, probe=True)
        pages = {reference.address & ~(pte.PAGE - 1) for reference in result.references}
        new = sorted(pages - known)
        if not new or unreadable is not None or len(known) > _MOST_PAGES:
            break
        for page in new:
            known.add(page)
            if not _copy(memory, window, page):
                unreadable = page
    why = None if result.cause is None else _why(space, result, access, unreadable)
    return Explanation(space, access, result, why, unreadable)


def _copy(memory: PhysicalMemory, window: GuestMemory, page: int) -> bool:
    try:
        data = memory.read(page, pte.PAGE)
    except UnreadableMemory:
        return False
    first = (page - window.base) >> 3
    window.words[first : first + pte.ENTRIES] = np.frombuffer(data, "<i8")
    return True


def _why(space: Space, result: Translation, access: Access, unreadable: int | None) -> str:
    if unreadable is not None:
        return f"the table at {unreadable:#x} cannot be read, so the walk is not known from there"
    in_g = result.cause in causes.GUEST_PAGE_FAULTS
    last = result.references[-1] if result.references else None
    if result.cause in (
        causes.FETCH_ACCESS_FAULT,
        causes.LOAD_ACCESS_FAULT,
        causes.STORE_ACCESS_FAULT,
    ):
        return _why_no_memory(space, last)
    if in_g:
        return _why_in_g(space, result, access, last)
    if not is_canonical(signed(result.va), space.levels):
        bits = pte.level_bits(space.levels)
        return f"bits 63 to {bits} of the address are not all equal to bit {bits - 1}"
    assert last is not None
    status = space.status
    reason = _malformed(last, status.pbmte, status.svnapot)
    return reason or _forbidden(
        last.entry,
        access,
        user=status.effective(access) is Priv.U,
        sum_=status.sum,
        mxr=status.mxr or status.vs_mxr,
        adue=status.adue,
    )


def _why_no_memory(space: Space, last: Reference | None) -> str:
    if last is not None and last.level > 0 and pte.is_link(signed(last.entry)):
        return f"the table at {pte.target(signed(last.entry)):#x} is outside of memory"
    g_root = atp.root(space.second) if atp.mode(space.second) else None
    if last is None and (g_root is not None or space.levels):
        root = atp.root(space.first) if g_root is None else g_root
        return f"the root table at {root:#x} is outside of memory"
    return "the physical address is outside of memory"


def _why_in_g(space: Space, result: Translation, access: Access, last: Reference | None) -> str:
    assert result.gpa is not None
    what = f"guest-physical {result.gpa:#x}"
    if result.implicit is not None:
        what += ", which holds a VS-stage table,"
    levels = atp.levels(atp.mode(space.second))
    bits = pte.level_bits(levels) + atp.GPA_EXTRA_BITS
    if levels and result.gpa >> bits:
        return f"{what} is wider than the {bits} bits of the G-stage"
    assert last is not None
    if result.implicit is not None:
        access = Access.WRITE if result.implicit == "update" else Access.READ
    status = space.status
    reason = _malformed(last, status.g_pbmte, status.svnapot) or _forbidden(
        last.entry,
        access,
        user=True,
        sum_=False,
        mxr=status.mxr and result.implicit is None,
        adue=status.g_adue,
    )
    return f"{what} is not accessible in the G-stage: {reason}"


def _malformed(last: Reference, pbmte: bool, svnapot: bool) -> str | None:
    entry = np.array([signed(last.entry)])
    kind = int(entry_kinds.classify(entry, last.level, pbmte=pbmte, svnapot=svnapot)[0])
    return entry_kinds.REASONS.get(kind)


def _forbidden(entry: int, access: Access, *, user: bool, sum_: bool, mxr: bool, adue: bool) -> str:
    """Return why a leaf does not allow an access."""
    if user and not entry & pte.U:
        return "U is clear: the page is not for user mode"
    if not user and entry & pte.U:
        if access is Access.FETCH:
            return "U is set: supervisor mode never executes user pages"
        if not sum_:
            return "U is set, and supervisor mode needs SUM to access user pages"
    if access is Access.FETCH and not entry & pte.X:
        return "X is clear: the page is not executable"
    if access is Access.WRITE and not entry & pte.W:
        return "W is clear: the page is not writable"
    if access is Access.READ and not (entry & pte.R or (entry & pte.X and mxr)):
        return "R is clear: the page is not readable"
    if not adue:
        if not entry & pte.A:
            return "A is clear, and the machine leaves it to software (Svade)"
        if access is Access.WRITE and not entry & pte.D:
            return "D is clear, and the machine leaves it to software (Svade)"
    raise AssertionError(f"entry {unsigned(entry):#x} allows the access")
