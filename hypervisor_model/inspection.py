"""What a policy holds at the moment: the entries of its TLB, and its shadow or G-stage tables.

A look changes and counts nothing.  These functions read the state of the classes in
:mod:`hypervisor_model.policies`, which has no other way out but counts and translations.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor_model import tlb as tlbs
from hypervisor_model.errors import ModelError
from hypervisor_model.events import Access
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Status, Translation
from hypervisor_model.policies.hart import GUEST_ID, VIEWS
from hypervisor_model.policies.nested import Nested
from hypervisor_model.policies.policy import Policy
from hypervisor_model.policies.shadow_policy import ShadowPolicy
from hypervisor_model.policies.shadow_tables import PAGE_BYTES, POOL_BASE, Pool
from hypervisor_model.walk import BARE_BITS

VIEW_NAMES = ("user", "supervisor", "supervisor with SUM")
"""The privilege views of a guest that is deprivileged; otherwise there is one, without a name."""

_BUFFERS = {tlbs.DATA: "data", tlbs.FETCH: "fetch", tlbs.SECOND: "second"}
_GRANTS = pte.R | pte.W | pte.X


@dataclass(frozen=True)
class TlbEntry:
    """One translation that a TLB holds; addresses are unsigned and of its first byte."""

    buffer: str
    """``data`` or ``fetch`` (first level; ``data`` for both if they are one), or ``second``."""
    va: int
    pa: int
    gpa: int | None
    """Guest-physical address; None if no G-stage table was used."""
    size: int | None
    """Bytes; None for an address that no table translates."""
    asid: int | None
    """None for an address that no table translates."""
    perm: int
    """Bits 0..7 of the leaf."""
    g_perm: int | None
    """The same of the G-stage's leaf."""
    view: str
    """One of :data:`VIEW_NAMES`; empty if the policy has one view."""
    last_use: int
    """When it was used last: a larger number is later."""


def tlb_entries(policy: Policy, hart: int = 0) -> list[TlbEntry]:
    """Return the guest's entries in the TLB of a hart, the one used last first.

    :raises ModelError: when the machine has no such hart.
    """
    hw = policy.hardware
    _check_hart(policy, hart)
    buffers, rows = hw.tlb_buffers, hw.tlb_entries[hart]
    has_views = isinstance(policy, ShadowPolicy) and bool(policy.pool.by_view)
    found = []
    for buffer, name in _BUFFERS.items():
        place = buffers[buffer]
        first = int(place["first"])
        if buffer == tlbs.FETCH and first == int(buffers[tlbs.DATA]["first"]):
            continue
        for row in rows[first : first + int(place["sets"]) * int(place["ways"])]:
            if row["last_use"] == 0 or row["vmid"] == tlbs.HYPERVISOR:
                continue
            has_g = row["gpa"] != -1
            asid, bits = int(row["asid"]), int(row["bits"])
            found.append(
                TlbEntry(
                    buffer=name,
                    va=unsigned(int(row["va"])),
                    pa=unsigned(int(row["pa"])),
                    gpa=unsigned(int(row["gpa"])) if has_g else None,
                    size=None if bits >= BARE_BITS else 1 << bits,
                    asid=None if asid == tlbs.NO_TABLES else asid,
                    perm=int(row["perm"]) & pte.PERMISSIONS,
                    g_perm=int(row["g_perm"]) & pte.PERMISSIONS if has_g else None,
                    view=VIEW_NAMES[int(row["vmid"]) - GUEST_ID] if has_views else "",
                    last_use=int(row["last_use"]),
                )
            )
    found.sort(key=lambda entry: -entry.last_use)
    return found


def is_of_space(policy: Policy, entry: TlbEntry, satp: int) -> bool:
    """Return True if a hart whose ``satp`` is the guest's (an int64) could use an entry."""
    if entry.asid is None or atp.mode(satp) == 0:
        return entry.asid is None and atp.mode(satp) == 0
    if isinstance(policy, ShadowPolicy) and not policy.pool.use_asid:
        return True
    return bool(entry.perm & pte.G) or entry.asid == int(atp.asid(satp))


@dataclass(frozen=True)
class ShadowStep:
    """One level of a walk of a shadow table, and the guest's entry that it stands for."""

    level: int
    address: int
    """Host-physical address of the shadow entry."""
    entry: int
    """The shadow entry, unsigned; 0 if it is empty."""
    guest_address: int
    guest_entry: int
    """The guest's entry there, unsigned, as it is now."""
    is_stale: bool
    """True if the shadow entry allows something that the guest's entry does not say any more."""


