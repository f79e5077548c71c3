"""The ranges that an address space maps, and filters over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.errors import UsageError
from cosim.paging.scan import Scan
from hypervisor_model.isa import pte
from hypervisor_model.jit import unsigned

LETTERS = {
    "R": pte.R,
    "W": pte.W,
    "X": pte.X,
    "U": pte.U,
    "G": pte.G,
    "A": pte.A,
    "D": pte.D,
}
"""The bits of a leaf that a filter can name."""

MEMORY_TYPES = ("pma", "nc", "io")
"""Svpbmt's types, by the value of the field."""

SIZES = {
    "4K": 12,
    "64K": 16,
    "2M": 21,
    "1G": 30,
    "512G": 39,
    "256T": 48,
}
"""The sizes of a page, and log2 of each."""


@dataclass(frozen=True)
class Filter:
    """Which mappings are wanted; the default takes all."""

    has: int = 0
    """Bits that must be set in the permissions (see :data:`LETTERS`); with two stages R, W and X
    must be set in both."""
    lacks: int = 0
    """Bits of which none may be set; with two stages R, W and X count if both stages have them."""
    low: int = 0
    """The lowest address, unsigned."""
    high: int = (1 << 64) - 1
    """The highest address, unsigned."""
    page_bits: int | None = None
    """log2 of the page size."""
    pbmt: int | None = None
    """Index into :data:`MEMORY_TYPES`, of the first stage."""

    @classmethod
    def named(
        cls,
        *,
        has: str = "",
        lacks: str = "",
        user: bool = False,
        kernel: bool = False,
        low: int = 0,
        high: int = (1 << 64) - 1,
        size: str | None = None,
        pbmt: str | None = None,
    ) -> Filter:
        """Return the filter that a user's words describe.

        :param has: letters of bits that must be set; ``user`` adds U.
        :param lacks: letters of bits that must be clear; ``kernel`` adds U.
        :param size: one of :data:`SIZES`.
        :param pbmt: one of :data:`MEMORY_TYPES`.
        :raises UsageError: when a letter is no permission.
        """
        return cls(
            has=bits_of(has + ("U" if user else "")),
            lacks=bits_of(lacks + ("U" if kernel else "")),
            low=low,
            high=high,
            page_bits=None if size is None else SIZES[size],
            pbmt=None if pbmt is None else MEMORY_TYPES.index(pbmt),
        )


def bits_of(letters: str) -> int:
    """Return the bits of permission letters, for example ``wx``.

    :raises UsageError: when a letter is none of :data:`LETTERS`.
    """
    bits = 0
    for letter in letters.upper():
        if letter not in LETTERS:
            raise UsageError(f"{letter!r} is not a permission; give letters of {''.join(LETTERS)}")
        bits |= LETTERS[letter]
    return bits


class Range(NamedTuple):
    """Addresses next to each other that are mapped alike; all numbers are unsigned."""

    va: int
    size: int
    gpa: int | None
    """Guest-physical address of the first byte; None if there is one stage, or if the frames are
    not next to each other."""
    pa: int | None
    """Physical address of the first byte; None if the frames are not next to each other."""
    perm: int
    """Bits 0..7 of the first stage's leaf."""
    g_perm: int | None
    """Bits 0..7 of the G-stage's leaf; None if there is one stage."""
    page_bits: int | None
    """log2 of the page size; None if there are several."""
    pbmt: int
    g_pbmt: int

    @property
    def last(self) -> int:
        """The last address."""
        return self.va + self.size - 1


