"""Traditional shadow paging on tiny guests."""

from __future__ import annotations

import pytest

from hypervisor_model import policies
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    Fence,
    Kind,
    Priv,
    PteOp,
    fault_pa,
)
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.policies import MachineModel, PolicyResult, Stream
from tests.hypervisor_model.guests import KERNEL, PAGE, USER, A, D, Guest, R, U, V, W, X, leaf

VA = 0x4000_0000


def run(guest: Guest, spec: str = "shadow", **machine: object) -> PolicyResult:
    model = MachineModel.from_json(
        {"ram_size": guest.size, "svadu": guest.svadu, "harts": len(guest.satp), **machine}
    )
    policy = policies.make(spec, model)
    policy.feed(guest.batch())
    return policy.result()


@pytest.fixture
def guest() -> Guest:
    """One page mapped at VA and touched."""
    return touched()


def touched(*, svadu: bool = False, perm: int = KERNEL) -> Guest:
    guest = Guest(svadu=svadu)
    guest.root = guest.page()
    guest.load(guest.root)
    guest.where = guest.map(guest.root, VA, guest.page(), perm)
    guest.access(VA)
    return guest


def test_first_touch_fills_once(guest: Guest) -> None:
    guest.access(VA)
    guest.access(VA + 8, Access.WRITE)
    result = run(guest)
    assert result.exits[Exit.SHADOW_FILL] == 1
    # The root is shadowed when it is loaded: linking below it was seen.
    assert result.exits[Exit.PT_WRITE] == 1


def test_store_to_a_shadowed_table_is_synchronised_at_once(guest: Guest) -> None:
    fills = run(guest).exits[Exit.SHADOW_FILL]
    writes = run(guest).exits[Exit.PT_WRITE]
    assert fills is not None and writes is not None
    guest.store(guest.where, leaf(guest.page()))
    guest.fence(VA)
    guest.access(VA)
    guest.store(guest.where + 8, leaf(guest.page()))
    guest.access(VA + PAGE)
    result = run(guest)
    assert result.exits[Exit.PT_WRITE] == writes + 2
    assert result.exits[Exit.FENCE] == 1
    assert result.exits[Exit.SHADOW_FILL] == fills


def test_tables_without_a_shadow_are_free() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page())
    guest.map(root, VA + PAGE, guest.page())
    result = run(guest)
    # Only the link in the root itself; the two tables below were never shadowed.
    assert result.exits[Exit.PT_WRITE] == 1


def test_an_unlinked_table_is_no_longer_protected(guest: Guest) -> None:
    link = guest.entry(guest.root, VA, 1)
    table = guest.where & -PAGE
    guest.store(link, 0)
    guest.store(link + 8, leaf(table, V))
    writes = run(guest).exits[Exit.PT_WRITE]
    # Linked elsewhere, but not touched there.
    guest.store(guest.where + 16, leaf(guest.page()))
    assert run(guest).exits[Exit.PT_WRITE] == writes


def test_one_store_of_many_entries_is_one_exit(guest: Guest) -> None:
    writes = run(guest).exits[Exit.PT_WRITE]
    assert writes is not None
    for i in range(8):
        guest.store(guest.where + 8 * i, 0, PteOp.CBO_ZERO, flags=FLAG_CONT if i else 0)
    result = run(guest)
    assert result.exits[Exit.PT_WRITE] == writes + 1
    assert guest.access(VA) == fault_pa(13)


def test_what_no_instruction_stores_does_not_trap(guest: Guest) -> None:
    guest.store(guest.where + 8, leaf(guest.page()), PteOp.OTHER)
    guest.access(VA + PAGE)
    result = run(guest)
    assert result.exits[Exit.PT_WRITE] == 1
    assert result.exits[Exit.SHADOW_FILL] == 1


def test_fences_trap_in_every_form_and_sinval_is_counted(guest: Guest) -> None:
    guest.fence()
    guest.fence(VA)
    guest.fence(asid=3)
    guest.fence(VA, 3, instruction=Fence.SINVAL_VMA)
    guest.fence(VA, 1, instruction=Fence.HFENCE_GVMA)
    result = run(guest)
    assert result.exits[Exit.FENCE] == 4
    assert result.counters[Counter.SINVAL] == 1


@pytest.mark.parametrize(("roots", "fills"), [("all", 2), ("2", 2), ("1", 3), ("switch", 3)])
def test_roots_are_kept(roots: str, fills: int, guest: Guest) -> None:
    other = guest.page()
    guest.load(other, 1)
    guest.map(other, VA, guest.page())
    guest.access(VA)
    guest.load(guest.root)
    guest.fence()
    guest.access(VA)
    result = run(guest, f"shadow:roots={roots}")
    assert result.exits[Exit.SATP_WRITE] == 3
    assert result.exits[Exit.SHADOW_FILL] == fills


