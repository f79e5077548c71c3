"""What is shown of a policy's TLB and tables is what its translations come from."""

from __future__ import annotations

import pytest

from hypervisor_model import policies
from hypervisor_model.errors import ModelError
from hypervisor_model.events import Access, Priv
from hypervisor_model.inspection import is_of_space, nested_walk, shadow_walks, tlb_entries
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed
from hypervisor_model.mmu import Status
from hypervisor_model.policies import MachineModel, Policy
from hypervisor_model.policies.nested import Nested
from hypervisor_model.policies.shadow_policy import ShadowPolicy
from tests.hypervisor_model.guests import KERNEL, PAGE, Guest, leaf

VA = 0x4000_0000
SHADOWS = ("shadow", "lsp", "vtlb", "unsync", "oos", "ssp")


def fed(spec: str, guest: Guest, **machine: object) -> Policy:
    model = MachineModel.from_json({"ram_size": guest.size, **machine})
    policy = policies.make(spec, model)
    policy.feed(guest.batch())
    return policy


@pytest.fixture
def guest() -> Guest:
    """Two pages of one leaf table, the first of them touched, with ASID 5."""
    guest = Guest()
    guest.root = guest.page()
    guest.load(guest.root, 5)
    guest.where = guest.map(guest.root, VA, guest.page())
    guest.map(guest.root, VA + PAGE, guest.page())
    guest.access(VA + 8)
    return guest


def shadow(policy: Policy) -> ShadowPolicy:
    assert isinstance(policy, ShadowPolicy)
    return policy


@pytest.mark.parametrize("spec", ["native", *SHADOWS, "nested"])
def test_the_tlb_holds_what_was_touched(spec: str, guest: Guest) -> None:
    entries = tlb_entries(fed(spec, guest))
    assert {entry.va for entry in entries} == {VA}
    assert {entry.buffer for entry in entries} == {"data", "second"}
    for entry in entries:
        assert (entry.pa, entry.size) == (guest.walk(VA, Access.READ, Priv.S), 4096)
        assert entry.asid == (0 if spec == "vtlb" else 5)
        assert entry.perm & pte.R
        assert (entry.gpa is None) == (spec != "nested")
        assert (entry.view == "") == (spec != "vtlb")
    policy = fed(spec, guest)
    for asid, usable in ((5, True), (6, spec == "vtlb")):
        satp = signed(8 << 60 | asid << 44 | guest.root >> 12)
        assert {is_of_space(policy, entry, satp) for entry in tlb_entries(policy)} == {usable}
    assert not is_of_space(policy, entries[0], 0)
    guest.access(VA + PAGE)
    assert tlb_entries(fed(spec, guest))[0].va == VA + PAGE
    guest.fence()
    assert tlb_entries(fed(spec, guest)) == []


@pytest.mark.parametrize("spec", SHADOWS)
def test_a_filled_shadow_is_in_step(spec: str, guest: Guest) -> None:
    policy = shadow(fed(spec, guest))
    walks = [walk for walk in shadow_walks(policy, VA) if walk.steps and walk.steps[-1].level == 0]
    (walk,) = walks
    assert walk.view == ("supervisor" if spec == "vtlb" else "")
    assert [step.level for step in walk.steps] == [2, 1, 0]
    assert not walk.is_stale
    last = walk.steps[-1]
    assert last.guest_address == guest.where
    assert pte.target(last.entry) == guest.walk(VA, Access.READ, Priv.S)
    assert last.guest_entry == guest.words[guest.where]


def test_the_shadow_of_lsp_is_stale_until_the_fence(guest: Guest) -> None:
    guest.store(guest.where, leaf(guest.page(), KERNEL))
    (walk,) = shadow_walks(shadow(fed("lsp", guest)), VA)
    assert [step.is_stale for step in walk.steps] == [False, False, True]
    # A shadow that is write-protected has seen the store.
    (walk,) = shadow_walks(shadow(fed("shadow", guest)), VA)
    assert not walk.is_stale
    guest.fence(VA)
    (walk,) = shadow_walks(shadow(fed("lsp", guest)), VA)
    assert not walk.is_stale


def test_what_was_never_touched_is_empty(guest: Guest) -> None:
    (walk,) = shadow_walks(shadow(fed("lsp", guest)), VA + PAGE)
    assert (walk.steps[-1].level, walk.steps[-1].entry) == (0, 0)
    assert walk.steps[-1].guest_entry != 0
    assert not walk.is_stale
    bare = Guest()
    bare.load(0)
    assert shadow_walks(shadow(fed("lsp", bare)), VA) == []
    assert tlb_entries(fed("lsp", bare)) == []


def test_views_of_a_guest_without_the_h_extension(guest: Guest) -> None:
    walks = shadow_walks(shadow(fed("lsp", guest, setup="base")), VA)
    assert [walk.view for walk in walks] == ["user", "supervisor", "supervisor with SUM"]
    assert [bool(walk.steps) for walk in walks] == [True, True, False]


def test_nested_walks_both_stages(guest: Guest) -> None:
    policy = fed("nested", guest)
    assert isinstance(policy, Nested)
    found = nested_walk(policy, VA + 8, Access.READ, Status()).translation
    assert found.pa == guest.walk(VA + 8, Access.READ, Priv.S)
    assert {one.stage for one in found.references} == {"VS", "G"}
    # A page that was never touched is not mapped yet.
    assert nested_walk(policy, VA + PAGE, Access.READ, Status()).translation.cause == 21


def test_a_hart_that_is_not_there(guest: Guest) -> None:
    policy = fed("lsp", guest)
    with pytest.raises(ModelError, match="no hart 3"):
        tlb_entries(policy, 3)
    with pytest.raises(ModelError, match="no hart -1"):
        shadow_walks(shadow(policy), VA, -1)
