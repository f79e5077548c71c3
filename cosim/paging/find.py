"""Every virtual address of a physical one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cosim.errors import UsageError
from cosim.paging.scan import WIDEST, Scan
from hypervisor_model.jit import signed, unsigned


class Place(NamedTuple):
    """One address at which a physical address is mapped; all numbers are unsigned."""

    va: int
    gpa: int | None
    """The guest-physical address between the stages; None if there is one stage."""
    perm: int
    g_perm: int | None
    page_bits: int
    entry_pa: int | None
    """Address of the first stage's leaf entry; None for Bare."""


def find(scan: Scan, pa: int) -> list[Place]:
    """Return each virtual address that is mapped to ``pa``, by rising address.

    :raises UsageError: when ``pa`` is wider than a physical address can be.
    """
    if pa >> WIDEST:
        raise UsageError(
            f"{pa:#x} is no physical address, as it is wider than {WIDEST} bits; "
            "`walk` tells the physical address of a virtual one"
        )
    leaves = scan.leaves
    offset = signed(pa) - leaves["pa"]
    hits = leaves[(offset >= 0) & (offset < leaves["size"])]
    two_stage = scan.space.two_stage
    places = []
    for leaf in hits:
        inside = pa - int(leaf["pa"])
        places.append(
            Place(
                va=unsigned(int(leaf["va"]) + inside),
                gpa=unsigned(int(leaf["gpa"]) + inside) if two_stage else None,
                perm=int(leaf["perm"]),
                g_perm=int(leaf["g_perm"]) if two_stage else None,
                page_bits=int(leaf["page_bits"]),
                entry_pa=None if leaf["entry_pa"] < 0 else int(leaf["entry_pa"]),
            )
        )
    return places


def frame_of(scan: Scan, va: int) -> int | None:
    """Return the physical address that the tables give for ``va``, whatever the permissions.

    None if nothing is mapped there.
    """
    starts: Any = scan.leaves["va"].view(np.uint64)
    row = int(np.searchsorted(starts, np.uint64(va), side="right")) - 1
    if row < 0:
        return None
    leaf = scan.leaves[row]
    offset = va - int(starts[row])
    return unsigned(int(leaf["pa"]) + offset) if offset < int(leaf["size"]) else None


def find_guest_physical(scan: Scan, gpa: int) -> list[Place]:
    """As :func:`find`, for a guest-physical address of two stages.

    :raises UsageError: when ``gpa`` is wider than a guest-physical address can be.
    """
    swapped = scan.leaves.copy()
    swapped["pa"], swapped["gpa"] = scan.leaves["gpa"], scan.leaves["gpa"]
    assert np.all(swapped["size"] > 0)
    return find(scan._replace(leaves=swapped), gpa)
