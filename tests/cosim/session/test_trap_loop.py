"""When the registers of a guest mean that it traps without end, and whether Svade is the cause."""

from __future__ import annotations

import numpy as np
import pytest

from cosim.machine.configuration import RAM_BASE
from cosim.machine.waits import Linked
from cosim.session.trap_loop import _NAMES, TrapLoop, _loop, jumps_to_itself
from hypervisor_model.isa import causes, pte

_VECTOR = RAM_BASE + 0x1074
_NEVER = dict.fromkeys(_NAMES, 0)
_SATP = 8 << 60 | RAM_BASE >> 12


def _registers(**values: int) -> dict[str, int]:
    return {**_NEVER, "pc": _VECTOR, **values}


def test_a_trap_from_its_own_vector_is_a_loop() -> None:
    loop = _loop(_registers(stvec=_VECTOR | 1, sepc=_VECTOR, scause=12, stval=_VECTOR, satp=_SATP))
    assert loop == TrapLoop("s", _VECTOR, 12, _VECTOR, _SATP)
    loop = _loop(_registers(mtvec=_VECTOR, mepc=_VECTOR, mcause=1, mtval=7))
    assert loop == TrapLoop("m", _VECTOR, 1, 7, 0)


@pytest.mark.parametrize(
    "registers",
    [
        # The handler of a trap from elsewhere.
        _registers(stvec=_VECTOR, sepc=_VECTOR + 0x100, scause=12),
        # It has left its vector.
        _registers(pc=_VECTOR + 4, stvec=_VECTOR, sepc=_VECTOR, scause=12),
        # An interrupt in a loop at the vector.
        _registers(stvec=_VECTOR, sepc=_VECTOR, scause=1 << 63 | 5),
        # At 0, where a mode that never trapped seems to have its vector.
        _registers(pc=0),
    ],
)
def test_anything_else_is_none(registers: dict[str, int]) -> None:
    assert _loop(registers) is None


@pytest.mark.parametrize(
    ("cause", "bits", "hardware"),
    [
        (causes.FETCH_PAGE_FAULT, pte.R | pte.X, True),
        (causes.LOAD_PAGE_FAULT, pte.R, True),
        (causes.STORE_PAGE_FAULT, pte.R | pte.W | pte.A, True),
        # Not the bits that hardware sets are missing.
        (causes.FETCH_PAGE_FAULT, pte.R | pte.A, False),
        (causes.STORE_PAGE_FAULT, pte.R | pte.A, False),
        (causes.LOAD_PAGE_FAULT, pte.R | pte.A, False),
        (causes.FETCH_ACCESS_FAULT, pte.R | pte.X, False),
    ],
)
def test_whether_the_tables_leave_a_and_d_to_the_hardware(
    cause: int, bits: int, hardware: bool
) -> None:
    ram = np.zeros(1024, dtype=np.int64)
    ram[_VECTOR >> 30] = (RAM_BASE >> 2) | pte.V | bits
    assert TrapLoop("s", _VECTOR, cause, _VECTOR, _SATP)._needs_hardware(ram) is hardware
    # Nothing is mapped there.
    assert not TrapLoop("s", _VECTOR, cause, 0, _SATP)._needs_hardware(ram)


def test_a_jump_to_itself_is_found_where_the_kernel_runs() -> None:
    ram = np.zeros(512, dtype=np.int64)
    content = ram.view(np.uint8)
    content[0x102:0x104] = (0x01, 0xA0)  # c.j 0
    content[0x204:0x208] = (0x6F, 0, 0, 0)  # j 0
    high = Linked(RAM_BASE, 4096, 0xFFFF_FFFF_8000_0000)
    assert jumps_to_itself(RAM_BASE + 0x102, ram, ())
    assert jumps_to_itself(0xFFFF_FFFF_8000_0204, ram, (high,))
    assert not jumps_to_itself(0xFFFF_FFFF_8000_0204, ram, ())
    for pc in (RAM_BASE + 0x100, RAM_BASE + 0x104, RAM_BASE + 4094, RAM_BASE + 4096, 0):
        assert not jumps_to_itself(pc, ram, (high,))
