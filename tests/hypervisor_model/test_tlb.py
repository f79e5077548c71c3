"""The TLB: against a naive list of entries, and what tells its options apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor_model import tlb as tlbs
from hypervisor_model import walk_cache
from hypervisor_model.errors import ModelError
from hypervisor_model.events import FLAG_MXR, FLAG_SUM, Access, Fence, Priv
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Status
from hypervisor_model.tlb import Replacement, Tlb, TlbConfig
from hypervisor_model.walk import BARE_BITS, HS_MXR, OK, Walk
from tests.hypervisor_model import reference_mmu
from tests.hypervisor_model.random_tables import Tables
from tests.hypervisor_model.test_walk_reference import BASE, LAYOUT, MODES, SIZE, STATUSES

R, W, F = int(Access.READ), int(Access.WRITE), int(Access.FETCH)
S, U = int(Priv.S), int(Priv.U)
ALL = pte.PERMISSIONS & ~(pte.G | pte.U)
G_ALL = ALL | pte.U
NO_GUEST = tlbs.NO_GUEST


def translation(
    va: int,
    pa: int,
    bits: int = 12,
    *,
    perm: int = ALL,
    gpa: int | None = None,
    g_bits: int | None = None,
    vs_bits: int | None = None,
    g_perm: int = G_ALL,
) -> Walk:
    """A walk's result as a TLB takes it; two-stage where ``gpa`` is given."""
    two = gpa is not None
    return Walk(
        cause=OK,
        pa=pa,
        level=0,
        page_bits=bits,
        perm=perm,
        entry=0,
        gpa=-1 if gpa is None else gpa,
        g_level=0 if two else -1,
        g_page_bits=(g_bits or bits) if two else BARE_BITS,
        vs_page_bits=vs_bits or bits,
        g_perm=g_perm,
        implicit=0,
        vs_refs=3,
        g_refs=0,
    )


def look(
    tlb: Tlb,
    va: int,
    asid: int = 0,
    vmid: int = NO_GUEST,
    access: int = R,
    priv: int = S,
    flags: int = 0,
) -> int | None:
    """The PA that a lookup finds, or None."""
    row = tlbs.lookup(tlb, va, asid, vmid, access, priv, flags)
    return None if row < 0 else int(tlbs.pa_of(tlb, row, va))


def see(tlb: Tlb, va: int, asid: int = 0, vmid: int = NO_GUEST, access: int = R) -> int | None:
    """As :func:`look`, without changing anything."""
    row = tlbs.probe(tlb, va, asid, vmid, access, S, 0)
    return None if row < 0 else int(tlbs.pa_of(tlb, row, va))


# -- the naive model ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    va: int
    bits: int
    asid: int
    vmid: int
    is_global: bool
    pa: int
    gpa: int | None
    vs_bits: int
    g_bits: int

    def covers(self, va: int, asid: int, vmid: int) -> bool:
        same_space = self.vmid == vmid and (self.asid == asid or self.is_global)
        return same_space and self.va <= va < self.va + (1 << self.bits)

    def page_of(self, va: int) -> Entry:
        offset = (va & -4096) - self.va
        gpa = None if self.gpa is None else self.gpa + offset
        return replace(self, va=self.va + offset, bits=12, pa=self.pa + offset, gpa=gpa)


class Naive:
    """Three lists without limits; the first level has fragments of 4 KiB, or superpages too."""

    def __init__(self, superpages: bool) -> None:
        self.superpages = superpages
        self.buffers: dict[str, set[Entry]] = {"data": set(), "fetch": set(), "second": set()}

    def fill(self, entry: Entry, va: int, access: int) -> None:
        for name in ("fetch" if access == F else "data", "second"):
            held = self.buffers[name]
            held -= {e for e in held if e.covers(va, entry.asid, entry.vmid)}
            whole = name == "second" or self.superpages
            held.add(entry if whole else entry.page_of(va))

    def fence(self, covered: Callable[[Entry], bool]) -> None:
        for held in self.buffers.values():
            held -= {entry for entry in held if covered(entry)}


