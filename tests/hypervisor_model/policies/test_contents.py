"""What a policy shows of itself is what it answers with."""

from __future__ import annotations

import numpy as np
import pytest

from hypervisor_model.events import FLAG_STOP, Access, Kind, Priv, empty
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed
from hypervisor_model.policies import MachineModel, Policy, make
from hypervisor_model.policies.contents import ONE_VIEW, VIEW_NAMES, held, shadows

ROOT, MIDDLE, LEAVES = 0x8000_0000, 0x8000_1000, 0x8000_2000
SATP = 8 << 60 | 3 << 44 | ROOT >> 12
VA, PA = 0x4000_3123, 0x8010_0123
LEAF = PA >> 12 << 10 | 0xCF | pte.U


def fed(name: str, **machine: object) -> Policy:
    """A policy after one access to VA."""
    policy = make(name, MachineModel(ram_size=8 << 20, **machine))  # type: ignore[arg-type]
    rows = [
        (Kind.TABLE_ADD, 0, ROOT, 2, 0, 0),
        (Kind.TABLE_ENTRY, 0, ROOT + 8, 0, MIDDLE >> 12 << 10 | 1, 0),
        (Kind.TABLE_ADD, 0, MIDDLE, 1, 0, 0),
        (Kind.TABLE_ENTRY, 0, MIDDLE, 0, LEAVES >> 12 << 10 | 1, 0),
        (Kind.TABLE_ADD, 0, LEAVES, 0, 0, 0),
        (Kind.TABLE_ENTRY, 0, LEAVES + 8 * 3, 0, LEAF, 0),
        (Kind.SATP_WRITE, 0, signed(SATP), signed(SATP), 0, FLAG_STOP),
        (Kind.ACCESS, int(Access.READ), VA, PA, 0, 0),
    ]
    events = empty(len(rows))
    for number, (kind, sub, a, b, c, flags) in enumerate(rows):
        events[number] = (number, 0x1000, a, b, c, kind, sub, 0, int(Priv.U), flags, 8, 0)
    answer = policy.feed(events)
    assert answer[-1] == PA
    return policy


@pytest.mark.parametrize("name", ["native", "nested", "shadow", "lsp", "vtlb", "unsync", "oos"])
def test_the_tlb_holds_what_was_accessed(name: str) -> None:
    entries = [one for one in held(fed(name)) if one.va <= VA < one.va + one.size]
    assert {one.buffer for one in entries} == {"data", "second"}
    for one in entries:
        assert one.pa + (VA - one.va) == PA
        assert one.asid in (3, 0)


@pytest.mark.parametrize("name", ["native", "nested"])
def test_a_policy_without_shadow_tables_says_so(name: str) -> None:
    assert shadows(fed(name), SATP, VA) is None


def test_a_shadow_is_filled_where_it_was_accessed_only() -> None:
    policy = fed("lsp")
    (one,) = shadows(policy, SATP, VA) or []
    assert (one.view, one.level, one.pa) == (ONE_VIEW, 0, PA & ~0xFFF)
    (beside,) = shadows(policy, SATP, VA + 4096) or []
    assert beside.pa is None
    assert shadows(policy, SATP + 5, VA) == []
    assert shadows(policy, 0, VA) == []


def test_each_privilege_view_has_its_shadow() -> None:
    found = shadows(fed("lsp", setup="base"), SATP, VA) or []
    assert {one.view: one.pa for one in found} == {VIEW_NAMES[0]: PA & ~0xFFF}
    assert np.all([one.entry & pte.U for one in found])
