"""Page-walk caches: which tables a walk need not read its way down to.

A :class:`WalkCache` remembers, per stage and per level, that the table at that level for a range
of addresses was reached not long ago.  A walk that finds one starts there: the references above
are not made, so they are neither counted nor traced.  The model still reads every entry from
memory, so a walk cache changes references and never results, by construction.

Entries hold non-leaf entries only.  So a fence by address leaves them (the specification lets
that form order leaf entries only), and :func:`invalidate` has no address.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.errors import ModelError
from hypervisor_model.jit import kernel, record_of

VS_STAGE = 0
"""The only stage of a one-stage walk, or the first of two."""
G_STAGE = 1

_LEVELS = 4

_ENTRY = record_of("prefix", "asid", "vmid", "is_global", "last_use")
"""An entry: the bits of the address above what its table translates; what it is tagged with; 1 if a
global entry led to the table; the time of its last use (0: the place is empty)."""

_STATE = record_of("clock", "shortened")
"""The time, and how many walks were shortened so far."""


class WalkCache(NamedTuple):
    """State inside kernels."""

    entries: NDArray[Any]
    """(stages, levels, ways); see :data:`_ENTRY`."""
    state: NDArray[Any]
    """One record; see :data:`_STATE`."""


def make(ways: int = 0) -> WalkCache:
    """Return a fully associative walk cache: ``ways`` entries per stage and level (0: none), LRU.

    :raises ModelError: when ``ways`` is negative.
    """
    if ways < 0:
        raise ModelError(f"a walk cache cannot have {ways} ways")
    return WalkCache(np.zeros((2, _LEVELS, ways), _ENTRY), np.zeros(1, _STATE))


@kernel
def start_level(
    cache: WalkCache, stage: int, address: int, levels: int, asid: int, vmid: int
) -> int:
    """Return the level where the walk of ``address`` starts: the lowest cached, or the root's."""
    ways = cache.entries.shape[2]
    if ways:
        for level in range(levels - 1):
            prefix = address >> (21 + 9 * level)
            for way in range(ways):
                entry = cache.entries[stage, level, way]
                if (
                    entry.last_use != 0
                    and entry.prefix == prefix
                    and entry.vmid == vmid
                    and (entry.asid == asid or entry.is_global != 0)
                ):
                    cache.state[0].clock += 1
                    cache.state[0].shortened += 1
                    entry.last_use = cache.state[0].clock
                    return level
    return levels - 1


@kernel
def fill(
    cache: WalkCache, stage: int, address: int, level: int, asid: int, vmid: int, is_global: int
) -> None:
    """Remember that the table at ``level`` for ``address`` was reached; evicts the oldest."""
    ways = cache.entries.shape[2]
    if ways == 0:
        return
    oldest = cache.entries[stage, level, 0]
    for way in range(1, ways):
        entry = cache.entries[stage, level, way]
        if entry.last_use < oldest.last_use:
            oldest = entry
    cache.state[0].clock += 1
    oldest.prefix = address >> (21 + 9 * level)
    oldest.asid = asid
    oldest.vmid = vmid
    oldest.is_global = is_global
    oldest.last_use = cache.state[0].clock


@kernel
def invalidate(cache: WalkCache, stage: int, asid: int, vmid: int) -> None:
    """Forget what a fence without address covers in one stage.

    ``asid`` -1 means every address space and global entries too, otherwise global entries stay;
    ``vmid`` -2 means every VMID.
    """
    for level in range(_LEVELS):
        for way in range(cache.entries.shape[2]):
            entry = cache.entries[stage, level, way]
            if (vmid == -2 or entry.vmid == vmid) and (
                asid == -1 or (entry.asid == asid and entry.is_global == 0)
            ):
                entry.last_use = 0