def content(tlb: Tlb) -> dict[str, set[Entry]]:
    """The entries of each buffer, as the naive model keeps them."""
    out = {}
    for name, buffer in (("data", 0), ("fetch", 1), ("second", 2)):
        shape = tlb.buffers[buffer]
        places = tlb.entries[shape.first : shape.first + shape.sets * shape.ways]
        used = [entry for entry in places if entry.last_use]
        out[name] = {
            Entry(
                int(e.va),
                int(e.bits),
                int(e.asid),
                int(e.vmid),
                bool(e.perm & pte.G),
                int(e.pa),
                int(e.gpa) if e.gpa >= 0 else None,
                int(e.vs_bits),
                int(e.g_bits),
            )
            for e in used
        }
        assert len(out[name]) == len(used), "an entry is there twice"
    return out


BITS = st.sampled_from((12, 16, 21, 30))
# A few pages around common borders, so that fences and fragments meet; one in the high half.
ADDRESSES = st.sampled_from(
    [
        base + offset
        for base in (0x4000_0000, 0x8000_0000, -0x4000_0000)
        for offset in (0, 0x1000, 0x7000, 0x1_0000, 0x1F_F000, 0x20_0000, 0x3FFF_F000)
    ]
)
SPACES = st.tuples(st.integers(0, 1), st.sampled_from((NO_GUEST, 5, 5)))
FILLS = st.tuples(
    st.just("fill"),
    ADDRESSES,
    SPACES,
    st.sampled_from((R, F)),
    BITS,
    BITS | st.none(),
    st.booleans(),
    st.integers(0, 7),
)
VS_FENCES = st.tuples(
    st.sampled_from((Fence.SFENCE_VMA, Fence.SINVAL_VMA, Fence.HFENCE_VVMA, Fence.HINVAL_VVMA)),
    st.sampled_from((Fence.ALL, Fence.VA, Fence.ASID, Fence.VA_ASID)),
    ADDRESSES | st.just(1 << 45),
    SPACES,
)
G_FENCES = st.tuples(
    st.sampled_from((Fence.HFENCE_GVMA, Fence.HINVAL_GVMA)),
    st.sampled_from((Fence.ALL, Fence.VA, Fence.ASID, Fence.VA_ASID)),
    ADDRESSES.map(abs),
    SPACES,
)


