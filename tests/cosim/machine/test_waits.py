"""Where a ``wfi`` is, and the breakpoints that make QEMU count around it one by one."""

from __future__ import annotations

import numpy as np

from cosim.machine import waits
from cosim.machine.waits import Linked

BASE = 0x8000_0000
WFI = (0x1050_0073).to_bytes(4, "little")


def _ram(**at: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    ram = np.zeros(8 * 512, dtype=np.int64)
    for offset in at.values():
        ram.view(np.uint8)[offset : offset + 4] = np.frombuffer(WFI, dtype=np.uint8)
    return ram


def test_a_wait_at_any_halfword_is_found_also_across_pages() -> None:
    ram = _ram(aligned=0x1000, compressed=0x2006, across=0x4FFE)
    assert waits.pages(ram, BASE, [(BASE, ram.nbytes)]) == {
        BASE + x for x in (0x1000, 0x2000, 0x4000)
    }


def test_only_what_holds_data_is_read() -> None:
    ram = _ram(inside=0x1000, outside=0x3000)
    assert waits.pages(ram, BASE, [(BASE + 0x1000, 0x1000)]) == {BASE + 0x1000}


def test_a_page_has_a_point_wherever_it_runs() -> None:
    kernel = Linked(BASE + 0x1000, 0x1800, 0xFFFF_FFFF_8000_0000)
    assert waits.points([BASE], [kernel]) == {BASE + 0xFFF}
    # A piece that fills its last page in part.
    assert waits.points([BASE + 0x2000], [kernel]) == {BASE + 0x2FFF, 0xFFFF_FFFF_8000_1FFF}


def test_a_point_is_a_breakpoint() -> None:
    assert waits.breakpoints([0xFFF, 0x1FFF]) == [b"Z0,fff,4", b"Z0,1fff,4"]
