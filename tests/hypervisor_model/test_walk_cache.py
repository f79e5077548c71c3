"""Walk caches: the references of every walk are those that a naive cache leaves."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from hypervisor_model import walk_cache
from hypervisor_model.events import Fence
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu

BASE = 0x8000_0000
LEAF = pte.V | pte.R | pte.W | pte.X | pte.A | pte.D
LEVELS = 3
NO_VMID = -1
# Two pages of a leaf table, its neighbours a level up, and places that only the root tells apart;
# what lies in the upper half is mapped through a global link.
PLACES = [
    half + region + place + page
    for half in (0, 0x20_0000_0000)
    for region in (0, 1 << 30)
    for place in (0, 2 << 20, 4 << 20)
    for page in (0, 4096)
]


@dataclass(frozen=True)
class Table:
    """A walk has reached the table for this prefix."""

    prefix: int
    asid: int
    vmid: int
    is_global: bool


class Naive:
    """A list a stage and level, the last used at its end."""

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.lists: dict[tuple[str, int], list[Table]] = {
            (stage, level): [] for stage in ("VS", "G") for level in range(LEVELS - 1)
        }

    def start(self, stage: str, address: int, asid: int, vmid: int) -> int:
        for level in range(LEVELS - 1):
            known = self.lists[stage, level]
            for table in known:
                own = table.is_global or table.asid == asid
                if table.prefix == address >> 21 + 9 * level and table.vmid == vmid and own:
                    known.remove(table)
                    known.append(table)
                    return level
        return LEVELS - 1

    def reached(
        self, stage: str, level: int, address: int, asid: int, vmid: int, is_global: bool
    ) -> None:
        known = self.lists[stage, level]
        known.append(Table(address >> 21 + 9 * level, asid, vmid, is_global))
        del known[: -self.ways]

    def fence(self, stage: str, vmid: int | None, asid: int | None) -> None:
        for (of, _), known in self.lists.items():
            if of == stage:
                known[:] = [
                    table
                    for table in known
                    if (vmid is not None and table.vmid != vmid)
                    or (asid is not None and (table.asid != asid or table.is_global))
                ]


class Machine:
    """Two address spaces and two guests with tables of one shape, and one walk cache for all."""

    def __init__(self, ways: int) -> None:
        self.memory = GuestMemory(BASE, 4 << 20)
        self._free = BASE
        self.roots = [self.page(), self.page()]
        self.g_roots = [self.page(4), self.page(4)]
        for root in self.roots:
            for va in PLACES:
                leaf = BASE >> 2 | LEAF
                self.map(root, va, leaf, link=pte.G if va >> 37 else 0)
        for root in self.g_roots:
            for gpa in range(BASE, BASE + (4 << 20), 4096):
                self.map(root, gpa, gpa >> 2 | LEAF | pte.U)
        self.cache = walk_cache.make(ways)
        self.naive = Naive(ways)

    def page(self, pages: int = 1) -> int:
        self._free = -(-self._free // (4096 * pages)) * 4096 * pages
        self._free += 4096 * pages
        return self._free - 4096 * pages

    def entry(self, table: int, address: int, level: int) -> int:
        # The addresses have no bit that only a G-stage root translates.
        return table + 8 * (address >> 12 + 9 * level & 511)

    def map(self, root: int, address: int, leaf: int, link: int = 0) -> None:
        table = root
        for level in (2, 1):
            where = self.entry(table, address, level)
            if self.memory.read(where) == 0:
                self.memory.write(where, self.page() >> 2 | pte.V | link)
            table = pte.target(self.memory.read(where))
            link = 0
        self.memory.write(self.entry(table, address, 0), leaf)

    def mmu(self, space: int, asid: int, guest: int | None, vmid: int) -> Mmu:
        satp = make(Mode.SV39, self.roots[space], asid)
        if guest is None:
            return Mmu(self.memory, satp=satp, walk_cache=self.cache)
        hgatp = make(Mode.SV39, self.g_roots[guest], vmid)
        return Mmu(self.memory, vsatp=satp, hgatp=hgatp, walk_cache=self.cache)

    def references(
        self, space: int, asid: int, guest: int | None, vmid: int, va: int
    ) -> tuple[int, int]:
        """What a walk makes in either stage, by the naive cache."""
        vs = g = 0
        table = self.roots[space]
        start = self.naive.start("VS", va, asid, vmid)
        is_global = False
        for level in (2, 1, 0):
            where = self.entry(table, va, level)
            if level <= start:
                vs += 1
                g += self.g_references(where, guest, vmid)
            is_global |= bool(self.memory.read(where) & pte.G)
            if level and level - 1 < start:
                self.naive.reached("VS", level - 1, va, asid, vmid, is_global)
            table = pte.target(self.memory.read(where))
        return vs, g + self.g_references(table, guest, vmid)

    def g_references(self, gpa: int, guest: int | None, vmid: int) -> int:
        if guest is None:
            return 0
        start = self.naive.start("G", gpa, 0, vmid)
        for level in range(start - 1, -1, -1):
            self.naive.reached("G", level, gpa, 0, vmid, False)
        return start + 1


@pytest.mark.parametrize("ways", [1, 2, 4, 16])
def test_references_are_those_of_a_naive_cache(ways: int) -> None:
    rng = random.Random(ways)
    machine = Machine(ways)
    shortened = 0
    for _ in range(1200):
        space = rng.randrange(2)
        guest = rng.choice((None, 0, 1))
        asid, vmid = space + 1, NO_VMID if guest is None else guest + 1
        mmu = machine.mmu(space, asid, guest, max(vmid, 0))
        if rng.random() < 0.85:
            va = rng.choice(PLACES)
            result = mmu.translate(va)
            assert result.pa == BASE
            made = result.count("S") + result.count("VS"), result.count("G")
            assert made == machine.references(space, asid, guest, vmid, va)
            shortened += made[0] < LEVELS
            continue
        form = rng.choice((Fence.ALL, Fence.VA, Fence.ASID, Fence.ASID, Fence.VA_ASID))
        # By ASID, or by VMID.
        identifier = rng.choice((1, 2))
        kind = rng.choice((Fence.SFENCE_VMA, Fence.HINVAL_VVMA, Fence.HFENCE_GVMA))
        mmu.fence(kind | form, rng.choice(PLACES), identifier)
        named = identifier if form & Fence.ASID else None
        if not form & Fence.VA and kind == Fence.HFENCE_GVMA:
            machine.naive.fence("G", named, None)
        elif not form & Fence.VA:
            machine.naive.fence("VS", vmid, named)
    assert shortened > 50
    assert machine.cache.state[0].shortened > shortened
