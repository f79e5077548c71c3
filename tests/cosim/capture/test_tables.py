"""The rule of the live tables (docs/architecture.md), on hand-made and on random tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture.log import EventLog
from cosim.capture.paging import Paging
from cosim.capture.tables import LiveTables
from hypervisor_model.events import ENVCFG_ADUE, FLAG_CONT, Envcfg, EventBatch, Kind, PteOp
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed, unsigned

BASE = 0x8000_0000
PAGES = 64
LINK, LEAF, USER_LEAF = 0x01, 0xC7, 0xD7
SV39 = 8 << 60


@dataclass
class Guest:
    """RAM, the tables that watch it, and a kernel whose code lies in the root's entry 2."""

    ram: np.ndarray = field(default_factory=lambda: np.zeros(PAGES * 512, dtype=np.int64))

    def __post_init__(self) -> None:
        self.log = EventLog()
        self.log.pc = BASE
        self.tables = LiveTables(self.ram, BASE, self.log)

    def poke(self, pa: int, value: int) -> None:
        self.ram.view(np.uint64)[(pa - BASE) >> 3] = value

    def store(self, pa: int, value: int, size: int = 8, op: PteOp = PteOp.STORE) -> None:
        raw = self.ram.view(np.uint8)
        raw[pa - BASE : pa - BASE + size] = np.frombuffer(
            value.to_bytes(max(size, 8), "little")[:size], dtype=np.uint8
        )
        self.tables.store([(pa, size)], size, op)

    def take(self) -> list[tuple[Kind, int]]:
        return [(Kind(e["kind"]), int(e["a"])) for e in self.log.take()]


def page(number: int) -> int:
    return BASE + number * 4096


def entry(number: int, flags: int) -> int:
    return page(number) >> 2 | flags


def satp(number: int) -> int:
    return SV39 | page(number) >> 12


def three_levels() -> Guest:
    guest = Guest()
    guest.poke(page(1) + 8 * 2, entry(0, LEAF))
    guest.poke(page(1) + 8 * 5, entry(2, LINK))
    guest.poke(page(2) + 8 * 7, entry(3, LINK))
    guest.poke(page(3) + 8 * 9, entry(20, LEAF))
    guest.tables.start(satp(1))
    return guest


def test_start_reads_what_the_root_reaches_in_address_order() -> None:
    guest = three_levels()
    assert guest.take() == [
        (Kind.TABLE_ADD, page(1)),
        (Kind.TABLE_ENTRY, page(1) + 16),
        (Kind.TABLE_ENTRY, page(1) + 40),
        (Kind.TABLE_ADD, page(2)),
        (Kind.TABLE_ENTRY, page(2) + 56),
        (Kind.TABLE_ADD, page(3)),
        (Kind.TABLE_ENTRY, page(3) + 72),
        (Kind.SATP_WRITE, signed(satp(1))),
    ]
    assert set(guest.tables) == {page(1), page(2), page(3)}


def test_virtual_addresses_of_leaves_extend_the_sign() -> None:
    guest = Guest()
    guest.poke(page(1) + 8 * 511, entry(2, LINK))
    guest.poke(page(2) + 8 * 511, entry(3, LINK))
    guest.poke(page(3) + 8 * 511, entry(9, LEAF))
    guest.tables.start(satp(1))
    assert [va for (_, va, _), _ in guest.tables.leaves] == [0xFFFF_FFFF_FFFF_F000]


def user_leaves(guest: Guest) -> list[tuple[int, int, int]]:
    """The leaves with U that came into sight, as (virtual address, page, level)."""
    found = [
        (va, unsigned(pte.target(value)), level)
        for (_, va, level), value in guest.tables.leaves
        if value & pte.U
    ]
    guest.tables.leaves.clear()
    return found


