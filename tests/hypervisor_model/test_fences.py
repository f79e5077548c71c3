"""What the fence checker reports, kind by kind, on guests written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hypervisor_model.events import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    FLAG_STOP,
    Access,
    EventBatch,
    Fence,
    Kind,
    Order,
    Priv,
)
from hypervisor_model.fences import FenceChecker, Finding
from hypervisor_model.hazards import Hazard
from hypervisor_model.jit import signed
from hypervisor_model.policies.machine import MachineModel
from tests.hypervisor_model.guests import KERNEL, PAGE, USER, A, D, G, Guest, R, V, leaf

VA = 0x4000_0000
SIZE = 64 << 20
OLD, NEW = 0x8200_0000, 0x8200_1000
FAR = VA + (1 << 30)
"""Not mapped."""


def started(asid: int = 1, *, harts: int = 1, svadu: bool = False) -> tuple[Guest, int]:
    """A guest with one page at VA that is mapped, fenced and used."""
    guest = Guest(size=SIZE, harts=harts, svadu=svadu)
    root = guest.page()
    for hart in range(harts):
        guest.load(root, asid, hart=hart)
    return guest, guest.map(root, VA, OLD)


def check(batch: EventBatch, *, legal: bool = False, **machine: object) -> list[Finding]:
    batch = batch.copy()
    batch["pc"] = 0x1000 + 4 * np.arange(len(batch))
    fields = {"ram_size": SIZE, "svadu": False, **machine}
    checker = FenceChecker(MachineModel(**fields), legal=legal)  # type: ignore[arg-type]
    checker.feed(batch)
    return checker.findings


def kinds(guest: Guest, **options: object) -> list[Hazard]:
    return [finding.kind for finding in check(guest.batch(), **options)]  # type: ignore[arg-type]


def used(guest: Guest) -> None:
    guest.fence(VA)
    guest.access(VA)


def test_another_frame_is_reported_with_its_store_and_access() -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, leaf(NEW))
    store = len(guest.events) - 1
    guest.access(VA + 8)
    guest.fence(VA)
    (finding,) = check(guest.batch())
    assert finding.kind is Hazard.FRAME_CHANGED
    culprit = finding.culprit
    assert (culprit.event, culprit.pc) == (store, 0x1000 + 4 * store)
    assert (culprit.entry, culprit.level) == (entry, 0)
    assert (culprit.old, culprit.new) == (leaf(OLD), leaf(NEW))
    assert (finding.event, finding.va) == (store + 1, VA + 8)
    assert (finding.today, finding.stale) == (NEW + 8, OLD + 8)
    assert finding.late is not None and finding.late.event == store + 2
    assert finding.late.va == VA


@pytest.mark.parametrize("value", [0, leaf(OLD, V | R | A | D)])
def test_lost_permissions_are_reported(value: int) -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, value)
    guest.access(VA, Access.WRITE)
    (finding,) = check(guest.batch())
    assert finding.kind is Hazard.PERMISSION_LOST
    assert (finding.stale, finding.today) == (OLD, -16)
    assert finding.late is None


def test_a_permission_that_an_access_does_not_need_is_not_missed() -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, leaf(OLD, V | R | A | D))
    guest.access(VA)
    assert kinds(guest) == []


def test_accesses_and_stores_of_a_site_are_counted_once_reported() -> None:
    guest, entry = started()
    used(guest)
    for frame in (NEW, OLD):
        guest.store(entry, leaf(frame))
        guest.access(VA)
        guest.access(VA)
        guest.fence(VA)
    batch = guest.batch()
    batch["pc"] = np.where(batch["kind"] == Kind.PTE_WRITE, 0x2000, 0x1000)
    checker = FenceChecker(MachineModel(ram_size=SIZE))
    checker.feed(batch)
    (finding,) = checker.findings
    assert (finding.stores, finding.accesses, checker.hazards) == (2, 4, 4)


@pytest.mark.parametrize(
    "va, asid, enough",
    [
        (None, None, True),
        (VA, None, True),
        (VA + PAGE, None, False),
        (None, 1, True),
        (None, 2, False),
        (VA, 1, True),
        (VA, 2, False),
    ],
)
def test_only_a_fence_that_covers_the_page_is_enough(
    va: int | None, asid: int | None, enough: bool
) -> None:
    guest, entry = started(asid=1)
    used(guest)
    guest.store(entry, leaf(NEW))
    guest.fence(va, asid)
    guest.access(VA)
    assert kinds(guest) == ([] if enough else [Hazard.FRAME_CHANGED])


W_INVAL, INVAL_IR = Order


def svinval(guest: Guest, steps: str, entry: int) -> None:
    """Do each step: (s)tore, sfence.(w).inval, s(i)nval.vma, sfence.inval.i(r), (a)ccess."""
    for step in steps:
        match step:
            case "s":
                guest.store(entry, leaf(NEW if guest.words[entry] == leaf(OLD) else OLD))
            case "w":
                guest.order(W_INVAL)
            case "i":
                guest.fence(VA, 1, instruction=Fence.SINVAL_VMA)
            case "r":
                guest.order(INVAL_IR)
            case "a":
                guest.access(VA)


@pytest.mark.parametrize(
    ("steps", "enough"),
    [
        ("swira", True),
        ("sira", False),  # no sfence.w.inval
        ("wsira", False),  # the store is behind it
        ("swia", False),  # no sfence.inval.ir
        ("swria", False),  # ... or too early
        ("swiar", False),  # ... or too late
        ("swa", False),
        ("sw", True),  # nothing accesses it
        ("wiswira", True),
        ("swirswira", True),
        ("swirsira", False),  # the second store
        ("swiwira", True),
        ("swiira", True),
        ("swwiira", True),
    ],
)
def test_svinval_is_a_fence_in_its_order_only(steps: str, enough: bool) -> None:
    guest, entry = started()
    used(guest)
    svinval(guest, steps, entry)
    assert kinds(guest) == ([] if enough else [Hazard.FRAME_CHANGED])


@pytest.mark.parametrize(("va", "asid"), [(None, None), (None, 1), (VA, None), (VA, 1)])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_form_of_sinval_is_put_in_force(
    va: int | None, asid: int | None, ordered: bool
) -> None:
    guest, entry = started(asid=1)
    used(guest)
    guest.store(entry, leaf(NEW))
    if ordered:
        guest.order(W_INVAL)
    guest.fence(va, asid, instruction=Fence.SINVAL_VMA)
    guest.order(INVAL_IR)
    guest.access(VA)
    assert kinds(guest) == ([] if ordered else [Hazard.FRAME_CHANGED])


def test_each_hart_orders_its_own_svinval() -> None:
    guest, entry = started(harts=2)
    for hart in (0, 1):
        guest.fence(hart=hart)
    guest.store(entry, leaf(NEW), hart=1)
    guest.order(W_INVAL, hart=0)
    guest.order(W_INVAL, hart=1)
    guest.fence(VA, instruction=Fence.SINVAL_VMA, hart=1)
    guest.order(INVAL_IR, hart=0)
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == [Hazard.FRAME_CHANGED]


def test_a_space_that_was_left_between_the_instructions_of_svinval_may_be_kept() -> None:
    """Its tables may have been read after ``sfence.w.inval``."""
    for loaded_behind in (False, True):
        guest, entry = started(asid=1)
        used(guest)
        first = next(iter(guest.roots))
        other = guest.page()
        if loaded_behind:
            guest.order(W_INVAL)
        guest.load(other, 2)
        if not loaded_behind:
            guest.order(W_INVAL)
        guest.fence(None, 1, instruction=Fence.SINVAL_VMA)
        guest.order(INVAL_IR)
        guest.store(entry, leaf(NEW))
        guest.load(first, 1)
        guest.access(VA)
        assert kinds(guest) == ([Hazard.FRAME_CHANGED] if loaded_behind else [])


def test_the_late_svinval_is_the_one_that_covers_the_store() -> None:
    guest, entry = started()
    used(guest)
    svinval(guest, "sairswir", entry)
    (finding,) = check(guest.batch())
    assert finding.late is not None
    assert finding.late.instruction == Fence.SINVAL_VMA
    assert finding.late.order == len(guest.events) - 3


def test_sinval_counts_as_a_fence_if_the_stream_does_not_say_its_order() -> None:
    guest, entry = started()
    used(guest)
    svinval(guest, "sia", entry)
    checker = FenceChecker(MachineModel(ram_size=SIZE, svadu=False), ordered=False)
    checker.feed(guest.batch())
    assert checker.findings == []


def test_a_global_page_outlives_a_fence_with_an_asid() -> None:
    guest, entry = started(asid=1)
    guest.store(entry, leaf(OLD, KERNEL | G))
    guest.fence()
    guest.store(entry, leaf(NEW, KERNEL | G))
    guest.fence(VA, 1)
    guest.fence(None, 1)
    guest.access(VA)
    assert kinds(guest) == [Hazard.FRAME_CHANGED]


def test_each_hart_needs_its_own_fence() -> None:
    guest, entry = started(harts=2)
    guest.fence(hart=0)
    guest.fence(hart=1)
    guest.store(entry, leaf(NEW))
    guest.fence(VA, hart=0)
    guest.access(VA, hart=0)
    guest.access(FAR, priv=Priv.U, hart=0)
    guest.access(VA, hart=1)
    (finding,) = check(guest.batch(), harts=2)
    assert finding.kind is Hazard.WRONG_HART
    assert int(finding.access["hart"]) == 1
    assert finding.late is None


def changed(harts: int = 2) -> tuple[Guest, int]:
    """All harts run one space; hart 0 has just mapped another page at VA."""
    guest, entry = started(harts=harts)
    for hart in range(harts):
        guest.fence(hart=hart)
    guest.store(entry, leaf(NEW))
    return guest, entry


@pytest.mark.parametrize("gone_on", ["user", "satp", "store", "fence", "call"])
def test_a_fence_of_the_storing_hart_is_on_the_wrong_hart_once_it_has_gone_on(gone_on: str) -> None:
    guest, entry = changed()
    guest.fence(VA, hart=0)
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == [], "the hart may still be waiting for the other one"
    match gone_on:
        case "user":
            guest.access(FAR, priv=Priv.U, hart=0)
        case "satp":
            guest.load(next(iter(guest.roots)), 1, hart=0)
        case "store":
            guest.store(entry + 8, leaf(NEW), hart=0)
        case "fence":
            guest.fence(FAR, hart=0)
        case "call":
            guest.remote_fence([1], FAR, hart=0)
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == [Hazard.WRONG_HART]
    guest.fence(VA, hart=1)
    guest.access(VA, hart=1)
    (finding,) = check(guest.batch(), harts=2)
    assert (finding.accesses, finding.culprit.hart) == (1, 0)
    assert finding.late is not None and finding.late.hart == 1


def test_harts_that_fence_for_each_other_owe_nothing() -> None:
    """Each hart executes a fence, as if an interrupt had asked it to."""
    guest, _ = changed(3)
    guest.fence(VA, hart=0)
    guest.access(VA, hart=1)
    guest.fence(VA, hart=1)
    guest.access(VA, hart=2)
    guest.fence(VA, hart=2)
    guest.access(FAR, priv=Priv.U, hart=0)
    for hart in range(3):
        guest.access(VA, hart=hart)
    assert kinds(guest, harts=3) == []


@pytest.mark.parametrize("harts", [2, 4, 8])
def test_a_remote_fence_is_a_fence_of_the_harts_that_it_names_and_of_no_other(harts: int) -> None:
    for named in ([*range(harts)], [*range(harts - 1)]):
        guest, _ = changed(harts)
        guest.access(VA, hart=harts - 1)
        guest.remote_fence(named, VA, 1, hart=0)
        for hart in range(harts):
            guest.access(VA, hart=hart)
        missing = len(named) < harts
        findings = check(guest.batch(), harts=harts)
        assert [one.kind for one in findings] == ([Hazard.WRONG_HART] if missing else [])
        assert [int(one.access["hart"]) for one in findings] == ([harts - 1] if missing else [])


def test_a_program_that_runs_again_ends_the_wait_for_a_fence() -> None:
    guest, _ = changed()
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == []
    guest.access(FAR, priv=Priv.U, hart=0)
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == [Hazard.FRAME_CHANGED], "no hart has fenced"


@pytest.mark.parametrize(
    ("first", "size", "covers"),
    [
        (VA - PAGE, PAGE, False),
        (VA - PAGE, PAGE + 1, True),
        (VA - PAGE, 4 * PAGE, True),
        (VA + PAGE - 1, 1, True),
        (VA + PAGE, PAGE, False),
        (VA, 0, False),
        (VA - (64 << 20), 128 << 20, True),
        (VA, -1, True),
    ],
)
def test_a_remote_fence_covers_its_pages(first: int, size: int, covers: bool) -> None:
    guest, _ = changed()
    guest.remote_fence([0, 1], first, size, hart=0)
    guest.access(FAR, priv=Priv.U, hart=0)
    guest.access(VA, hart=1)
    assert kinds(guest, harts=2) == ([] if covers else [Hazard.FRAME_CHANGED])


def test_a_store_while_a_call_is_under_way_may_be_behind_the_fence() -> None:
    """Hart 2 stores after hart 0 has acted last, so the fence of the call may be over by then."""
    for acts in (False, True):
        guest, entry = started(harts=3)
        for hart in range(3):
            guest.fence(hart=hart)
        guest.access(FAR, hart=0)
        guest.store(entry, leaf(NEW), hart=2)
        if acts:
            guest.access(FAR, hart=0)
        guest.remote_fence([0, 1, 2], VA, hart=0)
        guest.access(FAR, priv=Priv.U, hart=2)
        guest.access(VA, hart=1)
        assert kinds(guest, harts=3) == ([] if acts else [Hazard.FRAME_CHANGED])


def test_any_address_of_a_superpage_fences_it() -> None:
    guest = Guest(size=SIZE)
    root = guest.page()
    guest.load(root, 1)
    entry = guest.map(root, VA, OLD, level=1)
    guest.fence()
    for fence, expected in ((VA + (1 << 20), []), (VA + (2 << 20), [Hazard.FRAME_CHANGED])):
        guest.store(entry, leaf(0x8220_0000 if fence < VA + (2 << 20) else OLD))
        guest.fence(fence)
        guest.access(VA)
        assert kinds(guest) == expected


def test_a_napot_entry_is_held_for_each_page_of_its_range() -> None:
    napot = 1 << 63 | leaf(0x8200_8000)
    guest = Guest(size=SIZE)
    root = guest.page()
    guest.load(root, 1)
    first = guest.entry(root, VA)
    for i in range(16):
        guest.store(first + 8 * i, napot)
    guest.fence()
    for i in range(16):
        guest.store(first + 8 * i, leaf(NEW))
    for i in (*range(3), *range(4, 16)):
        guest.fence(VA + i * PAGE)
    guest.access(VA + 2 * PAGE)
    assert kinds(guest) == []
    guest.access(VA + 3 * PAGE)
    (finding,) = check(guest.batch())
    assert finding.kind is Hazard.FRAME_CHANGED
    assert finding.va == VA + 3 * PAGE


def test_a_napot_entry_that_is_left_may_be_cached_for_a_page_whose_own_was_fenced() -> None:
    napot = 1 << 63 | leaf(0x8200_8000)
    guest = Guest(size=SIZE)
    root = guest.page()
    guest.load(root, 1)
    first = guest.entry(root, VA)
    for i in range(16):
        guest.store(first + 8 * i, napot)
    guest.fence()
    for i in range(2):
        guest.store(first + 8 * i, leaf(NEW))
        guest.fence(VA + i * PAGE)
    guest.access(VA)
    (finding,) = check(guest.batch())
    assert finding.culprit.entry == first + 8


def test_a_fence_by_address_leaves_the_pointer_to_a_table() -> None:
    for enough in (False, True):
        guest, _ = started()
        used(guest)
        directory = guest.entry(guest.satp[0] << 12 & (1 << 56) - 1, VA, 1)
        table = guest.page()
        guest.words[table] = leaf(NEW)
        guest.store(directory, leaf(table, V))
        guest.fence(None if enough else VA)
        guest.access(VA)
        assert kinds(guest) == ([] if enough else [Hazard.LINK_CHANGED])


def test_a_freed_table_is_reported_when_its_page_is_written_to() -> None:
    for enough in (False, True):
        guest, entry = started()
        used(guest)
        directory = guest.entry(guest.satp[0] << 12 & (1 << 56) - 1, VA, 1)
        guest.map(guest.satp[0] << 12 & (1 << 56) - 1, 0x9000_0000, entry & ~0xFFF)
        guest.store(directory, 0)
        store = len(guest.events) - 2
        if enough:
            guest.fence()
        guest.access(0x9000_0000, Access.WRITE)
        found = check(guest.batch())
        if enough:
            assert found == []
            continue
        (finding,) = found
        assert finding.kind is Hazard.FREED_REACHABLE
        assert (finding.culprit.event, finding.va) == (store, VA)


def test_a_root_with_a_used_asid_needs_a_fence() -> None:
    for enough in (False, True):
        guest, _ = started(asid=7)
        used(guest)
        other = guest.page()
        guest.map(other, VA, NEW)
        guest.load(other, 7)
        if enough:
            guest.fence(None, 7)
        guest.access(VA)
        assert kinds(guest) == ([] if enough else [Hazard.ASID_REUSED])


@pytest.mark.parametrize("enough", [False, True])
def test_a_used_asid_needs_a_fence_also_if_the_old_root_is_something_else_now(
    enough: bool,
) -> None:
    guest, _ = started(asid=7)
    used(guest)
    first = next(iter(guest.roots))
    guest.map(first, 0x9000_0000, first)
    other, kernel = guest.page(), guest.page()
    guest.map(other, VA, NEW)
    guest.map(kernel, 0x9000_0000, first)
    guest.load(kernel, 1)
    guest.retire(first)
    guest.access(0x9000_0000, Access.WRITE)
    guest.load(other, 7)
    if enough:
        guest.fence(None, 7)
    guest.access(VA)
    assert kinds(guest) == ([] if enough else [Hazard.ASID_REUSED])


def test_edits_of_a_space_that_was_not_loaded_since_its_fence_need_none() -> None:
    guest, entry = started(asid=1)
    used(guest)
    other = guest.page()
    guest.load(other, 2)
    guest.fence(VA)
    guest.store(entry, leaf(NEW))
    guest.load(guest.satp[0] << 12 & 0, 0)
    first = next(iter(guest.roots - {other}))
    guest.load(first, 1)
    guest.access(VA)
    assert kinds(guest) == []


@pytest.mark.parametrize(
    "cleared, access, kind",
    [(D, Access.WRITE, Hazard.DIRTY_CLEARED), (A, Access.READ, Hazard.ACCESSED_CLEARED)],
)
def test_cleared_a_and_d_matter_with_svade_only(cleared: int, access: Access, kind: Hazard) -> None:
    for svadu in (False, True):
        guest, entry = started(svadu=svadu)
        used(guest)
        guest.store(entry, leaf(OLD, KERNEL & ~cleared))
        guest.access(VA, access)
        assert kinds(guest, svadu=svadu) == ([] if svadu else [kind])


def test_what_is_legal_is_listed_only_on_request() -> None:
    guest, entry = started()
    guest.fence()
    guest.store(entry + 8, leaf(NEW))
    guest.access(VA + PAGE)
    guest.store(entry, leaf(OLD, USER))
    guest.fence()
    guest.store(entry, leaf(OLD, KERNEL))
    guest.access(VA)
    assert kinds(guest) == []
    assert kinds(guest, legal=True) == [Hazard.MADE_VALID, Hazard.PERMISSION_GAINED]
    assert kinds(guest, legal=True, svvptc=True) == [Hazard.PERMISSION_GAINED]


def test_batches_of_any_size_give_the_same() -> None:
    guest, entry = started()
    used(guest)
    for i in range(20):
        guest.store(entry, leaf(NEW if i % 2 else OLD, KERNEL if i % 3 else V | R | A))
        guest.access(VA, Access.WRITE if i % 4 else Access.READ)
        if i % 5 == 0:
            guest.fence(VA)
    batch = guest.batch()
    batch["pc"] = np.arange(len(batch)) // 3
    results = []
    for size in (1, 7, len(batch)):
        checker = FenceChecker(MachineModel(ram_size=SIZE))
        for at in range(0, len(batch), size):
            checker.feed(batch[at : at + size])
        results.append(
            [(f.kind, f.culprit, f.event, f.stores, f.accesses, f.late) for f in checker.findings]
        )
    assert results[0] == results[1] == results[2]
    assert len(results[0]) > 3


def test_machine_mode_and_bare_addresses_are_not_judged() -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, leaf(NEW))
    guest.access(VA, priv=Priv.M)
    guest.load(0)
    guest.access(VA)
    assert kinds(guest) == []


NC = 1 << 61
"""PBMT = 1."""
NO_A = leaf(OLD) & ~(A | D)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (0, 1, Hazard.MEMORY_TYPE_CHANGED),
        (2, 0, Hazard.MEMORY_TYPE_CHANGED),
        (1, 2, Hazard.MEMORY_ORDER_CHANGED),
        (2, 1, Hazard.MEMORY_ORDER_CHANGED),
    ],
)
@pytest.mark.parametrize("fenced", [False, True])
def test_a_changed_memory_type_needs_a_fence(
    old: int, new: int, kind: Hazard, fenced: bool
) -> None:
    guest, entry = started()
    guest.store(entry, leaf(OLD) | old << 61)
    used(guest)
    guest.store(entry, leaf(OLD) | new << 61)
    if fenced:
        guest.fence(VA)
    guest.access(VA + 8)
    found = check(guest.batch(), svpbmt=True)
    if fenced:
        assert found == []
        return
    (finding,) = found
    assert finding.kind is kind
    assert (finding.stale, finding.stale_type) == (OLD + 8, old)
    assert (finding.today, finding.today_type) == (OLD + 8, new)


def test_another_frame_of_another_type_is_another_frame() -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, leaf(NEW) | NC)
    guest.access(VA)
    (finding,) = check(guest.batch(), svpbmt=True)
    assert finding.kind is Hazard.FRAME_CHANGED
    assert (finding.stale, finding.today) == (OLD, NEW)
    assert (finding.stale_type, finding.today_type) == (0, 1)


@pytest.mark.parametrize(("bit", "old"), [(ENVCFG_PBMTE, leaf(OLD) | NC), (ENVCFG_ADUE, NO_A)])
def test_what_a_hart_may_hold_follows_its_paging_features(bit: int, old: int) -> None:
    """With the feature off the old entry only faults, which is legal; with it on it translates."""

    def found(*harts: int) -> list[Hazard]:
        guest, entry = started(harts=2)
        for hart in harts:
            guest.envcfg(bit, bit, hart=hart)
        guest.store(entry, old)
        guest.fence(VA)
        guest.store(entry, leaf(NEW))
        guest.access(VA)
        return kinds(guest, harts=2)

    assert found() == found(1) == []
    assert found(0) == found(0, 1) == [Hazard.FRAME_CHANGED]


def test_an_access_is_judged_anew_after_a_switch() -> None:
    """The access that was found right before is not taken from memory."""
    guest, entry = started()
    guest.store(entry, leaf(OLD) | NC)
    guest.fence(VA)
    guest.store(entry, leaf(NEW))
    guest.access(VA)
    assert kinds(guest) == []
    guest.envcfg(ENVCFG_PBMTE, ENVCFG_PBMTE)
    guest.access(VA)
    assert kinds(guest) == [Hazard.FRAME_CHANGED]


@pytest.mark.parametrize(
    ("va", "asid", "enough"),
    [(None, None, True), (VA, None, False), (None, 1, False), (VA, 1, False)],
)
@pytest.mark.parametrize(("bit", "entry"), [(ENVCFG_PBMTE, leaf(OLD) | NC), (ENVCFG_ADUE, NO_A)])
def test_only_a_fence_of_everything_covers_a_switch(
    bit: int, entry: int, va: int | None, asid: int | None, enough: bool
) -> None:
    guest, at = started()
    guest.envcfg(bit, bit)
    guest.store(at, entry)
    guest.fence()
    guest.envcfg(0, bit)
    switch = len(guest.events) - 1
    guest.fence(va, asid)
    guest.access(VA)
    found = check(guest.batch())
    if enough:
        assert found == []
        return
    (finding,) = found
    assert finding.kind is Hazard.PAGING_SWITCHED
    culprit = finding.culprit
    assert (culprit.register, culprit.event, culprit.new) == ("menvcfg", switch, 0)
    assert (finding.stale, finding.today) == (OLD, -14)


@pytest.mark.parametrize(("bit", "entry"), [(ENVCFG_PBMTE, leaf(OLD) | NC), (ENVCFG_ADUE, NO_A)])
def test_a_feature_switched_on_can_only_fault_once_more(bit: int, entry: int) -> None:
    guest, at = started()
    guest.store(at, entry)
    guest.fence()
    guest.envcfg(bit, bit)
    guest.access(VA)
    assert kinds(guest) == []
    assert kinds(guest, legal=True) == [Hazard.PERMISSION_GAINED]


def test_a_region_that_begins_with_a_feature_owes_nothing_for_it() -> None:
    guest, at = started()
    guest.store(at, NO_A)
    guest.fence()
    guest._emit(Kind.ENVCFG_WRITE, 0, 0, signed(ENVCFG_ADUE), flags=FLAG_STOP)
    guest.access(VA)
    assert kinds(guest, svadu=True) == []


@pytest.mark.parametrize("first", [True, False])
def test_svinval_covers_a_switch_before_it(first: bool) -> None:
    guest, at = started()
    guest.envcfg(ENVCFG_ADUE, ENVCFG_ADUE)
    guest.store(at, NO_A)
    guest.fence()
    if first:
        guest.envcfg(0, ENVCFG_ADUE)
    guest.order(W_INVAL)
    if not first:
        guest.envcfg(0, ENVCFG_ADUE)
    guest.fence(instruction=Fence.SINVAL_VMA)
    guest.order(INVAL_IR)
    guest.access(VA)
    assert kinds(guest) == ([] if first else [Hazard.PAGING_SWITCHED])