def test_the_root_used_longest_ago_is_the_one_forgotten(guest: Guest) -> None:
    roots = [guest.root, guest.page(), guest.page()]
    for asid, root in enumerate(roots):
        guest.load(root, asid)
        if asid:
            guest.map(root, VA, guest.page())
        guest.access(VA)
    fills = run(guest, "shadow:roots=2").exits[Exit.SHADOW_FILL]
    assert fills == 3
    for again, root in ((0, 1), (0, 2), (1, 0)):
        guest.load(roots[root], root)
        guest.fence()
        guest.access(VA)
        fills += again
        assert run(guest, "shadow:roots=2").exits[Exit.SHADOW_FILL] == fills


def test_a_root_dies_with_its_table(guest: Guest) -> None:
    other = guest.page()
    guest.load(other, 1)
    guest.retire(guest.root)
    pages = run(guest).counters[Counter.SHADOW_PAGES]
    assert pages == 1
    guest.load(guest.root)
    guest.fence()
    guest.access(VA)
    assert run(guest).exits[Exit.SHADOW_FILL] == 2


def test_spaces_share_the_shadow_of_a_shared_table(guest: Guest) -> None:
    for i in range(1, 4):
        guest.store(guest.where + 8 * i, leaf(guest.page()))
        guest.access(VA + PAGE * i)
    before = run(guest).exits[Exit.SHADOW_FILL]
    other = guest.page()
    guest.words[other + 8] = guest.words[guest.root + 8]
    guest.load(other, 1)
    for i in range(4):
        guest.access(VA + PAGE * i)
    after = run(guest).exits[Exit.SHADOW_FILL]
    assert before == 1
    assert after == 2, "one fill links the shadow that is there, the rest is in it"


@pytest.mark.parametrize("setup", ["h", "base"])
def test_dirty_fill_emulates_d(setup: str) -> None:
    guest = touched(svadu=True, perm=V | R | W)
    for _ in range(2):
        guest.access(VA, Access.WRITE)
    result = run(guest, setup=setup)
    assert result.exits[Exit.SHADOW_FILL] == 1
    assert result.exits[Exit.DIRTY_FILL] == 1
    assert guest.words[guest.where] & (A | D) == A | D


BY_VIEW = [
    ("shadow", "base"),
    ("lsp", "base"),
    ("unsync", "base"),
    ("oos", "base"),
    ("ssp", "base"),
    ("vtlb", "h"),
]


@pytest.mark.parametrize(("spec", "setup"), BY_VIEW)
def test_d_is_set_once_for_all_views(spec: str, setup: str) -> None:
    guest = Guest(svadu=True)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), V | R | W | U)
    for kind in (Access.READ, Access.WRITE):
        guest.access(VA, kind, priv=Priv.U)
        guest.access(VA, kind, priv=Priv.S, flags=FLAG_SUM)
    result = run(guest, spec, setup=setup)
    assert result.exits[Exit.SHADOW_FILL] == 2
    assert result.exits[Exit.DIRTY_FILL] == 1


@pytest.mark.parametrize(("spec", "setup"), BY_VIEW)
def test_a_store_that_its_view_has_nothing_for_sets_d_for_all(spec: str, setup: str) -> None:
    guest = Guest(svadu=True)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), V | R | W | U)
    guest.access(VA, priv=Priv.U)
    guest.access(VA, Access.WRITE, priv=Priv.S, flags=FLAG_SUM)
    guest.access(VA, Access.WRITE, priv=Priv.U)
    result = run(guest, spec, setup=setup)
    assert result.exits[Exit.SHADOW_FILL] == 2
    assert result.exits[Exit.DIRTY_FILL] == 0


@pytest.mark.parametrize("svadu", [True, False])
@pytest.mark.parametrize("spec", ["lsp", "ssp", "vtlb"])
def test_what_the_guest_has_made_dirty_is_no_dirty_fill(spec: str, svadu: bool) -> None:
    guest = touched(svadu=svadu, perm=V | R | W | A)
    guest.store(guest.where, guest.words[guest.where] | D)
    guest.access(VA, Access.WRITE)
    result = run(guest, spec)
    assert result.exits[Exit.SHADOW_FILL] == 2
    assert result.exits[Exit.DIRTY_FILL] == 0
    assert result.exits[Exit.GUEST_FAULT] == 0


def test_a_first_store_needs_no_dirty_fill() -> None:
    guest = Guest(svadu=True)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), V | R | W)
    guest.access(VA, Access.WRITE)
    result = run(guest)
    assert result.exits[Exit.SHADOW_FILL] == 1
    assert result.exits[Exit.DIRTY_FILL] == 0


