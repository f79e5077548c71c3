"""What virtual machines inside the guest do: no model follows it, and every result says so."""

from __future__ import annotations

import numpy as np
import pytest

from hypervisor_model.events import (
    EVENT,
    Access,
    Envcfg,
    EventBatch,
    Fence,
    Kind,
    Priv,
    Satp,
    fault_pa,
    of_virtual_machines,
    show_virtual_machine,
    small_fields,
)
from hypervisor_model.exits import Exit
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import POLICIES, MachineModel
from hypervisor_model.policies import make as make_policy
from tests.hypervisor_model.guests import PAGE, Guest

VA = 0x40_0000
VS, VU = Priv.S | Priv.VIRT, Priv.U | Priv.VIRT
MACHINE = MachineModel(ram_size=64 << 20)


def event(kind: Kind, a: int = 0, b: int = 0, *, sub: int = 0, priv: int = VS) -> EventBatch:
    one = np.zeros(1, EVENT)
    one["icount"] = -1
    one["kind"], one["a"], one["b"], one["sub"], one["priv"] = kind, a, b, sub, priv
    return one


FOREIGN = [
    event(Kind.ACCESS, VA, 0x8123_4000),
    event(Kind.ACCESS, VA + PAGE, fault_pa(13), sub=Access.READ, priv=VU),
    event(Kind.PAGE_FAULT, VA + PAGE, 13, priv=VU),
    event(Kind.FENCE, sub=Fence.SFENCE_VMA | Fence.ALL),
    event(Kind.FENCE, VA, sub=Fence.SINVAL_VMA | Fence.VA),
    event(Kind.FENCE, VA, 1, sub=Fence.HFENCE_VVMA | Fence.VA_ASID, priv=Priv.S),
    event(Kind.FENCE, sub=Fence.HINVAL_GVMA | Fence.ALL, priv=Priv.S),
    event(Kind.SATP_WRITE, 0, make(Mode.SV48, 0x8020_0000), sub=Satp.SATP),
    event(Kind.SATP_WRITE, 0, make(Mode.SV39, 0x8020_0000), sub=Satp.VSATP, priv=Priv.S),
    event(Kind.SATP_WRITE, 0, make(Mode.SV39, 0x8020_0000), sub=Satp.HGATP, priv=Priv.S),
]


def own() -> EventBatch:
    """A guest that maps, unmaps, remaps and fences under the eyes of its accesses."""
    guest = Guest()
    root = guest.page()
    guest.load(root, 1)
    for step in range(4):
        where = guest.map(root, VA, guest.page())
        guest.fence(VA, 1)
        guest.access(VA, Access.WRITE)
        guest.access(VA)
        guest.store(where, 0)
        guest.fence() if step % 2 else guest.fence(asid=1)
        guest.access(VA)
        guest.page_fault(VA, 13)
    return guest.batch()


def mixed() -> tuple[EventBatch, EventBatch]:
    """The guest's own events, and the same with foreign ones before each."""
    alone = own()
    parts = [part for i in range(len(alone)) for part in (*FOREIGN, alone[i : i + 1])]
    return alone, np.concatenate(parts)


def test_which_events_are_of_virtual_machines() -> None:
    alone, both = mixed()
    assert not of_virtual_machines(alone).any()
    assert of_virtual_machines(np.concatenate(FOREIGN)).all()
    assert (both[~of_virtual_machines(both)] == alone).all()
    stores = event(Kind.PTE_WRITE, 0x8020_0000, priv=VS)
    assert not of_virtual_machines(stores).any(), "a table of the guest's is, whoever stores"


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_follows_them_and_each_says_so(name: str) -> None:
    alone, both = mixed()
    expected, model = make_policy(name, MACHINE), make_policy(name, MACHINE)
    answers = model.feed(both)
    kept = ~of_virtual_machines(both)
    assert (answers[kept] == expected.feed(alone)).all() and not answers[~kept].any()
    without, result = expected.result().to_json(), model.result().to_json()
    reasons, before = result.pop("reasons"), without.pop("reasons")
    exits, exits_before = result["exits"], without["exits"]
    if model.kinds:
        assert exits.pop("total") is None and exits_before.pop("total") == exits["at_least"]
        assert "V=1" in reasons["exits.total"]
    assert result == without
    assert "V=1" in reasons["tlb_misses"] and "tlb_misses" not in before
    # With one hart there are no remote fences.
    assert {f"exits.{key}" for key in exits.keys() - {"at_least", "total"}} <= set(reasons)
    assert set(model.kinds) - {Exit.REMOTE_FENCE} == {kind for kind in Exit if kind.key in exits}


IDLE = [
    event(Kind.FENCE, sub=Fence.HFENCE_GVMA | Fence.ALL, priv=Priv.M),
    event(Kind.FENCE, sub=Fence.HINVAL_VVMA | Fence.ALL, priv=Priv.S),
    event(Kind.SATP_WRITE, sub=Satp.HGATP, priv=Priv.S),
    event(Kind.ENVCFG_WRITE, sub=Envcfg.HENVCFG, priv=Priv.M),
]
"""What a kernel and its firmware do on a hart that could run virtual machines, without one."""


@pytest.mark.parametrize("name", POLICIES)
def test_firmware_that_fences_for_virtual_machines_makes_no_count_partial(name: str) -> None:
    assert of_virtual_machines(np.concatenate(IDLE)).all()
    expected, model = make_policy(name, MACHINE), make_policy(name, MACHINE)
    expected.feed(own())
    model.feed(np.concatenate([*IDLE, own()]))
    assert model.result().to_json() == expected.result().to_json()


@pytest.mark.parametrize("one", FOREIGN)
def test_what_shows_a_virtual_machine(one: EventBatch) -> None:
    # All but fences of the kernel itself.
    own_fence = one["kind"][0] == Kind.FENCE and one["priv"][0] == Priv.S
    assert show_virtual_machine(one) != own_fence
    assert not any(map(show_virtual_machine, (*IDLE, own())))


def test_what_they_translate_is_not_judged() -> None:
    alone, both = mixed()
    expected, tracker = LegalityTracker(MACHINE, ["a"]), LegalityTracker(MACHINE, ["a"])
    expected.feed(alone, alone["b"][np.newaxis].copy())
    tracker.feed(both, both["b"][np.newaxis].copy())
    assert tracker.counts == expected.counts
    assert tracker.counts["a"].compared == 12 and tracker.illegal == 0


def test_small_fields_are_those_of_each_event() -> None:
    both = np.concatenate([own(), *FOREIGN])
    both["harts"] = np.arange(len(both))
    for batch in (both, both[::3], both[:0]):
        small = small_fields(batch)
        assert small.dtype.itemsize == 8
        for name in ("kind", "sub", "hart", "priv", "flags", "size", "harts"):
            assert (small[name] == batch[name]).all()
        small["kind"] = 0
        assert (batch["kind"] != 0).all()
        assert (of_virtual_machines(small_fields(batch)) == of_virtual_machines(batch)).all()