@dataclass(frozen=True)
class ShadowWalk:
    """What the shadow of one privilege view holds for an address."""

    view: str
    """One of :data:`VIEW_NAMES`; empty if the policy has one view."""
    steps: tuple[ShadowStep, ...]
    """From the root down to the first entry that is no link; empty if there is no shadow root."""

    @property
    def is_stale(self) -> bool:
        """True if some entry on the way is stale."""
        return any(step.is_stale for step in self.steps)


def shadow_walks(policy: ShadowPolicy, va: int, hart: int = 0) -> list[ShadowWalk]:
    """Return what the shadow tables of the hart's address space hold for ``va``, by view.

    Empty if the hart has no tables (Bare).

    :param va: unsigned.
    :raises ModelError: when the machine has no such hart.
    """
    _check_hart(policy, hart)
    pool = policy.pool
    satp = int(policy.hardware.harts[hart]["satp"])
    levels = int(atp.levels(atp.mode(satp)))
    if not levels:
        return []
    names = VIEW_NAMES if pool.by_view else ("",)
    return [
        ShadowWalk(name, tuple(_steps(pool, satp, levels, view, signed(va))))
        for view, name in enumerate(names)
    ]


def _steps(pool: Pool, satp: int, levels: int, view: int, va: int) -> list[ShadowStep]:
    slot = 0
    page = (atp.root(satp) - pool.guest.base) >> 12
    if 0 <= page < len(pool.tables):
        slot = int(pool.shadow_of[page, (levels - 1) * VIEWS + view])
    steps = []
    for level in range(levels - 1, -1, -1):
        if not slot:
            break
        index = (va >> pte.level_bits(level)) & (pte.ENTRIES - 1)
        owner = int(pool.slots[slot]["owner"])
        entry = int(pool.shadow.words[slot * pte.ENTRIES + index])
        guest_entry = int(pool.guest.words[owner * pte.ENTRIES + index])
        is_link = entry != 0 and not pte.is_leaf(entry)
        child = (int(pte.target(entry)) - POOL_BASE) >> 12 if is_link else 0
        steps.append(
            ShadowStep(
                level=level,
                address=POOL_BASE + slot * PAGE_BYTES + index * 8,
                entry=unsigned(entry),
                guest_address=pool.guest.base + owner * PAGE_BYTES + index * 8,
                guest_entry=unsigned(guest_entry),
                is_stale=_is_stale(pool, entry, child, guest_entry, level),
            )
        )
        slot = child
    return steps


def _is_stale(pool: Pool, entry: int, child: int, guest_entry: int, level: int) -> bool:
    if not entry:
        return False
    if child:
        owner = pool.guest.base + int(pool.slots[child]["owner"]) * PAGE_BYTES
        return level == 0 or not pte.is_link(guest_entry) or int(pte.target(guest_entry)) != owner
    if not guest_entry & pte.V or not pte.is_leaf(guest_entry):
        return True
    if (entry ^ guest_entry) & (pte.PPN_MASK << pte.PPN_SHIFT):
        return True
    granted = guest_entry & _GRANTS if guest_entry & pte.D else guest_entry & _GRANTS & ~pte.W
    return entry & _GRANTS & ~granted != 0


@dataclass(frozen=True)
class NestedWalk:
    """A walk through the guest's tables and the hypervisor's; the registers are unsigned."""

    vsatp: int
    hgatp: int
    translation: Translation


def nested_walk(
    policy: Nested, va: int, access: Access, status: Status, hart: int = 0
) -> NestedWalk:
    """Return the walk that the hardware of ``nested`` would make now, through both stages.

    :param va: unsigned.
    :raises ModelError: when the machine has no such hart.
    """
    _check_hart(policy, hart)
    g = policy.tables
    guest = GuestMemory(g.guest.base, g.guest.words.nbytes)
    guest.ram = g.guest
    host = GuestMemory(g.host.base, g.host.words.nbytes)
    host.ram = g.host
    vsatp = int(policy.hardware.harts[hart]["satp"])
    mmu = Mmu(guest, host=host, vsatp=vsatp, hgatp=g.hgatp, status=status)
    return NestedWalk(unsigned(vsatp), unsigned(g.hgatp), mmu.translate(va, access, probe=True))


def _check_hart(policy: Policy, hart: int) -> None:
    if not 0 <= hart < len(policy.hardware.harts):
        raise ModelError(f"the machine has no hart {hart}")
