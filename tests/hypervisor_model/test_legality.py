"""One small guest for each rule of :mod:`hypervisor_model.legality`, and for its limits."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from hypervisor_model.errors import ModelError
from hypervisor_model.events import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    FLAG_STOP,
    Access,
    EventBatch,
    Fence,
    Kind,
    Priv,
    empty,
    fault_pa,
)
from hypervisor_model.jit import signed
from hypervisor_model.legality import LegalityTracker, Limits
from hypervisor_model.policies.machine import MachineModel
from tests.hypervisor_model.brute_legality import (
    BASE,
    PAGE,
    SIZE,
    A,
    Ask,
    D,
    G,
    Guest,
    N,
    R,
    U,
    V,
    W,
    X,
    link,
)

ROOT, OTHER_ROOT, MIDDLE, OTHER_MIDDLE, LEAF, OTHER_LEAF, WIDE = (BASE + PAGE * i for i in range(7))
LEVELS = {ROOT: 2, OTHER_ROOT: 2, MIDDLE: 1, OTHER_MIDDLE: 1, LEAF: 0, OTHER_LEAF: 0, WIDE: 3}
ONE, TWO, THREE = (BASE + (8 << 20) + (i << 21) for i in range(3))
"""Frames, aligned to 2 MiB."""
RWX = V | R | W | X | A | D
VA = 0x3000
NEXT = VA + PAGE
LOAD_FAULT, STORE_FAULT, LOAD_ACCESS_FAULT = fault_pa(13), fault_pa(15), fault_pa(5)


def leaf(frame: int, bits: int = RWX) -> int:
    return frame >> 2 | bits


def satp(root: int, asid: int = 1, mode: int = 8) -> int:
    return mode << 60 | asid << 44 | root >> 12


class Small:
    """A guest whose address VA is mapped to frame ONE by ROOT, MIDDLE and LEAF."""

    def __init__(self, limits: Limits | None = None, harts: int = 1, **machine: Any) -> None:
        self.guest = Guest(harts=harts, levels=LEVELS)
        model = MachineModel(ram_base=BASE, ram_size=SIZE, harts=harts, **machine)
        self.tracker = LegalityTracker(model, ["party"], limits)
        self.store(ROOT, 0, link(MIDDLE))
        self.store(MIDDLE, 0, link(LEAF))
        self.store(LEAF, 3, leaf(ONE))
        self.load(ROOT)

    def feed(self, events: list[EventBatch]) -> None:
        for event in events:
            self.tracker.feed(event, np.zeros((1, len(event)), np.int64))

    def store(self, page: int, index: int, entry: int) -> None:
        self.feed(self.guest.store(page, index, entry))

    def load(self, root: int, asid: int = 1, hart: int = 0, mode: int = 8) -> None:
        self.feed(self.guest.write_satp(hart, satp(root, asid, mode) if mode else 0))

    def fence(self, form: Fence, va: int = 0, asid: int = 0, hart: int = 0) -> None:
        self.feed(self.guest.fence(hart, form, va, asid))

    def switch(self, bits: int, hart: int = 0, switches: int = ENVCFG_ADUE | ENVCFG_PBMTE) -> None:
        """Let ``menvcfg`` hold ``bits``."""
        event = empty(1)
        event["kind"], event["hart"] = Kind.ENVCFG_WRITE, hart
        event["b"], event["c"] = bits, switches
        self.feed([event])

    def says(
        self,
        answer: int,
        va: int = VA,
        access: Access = Access.READ,
        priv: Priv = Priv.S,
        hart: int = 0,
    ) -> str:
        """The verdict on an answer."""
        before = vars(self.tracker.counts["party"]).copy()
        event = self.guest.access(Ask(hart, va, access, priv))
        self.tracker.feed(event, np.array([[signed(answer)]], np.int64))
        after = vars(self.tracker.counts["party"])
        (changed,) = (name for name in after if after[name] != before[name])
        return changed


def remapped(**machine: Any) -> Small:
    """The guest after VA was given frame TWO without a fence."""
    small = Small(**machine)
    small.store(LEAF, 3, leaf(TWO))
    return small


def test_todays_walk_is_fresh_and_what_never_was_is_illegal() -> None:
    small = Small()
    assert small.says(ONE) == "fresh"
    assert small.says(TWO) == "illegal"
    assert small.says(LOAD_FAULT) == "illegal"
    assert small.says(LOAD_FAULT, NEXT) == "fresh"
    assert small.says(ONE, NEXT) == "illegal"


def test_a_changed_frame_is_legal_until_its_fence() -> None:
    small = remapped()
    assert small.says(TWO) == "fresh"
    assert small.says(ONE) == "stale_legal"
    assert small.says(THREE) == "illegal"
    small.fence(Fence.VA, VA + 0x123)
    assert small.says(ONE) == "illegal"
    assert small.says(TWO) == "fresh"


@pytest.mark.parametrize("page", [ROOT, MIDDLE, LEAF])
@pytest.mark.parametrize("is_removed", [False, True])
def test_todays_walk_follows_a_change_at_each_level(page: int, is_removed: bool) -> None:
    small = Small()
    small.store(OTHER_MIDDLE, 0, link(OTHER_LEAF))
    small.store(OTHER_LEAF, 3, leaf(TWO))
    assert small.says(ONE) == "fresh"
    changed = {ROOT: link(OTHER_MIDDLE), MIDDLE: link(OTHER_LEAF), LEAF: leaf(TWO)}[page]
    small.store(page, 3 if page == LEAF else 0, 0 if is_removed else changed)
    assert small.says(LOAD_FAULT if is_removed else TWO) == "fresh"
    assert small.says(ONE) == "stale_legal"


def test_todays_walk_is_asked_for_the_address_space_and_the_rights_of_each_access() -> None:
    small = Small()
    small.store(OTHER_ROOT, 0, link(OTHER_MIDDLE))
    small.store(OTHER_MIDDLE, 0, link(OTHER_LEAF))
    small.store(OTHER_LEAF, 3, leaf(TWO, V | R | A))
    assert small.says(ONE) == small.says(ONE, access=Access.WRITE) == "fresh"
    assert small.says(LOAD_FAULT, priv=Priv.U) == "fresh"
    assert small.says(ONE + 8, VA + 8) == "fresh"
    small.load(OTHER_ROOT)
    assert small.says(TWO) == small.says(STORE_FAULT, access=Access.WRITE) == "fresh"
    small.load(ROOT)
    assert small.says(ONE) == small.says(ONE, access=Access.WRITE) == "fresh"
    small.store(LEAF, 3, leaf(ONE, 1 << 61 | RWX))
    assert small.says(LOAD_FAULT) == "fresh", "a memory type without Svpbmt"
    small.switch(ENVCFG_PBMTE)
    assert small.says(ONE) == "fresh"
    small.switch(0)
    assert small.says(LOAD_FAULT) == "fresh"


@pytest.mark.parametrize(
    ("form", "va", "asid", "covers"),
    [
        (Fence.ALL, 0, 0, True),
        (Fence.ASID, 0, 1, True),
        (Fence.ASID, 0, 2, False),
        (Fence.VA, VA, 0, True),
        (Fence.VA, NEXT, 0, False),
        (Fence.VA, VA | 1 << 63, 0, False),
        (Fence.VA, VA | 1 << 45, 0, False),
        (Fence.VA_ASID, VA, 1, True),
        (Fence.VA_ASID, VA, 2, False),
        (Fence.VA_ASID, NEXT, 1, False),
        (Fence.SINVAL_VMA | Fence.VA_ASID, VA, 1, True),
        (Fence.HFENCE_VVMA | Fence.ALL, 0, 0, False),
        (Fence.HFENCE_GVMA | Fence.ALL, 0, 0, False),
    ],
)
def test_which_fences_cover_a_page(form: Fence, va: int, asid: int, covers: bool) -> None:
    small = remapped()
    small.fence(form, va, asid)
    assert small.says(ONE) == ("illegal" if covers else "stale_legal")


@pytest.mark.parametrize(
    ("form", "covers"),
    [
        (Fence.ALL, True),
        (Fence.VA, True),
        (Fence.ASID, False),
        (Fence.VA_ASID, False),
    ],
)
def test_fences_with_an_asid_spare_global_mappings(form: Fence, covers: bool) -> None:
    small = Small()
    small.store(LEAF, 3, leaf(ONE, RWX | G))
    small.fence(Fence.ALL)
    small.store(LEAF, 3, leaf(TWO, RWX | G))
    small.fence(form, VA, 1)
    assert small.says(ONE) == ("illegal" if covers else "stale_legal")


def test_g_in_a_link_makes_all_below_global() -> None:
    small = Small()
    small.store(ROOT, 0, link(MIDDLE, G))
    small.fence(Fence.ALL)
    small.store(LEAF, 3, leaf(TWO))
    small.fence(Fence.VA_ASID, VA, 1)
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "illegal"


def test_global_mappings_serve_every_asid() -> None:
    small = Small()
    small.store(LEAF, 3, leaf(ONE, RWX | G))
    small.load(OTHER_ROOT, 2)
    assert small.says(ONE) == "stale_legal"
    assert small.says(LOAD_FAULT) == "fresh"
    small.fence(Fence.ASID, asid=2)
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.ALL)
    assert small.says(ONE) == "illegal"


def test_entries_are_tagged_by_asid_not_by_root() -> None:
    small = Small()
    small.load(OTHER_ROOT, 2)
    assert small.says(ONE) == "illegal"
    small.load(OTHER_ROOT, 1)
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.ASID, asid=1)
    assert small.says(ONE) == "illegal"
    small.load(ROOT, 1)
    assert small.says(ONE) == "fresh"


def test_writing_satp_orders_nothing() -> None:
    small = remapped()
    small.load(OTHER_ROOT, 2)
    small.load(ROOT, 1)
    assert small.says(ONE) == "stale_legal"


def test_a_space_that_was_not_loaded_before_has_nothing_cached() -> None:
    small = remapped()
    small.load(ROOT, 2)
    assert small.says(ONE) == "illegal"


def test_the_asid_of_another_format_is_the_same_asid() -> None:
    small = Small()
    small.store(WIDE, 0, link(OTHER_ROOT))
    small.load(WIDE, 1, mode=9)
    assert small.says(LOAD_FAULT) == "fresh"
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "stale_legal", "ROOT and MIDDLE still lead to LEAF"
    small.fence(Fence.ASID, asid=1)
    assert small.says(ONE) == "illegal"


def test_bare_takes_effect_at_once() -> None:
    small = Small()
    small.load(ROOT, mode=0)
    assert small.says(VA) == "fresh"
    assert small.says(ONE) == "illegal"
    small.load(ROOT)
    assert small.says(VA) == "illegal"
    assert small.says(ONE) == "fresh"


def test_machine_mode_is_not_translated() -> None:
    small = Small()
    assert small.says(VA, priv=Priv.M) == "fresh"
    assert small.says(ONE, priv=Priv.M) == "illegal"


def test_addresses_that_are_none_fault() -> None:
    small = remapped()
    assert small.says(LOAD_FAULT, VA | 1 << 40) == "fresh"
    assert small.says(ONE, VA | 1 << 40) == "illegal"


@pytest.mark.parametrize("svvptc", [False, True])
def test_an_entry_that_was_not_valid_may_be_remembered(svvptc: bool) -> None:
    small = Small(svvptc=svvptc)
    small.store(LEAF, 4, leaf(TWO))
    assert small.says(TWO, NEXT) == "fresh"
    assert small.says(LOAD_FAULT, NEXT) == ("illegal" if svvptc else "stale_legal")
    small.fence(Fence.VA, NEXT)
    assert small.says(LOAD_FAULT, NEXT) == "illegal"


@pytest.mark.parametrize("svvptc", [False, True])
def test_an_entry_that_became_invalid_may_be_used(svvptc: bool) -> None:
    small = Small(svvptc=svvptc)
    small.store(LEAF, 3, 0)
    assert small.says(LOAD_FAULT) == "fresh"
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "illegal"


def test_permissions() -> None:
    small = Small()
    small.store(LEAF, 3, leaf(ONE, V | R | A | D))
    assert small.says(ONE, access=Access.WRITE) == "stale_legal", "W may be remembered"
    assert small.says(STORE_FAULT, access=Access.WRITE) == "fresh"
    assert small.says(ONE, access=Access.READ) == "fresh"
    assert small.says(fault_pa(12), access=Access.READ) == "illegal", "a cause of another kind"
    assert small.says(ONE, access=Access.WRITE, priv=Priv.U) == "illegal", "never was U"
    small.fence(Fence.VA, VA)
    assert small.says(ONE, access=Access.WRITE) == "illegal"
    small.store(LEAF, 3, leaf(ONE))
    assert small.says(STORE_FAULT, access=Access.WRITE) == "stale_legal", "so may its want"


def test_the_rights_are_those_of_the_access() -> None:
    small = Small()
    small.store(LEAF, 3, leaf(ONE, RWX | U))
    assert small.says(LOAD_FAULT) == "fresh"
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.VA, VA)
    small.store(LEAF, 3, leaf(TWO, RWX | U))
    event = small.guest.access(Ask(0, VA, Access.READ, Priv.S, sum=True))
    small.tracker.feed(event, np.array([[ONE]], np.int64))
    assert small.says(ONE, priv=Priv.U) == "stale_legal"
    assert small.says(ONE, priv=Priv.S) == "illegal", "needs SUM, which acts at once"
    assert small.tracker.counts["party"].stale_legal == 3


@pytest.mark.parametrize("svadu", [False, True])
def test_a_and_d(svadu: bool) -> None:
    small = Small(svadu=svadu)
    small.store(LEAF, 3, leaf(ONE, RWX & ~D))
    fault = small.says(STORE_FAULT, access=Access.WRITE)
    store = small.says(ONE, access=Access.WRITE)
    assert (fault, store) == (("illegal", "fresh") if svadu else ("fresh", "stale_legal"))


def test_a_fence_by_address_covers_a_superpage_from_any_address_in_it() -> None:
    small = Small()
    small.store(MIDDLE, 1, leaf(ONE))
    small.store(MIDDLE, 1, leaf(TWO))
    va = 0x20_5000
    assert small.says(ONE + 0x5000, va) == "stale_legal"
    small.fence(Fence.VA, va + (1 << 21))
    assert small.says(ONE + 0x5000, va) == "stale_legal"
    small.fence(Fence.VA, 0x3F_F000)
    assert small.says(ONE + 0x5000, va) == "illegal"


def test_a_fence_by_address_leaves_links() -> None:
    small = Small()
    small.store(MIDDLE, 1, link(LEAF))
    small.store(OTHER_LEAF, 3, leaf(TWO))
    small.store(MIDDLE, 0, link(OTHER_LEAF))
    small.fence(Fence.VA, VA)
    assert small.says(TWO) == "fresh"
    assert small.says(ONE) == "stale_legal", "the old link may still lead to the old leaf"
    small.store(LEAF, 3, leaf(THREE))
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "illegal"
    assert small.says(THREE) == "stale_legal"
    small.fence(Fence.ASID, asid=1)
    assert small.says(THREE) == "illegal"


def test_old_link_and_new_leaf_may_combine() -> None:
    small = Small()
    small.store(MIDDLE, 1, link(LEAF))
    small.store(OTHER_LEAF, 3, leaf(TWO))
    small.store(MIDDLE, 0, link(OTHER_LEAF))
    small.store(LEAF, 3, leaf(THREE))
    assert small.says(TWO) == "fresh"
    assert small.says(ONE) == "stale_legal", "old link, old leaf"
    assert small.says(THREE) == "stale_legal", "old link, new leaf"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "illegal"
    assert small.says(THREE) == "stale_legal"


def test_new_link_and_old_leaf_do_not_combine_backwards() -> None:
    small = Small()
    small.store(ROOT, 1, link(OTHER_MIDDLE))
    small.store(OTHER_MIDDLE, 0, link(OTHER_LEAF))
    small.store(OTHER_LEAF, 3, leaf(TWO))
    small.store(OTHER_LEAF, 3, leaf(THREE))
    small.store(MIDDLE, 1, link(LEAF))
    small.store(MIDDLE, 0, link(OTHER_LEAF))
    assert small.says(THREE) == "fresh"
    assert small.says(TWO) == "illegal", "gone before this address led there"


def test_what_was_invalid_above_a_table_is_fenced_like_the_link() -> None:
    small = Small()
    small.store(OTHER_LEAF, 3, leaf(TWO))
    small.store(MIDDLE, 2, link(OTHER_LEAF))
    va = VA + (2 << 21)
    assert small.says(LOAD_FAULT, va) == "stale_legal"
    small.fence(Fence.VA, va)
    assert small.says(LOAD_FAULT, va) == "stale_legal", "the entry is no leaf"
    small.fence(Fence.ASID, asid=1)
    assert small.says(LOAD_FAULT, va) == "illegal"
    small.store(MIDDLE, 5, leaf(TWO))
    va = 5 << 21
    assert small.says(LOAD_FAULT, va) == "stale_legal"
    small.fence(Fence.VA, va)
    assert small.says(LOAD_FAULT, va) == "illegal", "now it is one"


def test_a_napot_entry_may_be_cached_for_all_its_pages() -> None:
    small = Small()
    napot = N | leaf(ONE | 8 << 12)
    small.store(LEAF, 4, napot)
    assert small.says(ONE + 0x3000) == "stale_legal", "by the neighbour's entry"
    assert small.says(ONE + 0x4000, NEXT) == "fresh"
    small.fence(Fence.VA, VA)
    assert small.says(ONE + 0x3000) == "stale_legal", "which is still there"
    small.store(LEAF, 4, 0)
    small.fence(Fence.VA, NEXT)
    assert small.says(ONE + 0x3000) == "stale_legal", "its copy for VA was not fenced"
    small.fence(Fence.VA, VA)
    assert small.says(ONE + 0x3000) == "illegal"
    without = Small(svnapot=False)
    without.store(LEAF, 4, napot)
    assert without.says(ONE + 0x3000) == "illegal"


def test_what_a_dropped_table_holds_is_unknown_but_what_it_held_is_not() -> None:
    small = Small()
    small.store(MIDDLE, 0, 0)
    assert small.says(LOAD_FAULT) == "fresh"
    assert small.says(ONE) == "stale_legal"
    assert small.says(THREE) == "undecided"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "undecided", "the leaf may be read again from what was the table"
    small.fence(Fence.ASID, asid=1)
    assert small.says(ONE) == "illegal"
    assert small.says(THREE) == "illegal"


def test_a_table_that_comes_back_holds_what_the_events_say() -> None:
    small = Small()
    small.store(MIDDLE, 0, 0)
    small.store(LEAF, 3, leaf(TWO))
    small.store(MIDDLE, 0, link(LEAF))
    assert small.says(TWO) == "fresh"
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.ALL)
    assert small.says(ONE) == "illegal"


def test_a_table_in_use_that_the_source_drops_is_no_excuse() -> None:
    small = Small()
    drop = empty(1)
    drop["kind"], drop["a"] = Kind.TABLE_DROP, LEAF
    small.feed([drop])
    assert small.says(ONE) == "fresh"
    assert small.says(THREE) == "illegal", "a capture that loses a table must show"


def test_fences_concern_their_own_hart() -> None:
    small = Small(harts=2)
    small.load(ROOT, 1, hart=1)
    small.store(LEAF, 3, leaf(TWO))
    small.fence(Fence.ALL, hart=0)
    assert small.says(ONE, hart=0) == "illegal"
    assert small.says(ONE, hart=1) == "stale_legal"
    small.fence(Fence.VA, VA, hart=1)
    assert small.says(ONE, hart=1) == "illegal"


def test_tables_outside_ram_fault() -> None:
    small = Small()
    small.store(MIDDLE, 1, link(LEAF))
    small.store(MIDDLE, 0, link(0x1000))
    assert small.says(LOAD_ACCESS_FAULT) == "fresh"
    assert small.says(LOAD_FAULT) == "illegal"
    small.store(MIDDLE, 0, link(LEAF))
    assert small.says(LOAD_ACCESS_FAULT) == "stale_legal"
    small.fence(Fence.ALL)
    assert small.says(LOAD_ACCESS_FAULT) == "illegal"


def test_samples_are_judged_too() -> None:
    small = remapped()
    sample = small.guest.access(Ask(0, VA, Access.READ, Priv.S))
    sample["flags"] |= FLAG_STOP
    small.tracker.feed(sample, np.array([[THREE]], np.int64))
    assert small.tracker.counts["party"].illegal == 1


def test_findings_show_both_walks() -> None:
    small = Small()
    small.store(LEAF, 3, leaf(TWO))
    replaced = len(small.tracker.findings)
    assert replaced == 0
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "illegal"
    assert small.says(THREE) == "illegal"
    once, never = small.tracker.findings
    assert (once.party, once.answer, once.today.pa) == ("party", ONE, TWO)
    assert [step.address for step in once.today.references] == [ROOT, MIDDLE, LEAF + 24]
    assert [(step.level, step.address, step.value) for step in once.origin] == [
        (2, ROOT, link(MIDDLE)),
        (1, MIDDLE, link(LEAF)),
        (0, LEAF + 24, leaf(ONE)),
    ]
    # SATP_WRITE, three TABLE_ADD and three TABLE_ENTRY come before the store.
    assert [step.until for step in once.origin] == [None, None, 7]
    assert once.event == 9
    assert once.satp == satp(ROOT)
    assert int(once.access["a"]) == VA
    assert never.origin == ()


def test_findings_are_limited_but_all_are_counted() -> None:
    small = Small(Limits(findings=2))
    for _ in range(5):
        small.says(THREE)
    assert len(small.tracker.findings) == 2
    assert small.tracker.counts["party"].illegal == small.tracker.illegal == 5


def test_parties_are_judged_apart() -> None:
    guest = Guest(levels=LEVELS)
    tracker = LegalityTracker(MachineModel(ram_base=BASE, ram_size=SIZE), ["a", "b", "c"])
    small = Small()
    small.tracker, small.guest = tracker, guest

    def feed(events: Iterable[EventBatch]) -> None:
        for batch in events:
            tracker.feed(batch, np.zeros((3, len(batch)), np.int64))

    small.feed = feed  # type: ignore[method-assign]
    for page, index, entry in ((ROOT, 0, link(MIDDLE)), (MIDDLE, 0, link(LEAF))):
        small.store(page, index, entry)
    small.store(LEAF, 3, leaf(ONE))
    small.load(ROOT)
    small.store(LEAF, 3, leaf(TWO))
    event = guest.access(Ask(0, VA, Access.READ, Priv.S))
    tracker.feed(event, np.array([[ONE], [TWO], [THREE]], np.int64))
    assert [c.stale_legal for c in tracker.counts.values()] == [1, 0, 0]
    assert [c.fresh for c in tracker.counts.values()] == [0, 1, 0]
    assert [c.illegal for c in tracker.counts.values()] == [0, 0, 1]
    assert [c.compared for c in tracker.counts.values()] == [1, 1, 1]
    assert [f.party for f in tracker.findings] == ["c"]


# -- limits ---------------------------------------------------------------------------------------


def test_overwritten_history_is_undecided_not_illegal() -> None:
    small = Small(Limits(records=4))
    small.store(LEAF, 3, leaf(TWO))
    assert small.says(ONE) == "stale_legal"
    for frame in range(8):
        small.store(LEAF, 40, leaf(ONE + frame * PAGE))
    assert small.says(ONE) == "undecided"
    assert small.says(TWO) == "fresh"
    assert small.says(THREE, 0x14000) == "illegal", "this entry never changed"
    small.fence(Fence.VA, VA)
    assert small.says(ONE) == "undecided", "a stale link may have been overwritten: not known"
    small.fence(Fence.ALL)
    assert small.says(ONE) == "illegal", "nothing before counts"


def test_overwritten_fences_make_stale_answers_undecided() -> None:
    small = Small(Limits(fences=4))
    small.store(LEAF, 3, leaf(TWO))
    for _ in range(4):
        small.fence(Fence.VA, NEXT)
    assert small.says(ONE) == "stale_legal"
    small.fence(Fence.VA, NEXT)
    assert small.says(ONE) == "undecided"
    assert small.says(THREE) == "illegal"


def test_more_spaces_than_are_kept_are_undecided() -> None:
    small = Small(Limits(spaces=2))
    small.load(ROOT, 2)
    small.load(ROOT, 3)
    assert small.says(ONE) == "fresh"
    assert small.says(THREE) == "undecided"
    small.fence(Fence.ALL)
    assert small.says(THREE) == "illegal"


def test_many_spaces_are_kept() -> None:
    small = Small()
    for asid in range(2, 500):
        small.load(ROOT, asid)
    small.store(LEAF, 3, leaf(TWO))
    for asid in range(2, 500):
        small.load(ROOT, asid)
        assert small.says(ONE) == "stale_legal"
        assert small.says(THREE) == "illegal"


@pytest.mark.parametrize("limits", [Limits(states=1), Limits(steps=1)])
def test_a_search_that_is_cut_short_is_undecided(limits: Limits) -> None:
    small = Small(limits)
    for table in (OTHER_LEAF, LEAF, OTHER_LEAF):
        small.store(MIDDLE, 0, link(table))
    assert small.says(THREE) == "undecided"


def test_memory_does_not_grow_with_the_run() -> None:
    """Two million stores without a fence: as much memory as a few, and still an answer."""
    small = Small()
    count = 1 << 16
    batch = empty(count)
    batch["kind"] = Kind.PTE_WRITE
    batch["a"] = LEAF + 8 * (np.arange(count) % 512)
    batch["size"] = 8
    answers = np.zeros((1, count), np.int64)
    peaks = []
    for round_ in range(32):
        batch["c"] = np.where(np.arange(count) % 512 == 3, leaf(ONE), leaf(TWO + PAGE * round_))
        batch["c"] ^= np.arange(count) // 512 % 2 * W
        small.tracker.feed(batch, answers)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[7] < 4 << 10, "kilobytes, after every ring went round"
    small.guest.raw[LEAF][3] = leaf(ONE, RWX & ~W)
    small.guest.moments[-1].tables[LEAF] = dict(small.guest.raw[LEAF])
    assert small.says(ONE) == "fresh"
    assert small.says(STORE_FAULT, access=Access.WRITE) == "fresh"
    assert small.says(ONE, access=Access.WRITE) == "stale_legal"
    assert small.says(THREE) == "undecided"
    small.fence(Fence.ALL)
    assert small.says(THREE) == "illegal"


# -- contract -------------------------------------------------------------------------------------


def test_batches_of_any_size_give_the_same() -> None:
    small = Small()
    events = [
        *small.guest.store(LEAF, 3, leaf(TWO)),
        small.guest.access(Ask(0, VA, Access.READ, Priv.S)),
        *small.guest.fence(0, Fence.VA, VA),
        small.guest.access(Ask(0, VA, Access.READ, Priv.S)),
        small.guest.access(Ask(0, VA, Access.READ, Priv.S)),
    ]
    batch = np.concatenate(events)
    answers = np.full((1, len(batch)), ONE, np.int64)
    small.tracker.feed(batch, answers)
    counts = small.tracker.counts["party"]
    assert (counts.stale_legal, counts.illegal) == (1, 2)
    assert [finding.event for finding in small.tracker.findings] == [10, 11]


def test_answers_must_fit() -> None:
    tracker = LegalityTracker(MachineModel(ram_base=BASE, ram_size=SIZE), ["a", "b"])
    with pytest.raises(ModelError, match="2 parties x 3 events"):
        tracker.feed(empty(3), np.zeros((1, 3), np.int64))
    with pytest.raises(ModelError, match="limit records is 0"):
        Limits(records=0)


NO_A = leaf(ONE, V | R | W | X)
NC = leaf(ONE) | 1 << 61
"""PBMT = 1."""


@pytest.mark.parametrize(("bit", "entry"), [(ENVCFG_ADUE, NO_A), (ENVCFG_PBMTE, NC)])
def test_a_switched_feature_counts_at_once_and_the_old_one_until_a_fence(
    bit: int, entry: int
) -> None:
    small = Small()
    small.store(LEAF, 3, entry)
    small.fence(Fence.ALL)
    assert (small.says(LOAD_FAULT), small.says(ONE)) == ("fresh", "illegal")
    small.switch(bit)
    assert (small.says(ONE), small.says(LOAD_FAULT)) == ("fresh", "stale_legal")
    small.fence(Fence.VA, VA)
    assert small.says(LOAD_FAULT) == "stale_legal", "only a fence of everything orders it"
    small.fence(Fence.ALL)
    assert (small.says(ONE), small.says(LOAD_FAULT)) == ("fresh", "illegal")
    small.switch(0)
    assert (small.says(LOAD_FAULT), small.says(ONE)) == ("fresh", "stale_legal")
    small.fence(Fence.ALL)
    assert (small.says(LOAD_FAULT), small.says(ONE)) == ("fresh", "illegal")


def test_features_are_of_a_hart_and_only_switches_are_switched() -> None:
    small = Small(harts=2)
    small.store(LEAF, 3, NO_A)
    small.load(ROOT, hart=1)
    for hart in (0, 1):
        small.fence(Fence.ALL, hart=hart)
    small.switch(ENVCFG_ADUE, hart=1)
    assert small.says(ONE, hart=1) == "fresh" and small.says(LOAD_FAULT, hart=0) == "fresh"
    small.switch(ENVCFG_ADUE, switches=ENVCFG_PBMTE)
    assert small.says(LOAD_FAULT, hart=0) == "fresh"