def test_user_leaves_count_where_they_map_a_live_table() -> None:
    guest = three_levels()
    leaf_base = 5 << 30 | 7 << 21
    guest.tables.leaves.clear()
    guest.store(page(3) + 8 * 11, entry(20, USER_LEAF))
    assert guest.tables.leaves == [], "user memory like all other"
    guest.store(page(3) + 8 * 10, entry(3, USER_LEAF))
    assert user_leaves(guest) == [(leaf_base | 10 << 12, page(3), 0)]
    guest.store(page(3) + 8 * 12, entry(3, USER_LEAF & ~pte.W))
    assert guest.tables.leaves == [], "nobody can write through it"
    guest.store(page(2) + 8 * 8, entry(0, USER_LEAF))
    assert user_leaves(guest) == [(5 << 30 | 8 << 21, page(0), 1)]
    guest.store(page(3) + 8 * 10, 0)
    place = page(3) + 80, leaf_base | 10 << 12, 0
    assert guest.tables.leaves == [(place, 0)], "what replaces it, too"


@pytest.mark.parametrize(("level", "target"), [(0, 9), (1, 0), (2, 0)])
def test_a_page_that_is_mapped_with_u_already_becomes_a_table(level: int, target: int) -> None:
    guest = three_levels()
    table = (3, 2, 1)[level]
    guest.store(page(table) + 8 * 13, entry(target, USER_LEAF))
    guest.store(page(3) + 8 * 14, entry(21, USER_LEAF))
    va = (5 << 30 | 7 << 21, 5 << 30, 0)[level] + (13 << 12 + 9 * level)
    guest.tables.leaves.clear()
    guest.store(page(2) + 8 * 9, entry(9, LINK))
    assert (va, page(target), level) in user_leaves(guest)


def test_an_unlinked_table_drops_with_its_children() -> None:
    guest = three_levels()
    guest.take()
    guest.store(page(1) + 40, 0)
    assert guest.take() == [
        (Kind.PTE_WRITE, page(1) + 40),
        (Kind.TABLE_DROP, page(3)),
        (Kind.TABLE_DROP, page(2)),
    ]


def test_a_table_linked_twice_lives_until_the_second_link_goes() -> None:
    guest = three_levels()
    guest.store(page(1) + 48, entry(2, LINK))
    guest.take()
    guest.store(page(1) + 40, 0)
    assert guest.take() == [(Kind.PTE_WRITE, page(1) + 40)]
    guest.store(page(1) + 48, 0)
    assert page(2) not in guest.tables


def test_moving_a_link_in_one_store_adds_before_it_removes() -> None:
    guest = three_levels()
    guest.poke(page(4) + 8, entry(3, LINK))
    guest.take()
    guest.store(page(1) + 40, entry(4, LINK))
    assert guest.take() == [
        (Kind.PTE_WRITE, page(1) + 40),
        (Kind.TABLE_ADD, page(4)),
        (Kind.TABLE_ENTRY, page(4) + 8),
        (Kind.TABLE_DROP, page(2)),
    ]
    assert page(3) in guest.tables


def test_a_store_over_several_entries_is_one_trap() -> None:
    guest = three_levels()
    guest.take()
    guest.store(page(3) + 64, 0, 64, PteOp.CBO_ZERO)
    events = guest.log.take()
    assert [int(e["a"]) for e in events] == [page(3) + 64 + 8 * i for i in range(8)]
    assert [int(e["flags"]) for e in events] == [0] + [FLAG_CONT] * 7
    assert {int(e["size"]) for e in events} == {64}
    assert int(events[1]["b"]) == entry(20, LEAF)


def test_a_misaligned_store_keeps_its_exact_address() -> None:
    guest = three_levels()
    guest.take()
    guest.store(page(3) + 76, 0xFFFF_FFFF_FFFF_FFFF)
    events = guest.log.take()
    assert [int(e["a"]) for e in events] == [page(3) + 76, page(3) + 80]
    assert unsigned(int(events[0]["c"])) == 0xFFFF_FFFF << 32 | entry(20, LEAF) & 0xFFFF_FFFF


