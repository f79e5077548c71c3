"""Formats: what registers hold after a write, and how entries are taken apart."""

from __future__ import annotations

import pytest

from hypervisor_model.errors import ModelError
from hypervisor_model.events import Fence
from hypervisor_model.isa import atp, causes, pte
from hypervisor_model.isa.atp import Mode
from hypervisor_model.jit import signed, unsigned


def test_register_fields_round_trip() -> None:
    value = atp.make(Mode.SV57, 0x00AB_CDEF_1234_5000, 0xBEEF)
    assert value < 0
    assert atp.mode(value) == Mode.SV57
    assert atp.asid(value) == 0xBEEF
    assert atp.root(value) == 0x00AB_CDEF_1234_5000
    assert unsigned(value) == 0xABEE_FABC_DEF1_2345


@pytest.mark.parametrize(("root", "identifier"), [(0x1001, 0), (1 << 56, 0), (0, 1 << 16)])
def test_fields_that_do_not_fit_are_refused(root: int, identifier: int) -> None:
    with pytest.raises(ModelError):
        atp.make(Mode.SV39, root, identifier)


def test_levels_of_every_mode_field() -> None:
    assert [atp.levels(m) for m in range(16)] == [0] + [-1] * 7 + [3, 4, 5] + [-1] * 5


def test_hgatp_write_with_an_unsupported_mode_keeps_the_mode_only() -> None:
    old = atp.make(Mode.SV48, 0x8000_0000, 1)
    new = atp.legalise_hgatp(old, 3 << 60 | 5 << 44 | 0x90004)
    assert new == atp.make(Mode.SV48, 0x9000_4000, 5)


def test_hgatp_root_is_aligned_to_16_kib_and_vmid_has_14_bits() -> None:
    value = atp.legalise_hgatp(0, 8 << 60 | 0xFFFF << 44 | 0x80007)
    assert value == atp.make(Mode.SV39, 0x8000_4000, 0x3FFF)


@pytest.mark.parametrize(
    ("entry", "leaf", "link"),
    [
        (0, False, False),
        (pte.V, False, True),
        (pte.V | pte.G, False, True),
        (pte.V | 3 << 8, False, True),
        (pte.V | pte.A, False, False),
        (pte.V | 1 << 57, False, False),
        (pte.V | pte.N, False, False),
        (pte.V | pte.R, True, False),
        (pte.V | pte.X, True, False),
        (pte.R | pte.X, False, False),
        (pte.V | pte.W, False, False),
    ],
)
def test_leaf_and_link(entry: int, leaf: bool, link: bool) -> None:
    assert pte.is_leaf(entry) is leaf
    assert pte.is_link(entry) is link


def test_target_of_an_entry_ignores_its_top_bits() -> None:
    assert pte.target(signed(0xE000_0000_2000_0401)) == 0x8000_1000
    assert pte.target(pte.PPN_MASK << 10) == (1 << 56) - 4096


def test_causes_by_access() -> None:
    assert [causes.page_fault(a) for a in range(3)] == [13, 15, 12]
    assert [causes.access_fault(a) for a in range(3)] == [5, 7, 1]
    assert [causes.guest_page_fault(a) for a in range(3)] == [21, 23, 20]


def test_bits_of_a_fence_operand_above_the_field_are_ignored() -> None:
    assert atp.fence_identifier(Fence.SFENCE_VMA | Fence.ASID, 1 << 16 | 5) == 5
    assert atp.fence_identifier(Fence.HINVAL_VVMA | Fence.VA_ASID, -1) == 0xFFFF
    assert atp.fence_identifier(Fence.HFENCE_GVMA | Fence.ASID, 1 << 14 | 3) == 3
    assert atp.fence_identifier(Fence.HINVAL_GVMA, -1) == 0x3FFF
