"""`maps`, `find` and `tables` against the specification, on random tables of every kind."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosim.errors import UsageError
from cosim.paging import scan as scans
from cosim.paging.find import find, find_guest_physical, frame_of
from cosim.paging.maps import SIZES, Filter, Range, bits_of, chosen, maps
from cosim.paging.physical import RamWords
from cosim.paging.rendering import maps_document, maps_lines, tables_lines
from cosim.paging.scan import Scan, scan
from cosim.paging.space import Space
from cosim.paging.table_pages import table_pages
from hypervisor_model.events import Priv
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.mmu import Status
from tests.cosim.paging.random_spaces import BASE, SIZE, Guest

MODES = st.sampled_from((0, 8, 9, 10))
SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
NEEDS = {"load": pte.R, "store": pte.W, "fetch": pte.X}
FINE = 0xCF


def range_at(ranges: list[Range], va: int) -> Range | None:
    found = [one for one in ranges if one.va <= va <= one.last]
    assert len(found) <= 1
    return found[0] if found else None


def allowed(one: Range | None, access: str, status: Status, bare: bool) -> bool:
    """Return True if a range's permissions allow an access (SUM set, MXR clear)."""
    if one is None:
        return False
    ad = pte.A | (pte.D if access == "store" else 0)
    user = status.priv is Priv.U
    if one.perm & (NEEDS[access] | ad) != NEEDS[access] | ad:
        return False
    if not bare and bool(one.perm & pte.U) is not user and (user or access == "fetch"):
        return False
    if one.g_perm is None:
        return True
    needed = NEEDS[access] | pte.U | (0 if status.g_adue else ad)
    return one.g_perm & needed == needed


@SETTINGS
@given(
    st.integers(0, 2**32),
    MODES,
    MODES | st.none(),
    st.booleans(),
    st.booleans(),
    st.sampled_from((Priv.U, Priv.S)),
)
def test_what_is_mapped_is_what_the_specification_says(
    seed: int, mode: int, g_mode: int | None, pbmte: bool, g_adue: bool, priv: Priv
) -> None:
    guest = Guest(seed, mode, g_mode)
    status = Status(priv=priv, sum=True, pbmte=pbmte, g_pbmte=pbmte, g_adue=g_adue)
    answer = scan(guest.memory, guest.space(status))
    assert answer.cut is None
    ranges = maps(answer)
    assert [one.va for one in ranges] == sorted(one.va for one in ranges)
    rng = random.Random(seed)
    ends = [va for one in rng.sample(ranges, min(len(ranges), 20)) for va in (one.va, one.last)]
    for va in guest.sample(rng, ends):
        one = range_at(ranges, va)
        for access in NEEDS:
            expected = guest.pa(va, status, access)
            got = None
            if allowed(one, access, status, guest.satp == 0):
                assert one is not None and one.pa is not None
                got = one.pa + (va - one.va)
            assert got == expected, (hex(va), access, one)
            if got is not None:
                assert frame_of(answer, va) == got
            assert (frame_of(answer, va) is None) is (one is None)
            if expected is not None and guest.satp >> 60 | (guest.hgatp or 0) >> 60:
                assert va in {place.va for place in find(answer, expected)}