def test_a_store_across_two_tables_is_one_trap() -> None:
    guest = three_levels()
    guest.take()
    guest.tables.store([(page(3) + 4092, 4), (page(2), 4)], 8, PteOp.STORE)
    events = guest.log.take()
    assert [int(e["a"]) for e in events] == [page(3) + 4092, page(2)]
    assert [int(e["flags"]) for e in events] == [0, FLAG_CONT]
    assert {int(e["size"]) for e in events} == {8}


def second_root() -> Guest:
    """Root 1 was loaded first; root 8, which maps the kernel too, is loaded now."""
    guest = three_levels()
    guest.poke(page(8) + 16, entry(0, LEAF))
    guest.tables.write_satp(satp(1), satp(8))
    guest.take()
    return guest


def test_a_root_not_loaded_is_retired_by_what_no_kernel_does_to_a_root() -> None:
    for value, size, why in [
        (0, 4, "(a) a small store"),
        (0xFF60_0000_8000_1000, 8, "(b) reserved bits"),
        (1 << 50 | 1, 8, "(b) a valid entry beyond RAM"),
    ]:
        guest = second_root()
        guest.store(page(1) + 8 * 100, value, size)
        assert page(1) not in guest.tables, why
        assert Kind.PTE_WRITE not in [kind for kind, _ in guest.take()], why
    guest = second_root()
    guest.store(page(1) + 16, 0)
    assert page(1) not in guest.tables, "(d) the kernel's own mapping goes"


def test_a_root_not_loaded_is_retired_when_a_user_page_covers_it() -> None:
    guest = second_root()
    guest.store(page(8) + 24, page(0) >> 2 | USER_LEAF)
    assert page(1) not in guest.tables, "(c)"
    assert page(8) in guest.tables


def test_a_root_that_is_loaded_stays_whatever_is_stored() -> None:
    guest = second_root()
    guest.store(page(8) + 16, 0)
    guest.store(page(8) + 160, 0xFF60_0000_8000_1000)
    guest.store(page(8) + 168, 0, 1)
    assert page(8) in guest.tables


def test_ordinary_stores_to_a_root_not_loaded_are_events() -> None:
    guest = second_root()
    guest.store(page(1) + 8 * 300, entry(30, LINK))
    assert (Kind.PTE_WRITE, page(1) + 8 * 300) in guest.take()


def test_differences_are_found_and_taken_in() -> None:
    guest = three_levels()
    guest.take()
    assert guest.tables.differences() == []
    guest.poke(page(3) + 8, entry(21, LEAF))
    guest.poke(page(1) + 8 * 400, entry(22, LEAF))
    found = guest.tables.differences()
    assert [(pa, new) for pa, _, new in found] == [
        (page(1) + 8 * 400, entry(22, LEAF)),
        (page(3) + 8, entry(21, LEAF)),
    ]
    for pa, _, _ in found:
        guest.tables.found(pa)
    assert guest.tables.differences() == []
    assert {int(e["sub"]) for e in guest.log.take()} == {int(PteOp.OTHER)}


def test_what_the_mmu_does_is_told_from_stores() -> None:
    clear, set_a = LEAF & ~(pte.A | pte.D), LEAF & ~pte.D
    able = three_levels().tables
    for old, new, by_mmu in (
        (clear, set_a, True),
        (clear, LEAF, True),
        (set_a, LEAF, True),
        (LEAF, clear, False),  # only software clears them
        (clear, set_a | pte.U, False),
        (pte.V, pte.V | pte.A, False),  # a link has none
        (0, pte.A, False),
    ):
        assert able.is_by_mmu(entry(20, old), entry(20, new)) == by_mmu
    # ADUE is a switch, and off.
    svade = LiveTables(np.zeros(512, np.int64), BASE, EventLog(), Paging(ENVCFG_ADUE, 0))
    assert not svade.is_by_mmu(entry(20, clear), entry(20, LEAF))
    svade.write_envcfg(Envcfg.MENVCFG, 0, ENVCFG_ADUE)
    assert svade.is_by_mmu(entry(20, clear), entry(20, LEAF))