@settings(max_examples=200)
@given(
    st.lists(st.one_of(FILLS, FILLS, VS_FENCES, G_FENCES), min_size=8, max_size=40),
    st.booleans(),
)
def test_fills_and_fences_equal_the_naive_model(actions: list[Any], superpages: bool) -> None:
    # One set and many ways: nothing is ever evicted.
    shape = (1, 64)
    tlb = tlbs.make(TlbConfig(data=shape, fetch=shape, second=shape, superpages=superpages))
    cache = walk_cache.make()
    naive = Naive(superpages)
    for action in actions:
        if action[0] == "fill":
            _, va, (asid, vmid), access, vs_bits, g_bits, is_global, number = action
            two = vmid != NO_GUEST and g_bits is not None
            bits = min(vs_bits, g_bits) if two else vs_bits
            offset = va & ((1 << bits) - 1)
            gpa = (number << 32 | abs(va) >> bits << bits) + offset if two else None
            pa = (number + 1 << 40) + offset
            perm = ALL | (pte.G if is_global else 0)
            walk = translation(
                va, pa, bits, perm=perm, gpa=gpa, g_bits=g_bits if two else None, vs_bits=vs_bits
            )
            tlbs.fill(tlb, va, asid, vmid, access, walk)
            entry = Entry(
                va - offset,
                bits,
                asid,
                vmid,
                is_global,
                pa - offset,
                None if gpa is None else gpa - offset,
                vs_bits,
                g_bits if two else BARE_BITS,
            )
            naive.fill(entry, va, access)
        else:
            kind, form, address, (asid, vmid) = action
            tlbs.fence(tlb, cache, int(kind | form), address, asid, vmid)
            named_va, named_id = bool(form & Fence.VA), bool(form & Fence.ASID)
            if kind in (Fence.HFENCE_GVMA, Fence.HINVAL_GVMA):

                def covered(
                    e: Entry,
                    address: int = address,
                    asid: int = asid,
                    vmid: int = asid,
                    va: int = named_va,
                    identifier: int = named_id,
                ) -> bool:
                    leaf = e.gpa is not None and address >> e.g_bits == e.gpa >> e.g_bits
                    return e.vmid >= 0 and (not identifier or e.vmid == vmid) and (not va or leaf)
            else:

                def covered(
                    e: Entry,
                    address: int = address,
                    asid: int = asid,
                    vmid: int = vmid,
                    va: int = named_va,
                    identifier: int = named_id,
                ) -> bool:
                    # By address only the leaf entry for it, by ASID nothing global.
                    leaf = address >> e.vs_bits == e.va >> e.vs_bits
                    in_space = e.asid == asid and not e.is_global
                    return e.vmid == vmid and (not identifier or in_space) and (not va or leaf)

            naive.fence(covered)
        assert content(tlb) == naive.buffers
        counted = tlb.population[:, :64].sum(axis=1).tolist()
        assert counted[0] == sum(map(len, naive.buffers.values()))
        for row, entries in (
            (1, [*naive.buffers["data"], *naive.buffers["fetch"]]),
            (2, [*naive.buffers["second"]]),
        ):
            fragments = sum(entry.vs_bits > entry.bits for entry in entries)
            assert counted[row] == tlb.population[row, 64:].sum() == fragments
        assert (tlb.population >= 0).all()


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.integers(0, 2**32),
    MODES,
    MODES | st.none(),
    st.lists(STATUSES, min_size=2, max_size=5),
    st.sampled_from(Replacement),
    st.sampled_from(((1, 2), (2, 2), (4, 1), (3, 4))),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_tlb_never_changes_a_result_while_tables_stay(
    seed: int,
    mode: int,
    g_mode: int | None,
    statuses: list[Status],
    replacement: Replacement,
    shape: tuple[int, int],
    split: bool,
    second: bool,
    superpages: bool,
) -> None:
    memory = reference_mmu.Memory(BASE, SIZE)
    tables = Tables(random.Random(seed), LAYOUT, memory)
    space = tables.one_stage(mode, 8) if g_mode is None else tables.two_stage(mode, g_mode, 8)
    config = TlbConfig(
        data=shape,
        fetch=shape if split else None,
        second=(4, 2) if second else None,
        superpages=superpages,
        replacement=replacement,
        seed=seed,
    )
    registers: dict[str, Any] = (
        {"satp": space.satp} if space.hgatp is None else {"vsatp": space.satp, "hgatp": space.hgatp}
    )
    mmus = []
    for tlb in (None, tlbs.make(config)):
        copy = GuestMemory(BASE, SIZE)
        for address, value in memory.words.items():
            copy.write(address, signed(value))
        mmus.append(Mmu(copy, tlb=tlb, **registers))
    # A change of PBMTE needs a fence ("menvcfg"), so it stays within a run.
    statuses = [replace(s, pbmte=statuses[0].pbmte, g_pbmte=statuses[0].g_pbmte) for s in statuses]
    rng = random.Random(seed)
    for _ in range(60):
        va, status = rng.choice(space.addresses), rng.choice(statuses)
        access = rng.choice(list(Access))
        plain, cached = (mmu.translate(va, access, status=status) for mmu in mmus)
        assert (cached.pa, cached.cause, cached.gpa) == (plain.pa, plain.cause, plain.gpa)
        assert cached.page_size == plain.page_size
        assert (cached.level, cached.g_level) == (plain.level, plain.g_level)
        # D may have been set through another entry since.
        for kept, now in ((cached.perm, plain.perm), (cached.g_perm, plain.g_perm)):
            assert kept in (now, now.replace("D", "-"))
        assert len(cached.references) in (0, len(plain.references))
    assert np.array_equal(mmus[0].memory.words[:4096], mmus[1].memory.words[:4096])


