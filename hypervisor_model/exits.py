"""The kinds of VM exit and the other things a policy counts.

An *exit* is one transfer of control from the guest to the hypervisor.  Kinds are those of
paging-models section 4:

============== =================================================================================
kind           taken when
============== =================================================================================
pt_write       a store meets a write-protected page-table page
fence          ``sfence.vma``/``sinval.vma`` traps to the hypervisor (HS- or S-mode)
fence_fast     it traps to the M-mode fast path, which leaves the TLB and the guest context alone
fence_global   a fence without an address makes the hypervisor synchronise
satp_write     a write of ``satp`` traps
shadow_fill    the guest's own walk allows an access that the shadow table does not have yet
dirty_fill     the first store to a page that was mapped read-only because the guest's D was 0,
               which the hypervisor sets for it
guest_fault    the guest's own page fault reaches the hypervisor first, which forwards it
gstage_fault   a guest-physical page is touched that the G-stage does not map yet
remote_fence   the guest calls its firmware (SBI) for a fence on the harts that it names
============== =================================================================================

One store, fence, call or access is one exit, however many entries and harts it concerns.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """A kind of VM exit; the name in lower case is its name in results."""

    PT_WRITE = 0
    FENCE = 1
    FENCE_FAST = 2
    FENCE_GLOBAL = 3
    SATP_WRITE = 4
    SHADOW_FILL = 5
    DIRTY_FILL = 6
    GUEST_FAULT = 7
    GSTAGE_FAULT = 8
    REMOTE_FENCE = 9

    @property
    def key(self) -> str:
        """The name in results and options."""
        return self.name.lower()


M_MODE = frozenset({Exit.FENCE_FAST})
"""Exits that are handled in M-mode: physical addresses, no TLB entry displaced."""


class Counter(IntEnum):
    """What a policy counts besides exits; the name in lower case is its name in results."""

    SYNC_READS = 0
    """Guest entries read to synchronise shadow entries with them."""
    SYNC_CHANGES = 1
    """Shadow entries that such a read changed or removed."""
    SYNC_RUNS = 2
    """Synchronisations of more than one entry (at a global fence, a load, a link)."""
    SINVAL = 3
    """Fences among the exits that were ``sinval.vma``."""
    SHADOW_PAGES = 4
    """Shadow pages in use now."""
    SHADOW_PAGES_PEAK = 5
    """Most shadow pages in use at one time."""
    SHADOW_PAGES_MADE = 6
    """Shadow pages made in all."""
    PREFETCHED = 7
    """Shadow entries filled beside the one that was asked for."""
    RESYNCS = 8
    """Out-of-sync shadow pages brought back into sync and protected again."""
    UNSHADOWED = 9
    """Shadow pages given up by a heuristic (write flooding, zero writes)."""
    ROOT_HITS = 10
    """``satp`` writes that found their root in the buffer and took no exit."""
    GSTAGE_PAGES = 11
    """G-stage leaf mappings made."""

    @property
    def key(self) -> str:
        """The name in results."""
        return self.name.lower()
