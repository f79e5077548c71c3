"""Fences and writes of ``satp`` in RAM."""

from __future__ import annotations

from cosim.capture.gdb import instruction_scan
from tests.cosim.capture.gdb.guest_ram import (
    BASE,
    CSRR_SATP,
    CSRRSI_SATP,
    CSRW_SATP,
    HLV_D,
    HSV_D,
    NOP,
    SFENCE,
    SFENCE_VA,
    SINVAL,
    put,
    ram,
)


def test_scan_finds_fences_and_satp_writes_at_any_halfword() -> None:
    memory = ram()
    wanted = {BASE + 0x10: SFENCE, BASE + 0x102: SFENCE_VA, BASE + 0x200: SINVAL,
              BASE + 0x306: CSRW_SATP, BASE + 0x30A: HSV_D, BASE + 0xFFE: CSRRSI_SATP}  # fmt: skip
    for place, word in wanted.items():
        put(memory, place, word)
    put(memory, BASE + 0x400, CSRR_SATP)
    put(memory, BASE + 0x500, NOP)
    put(memory, BASE + 0x600, HLV_D)
    assert instruction_scan.scan(memory, BASE, BASE, 0x2000) == sorted(wanted)
    assert instruction_scan.scan(memory, BASE, BASE + 0x104, 0x204) == [BASE + 0x200, BASE + 0x306]
    assert instruction_scan.scan(memory, BASE, 0, 0x1000) == []