@SETTINGS
@given(st.integers(0, 2**32), MODES, MODES | st.none(), st.integers(0, 2**32))
def test_a_filter_takes_exactly_what_it_names(
    seed: int, mode: int, g_mode: int | None, seed2: int
) -> None:
    answer = scan_of(Guest(seed, mode, g_mode))
    rng = random.Random(seed2)
    whole = maps(answer)
    ends = [end for one in whole for end in (one.va, one.last)] or [0]
    low, high = sorted(
        min(max(rng.choice(ends) + rng.choice((-1, 0, 1, 4095)), 0), 2**64 - 1) for _ in range(2)
    )
    wanted = Filter(
        has=rng.choice((0, 0, pte.W, pte.U, pte.X | pte.R)),
        lacks=rng.choice((0, 0, pte.U, pte.A, pte.D)),
        low=low,
        high=high,
        page_bits=rng.choice((None, None, *SIZES.values())),
        pbmt=rng.choice((None, 0, 1)),
    )
    expected = []
    for one in whole:
        perm = one.perm
        if one.g_perm is not None:
            perm &= one.g_perm | ~(pte.R | pte.W | pte.X)
        if (
            perm & wanted.has == wanted.has
            and not perm & wanted.lacks
            and wanted.page_bits in (None, one.page_bits)
            and wanted.pbmt in (None, one.pbmt)
            and one.last >= low
            and one.va <= high
        ):
            first = max(one.va, low)
            pa = None if one.pa is None else one.pa + (first - one.va)
            expected.append((first, min(one.last, high), pa))
    assert [(one.va, one.last, one.pa) for one in maps(answer, wanted)] == expected


def scan_of(guest: Guest) -> Scan:
    return scan(guest.memory, guest.space())


@SETTINGS
@given(st.integers(0, 2**32), MODES, MODES | st.none())
def test_coarse_ranges_cover_the_same_addresses(seed: int, mode: int, g_mode: int | None) -> None:
    answer = scan_of(Guest(seed, mode, g_mode))
    fine, coarse = maps(answer), maps(answer, coarse=True)
    assert sum(one.size for one in fine) == sum(one.size for one in coarse)
    assert len(coarse) <= len(fine)
    ad = pte.A | pte.D
    for one in fine:
        whole = range_at(coarse, one.va)
        assert whole is not None
        assert one.last <= whole.last and one.perm & ~ad == whole.perm
        if whole.pa is not None:
            assert one.pa == whole.pa + (one.va - whole.va)
    # Neighbours that are alike are one range.
    for before, after in pairwise(coarse):
        alike = before[4:6] == after[4:6] and before[7:] == after[7:]
        assert not (before.last + 1 == after.va and alike)


@SETTINGS
@given(st.integers(0, 2**32), st.sampled_from((8, 9, 10)), MODES | st.none())
def test_tables_are_those_that_links_name(seed: int, mode: int, g_mode: int | None) -> None:
    guest = Guest(seed, mode, g_mode)
    answer = scan_of(guest)
    pages = table_pages(answer)
    if g_mode is None:
        # Brute force: every link of every table, from the root on.
        levels = mode - 5
        here = {((guest.satp & (1 << 44) - 1) << 12, levels - 1)}
        every = set(here)
        while here:
            below = set()
            for pa, level in here:
                for index in range(512):
                    entry = guest.reference.words.get(pa + 8 * index, 0)
                    if level and pte.is_link(signed(entry)):
                        below.add((pte.target(signed(entry)), level - 1))
            here = {(pa, level) for pa, level in below if BASE <= pa < BASE + SIZE} - every
            every |= here
        assert {(page.pa, page.level) for page in pages} == every
    for page in pages:
        for parent in page.parents:
            entry = signed(guest.reference.words[parent])
            assert pte.is_link(entry)
            # A VS-stage entry names a guest-physical page.
            if page.stage != "VS":
                assert pte.target(entry) & ~0x3FFF == page.pa & ~0x3FFF
        assert (
            page.parents or page.level == {"G": g_mode or 0, "VS": mode, "S": mode}[page.stage] - 6
        )
    assert len(tables_lines(answer, pages)) > len(pages)


def small(words: dict[int, int], mode: int = 8) -> Scan:
    """Return the scan of tables given by address, with the root at the start of RAM."""
    ram = np.zeros(1 << 17, np.int64)
    for address, value in words.items():
        ram[(address - BASE) >> 3] = signed(value)
    return scan(RamWords(ram, BASE), Space(satp=mode << 60 | BASE >> 12))


def link(page: int) -> int:
    return (BASE + 0x1000 * page) >> 2 | 1


