"""What a policy holds at this moment: the entries of its TLBs, and its shadow of one address."""

from __future__ import annotations

from typing import NamedTuple

from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.policies.hart import VIEWS, tlb_entries_of
from hypervisor_model.policies.policy import Policy
from hypervisor_model.policies.shadow_policy import ShadowPolicy
from hypervisor_model.policies.shadow_tables import POOL_BASE
from hypervisor_model.tlb import HYPERVISOR

BUFFERS = ("data", "fetch", "second")
"""The names of the parts of a TLB."""
VIEW_NAMES = ("user", "supervisor", "supervisor with SUM")
"""The privilege views of the set-up ``base``."""
ONE_VIEW = "only"
"""The name of the view if there is one."""


class Held(NamedTuple):
    """One entry of a TLB; numbers are unsigned."""

    buffer: str
    """One of :data:`BUFFERS`."""
    va: int
    """The first address that it translates."""
    size: int
    """Bytes."""
    pa: int
    perm: int
    """Bits of the first-stage leaf."""
    asid: int | None
    """None: no tables were used, so no ASID concerns it."""
    vmid: int
    """Tells privilege views apart, too; -1 for a machine without a hypervisor."""


class Shadow(NamedTuple):
    """The shadow of one address in one privilege view."""

    view: str
    """One of :data:`VIEW_NAMES`, or :data:`ONE_VIEW`."""
    entry: int
    """The shadow entry, unsigned; 0 if there is none."""
    level: int
    """The level where the shadow's walk ends."""

    @property
    def pa(self) -> int | None:
        """The frame that the entry maps; None if it maps none."""
        return int(pte.target(signed(self.entry))) if self.entry else None


def held(policy: Policy, hart: int = 0) -> list[Held]:
    """Return the guest's entries in the TLB of ``hart``, part by part, by rising address."""
    buffers, entries = tlb_entries_of(policy.hardware, hart)
    found = []
    for name, buffer in zip(BUFFERS, buffers, strict=True):
        first, count = int(buffer["first"]), int(buffer["sets"]) * int(buffer["ways"])
        rows = entries[first : first + count]
        rows = rows[(rows["last_use"] > 0) & (rows["vmid"] != HYPERVISOR)]
        part = [
            Held(
                buffer=name,
                va=unsigned(int(row["va"])),
                size=1 << int(row["bits"]),
                pa=unsigned(int(row["pa"])),
                perm=int(row["perm"]) & 0xFF,
                asid=None if row["asid"] < 0 else int(row["asid"]),
                vmid=int(row["vmid"]),
            )
            for row in rows
        ]
        found += sorted(part, key=lambda one: one.va)
    return found


def shadows(policy: Policy, satp: int, va: int) -> list[Shadow] | None:
    """Return the shadow of ``va`` in each privilege view; None if the policy has no shadow tables.

    A view without a shadow of the root is left out.

    :param satp: the guest's, unsigned.
    :param va: unsigned.
    """
    if not isinstance(policy, ShadowPolicy):
        return None
    pool = policy.pool
    levels = int(atp.levels(atp.mode(signed(satp))))
    page = (int(atp.root(signed(satp))) - pool.guest.base) >> pte.PAGE_BITS
    if levels <= 0 or not 0 <= page < len(pool.shadow_of):
        return []
    found = []
    for view in range(VIEWS if pool.by_view else 1):
        slot = int(pool.shadow_of[page, (levels - 1) * VIEWS + view])
        if not slot:
            continue
        level, entry = levels - 1, 0
        while True:
            index = va >> pte.level_bits(level) & (pte.ENTRIES - 1)
            entry = int(pool.shadow.words[slot * pte.ENTRIES + index])
            if entry == 0 or pte.is_leaf(entry) or level == 0:
                break
            slot = (int(pte.target(entry)) - POOL_BASE) >> pte.PAGE_BITS
            level -= 1
        name = VIEW_NAMES[view] if pool.by_view else ONE_VIEW
        found.append(Shadow(name, unsigned(entry), level))
    return found
