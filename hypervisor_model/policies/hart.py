"""The harts that a policy's guest runs on: ``satp``, TLB, walk caches, and what is counted.

Every policy owns one :class:`Hardware`.  Kernels take it whole, so it has few arrays: each costs
compile time in every kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import tlb as tlbs
from hypervisor_model import walk_cache as caches
from hypervisor_model.events import ENVCFG_ADUE, ENVCFG_PBMTE, FLAG_MXR, FLAG_SUM, Fence, Priv
from hypervisor_model.exits import M_MODE, Counter, Exit
from hypervisor_model.isa import atp
from hypervisor_model.jit import inner, record_of
from hypervisor_model.policies.event_fields import Event, fence_of
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.tlb import Tlb
from hypervisor_model.walk import ADUE, PBMTE, Walk, trace_of
from hypervisor_model.walk_cache import WalkCache

VIEWS = 3
"""Privilege views: user, supervisor, supervisor with SUM (used if the guest is deprivileged)."""

GUEST_ID = 1
"""VMID tag of a guest's translations; privilege view v has GUEST_ID + v."""

_HART = record_of("satp", "faulted", "fault_va", "fault_cause", "paging")
"""A hart: ``satp`` as the guest wrote it; 1 if the last access faulted, its address and cause; the
paging features that are on (:data:`PAGING`)."""

PAGING = ADUE | PBMTE
"""Flags of a walk that the guest can switch (``menvcfg``)."""

COUNTERS = len(Exit)
REFS_VS = COUNTERS + len(Counter)
REFS_G = REFS_VS + 1
TAKEN = REFS_G + 1
"""Elements of ``counts``: exits by kind, then from COUNTERS on by Counter, then walk references and
the exits of all kinds."""

(_FAST,) = (int(kind) for kind in M_MODE)
_GUEST_FAULT = int(Exit.GUEST_FAULT)
_REMOTE_FENCE = int(Exit.REMOTE_FENCE)
_SINVAL = COUNTERS + int(Counter.SINVAL)
_INSTRUCTION = ~int(Fence.FORM) & 0xFF
_SINVAL_VMA = int(Fence.SINVAL_VMA)
_MACHINE = int(Priv.M)
_ACCESS_FLAGS = FLAG_SUM | FLAG_MXR
_SPAN = 4096


class Hardware(NamedTuple):
    """State inside kernels; the first dimension of TLB and walk-cache arrays is the hart."""

    tlb_entries: NDArray[Any]
    tlb_buffers: NDArray[Any]
    """Those of all harts."""
    tlb_trees: NDArray[np.int64]
    tlb_population: NDArray[np.int64]
    tlb_states: NDArray[Any]
    tlb_counts: NDArray[Any]
    cache_entries: NDArray[Any]
    """(harts, VIEWS, ...): walk caches; each privilege view is a separate address space."""
    cache_states: NDArray[Any]
    no_cache: WalkCache
    """A walk cache with room for nothing, for walks that software makes."""
    no_trace: NDArray[Any]
    harts: NDArray[Any]
    """By hart; see :data:`_HART`."""
    counts: NDArray[np.int64]
    footprint_data: int
    footprint_code: int
    flags: int
    """Flags of the guest's own walk, without those of :data:`PAGING`."""


def make(machine: MachineModel) -> Hardware:
    """Harts fresh from reset: Bare, everything empty, every count zero."""
    tlb = tlbs.make(machine.tlb)
    cache = caches.make(machine.walk_cache_ways)

    def each(one: NDArray[Any], *count: int) -> NDArray[Any]:
        """Return an array of so many copies of another."""
        return np.array(np.broadcast_to(one, (*count, *one.shape)), order="C")

    harts = np.zeros(machine.harts, _HART)
    harts["paging"] = machine.walk_flags & PAGING
    return Hardware(
        tlb_entries=each(tlb.entries, machine.harts),
        tlb_buffers=tlb.buffers,
        tlb_trees=each(tlb.trees, machine.harts),
        tlb_population=each(tlb.population, machine.harts),
        tlb_states=each(tlb.state, machine.harts),
        tlb_counts=each(tlb.counts, machine.harts),
        cache_entries=each(cache.entries, machine.harts, VIEWS),
        cache_states=each(cache.state, machine.harts, VIEWS),
        no_cache=caches.make(0),
        no_trace=trace_of(0),
        harts=harts,
        counts=np.zeros(TAKEN + 1, np.int64),
        footprint_data=machine.footprint_data,
        footprint_code=machine.footprint_code,
        flags=machine.walk_flags & ~PAGING,
    )


