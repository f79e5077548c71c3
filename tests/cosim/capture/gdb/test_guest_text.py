"""Sites in text, as it becomes executable and as it changes."""

from __future__ import annotations

import numpy as np

from cosim.capture.gdb.guest_text import GuestText
from cosim.capture.gdb.layout import GuestLayout
from hypervisor_model.isa import pte
from tests.cosim.capture.gdb.guest_ram import BASE, CSRW_SATP, SFENCE, SINVAL, at, leaf, put, ram


def text(memory: np.ndarray) -> GuestText:
    return GuestText(GuestLayout(memory, BASE, extents=lambda: [(BASE, memory.nbytes)], mark_at=0))


def test_text_is_found_under_each_executable_mapping() -> None:
    memory = ram()
    put(memory, BASE + 0x1010, SFENCE)
    found = text(memory)
    executable = pte.V | pte.R | pte.X
    assert found.learn(at(0xFFFF_0000), leaf(BASE + 0x1000, executable)) == {0xFFFF_0010}
    assert found.learn(at(0xEEEE_0000), leaf(BASE + 0x1000, executable)) == {0xEEEE_0010}
    assert found.learn(at(0x4000), leaf(BASE + 0x1000, executable | pte.U)) == set()
    assert found.scan(BASE, 0x2000) == [BASE + 0x1010]


def test_text_patched_through_a_writable_mapping_is_scanned_again() -> None:
    memory = ram()
    found = text(memory)
    assert found.learn(at(0xFFFF_0000), leaf(BASE + 0x1000, pte.V | pte.R | pte.X)) == set()
    fixmap = 0xAAAA_0000
    found.learn(at(fixmap), leaf(BASE + 0x1000, pte.V | pte.R | pte.W))
    assert found.again() == set()
    put(memory, BASE + 0x1020, CSRW_SATP)
    assert found.again() == {0xFFFF_0020}
    assert found.again() == set(), "nothing was written since"
    put(memory, BASE + 0x1030, SINVAL)
    assert found.learn(at(fixmap), 0) == {0xFFFF_0020, 0xFFFF_0030}
    put(memory, BASE + 0x1040, SINVAL)
    assert found.again() == set(), "the mapping is gone, so nobody can write"


def test_text_that_appears_in_a_writable_and_executable_mapping_is_late() -> None:
    memory = ram()
    found = text(memory)
    leaf_of_both = leaf(BASE + 0x1000, pte.V | pte.R | pte.W | pte.X)
    put(memory, BASE + 0x1010, SFENCE)
    assert found.learn(at(0xFFFF_0000), leaf_of_both) == {0xFFFF_0010}
    assert found.late() == {}, "it was there when the page became executable"
    put(memory, BASE + 0x1020, CSRW_SATP)
    put(memory, BASE + 0x2020, CSRW_SATP)
    assert found.learn(at(0xEEEE_0000, 1), leaf(BASE, pte.V | pte.R | pte.W)) == set()
    assert found.late() == {0xFFFF_0020: BASE + 0x1020}
    assert found.late() == {}, "known now"
    found.learn(at(0xFFFF_0000), 0)
    put(memory, BASE + 0x1030, SFENCE)
    assert found.late() == {}, "nothing executes there any more"


def test_text_is_scanned_whenever_it_becomes_executable_and_without_paging_all_of_it() -> None:
    memory = ram()
    found = text(memory)
    executable = leaf(BASE + 0x1000, pte.V | pte.R | pte.X)
    assert found.learn(at(0xFFFF_0000), executable) == set()
    found.learn(at(0xFFFF_0000), 0)
    put(memory, BASE + 0x1FFE, SINVAL)
    assert found.learn(at(0xFFFF_0000), executable) == {0xFFFF_0FFE}
    put(memory, BASE + 0x3000, SFENCE)
    assert found.everywhere() == {BASE + 0x3000}
    assert found.everywhere() == set()
