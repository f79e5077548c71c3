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
from hypervisor_model.jit import inner
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.tlb import Tlb
from hypervisor_model.walk import ADUE, PBMTE, Walk
from hypervisor_model.walk_cache import WalkCache

VIEWS = 3
"""Privilege views: user, supervisor, supervisor with SUM (used if the guest is deprivileged)."""

GUEST_ID = 1
"""VMID tag of a guest's translations; privilege view v has GUEST_ID + v."""

_HART = np.dtype(
    [
        ("satp", np.int64),
        ("faulted", np.int64),
        ("fault_va", np.int64),
        ("fault_cause", np.int64),
        ("paging", np.int64),
    ]
)
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
_SINVAL = COUNTERS + int(Counter.SINVAL)
_INSTRUCTION = ~int(Fence.FORM) & 0xFF
_SINVAL_VMA = int(Fence.SINVAL_VMA)
_MACHINE = int(Priv.M)
_ACCESS_FLAGS = FLAG_SUM | FLAG_MXR
_SPAN = 4096
_MISSES = tlbs.MISSES


class Hardware(NamedTuple):
    """State inside kernels; the first dimension of TLB and walk-cache arrays is the hart."""

    tlb_entries: NDArray[np.int64]
    tlb_geometry: NDArray[np.int64]
    tlb_trees: NDArray[np.int64]
    tlb_population: NDArray[np.int64]
    tlb_state: NDArray[np.int64]
    tlb_counts: NDArray[np.int64]
    cache_entries: NDArray[np.int64]
    """(harts, VIEWS, ...): walk caches; each privilege view is an address space of its own."""
    cache_clock: NDArray[np.int64]
    no_entries: NDArray[np.int64]
    """A walk cache with room for nothing."""
    no_trace: NDArray[np.int64]
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

    def per_hart(array: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.repeat(array[np.newaxis], machine.harts, axis=0)

    harts = np.zeros(machine.harts, _HART)
    harts["paging"] = machine.walk_flags & PAGING
    return Hardware(
        tlb_entries=per_hart(tlb.entries),
        tlb_geometry=tlb.geometry,
        tlb_trees=per_hart(tlb.trees),
        tlb_population=per_hart(tlb.population),
        tlb_state=per_hart(tlb.state),
        tlb_counts=per_hart(tlb.counts),
        cache_entries=per_hart(np.repeat(cache.entries[np.newaxis], VIEWS, axis=0)),
        cache_clock=per_hart(np.repeat(cache.clock[np.newaxis], VIEWS, axis=0)),
        no_entries=caches.make(0).entries,
        no_trace=np.zeros((0, 5), np.int64),
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
        hw.tlb_geometry,
        hw.tlb_trees[hart],
        hw.tlb_population[hart],
        hw.tlb_state[hart],
        hw.tlb_counts[hart],
    )


@inner
def misses(hw: Hardware, hart: int) -> int:
    """Return the TLB misses of a hart so far."""
    return hw.tlb_counts[hart, _MISSES]  # type: ignore[no-any-return]


@inner
def cache_of(hw: Hardware, hart: int, view: int) -> WalkCache:
    """Return the walk cache of a hart and privilege view."""
    return WalkCache(hw.cache_entries[hart, view], hw.cache_clock[hart, view])


@inner
def no_cache(hw: Hardware) -> WalkCache:
    """Return a walk cache without entries, for walks that software makes."""
    return WalkCache(hw.no_entries, hw.cache_clock[0, 0])


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
