"""Histories of entries and translations, against a walk of the whole memory before each store."""

from __future__ import annotations

import random

import pytest

from cosim.errors import UsageError
from cosim.paging.history import entry_history, translation_history
from hypervisor_model.events import EventBatch, Fence, Kind, empty
from hypervisor_model.isa import pte

SATP = 8 << 60 | 5 << 44 | 0x80000
TABLES = (0x8000_0000, 0x8000_1000, 0x8000_2000, 0x8000_3000)
VA = 1 << 30 | 3 << 21 | 7 << 12
LEAF = 0x9000 << 10 | pte.V | pte.R


def link(table: int) -> int:
    return table >> 12 << 10 | pte.V


def of(rows: list[tuple[Kind, int, int, int, int]]) -> EventBatch:
    events = empty(len(rows))
    for number, (kind, sub, a, b, c) in enumerate(rows):
        events[number] = (number, 0x1000 + number, a, b, c, kind, sub, 0, 1, 0, 8, 0)
    return events


def write(entry: int, old: int, new: int) -> tuple[Kind, int, int, int, int]:
    return Kind.PTE_WRITE, 0, entry, old, new


ADDED = [(Kind.TABLE_ADD, 0, table, 0, 0) for table in TABLES]


def path_of(memory: dict[int, int]) -> dict[int, int]:
    """The entries that a walk of VA reads, by definition."""
    path, table = {}, TABLES[0]
    for level in (2, 1, 0):
        entry = table + 8 * (VA >> (12 + 9 * level) & 511)
        path[entry] = level
        value = memory.get(entry, 0)
        if value & (pte.V | pte.R | pte.W | pte.X) != pte.V:
            break
        table = value >> 10 << 12
    return path


@pytest.mark.parametrize("seed", range(20))
def test_every_change_on_the_path_is_there_and_no_other(seed: int) -> None:
    chance = random.Random(seed)
    memory: dict[int, int] = {}
    rows, expected = list(ADDED), []
    for _ in range(300):
        level = chance.choice((2, 1, 0))
        index = chance.choice((VA >> (12 + 9 * level) & 511, 9))
        entry = chance.choice(TABLES) + 8 * index
        new = chance.choice((0, LEAF, *(link(table) for table in TABLES[1:])))
        old = memory.get(entry, 0)
        found = path_of(memory).get(entry)
        if found is not None and old != new:
            expected.append((len(rows), found, entry, old, new))
        rows.append(write(entry, old, new))
        memory[entry] = new
    changes = translation_history(of(rows), SATP, VA)
    assert [(c.event, c.level, c.entry, c.old, c.new) for c in changes] == expected
    assert len(expected) > 10


def test_what_a_table_held_when_it_was_found_counts() -> None:
    leaf_entry = TABLES[2] + 8 * 7
    rows = [
        *ADDED,
        (Kind.TABLE_ENTRY, 0, TABLES[0] + 8, 0, link(TABLES[1])),
        (Kind.TABLE_ENTRY, 0, TABLES[1] + 8 * 3, 0, link(TABLES[2])),
        write(leaf_entry, 0, LEAF),
        (Kind.TABLE_DROP, 0, TABLES[2], 0, 0),
        write(leaf_entry, LEAF, 0),
    ]
    assert [change.event for change in translation_history(of(rows), SATP, VA)] == [6, 8]
    assert [change.event for change in entry_history(of(rows), leaf_entry + 4)] == [6, 8]


@pytest.mark.parametrize(
    ("form", "va", "asid", "covers"),
    [
        (Fence.ALL, 0, 0, True),
        (Fence.VA, VA + 12, 0, True),
        (Fence.VA, VA + 4096, 0, False),
        (Fence.ASID, 0, 5, True),
        (Fence.ASID, 0, 6, False),
        (Fence.VA_ASID, VA, 5, True),
        (Fence.VA_ASID, VA, 6, False),
        (Fence.VA | Fence.HFENCE_VVMA, VA, 0, False),
    ],
)
def test_the_fence_that_covers_a_leaf(form: int, va: int, asid: int, covers: bool) -> None:
    leaf_entry = TABLES[2] + 8 * 7
    rows = [
        *ADDED,
        write(TABLES[0] + 8, 0, link(TABLES[1])),
        write(TABLES[1] + 8 * 3, 0, link(TABLES[2])),
        write(leaf_entry, 0, LEAF),
        (Kind.FENCE, int(form), va, asid, 0),
    ]
    changes = translation_history(of(rows), SATP, VA)
    assert [change.level for change in changes] == [2, 1, 0]
    assert changes[-1].fence == (7 if covers else None)
    # A fence by address leaves pointers to tables.
    spares_links = bool(form & Fence.VA) or not covers
    assert [change.fence for change in changes[:2]] == [None if spares_links else 7] * 2


def test_a_global_entry_outlives_a_fence_by_asid() -> None:
    rows = [
        *ADDED,
        write(TABLES[0] + 8, 0, LEAF | pte.G),
        (Kind.FENCE, int(Fence.ASID), 0, 5, 0),
        (Kind.FENCE, int(Fence.VA), VA, 0, 0),
    ]
    assert [change.fence for change in translation_history(of(rows), SATP, VA)] == [6]


def test_an_address_space_without_tables_or_the_address() -> None:
    with pytest.raises(UsageError, match="Bare"):
        translation_history(of([]), 0, VA)
    with pytest.raises(UsageError, match="not an address"):
        translation_history(of([]), SATP, 1 << 40)
