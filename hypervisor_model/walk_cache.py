"""Page-walk caches: which tables a walk need not read its way down to.

A :class:`WalkCache` remembers, per stage and per level, that the table at that level for a range
of addresses was reached not long ago.  A walk that finds one starts there: the references above
are not made, so they are neither counted nor traced.  The model still reads every entry from
memory, so a walk cache changes references and never results, by construction.

Entries hold non-leaf entries only.  So a fence by address leaves them (the specification lets
that form order leaf entries only), and :func:`invalidate` has no address.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.errors import ModelError
from hypervisor_model.jit import kernel

VS_STAGE = 0
"""The only stage of a one-stage walk, or the first of two."""
G_STAGE = 1

_LEVELS = 4
_PREFIX, _ASID, _VMID, _GLOBAL, _STAMP = range(5)


class WalkCache(NamedTuple):
    """State inside kernels.

    ``entries[stage, level, way]`` holds address prefix, ASID, VMID, global flag and the time of
    its last use (0 = empty); ``clock`` holds the time and the number of walks shortened so far.
    """

    entries: NDArray[np.int64]
    clock: NDArray[np.int64]


def make(ways: int = 0) -> WalkCache:
    """Return a fully associative walk cache: ``ways`` entries per stage and level (0: none), LRU.

    :raises ModelError: when ``ways`` is negative.
    """
    if ways < 0:
        raise ModelError(f"a walk cache cannot have {ways} ways")
    return WalkCache(np.zeros((2, _LEVELS, ways, 5), np.int64), np.zeros(2, np.int64))


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
                    entry[_STAMP] != 0
                    and entry[_PREFIX] == prefix
                    and entry[_VMID] == vmid
                    and (entry[_ASID] == asid or entry[_GLOBAL] != 0)
                ):
                    cache.clock[0] += 1
                    cache.clock[1] += 1
                    entry[_STAMP] = cache.clock[0]
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
    oldest = 0
    for way in range(1, ways):
        if cache.entries[stage, level, way, _STAMP] < cache.entries[stage, level, oldest, _STAMP]:
            oldest = way
    cache.clock[0] += 1
    entry = cache.entries[stage, level, oldest]
    entry[_PREFIX] = address >> (21 + 9 * level)
    entry[_ASID] = asid
    entry[_VMID] = vmid
    entry[_GLOBAL] = is_global
    entry[_STAMP] = cache.clock[0]


@kernel
def invalidate(cache: WalkCache, stage: int, asid: int, vmid: int) -> None:
    """Forget what a fence without address covers in one stage.

    ``asid`` -1 means every address space and global entries too, otherwise global entries stay;
    ``vmid`` -2 means every VMID.
    """
    for level in range(_LEVELS):
        for way in range(cache.entries.shape[2]):
            entry = cache.entries[stage, level, way]
            if (vmid == -2 or entry[_VMID] == vmid) and (
                asid == -1 or (entry[_ASID] == asid and entry[_GLOBAL] == 0)
            ):
                entry[_STAMP] = 0
