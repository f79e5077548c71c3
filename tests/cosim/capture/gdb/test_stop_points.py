"""Sites in text, and the virtual addresses under which tables and text are reached."""

from __future__ import annotations

import numpy as np

from cosim.capture.gdb import instruction_scan
from cosim.capture.gdb.aliases import Aliases
from cosim.capture.gdb.guest_text import GuestText
from cosim.capture.gdb.layout import GuestLayout
from cosim.capture.gdb.stop_points import StopPoints
from cosim.capture.tables import Leaf
from hypervisor_model.isa import pte

BASE = 0x8000_0000
SFENCE, SFENCE_VA, SINVAL = 0x1200_0073, 0x1205_0073, 0x16B5_0073
CSRW_SATP, CSRR_SATP, CSRRSI_SATP = 0x1807_9073, 0x1800_27F3, 0x1800_E073
NOP = 0x0000_0013


def ram(pages: int = 8) -> np.ndarray:
    return np.zeros(pages * 512, dtype=np.int64)


def put(memory: np.ndarray, at: int, word: int) -> None:
    memory.view(np.uint16)[(at - BASE) >> 1 : ((at - BASE) >> 1) + 2] = word & 0xFFFF, word >> 16


def test_scan_finds_fences_and_satp_writes_at_any_halfword() -> None:
    memory = ram()
    wanted = {BASE + 0x10: SFENCE, BASE + 0x102: SFENCE_VA, BASE + 0x200: SINVAL,
              BASE + 0x306: CSRW_SATP, BASE + 0xFFE: CSRRSI_SATP}  # fmt: skip
    for place, word in wanted.items():
        put(memory, place, word)
    put(memory, BASE + 0x400, CSRR_SATP)
    put(memory, BASE + 0x500, NOP)
    assert instruction_scan.scan(memory, BASE, BASE, 0x2000) == sorted(wanted)
    assert instruction_scan.scan(memory, BASE, BASE + 0x104, 0x204) == [BASE + 0x200, BASE + 0x306]
    assert instruction_scan.scan(memory, BASE, 0, 0x1000) == []


def leaf(pa: int, flags: int) -> int:
    return pa >> 2 | flags


def at(va: int, level: int = 0, table: int = BASE + 0x7000) -> Leaf:
    """The leaf at ``va`` in a table."""
    return table + 8 * (va >> 12 + 9 * level & 511), va, level


def test_aliases_follow_superpages_and_forget_replaced_leaves() -> None:
    aliases = Aliases(pte.W)
    writable = pte.V | pte.R | pte.W
    high = 0xFF00_0000_0000_0000
    assert aliases.learn(at(high, 1), leaf(BASE, writable))
    assert not aliases.learn(at(high, 1), leaf(BASE, writable))
    assert aliases.learn(at(0x5000), leaf(BASE + 0x3000, writable))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000, 0x5000}
    assert aliases.learn(at(0x5000), leaf(BASE + 0x4000, writable))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000}
    assert not aliases.learn(at(0x6000), leaf(BASE + 0x3000, pte.V | pte.R))
    assert aliases.learn(at(0x6000), leaf(BASE + 0x3000, writable | pte.U))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000, 0x6000}
    assert aliases.learn(at(0x5000), 0)
    assert set(aliases.of(BASE + 0x4000)) == {high + 0x4000}


def test_an_address_that_two_tables_map_is_forgotten_with_the_second() -> None:
    aliases = Aliases(pte.W)
    writable = pte.V | pte.R | pte.W
    one, other = at(0x5000), at(0x5000, table=BASE + 0x6000)
    assert aliases.learn(one, leaf(BASE, writable))
    assert not aliases.learn(other, leaf(BASE, writable))
    assert not aliases.learn(one, 0)
    assert set(aliases.of(BASE)) == {0x5000}
    aliases.learn(one, leaf(BASE + 0x1000, writable))
    assert set(aliases.of(BASE)) == {0x5000}, "to another page there"
    aliases.learn(other, 0)
    assert set(aliases.of(BASE)) == set()
    assert set(aliases.of(BASE + 0x1000)) == {0x5000}


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
    assert found.late() == set(), "it was there when the page became executable"
    put(memory, BASE + 0x1020, CSRW_SATP)
    put(memory, BASE + 0x2020, CSRW_SATP)
    assert found.learn(at(0xEEEE_0000, 1), leaf(BASE, pte.V | pte.R | pte.W)) == set()
    assert found.late() == {0xFFFF_0020}
    assert found.late() == set(), "known now"
    found.learn(at(0xFFFF_0000), 0)
    put(memory, BASE + 0x1030, SFENCE)
    assert found.late() == set(), "nothing executes there any more"


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


def test_points_are_made_good_with_the_next_request() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def defer(self, *payloads: bytes) -> None:
            self.sent += payloads

    stub = Recorder()
    points = StopPoints(stub)
    points.breaks.add({0x1000})
    points.watches.become({0x2000, 0xFFFF_0000_0000_3000})
    points.sync()
    assert sorted(stub.sent) == [b"Z0,1000,4", b"Z2,2000,1000", b"Z2,ffff000000003000,1000"]
    stub.sent.clear()
    points.sync()
    assert stub.sent == []
    points.watches.remove({0x2000})
    points.watches.remove({0xFFFF_0000_0000_3000})
    points.watches.add({0xFFFF_0000_0000_3000})
    points.sync()
    assert stub.sent == [b"z2,2000,1000"]