def leaf(page: int, bits: int = FINE) -> int:
    return (BASE + 0x1000 * page) >> 2 | bits


def test_neighbours_become_one_range() -> None:
    words = {BASE: link(1), BASE + 0x1000: link(2)}
    words |= {BASE + 0x2000 + 8 * i: leaf(16 + i) for i in range(8)}
    words[BASE + 0x2000 + 8 * 3] = leaf(19, FINE & ~pte.D)
    answer = small(words)
    assert [(one.va, one.size, one.pa) for one in maps(answer)] == [
        (0, 0x3000, BASE + 0x10000),
        (0x3000, 0x1000, BASE + 0x13000),
        (0x4000, 0x4000, BASE + 0x14000),
    ]
    assert [(one.va, one.size) for one in maps(answer, coarse=True)] == [(0, 0x8000)]
    assert maps_lines(answer, maps(answer)) == [
        "0x0000000000000000-0x0000000000002fff  pa 0x80010000  12 KiB  4K  DA--XWRV",
        "0x0000000000003000-0x0000000000003fff  pa 0x80013000   4 KiB  4K  -A--XWRV",
        "0x0000000000004000-0x0000000000007fff  pa 0x80014000  16 KiB  4K  DA--XWRV",
        "Sv39, satp 0x8000000000080000: 3 ranges, 32 KiB",
    ]


def test_the_last_address_does_not_join_the_first() -> None:
    words = {BASE: leaf(0x40000, FINE), BASE + 8 * 511: leaf(0, FINE)}
    ranges = maps(small(words))
    assert [one.va for one in ranges] == [0, 0xFFFF_FFFF_C000_0000]
    assert ranges[1].last == 2**64 - 1


def test_a_napot_range_is_one_range_with_its_size() -> None:
    words = {BASE: link(1), BASE + 0x1000: link(2)}
    napot = 1 << 63 | (BASE + 0x20000) >> 2 | 8 << 10 | FINE
    words |= {BASE + 0x2000 + 8 * i: napot for i in range(16)}
    (one,) = maps(small(words))
    assert (one.va, one.size, one.pa, one.page_bits) == (0, 0x10000, BASE + 0x20000, 16)


def test_malformed_entries_and_lost_tables_are_told() -> None:
    words = {
        BASE: link(1),
        BASE + 8: leaf(1),  # misaligned 1 GiB
        BASE + 16: (1 << 40) >> 2 | 1,  # a table outside
        BASE + 0x1000: 1 << 54 | leaf(9),
        BASE + 0x1008: leaf(9, 0x05),  # W without R
    }
    answer = small(words)
    assert len(answer.leaves) == 0
    assert sorted(problem.entry_pa - BASE for problem in answer.problems) == [8, 16, 0x1000, 0x1008]
    text = "\n".join(maps_lines(answer, []))
    for words_ in ("not aligned", "outside of the memory", "reserved bit", "W is set without R"):
        assert words_ in text


def test_a_table_that_points_to_itself_ends() -> None:
    # One entry: each path is followed to its end, as hardware does.
    answer = small({BASE: link(0), BASE + 8 * 256: leaf(0x40000)}, mode=10)
    assert answer.cut is None
    assert {page.level for page in table_pages(answer)} == {0, 1, 2, 3, 4}
    # All entries: 512^5 paths.
    answer = small({BASE + 8 * i: link(0) for i in range(512)}, mode=10)
    assert answer.cut is not None and "point to themselves" in answer.cut
    # Three levels: each table of the last one has 512 links that lead nowhere.
    answer = small({BASE + 8 * i: link(0) for i in range(512)})
    assert answer.cut is not None
    assert len(answer.problems) == scans.MOST_PROBLEMS < answer.problem_count
    assert maps_document(answer, [])["incomplete_because"] == answer.cut
    assert any("incomplete" in line for line in maps_lines(answer, []))