def effective(leaves: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the permissions of leaves, with R, W and X as both stages have them."""
    both = leaves["g_perm"] | ~np.uint8(pte.R | pte.W | pte.X)
    return leaves["perm"] & both  # type: ignore[no-any-return]


def chosen(leaves: NDArray[Any], wanted: Filter) -> NDArray[Any]:
    """Return the leaves that a filter takes, cut at the ends of its range."""
    perm = effective(leaves)
    keep = (perm & wanted.has == wanted.has) & (perm & wanted.lacks == 0)
    if wanted.page_bits is not None:
        keep &= leaves["page_bits"] == wanted.page_bits
    if wanted.pbmt is not None:
        keep &= leaves["pbmt"] == wanted.pbmt
    first = leaves["va"].view(np.uint64)
    last = first + (leaves["size"] - 1).view(np.uint64)
    keep &= (last >= np.uint64(wanted.low)) & (first <= np.uint64(wanted.high))
    out = leaves[keep]
    before = np.maximum(np.uint64(wanted.low), first[keep]) - first[keep]
    behind = last[keep] - np.minimum(np.uint64(wanted.high), last[keep])
    for name in ("va", "gpa", "pa"):
        out[name] += before.view(np.int64)
    out["size"] -= (before + behind).view(np.int64)
    return out  # type: ignore[no-any-return]


def maps(scan: Scan, wanted: Filter | None = None, *, coarse: bool = False) -> list[Range]:
    """Return what is mapped, by rising address; neighbours that are mapped alike are one range.

    :param scan: of the address space.
    :param wanted: which mappings; None for all.
    :param coarse: merge mappings that differ only in A, D, page size or frame.
    """
    leaves = chosen(scan.leaves, wanted or Filter())
    return merged(leaves, two_stage=scan.space.two_stage, coarse=coarse)


def merged(leaves: NDArray[Any], *, two_stage: bool, coarse: bool = False) -> list[Range]:
    """Return ranges of leaves that are sorted by unsigned address."""
    return ranges(leaves, joined(leaves, coarse=coarse), two_stage=two_stage, coarse=coarse)


def joined(leaves: NDArray[Any], *, coarse: bool) -> NDArray[np.bool_]:
    """Return for each leaf but the first if it is mapped like the one before, and next to it."""
    before, after = leaves[:-1], leaves[1:]
    out = before["va"] + before["size"] == after["va"]
    # From the last address to the first one, nothing is merged.
    out &= after["va"] != 0
    for column in (*_permissions(leaves, coarse), leaves["pbmt"], leaves["g_pbmt"]):
        out &= column[:-1] == column[1:]
    if not coarse:
        out &= ~_apart(leaves) & (before["page_bits"] == after["page_bits"])
    return out  # type: ignore[no-any-return]


def _permissions(leaves: NDArray[Any], coarse: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    kept = np.uint8(pte.PERMISSIONS & ~(pte.A | pte.D) if coarse else pte.PERMISSIONS)
    return leaves["perm"] & kept, leaves["g_perm"] & kept


def _apart(leaves: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each leaf but the first if its frame is not the next one."""
    before, after = leaves[:-1], leaves[1:]
    out = before["pa"] + before["size"] != after["pa"]
    out |= before["gpa"] + before["size"] != after["gpa"]
    return out  # type: ignore[no-any-return]


def ranges(
    leaves: NDArray[Any], join: NDArray[np.bool_], *, two_stage: bool, coarse: bool
) -> list[Range]:
    """Return a range for each run of leaves that ``join`` puts together."""
    if not len(leaves):
        return []
    first = np.concatenate(([True], ~join))
    starts = np.flatnonzero(first)
    scattered = np.zeros(len(leaves), np.bool_)
    mixed = np.zeros(len(leaves), np.bool_)
    scattered[1:] = _apart(leaves) & join
    mixed[1:] = (leaves["page_bits"][:-1] != leaves["page_bits"][1:]) & join
    perm, g_perm = _permissions(leaves, coarse)
    names = ("va", "gpa", "pa", "page_bits", "pbmt", "g_pbmt")
    rows = zip(
        *(leaves[name][starts].tolist() for name in names),
        perm[starts].tolist(),
        g_perm[starts].tolist(),
        np.add.reduceat(leaves["size"], starts).tolist(),
        np.logical_or.reduceat(scattered, starts).tolist(),
        np.logical_or.reduceat(mixed, starts).tolist(),
        strict=True,
    )
    return [
        Range(
            va=unsigned(va),
            size=size,
            gpa=None if is_apart or not two_stage else unsigned(gpa),
            pa=None if is_apart else unsigned(pa),
            perm=vs,
            g_perm=g if two_stage else None,
            page_bits=None if is_mixed else page_bits,
            pbmt=pbmt,
            g_pbmt=g_pbmt,
        )
        for va, gpa, pa, page_bits, pbmt, g_pbmt, vs, g, size, is_apart, is_mixed in rows
    ]