# -- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", tlbs.PAGE_BITS)
def test_every_page_size_hits_throughout_its_page(bits: int) -> None:
    tlb = tlbs.make()
    va = -(1 << 50)
    tlbs.fill(tlb, va + 0x123, 1, NO_GUEST, R, translation(va + 0x123, (1 << 51) + 0x123, bits))
    last = (1 << bits) - 8
    assert look(tlb, va, 1) == 1 << 51
    assert look(tlb, va + last, 1) == (1 << 51) + last
    assert look(tlb, va + last + 8, 1) is None
    assert look(tlb, va - 8, 1) is None


def test_tags() -> None:
    tlb = tlbs.make()
    tlbs.fill(tlb, 0x1000, 1, 7, R, translation(0x1000, 0xA000))
    tlbs.fill(tlb, 0x2000, 1, 7, R, translation(0x2000, 0xB000, perm=ALL | pte.G))
    assert [look(tlb, 0x1000, a, v) for a, v in ((1, 7), (2, 7), (1, 8), (1, NO_GUEST))] == [
        0xA000,
        None,
        None,
        None,
    ]
    # A global entry belongs to all address spaces, of one guest.
    assert [look(tlb, 0x2000, a, v) for a, v in ((1, 7), (2, 7), (1, 8))] == [0xB000, 0xB000, None]


def test_an_entry_that_does_not_permit_the_access_is_a_miss() -> None:
    tlb = tlbs.make()
    perm = pte.V | pte.R | pte.W | pte.A | pte.U
    tlbs.fill(tlb, 0x1000, 0, NO_GUEST, R, translation(0x1000, 0xA000, perm=perm))
    assert look(tlb, 0x1000) is None
    assert look(tlb, 0x1000, flags=FLAG_SUM) == 0xA000
    assert look(tlb, 0x1000, priv=U) == 0xA000
    assert look(tlb, 0x1000, priv=U, access=W) is None, "D is clear"
    execute = pte.V | pte.X | pte.A
    walk = translation(0x3000, 0xC000, perm=execute, gpa=0x3000, g_perm=execute | pte.U)
    tlbs.fill(tlb, 0x3000, 0, 0, R, walk)
    assert look(tlb, 0x3000, vmid=0, flags=FLAG_MXR) is None
    assert look(tlb, 0x3000, vmid=0, flags=HS_MXR) == 0xC000
    assert tlb.counts[0].tolist() == (3, 0, 0, 3, 0)


def test_split_first_level_and_unified_second() -> None:
    tlb = tlbs.make(TlbConfig(data=(1, 2), fetch=(1, 2), second=(1, 8)))
    tlbs.fill(tlb, 0x1000, 0, NO_GUEST, R, translation(0x1000, 0xA000))
    assert look(tlb, 0x1000, access=F) == 0xA000
    assert tlb.counts[0].tolist() == (0, 0, 1, 0, 0), "the first fetch finds it in the second level"
    assert look(tlb, 0x1000, access=F) == 0xA000
    assert look(tlb, 0x1000) == 0xA000
    assert tlb.counts[0].tolist() == (1, 1, 1, 0, 0)


def test_unified_first_level_alone() -> None:
    tlb = tlbs.make(TlbConfig(data=(1, 2), fetch=None, second=None))
    assert tlb.entries.shape[0] == 2
    tlbs.fill(tlb, 0x1000, 0, NO_GUEST, R, translation(0x1000, 0xA000))
    assert look(tlb, 0x1000, access=F) == 0xA000
    assert look(tlb, 0x2000) is None
    assert tlb.counts[0].tolist() == (0, 1, 0, 1, 0)