def test_a_root_outside_of_memory_is_an_answer() -> None:
    memory = RamWords(np.zeros(512, np.int64), BASE)
    answer = scan(memory, Space(satp=8 << 60 | 0x12345))
    assert maps(answer) == []
    assert "0x12345000 is outside of the memory" in answer.problems[0].reason
    answer = scan(memory, Space(vsatp=8 << 60 | 0x80000, hgatp=8 << 60 | 0x12344))
    assert maps(answer) == []
    assert len(answer.problems) == 5


def test_bare_maps_everything_to_itself() -> None:
    answer = scan(RamWords(np.zeros(512, np.int64), BASE), Space(satp=0))
    (one,) = maps(answer)
    assert (one.va, one.size, one.pa) == (0, 1 << 56, 0)
    assert [place.va for place in find(answer, 0x1234)] == [0x1234]


def test_two_bare_stages_leave_nothing_out() -> None:
    answer = scan(RamWords(np.zeros(512, np.int64), BASE), Space(vsatp=0, hgatp=0))
    (one,) = maps(answer)
    assert (one.va, one.size, one.pa) == (0, 1 << 56, 0)
    assert answer.unbacked == 0


def test_a_bare_vs_stage_reaches_as_far_as_the_g_stage_translates() -> None:
    words = np.zeros(4 * 512, np.int64)
    words[0] = FINE | pte.U
    memory = RamWords(words, 0x8000_4000)
    answer = scan(memory, Space(vsatp=0, hgatp=8 << 60 | 0x80004))
    (one,) = maps(answer)
    assert (one.va, one.size, one.gpa, one.pa) == (0, 1 << 30, 0, 0)
    assert answer.unbacked == (1 << 41) - (1 << 30)


def test_find_by_guest_physical_address() -> None:
    guest = next(
        guest
        for guest in (Guest(seed, 8, 8) for seed in range(50))
        if len(scan_of(guest).leaves) > 5
    )
    answer = scan_of(guest)
    row = answer.leaves[3]
    gpa = unsigned(int(row["gpa"]))
    places = find_guest_physical(answer, gpa)
    assert unsigned(int(row["va"])) in {place.va for place in places}
    assert {place.gpa for place in places} == {gpa}


def test_what_a_limit_leaves_is_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = next(
        guest
        for guest in (Guest(seed, 8, None) for seed in range(50))
        if len(table_pages(scan_of(guest))) > 4
    )
    whole = scan_of(guest)
    monkeypatch.setattr(scans, "MOST_TABLES", 3)
    part = scan_of(guest)
    assert part.cut is not None
    assert len(part.tables) <= 3
    assert set(part.leaves.tolist()) <= set(whole.leaves.tolist())


def test_letters_of_a_filter() -> None:
    assert bits_of("wX") == pte.W | pte.X
    with pytest.raises(UsageError, match="'Z' is not a permission"):
        bits_of("rz")
    assert len(chosen(small({}).leaves, Filter())) == 0


def test_an_address_that_is_not_physical_is_refused() -> None:
    answer = scan(RamWords(np.zeros(512, np.int64), BASE), Space(satp=8 << 60 | BASE >> 12))
    for search in (find, find_guest_physical):
        with pytest.raises(UsageError, match=r"no physical address.*`walk` tells"):
            search(answer, 0xFFFF_FFFF_8000_0000)


def test_a_scan_loads_no_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it would take a quarter of a second, for a few calls."""

    def refuse(self: object, *_: object) -> None:
        raise AssertionError(f"{self} is called")

    words = np.zeros(512, np.int64)
    words[1] = 1 << 28 | FINE
    monkeypatch.setattr(type(pte.is_leaf), "__call__", refuse)
    space = Space(satp=8 << 60 | BASE >> 12)
    (found,) = maps(scan(RamWords(words, BASE), space))
    assert (found.va, found.pa) == (1 << 30, 1 << 30)
    assert maps_lines(scan(RamWords(words, BASE), space), [found])