def test_a_vector_store_is_one_store_of_what_it_changed() -> None:
    guest = three_levels()
    guest.take()
    old = entry(21, LEAF & ~(pte.A | pte.D))
    guest.store(page(3) + 8, old)
    guest.take()
    for index in (2, 3, 9):
        guest.poke(page(3) + 8 * index, entry(22 + index, LEAF))
    guest.poke(page(3) + 8, old | pte.A)  # by the MMU: found at the next fence
    guest.tables.vector_store()
    batch = guest.log.take()
    assert batch["a"].tolist() == [page(3) + 8 * index for index in (2, 3, 9)]
    assert batch["flags"].tolist() == [0, FLAG_CONT, FLAG_CONT]
    assert set(batch["sub"].tolist()) == {int(PteOp.VECTOR)}
    assert [pa for pa, _, _ in guest.tables.differences()] == [page(3) + 8]


def test_a_table_that_links_to_itself_comes_and_goes_once() -> None:
    guest = three_levels()
    guest.poke(page(6) + 8, entry(6, LINK))
    guest.take()
    guest.store(page(1) + 48, entry(6, LINK))
    guest.store(page(1) + 48, 0)
    kinds = [kind for kind, at in guest.take() if at == page(6)]
    assert kinds == [Kind.TABLE_ADD, Kind.TABLE_DROP]


def reachable(ram: np.ndarray, roots: list[int]) -> set[int]:
    """Brute force: pages reached from ``roots`` through links, by the definition."""
    live: set[tuple[int, int]] = set()
    todo = [(root, 2) for root in roots]
    while todo:
        at, level = todo.pop()
        if (at, level) in live:
            continue
        live.add((at, level))
        if level == 0:
            continue
        first = (at - BASE) >> 3
        for value in ram.view(np.uint64)[first : first + 512]:
            target = (int(value) >> 10 & (1 << 44) - 1) << 12
            is_link = int(value) & ~(((1 << 44) - 1) << 10) & ~0x320 == 1
            if is_link and BASE <= target < BASE + ram.nbytes:
                todo.append((target, level - 1))
    return {at for at, _ in live}


def _mirror(events: EventBatch, copy: dict[int, int], live: set[int]) -> None:
    for event in events:
        at = int(event["a"])
        match Kind(event["kind"]):
            case Kind.TABLE_ADD:
                live.add(at)
                for pa in range(at, at + 4096, 8):
                    copy.pop(pa, None)
            case Kind.TABLE_DROP:
                live.remove(at)
            case Kind.TABLE_ENTRY | Kind.PTE_WRITE:
                copy[at & ~7] = int(event["c"])
            case _:
                pass


_store = st.tuples(
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([0, LINK, LEAF, USER_LEAF, LINK | 0x20]),
    st.integers(1, 9),
)


@settings(max_examples=200)
@given(st.lists(_store, max_size=40))
def test_live_pages_are_the_reachable_ones(stores: list[tuple[int, int, int, int]]) -> None:
    """With one root, always loaded, liveness is reachability; and the events tell all of it."""
    guest = Guest()
    guest.poke(page(1) + 16, entry(0, LEAF))
    guest.tables.start(satp(1))
    copy: dict[int, int] = {}
    live: set[int] = set()
    for number, index, flags, target in stores:
        guest.store(page(number) + 8 * index, entry(target, flags) if flags else 0)
        _mirror(guest.log.take(), copy, live)
        assert set(guest.tables) == live == reachable(guest.ram, [page(1)])
        for at in live:
            words = guest.ram[(at - BASE) >> 3 :][:512]
            assert {at + 8 * int(i): int(words[i]) for i in np.flatnonzero(words)} == {
                pa: value for pa, value in copy.items() if pa & -4096 == at and value
            }
        assert guest.tables.differences() == []