def test_with_svade_a_clear_d_is_the_guests_own_fault() -> None:
    guest = touched(perm=V | R | W | A)
    assert guest.access(VA, Access.WRITE) == fault_pa(15)
    result = run(guest)
    assert result.exits[Exit.DIRTY_FILL] == 0
    assert result.exits[Exit.GUEST_FAULT] == 1


def test_a_fault_is_one_exit_however_it_is_told(guest: Guest) -> None:
    for told in ("event", "both", "access"):
        if told != "event":
            guest.access(VA + PAGE)
        if told != "access":
            guest.page_fault(VA + PAGE + 4, 13)
    assert run(guest).exits[Exit.GUEST_FAULT] == 3
    guest.access(VA + PAGE)
    guest.page_fault(VA + PAGE, 15)
    assert run(guest).exits[Exit.GUEST_FAULT] == 5, "another cause is another fault"


def test_native_and_nested_have_no_exit_for_guest_faults(guest: Guest) -> None:
    guest.access(VA + PAGE)
    guest.page_fault(VA + PAGE, 13)
    assert run(guest, "native").total == 0
    assert Exit.GUEST_FAULT not in run(guest, "nested").exits


def test_whole_tables_are_protected_and_filled_before_they_are_used() -> None:
    guest = Guest()
    root, other = guest.page(), guest.page()
    guest.load(root)
    first = guest.map(root, VA, guest.page())
    guest.load(other, 1)
    guest.map(other, VA, guest.page())
    guest.load(root)
    guest.store(first, leaf(guest.page()))
    guest.access(VA)
    guest.fence(VA)
    for setup in ("h", "base"):
        result = run(guest, "shadow:fill=whole", setup=setup)
        assert result.exits[Exit.SHADOW_FILL] == 0
        # Three stores for each of two mappings, and one more.
        assert result.exits[Exit.PT_WRITE] == 7


def test_without_accesses_tables_are_shadowed_whole(guest: Guest) -> None:
    guest.store(guest.where, leaf(guest.page()))
    stores = 4
    policy = policies.make("shadow", MachineModel(ram_size=guest.size), Stream("none"))
    policy.feed(guest.batch())
    result = policy.result()
    assert result.exits[Exit.PT_WRITE] == stores
    assert result.total == stores + 1
    assert result.tlb_misses is None
    assert "tlb_misses" in result.reasons


def test_base_has_a_shadow_for_each_privilege_view() -> None:
    guest = touched(perm=USER)
    guest.access(VA, priv=Priv.U)
    guest.access(VA, priv=Priv.S, flags=2)
    for setup, fills in (("h", 1), ("base", 2)):
        assert run(guest, setup=setup).exits[Exit.SHADOW_FILL] == fills
    assert guest.words[guest.where] & U


@pytest.mark.parametrize(("spec", "setup"), BY_VIEW)
def test_a_supervisor_never_executes_a_user_page(spec: str, setup: str) -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), USER | X)
    expected = [
        guest.access(VA, kind, priv=priv, flags=FLAG_SUM)
        for priv in (Priv.S, Priv.U)
        for kind in (Access.READ, Access.FETCH)
    ]
    assert expected[1] == fault_pa(12) != expected[3]
    batch = guest.batch()
    answers = policies.make(
        spec, MachineModel.from_json({"ram_size": guest.size, "setup": setup})
    ).feed(batch)
    assert list(answers[batch["kind"] == Kind.ACCESS]) == expected


def test_exits_displace_what_the_tlb_holds(guest: Guest) -> None:
    for i in range(1, 32):
        guest.store(guest.where + 8 * i, leaf(guest.page()))
    for i in range(32):
        guest.access(VA + PAGE * i)
    for _ in range(8):
        guest.fence(VA + PAGE * 100)
        for i in range(32):
            guest.access(VA + PAGE * i)
    tlb = {"data": [4, 8], "fetch": None, "second": None}
    small = run(guest, tlb=tlb, footprint_data=0, footprint_code=0)
    large = run(guest, tlb=tlb, footprint_data=8, footprint_code=4)
    assert small.tlb_displaced == 0
    assert small.tlb_misses is not None and large.tlb_misses is not None
    assert large.tlb_displaced
    assert large.tlb_misses > small.tlb_misses + 8 * 4


def test_what_satp_holds_at_the_start_is_no_exit() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root, flags=FLAG_STOP)
    guest.map(root, VA, guest.page())
    guest.access(VA)
    for spec in ("shadow", "shadow:fill=whole", "lsp", "vtlb", "unsync", "oos", "ssp"):
        result = run(guest, spec)
        assert result.exits[Exit.SATP_WRITE] == 0, spec
        fills = 0 if "whole" in spec else 1
        assert result.exits[Exit.SHADOW_FILL] == fills, spec
