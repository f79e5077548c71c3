"""What differs between two scans of an address space."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.paging.maps import Filter, Range, chosen, joined, ranges
from cosim.paging.scan import LEAF, Scan
from hypervisor_model.isa import pte

_COMPARED = ("perm", "g_perm", "pbmt", "g_pbmt", "page_bits")


class MappingChange(NamedTuple):
    """Addresses next to each other whose mapping changed alike."""

    before: Range | None
    """How they were mapped; None if they were not."""
    after: Range | None
    """How they are mapped; None if they are not."""

    @property
    def va(self) -> int:
        """The first address, unsigned."""
        one = self.before or self.after
        assert one is not None
        return one.va


def changes(
    old: Scan, new: Scan, wanted: Filter | None = None, *, coarse: bool = False
) -> list[MappingChange]:
    """Return what is mapped differently in ``new`` than in ``old``, by rising address.

    :param wanted: leave out what this filter accepts in neither scan.
    :param coarse: ignore A and D, page sizes and frames; compare only what is mapped, and with
        which permissions.
    """
    wanted = wanted or Filter()
    before, after = chosen(old.leaves, wanted), chosen(new.leaves, wanted)
    edges = np.unique(np.concatenate([edge for one in (before, after) for edge in _edges(one)]))
    if not len(edges):
        return []
    # The last piece ends at the end of the address space; nothing is mapped there if it has no
    # leaf, so its length does not matter.
    lengths = np.diff(edges, append=edges[-1:]).view(np.int64)
    lengths[-1] = 0 - edges[-1:].view(np.int64)[0]
    before, was = _pieces(before, edges, lengths)
    after, now = _pieces(after, edges, lengths)
    differs = was != now
    both = was & now
    names = _COMPARED if not coarse else ("pbmt", "g_pbmt")
    for name in names:
        differs |= both & (before[name] != after[name])
    kept = np.uint8(0xFF & ~(pte.A | pte.D)) if coarse else np.uint8(0xFF)
    for name in ("perm", "g_perm"):
        differs |= both & ((before[name] ^ after[name]) & kept != 0)
    if not coarse:
        differs |= both & ((before["pa"] != after["pa"]) | (before["gpa"] != after["gpa"]))
    before, was, after, now = before[differs], was[differs], after[differs], now[differs]
    join = joined(before, coarse=coarse) & joined(after, coarse=coarse)
    join &= (was[:-1] == was[1:]) & (now[:-1] == now[1:])
    starts = np.flatnonzero(np.concatenate((np.ones(min(len(was), 1), np.bool_), ~join)))
    found = []
    pairs = zip(
        ranges(before, join, two_stage=old.space.two_stage, coarse=coarse),
        ranges(after, join, two_stage=new.space.two_stage, coarse=coarse),
        starts,
        strict=True,
    )
    for one, other, start in pairs:
        found.append(MappingChange(one if was[start] else None, other if now[start] else None))
    return found


def _edges(leaves: NDArray[Any]) -> list[NDArray[np.uint64]]:
    """Return where leaves begin and end; an end at the end of the address space is none."""
    ends = (leaves["va"] + leaves["size"]).view(np.uint64)
    return [leaves["va"].view(np.uint64), ends[ends != 0]]


def _pieces(
    leaves: NDArray[Any], edges: NDArray[np.uint64], lengths: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the leaf of each piece, cut to it, and which pieces have one."""
    out = np.zeros(len(edges), LEAF)
    there = np.zeros(len(edges), np.bool_)
    va = edges.view(np.int64)
    if len(leaves):
        at = np.searchsorted(leaves["va"].view(np.uint64), edges, side="right") - 1
        leaf = leaves[np.maximum(at, 0)]
        offset = va - leaf["va"]
        there = (at >= 0) & (offset.view(np.uint64) < leaf["size"].view(np.uint64))
        out[there] = leaf[there]
        out["gpa"] += offset
        out["pa"] += offset
    # Where nothing is mapped, the frames count as adjacent, so that it is merged.
    for name in ("gpa", "pa"):
        out[name][~there] = va[~there]
    out["va"], out["size"] = va, lengths
    return out, there