def small(replacement: Replacement, ways: int = 4, sets: int = 1, seed: int = 1) -> Tlb:
    return tlbs.make(TlbConfig((sets, ways), None, None, replacement, seed))


def touch(tlb: Tlb, page: int) -> bool:
    """Access a page, filling it on a miss; whether it hit."""
    va = page << 12
    hit = look(tlb, va) is not None
    if not hit:
        tlbs.fill(tlb, va, 0, NO_GUEST, R, translation(va, va))
    return hit


def held(tlb: Tlb, pages: Iterable[int]) -> list[int]:
    return [page for page in pages if see(tlb, page << 12) is not None]


def test_lru_gives_up_the_least_recently_used() -> None:
    tlb = small(Replacement.LRU)
    for page in (0, 1, 2, 3, 0, 2, 4):
        touch(tlb, page)
    assert held(tlb, range(5)) == [0, 2, 3, 4]
    touch(tlb, 5)
    assert held(tlb, range(6)) == [0, 2, 4, 5]


def test_hits_of_the_second_level_are_uses_of_it() -> None:
    tlb = tlbs.make(TlbConfig(data=(1, 1), fetch=None, second=(1, 2)))
    for page in (0, 1, 0, 2):
        touch(tlb, page)
    assert held(tlb, range(3)) == [0, 2]


def test_plru_follows_its_tree() -> None:
    tlb = small(Replacement.PLRU)
    for page in (0, 1, 2, 3):
        touch(tlb, page)
    # The last use was in the right half, so the left one is older, and in it page 0.
    touch(tlb, 4)
    assert held(tlb, range(5)) == [1, 2, 3, 4]
    # Page 4 took page 0's place; the right half is now older, and there page 2.
    touch(tlb, 5)
    assert held(tlb, range(6)) == [1, 3, 4, 5]


def test_plru_is_lru_for_two_ways() -> None:
    rng = random.Random(5)
    plru, lru = small(Replacement.PLRU, 2, 4), small(Replacement.LRU, 2, 4)
    pages = [rng.randrange(24) for _ in range(500)]
    assert [touch(plru, p) for p in pages] == [touch(lru, p) for p in pages]


def test_random_replacement_is_repeatable_and_spreads() -> None:
    def victims(seed: int) -> list[int]:
        tlb = small(Replacement.RANDOM, 4, 1, seed)
        for page in range(4):
            touch(tlb, page)
        out = []
        for page in range(4, 404):
            before = held(tlb, range(page - 60 if page > 60 else 0, page))
            rows = {int(e.va): i for i, e in enumerate(tlb.entries)}
            touch(tlb, page)
            gone = set(before) - set(held(tlb, before))
            out += [rows[p << 12] for p in gone]
        return out

    first = victims(3)
    assert first == victims(3)
    assert first != victims(4)
    assert all(first.count(way) > 60 for way in range(4))


def test_sets_are_chosen_by_the_page_number() -> None:
    for sets in (4, 3):
        tlb = small(Replacement.LRU, ways=1, sets=sets)
        touch(tlb, 0)
        for page in range(1, sets):
            touch(tlb, page)
        assert held(tlb, range(sets)) == list(range(sets))
        touch(tlb, sets)
        assert held(tlb, range(sets + 1)) == list(range(1, sets + 1))


