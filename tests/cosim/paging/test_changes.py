"""What changed between two scans, against a page-by-page comparison."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosim.paging.changes import MappingChange, changes
from cosim.paging.maps import Filter, Range, bits_of, maps
from cosim.paging.physical import RamWords
from cosim.paging.rendering import changes_document, changes_lines
from cosim.paging.scan import Scan, scan
from cosim.paging.space import Space
from hypervisor_model.isa import pte
from tests.cosim.paging.random_spaces import BASE, Guest

MODES = st.sampled_from((0, 8, 9, 10))


def at(ranges: list[Range], va: int) -> tuple[object, ...] | None:
    for one in ranges:
        if one.va <= va <= one.last:
            offset = va - one.va
            pa = None if one.pa is None else one.pa + offset
            gpa = None if one.gpa is None else one.gpa + offset
            return (pa, gpa, one.perm, one.g_perm, one.page_bits, one.pbmt, one.g_pbmt)
    return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.sampled_from((8, 9, 10)), MODES | st.none())
def test_each_address_is_told_if_and_only_if_it_changed(
    seed: int, mode: int, g_mode: int | None
) -> None:
    guest, rng = Guest(seed, mode, g_mode), random.Random(seed)
    old = scan(guest.memory, guest.space())
    used = np.flatnonzero(guest.words).tolist()
    for word in rng.sample(used, min(len(used), 3)):
        guest.words[word] = rng.choice((0, guest.words[word] ^ pte.D, guest.words[word] ^ 4 << 10))
    new = scan(guest.memory, guest.space())
    found = changes(old, new)
    was, now = maps(old), maps(new)
    ends = {end for one in (*was, *now) for end in (one.va, one.last)}
    for va in ends:
        told = [change for change in found if _holds(change, va)]
        if at(was, va) == at(now, va):
            assert not told
        else:
            (change,) = told
            assert at([change.before] if change.before else [], va) == at(was, va)
            assert at([change.after] if change.after else [], va) == at(now, va)
    assert [change.va for change in found] == sorted(change.va for change in found)
    assert changes(new, new) == [] == changes(old, old)
    backwards = [MappingChange(change.after, change.before) for change in changes(new, old)]
    assert backwards == found


def _holds(change: MappingChange, va: int) -> bool:
    one = change.before or change.after
    assert one is not None
    return one.va <= va <= one.last


def scans(*tables: dict[int, int]) -> list[Scan]:
    """Scans of Sv39 with one table of leaves, by index."""
    found = []
    for leaves in tables:
        words = np.zeros(512 * 32, np.int64)
        words[0] = (BASE + 0x1000) >> 2 | 1
        words[512] = (BASE + 0x2000) >> 2 | 1
        for index, entry in leaves.items():
            words[1024 + index] = entry
        found.append(scan(RamWords(words, BASE), Space(satp=8 << 60 | BASE >> 12)))
    return found


def leaf(page: int, bits: int = 0xC7) -> int:
    return (BASE + 0x1000 * page) >> 2 | bits


def test_neighbours_that_changed_alike_are_one_change() -> None:
    old, new = scans(
        {i: leaf(10 + i) for i in range(4)}, {i: leaf(10 + i, 0xC3) for i in range(1, 6)}
    )
    assert changes_lines(old, new, changes(old, new)) == [
        "-  0x0000000000000000-0x0000000000000fff  pa 0x8000a000   4 KiB  4K  DA---WRV",
        "-  0x0000000000001000-0x0000000000003fff  pa 0x8000b000  12 KiB  4K  DA---WRV",
        "+  0x0000000000001000-0x0000000000003fff  pa 0x8000b000  12 KiB  4K  DA----RV",
        "+  0x0000000000004000-0x0000000000005fff  pa 0x8000e000   8 KiB  4K  DA----RV",
        "Sv39, satp 0x8000000000080000: 3 changes",
    ]
    document = changes_document(new, changes(old, new))
    assert [one["after"] and one["after"]["va"] for one in document["changes"]] == [
        None,
        0x1000,
        0x4000,
    ]


def test_coarse_changes_and_filters() -> None:
    old, new = scans({0: leaf(10), 1: leaf(11)}, {0: leaf(20, 0x07), 1: leaf(11, 0x03)})
    assert [one.va for one in changes(old, new)] == [0, 0x1000]
    assert [one.va for one in changes(old, new, coarse=True)] == [0x1000]
    (lost,) = changes(old, new, Filter(has=bits_of("W")), coarse=True)
    assert (lost.va, lost.after) == (0x1000, None)