@inner
def tlb_of(hw: Hardware, hart: int) -> Tlb:
    """Return the TLB of a hart (views, not copies)."""
    return Tlb(
        hw.tlb_entries[hart],
        hw.tlb_buffers,
        hw.tlb_trees[hart],
        hw.tlb_population[hart],
        hw.tlb_states[hart],
        hw.tlb_counts[hart],
    )


@inner
def misses(hw: Hardware, hart: int) -> int:
    """Return the TLB misses of a hart so far."""
    return hw.tlb_counts[hart, 0].misses  # type: ignore[no-any-return]


@inner
def cache_of(hw: Hardware, hart: int, view: int) -> WalkCache:
    """Return the walk cache of a hart and privilege view."""
    return WalkCache(hw.cache_entries[hart, view], hw.cache_states[hart, view])


@inner
def drop_fenced(hw: Hardware, event: Event, view: int, guest: int) -> None:
    """Drop what a FENCE or REMOTE_FENCE names from the TLBs and walk caches of its harts.

    :param view: whose walk cache; ``guest`` tags the TLB's entries.
    """
    asked = fence_of(event)
    for hart in range(hw.harts.shape[0]):
        if asked.harts >> hart & 1:
            tlb, cache = tlb_of(hw, hart), cache_of(hw, hart, view)
            tlbs.fence_range(tlb, cache, asked.sub, asked.first, asked.last, event.b, guest)


@inner
def is_untranslated(satp: int, priv: int) -> bool:
    """Return True if addresses are physical: M-mode, or Bare."""
    return priv & 3 == _MACHINE or atp.mode(satp) == 0


@inner
def access_flags(hw: Hardware, hart: int, flags: int) -> int:
    """Flags of the guest's walk for an ACCESS event of ``hart`` with ``flags``."""
    return hw.flags | hw.harts[hart].paging | (flags & _ACCESS_FLAGS)  # type: ignore[no-any-return]


@inner
def switched(paging: int, value: int, switches: int) -> int:
    """Return ``paging`` as an ENVCFG_WRITE leaves it: the register's value, and which of its bits
    are switches."""
    if switches & ENVCFG_ADUE:
        paging = (paging | ADUE) if value & ENVCFG_ADUE else (paging & ~ADUE)
    if switches & ENVCFG_PBMTE:
        paging = (paging | PBMTE) if value & ENVCFG_PBMTE else (paging & ~PBMTE)
    return paging


@inner
def envcfg_written(hw: Hardware, event: Event) -> None:
    """Take in an ENVCFG_WRITE of the guest's own paging."""
    state = hw.harts[event.hart]
    state.paging = switched(state.paging, event.b, event.c)


@inner
def count_refs(counts: NDArray[np.int64], walk: Walk) -> None:
    """Add the references of a walk that hardware made."""
    counts[REFS_VS] += walk.vs_refs
    counts[REFS_G] += walk.g_refs


@inner
def take_exit(hw: Hardware, hart: int, kind: int) -> None:
    """Count an exit; unless M-mode handles it, the hypervisor's pages displace TLB entries."""
    hw.counts[kind] += 1
    hw.counts[TAKEN] += 1
    if kind != _FAST:
        tlbs.displace(tlb_of(hw, hart), hw.footprint_data, hw.footprint_code)


@inner
def take_fence_exit(hw: Hardware, hart: int, kind: int, sub: int) -> None:
    """Count the exit of a fence, and apart that it was a ``sinval.vma``."""
    take_exit(hw, hart, kind)
    if sub & _INSTRUCTION == _SINVAL_VMA:
        hw.counts[_SINVAL] += 1


@inner
def take_remote_fence_exit(hw: Hardware, hart: int) -> None:
    """Count the exit of the hart that calls for a remote fence."""
    take_exit(hw, hart, _REMOTE_FENCE)


@inner
def access_faulted(hw: Hardware, hart: int, va: int, cause: int) -> int:
    """Count the exit ``guest_fault`` of a failing access; the answer to the access."""
    take_exit(hw, hart, _GUEST_FAULT)
    state = hw.harts[hart]
    state.faulted = 1
    state.fault_va = va
    state.fault_cause = cause
    return -1 - cause


@inner
def page_fault(hw: Hardware, hart: int, tval: int, cause: int) -> None:
    """Count the exit ``guest_fault`` of a PAGE_FAULT event, unless the last access of this hart
    failed and is what the event reports (same cause, tval within the access)."""
    state = hw.harts[hart]
    known = state.faulted and state.fault_cause == cause and 0 <= tval - state.fault_va < _SPAN
    state.faulted = 0
    if not known:
        take_exit(hw, hart, _GUEST_FAULT)