def test_a_fence_removes_every_fragment_of_the_leaf_it_names() -> None:
    def fragments() -> Tlb:
        tlb = tlbs.make()
        # A 2 MiB page of the guest in 4 KiB pages of the G-stage, one 4 KiB page of the guest
        # beside it in a 2 MiB page of the G-stage, and a 4 KiB page elsewhere.
        for va, vs_bits, g_bits in (
            (0x20_0000, 21, 12),
            (0x20_5000, 21, 12),
            (0x40_0000, 12, 21),
            (0x40_5000, 12, 21),
            (0x60_0000, 12, 12),
        ):
            walk = translation(va, va, 12, gpa=1 << 32 | va, vs_bits=vs_bits, g_bits=g_bits)
            tlbs.fill(tlb, va, 3, 1, R, walk)
        return tlb

    def left(instruction: int, address: int, identifier: int) -> list[int]:
        tlb = fragments()
        tlbs.fence(tlb, walk_cache.make(), int(instruction), address, identifier, 1)
        vas = (0x20_0000, 0x20_5000, 0x40_0000, 0x40_5000, 0x60_0000)
        return [va for va in vas if see(tlb, va, 3, 1) is not None]

    by_va, by_gpa = Fence.HFENCE_VVMA | Fence.VA_ASID, Fence.HFENCE_GVMA | Fence.VA_ASID
    assert left(by_va, 0x3F_F000, 3) == [0x40_0000, 0x40_5000, 0x60_0000]
    assert left(by_va, 0x40_5000, 3) == [0x20_0000, 0x20_5000, 0x40_0000, 0x60_0000]
    assert left(by_gpa, 1 << 32 | 0x20_5000, 1) == [0x20_0000, 0x40_0000, 0x40_5000, 0x60_0000]
    assert left(by_gpa, 1 << 32 | 0x5F_F000, 1) == [0x20_0000, 0x20_5000, 0x60_0000]
    assert left(by_gpa, 0x20_5000, 1) == left(by_gpa, 1 << 32 | 0x20_5000, 2)
    assert len(left(by_gpa, 0x20_5000, 1)) == 5


def test_a_refill_replaces_what_was_held_for_the_address() -> None:
    tlb = small(Replacement.LRU)
    tlbs.fill(tlb, 0x20_3000, 0, NO_GUEST, R, translation(0x20_3000, 0x4000_3000, 21))
    tlbs.fill(tlb, 0x20_3000, 0, NO_GUEST, R, translation(0x20_3000, 0x5000, 12))
    assert look(tlb, 0x20_3000) == 0x5000
    assert look(tlb, 0x20_4000) is None
    assert tlb.population[0].sum() == 1


def test_faults_and_bare_translations_are_not_cached() -> None:
    tlb = small(Replacement.LRU)
    fault = translation(0x1000, -1)._replace(cause=13)
    assert tlbs.fill(tlb, 0x1000, 0, NO_GUEST, R, fault) == -1
    assert tlbs.fill(tlb, 0x1000, 0, NO_GUEST, R, translation(0x1000, 0x1000, BARE_BITS)) == -1
    assert tlb.population[0].sum() == 0


def test_global_entries_translate_no_bare_access() -> None:
    memory = GuestMemory(BASE, 1 << 20)
    root = BASE
    memory.write(root, 0x8000_0000 >> 2 | ALL | pte.G)
    tlb = tlbs.make()
    mapped = Mmu(memory, satp=8 << 60 | root >> 12, tlb=tlb)
    assert mapped.translate(0x1000).pa == 0x8000_1000
    assert (
        Mmu(memory, satp=8 << 60 | 7 << 44 | root >> 12, tlb=tlb).translate(0x1000).level
        is not None
    )
    assert Mmu(memory, satp=0, tlb=tlb).translate(0x1000).pa == 0x1000
    two_stage = Mmu(memory, vsatp=8 << 60 | root >> 12, hgatp=0, tlb=tlb)
    assert two_stage.translate(0x1000).pa == 0x8000_1000
    assert Mmu(memory, vsatp=0, hgatp=0, tlb=tlb).translate(0x1000).pa == 0x1000


def test_m_mode_asks_no_tlb() -> None:
    memory = GuestMemory(BASE, 1 << 20)
    root = BASE
    memory.write(root, BASE >> 2 | G_ALL)
    # With V=0 and with V=1; "Bare, VMID 0" is the tag of the second one's entries.
    with_v0: dict[str, Any] = {"satp": 8 << 60 | root >> 12}
    with_v1: dict[str, Any] = {"vsatp": 0, "hgatp": 8 << 60 | root >> 12}
    for registers in (with_v0, with_v1):
        tlb = tlbs.make()
        status = Status(priv=Priv.U)
        mmu = Mmu(memory, tlb=tlb, status=status, **registers)
        assert mmu.translate(0x1008).pa == BASE + 0x1008
        before = tlb.counts.copy()
        assert mmu.translate(0x1008, status=Status(priv=Priv.M)).pa == 0x1008
        assert tlb.counts == before
        mprv = Status(priv=Priv.M, mprv=True, mpp=Priv.U)
        assert mmu.translate(0x1008, status=mprv).pa == BASE + 0x1008


def test_an_exit_displaces_entries_until_the_hypervisor_is_warm() -> None:
    tlb = small(Replacement.LRU, ways=16)
    for page in range(16):
        touch(tlb, 100 + page)
    assert tlbs.displace(tlb, 8, 4) == 12
    assert held(tlb, range(100, 116)) == [112, 113, 114, 115]
    assert tlbs.displace(tlb, 8, 4) == 0
    assert tlb.counts[0].displaced == 12
    # A guest's fences do not reach the hypervisor's own entries.
    tlbs.fence(tlb, walk_cache.make(), int(Fence.ALL), 0, 0, NO_GUEST)
    assert tlb.population[0].sum() == 12
    assert tlbs.displace(tlb, 8, 4) == 0
    assert tlbs.displace(tlb, 0, 0) == 0


def test_a_forgotten_fence_shows_and_the_right_one_helps() -> None:
    memory = GuestMemory(BASE, 1 << 20)
    root, middle, leaf = BASE, BASE + 0x1000, BASE + 0x2000
    memory.write(root, middle >> 2 | pte.V)
    memory.write(middle, leaf >> 2 | pte.V)
    memory.write(leaf + 8, 0x8000_3000 >> 2 | ALL)
    mmu = Mmu(memory, satp=8 << 60 | 9 << 44 | root >> 12, tlb=tlbs.make())
    assert mmu.translate(0x1000).pa == 0x8000_3000
    memory.write(leaf + 8, 0x8000_4000 >> 2 | ALL)
    assert mmu.translate(0x1000).pa == 0x8000_3000
    for instruction, va, asid in (
        (Fence.VA, 0x2000, 0),
        (Fence.ASID, 0, 8),
        (Fence.VA_ASID, 0x1000, 8),
        (Fence.HFENCE_GVMA, 0, 0),
    ):
        mmu.fence(instruction, va, asid)
        assert mmu.translate(0x1000).pa == 0x8000_3000
    # Bits of the operand above the ASID are ignored.
    mmu.fence(Fence.SINVAL_VMA | Fence.VA_ASID, 0x1FF8, 0x7001_0009)
    assert mmu.translate(0x1000).pa == 0x8000_4000


def test_bits_above_the_vmid_are_ignored() -> None:
    memory = GuestMemory(BASE, 1 << 20)
    memory.write(BASE, BASE >> 2 | G_ALL)
    mmu = Mmu(memory, vsatp=0, hgatp=8 << 60 | 3 << 44 | BASE >> 12, tlb=tlbs.make())
    for identifier, references in ((1 << 14 | 2, 0), (1 << 14 | 3, 1)):
        mmu.translate(0x1000)
        mmu.fence(Fence.HFENCE_GVMA | Fence.ASID, 0, identifier)
        assert len(mmu.translate(0x1000).references) == references


def test_fences_without_an_address_empty_the_walk_cache() -> None:
    memory = GuestMemory(BASE, 1 << 20)
    memory.write(BASE, BASE + 0x1000 >> 2 | pte.V)
    memory.write(BASE + 0x1000, BASE + 0x2000 >> 2 | pte.V)
    memory.write(BASE + 0x2000, BASE >> 2 | ALL)
    mmu = Mmu(memory, satp=8 << 60 | 9 << 44 | BASE >> 12, walk_cache=walk_cache.make(2))

    def references() -> int:
        return len(mmu.translate(0x10).references)

    assert [references(), references()] == [3, 1]
    mmu.fence(Fence.VA, 0x10)
    assert references() == 1, "an address names leaf entries only"
    mmu.fence(Fence.ASID, 0, 8)
    assert references() == 1
    mmu.fence(Fence.ASID, 0, 9)
    assert [references(), references()] == [3, 1]
    mmu.fence(Fence.ALL)
    assert [references(), references()] == [3, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"data": (0, 4)},
        {"second": (4, 0)},
        {"fetch": (1 << 20, 2)},
        {"data": (1, 3), "replacement": Replacement.PLRU},
        {"data": (1, 128), "replacement": Replacement.PLRU},
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        TlbConfig(**fields)


# -- behind an access filter ----------------------------------------------------------------------

PAGES_USED = st.integers(0, 23).map(lambda n: (n % 12) * 0x1000 + (n // 12) * 0x20_0000)
USES = st.tuples(st.just("use"), PAGES_USED, st.sampled_from((R, F)))
EXITS = st.tuples(st.just("exit"), st.just(0), st.just(R))
FENCED = st.tuples(st.sampled_from(("fence", "fence va")), PAGES_USED, st.just(R))


@settings(max_examples=300)
@given(
    st.lists(st.one_of(USES, USES, USES, USES, EXITS, FENCED), min_size=20, max_size=120),
    st.sampled_from(((4, False), (1, True))),
    st.sampled_from(((4, 2), (8, 2), (4, 4))),
    st.sampled_from(Replacement),
    st.sampled_from((12, 21)),
)
def test_what_a_filter_drops_changes_no_miss(
    actions: list[Any],
    filtering: tuple[int, bool],
    shape: tuple[int, int],
    replacement: Replacement,
    bits: int,
) -> None:
    """The claim of ``misses_through``, with a filter of a few slots written down anew."""
    slots, superpages = filtering
    config = TlbConfig(shape, shape, (2, 4), replacement, superpages=superpages)
    assert tlbs.misses_through(config, slots, 4, 2)
    whole, filtered = tlbs.make(config), tlbs.make(config)
    cache = walk_cache.make()
    holds: dict[tuple[bool, int], int] = {}
    for what, va, access in actions:
        if what == "exit":
            for tlb in (whole, filtered):
                tlbs.displace(tlb, 4, 2)
        elif what.startswith("fence"):
            for tlb in (whole, filtered):
                form = Fence.VA if what == "fence va" else Fence.ALL
                tlbs.fence(tlb, cache, int(form), va, 0, NO_GUEST)
            holds.clear()
        else:
            slot = access == F, va // 4096 % slots
            dropped = holds.get(slot) == va
            holds[slot] = va
            for tlb in (whole,) if dropped else (whole, filtered):
                if tlbs.lookup(tlb, va, 0, NO_GUEST, access, S, 0) < 0:
                    tlbs.fill(tlb, va, 0, NO_GUEST, access, translation(va, va, bits))
    for count in ("hits_second", "misses", "displaced"):
        assert whole.counts[count][0] == filtered.counts[count][0]


@pytest.mark.parametrize(
    ("config", "slots", "data", "exact"),
    [
        (TlbConfig(), 64, 8, True),
        (TlbConfig(), 0, 8, True),
        (TlbConfig(), 128, 8, False),
        (TlbConfig(data=(1, 32)), 1, 8, True),
        (TlbConfig(data=(1, 32)), 1, 32, False),
        (TlbConfig(data=(96, 2)), 64, 8, False),
        (TlbConfig(fetch=None), 1, 0, False),
        (TlbConfig(data=(64, 1)), 64, 0, True),
        (TlbConfig(data=(64, 1)), 64, 1, False),
        (TlbConfig(superpages=True), 64, 8, False),
        (TlbConfig(superpages=True), 1, 8, True),
    ],
)
def test_which_tlbs_a_filter_suits(config: TlbConfig, slots: int, data: int, exact: bool) -> None:
    assert tlbs.misses_through(config, slots, data, 4) is exact
