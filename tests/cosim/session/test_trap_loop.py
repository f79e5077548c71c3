"""When the registers of a guest mean that it traps without end, and whether Svade is the cause."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from cosim.debugger.rsp import Stub
from cosim.machine.configuration import RAM_BASE
from cosim.machine.qemu import Machine
from cosim.machine.waits import Linked
from cosim.session.trap_loop import _NAMES, TrapLoop, TrapLoops, _loop, jumps_to_itself
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


class _Guest:
    """What :class:`TrapLoops` looks at: the registers and the recording of a guest that runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registers = _registers()
        self._size = 0
        self._now = 100.0
        monkeypatch.setattr("cosim.debugger.peek.find", lambda *_: self)
        monkeypatch.setattr("time.monotonic", lambda: self._now)
        monkeypatch.setattr(TrapLoops, "_worked", lambda _: self._size)
        recording = SimpleNamespace(log=Path())
        machine = SimpleNamespace(pid=0, timing=recording)
        self.loops = TrapLoops(cast(Machine, machine), cast(Stub, object()))

    def read(self) -> dict[str, int]:
        return self.registers

    def look(self, *, grows: int = 5000, **registers: int) -> TrapLoop | None:
        """Look a quarter of a second later, and return the trap that is taken again and again."""
        self._now += 0.25
        self._size += grows
        self.registers = _registers(**registers)
        assert self.loops.look() is None
        return self.loops.repeated()


_FAULT = {"stvec": _VECTOR + 0x100, "sepc": _VECTOR + 0x40, "scause": 13, "stval": 0x300000}


def test_a_handler_that_comes_back_to_its_fault(guest: _Guest) -> None:
    assert guest.look(**_FAULT) is None
    assert guest.look(**_FAULT) is None
    assert guest.look(**_FAULT | {"pc": _FAULT["stvec"], "satp": _SATP}) == TrapLoop(
        "s", _FAULT["sepc"], 13, 0x300000, _SATP
    )
    # Another fault: it comes on.
    assert guest.look(**_FAULT | {"pc": _FAULT["stvec"], "stval": 0x301000}) is None


@pytest.mark.parametrize(
    ("registers", "grows"),
    [
        # Its last trap was long ago.
        (_FAULT, 5000),
        # An interrupt.
        (_FAULT | {"pc": _FAULT["stvec"], "scause": 1 << 63 | 5}, 5000),
        # It does not work.
        (_FAULT | {"pc": _FAULT["stvec"]}, 0),
        # It has never trapped.
        ({"pc": 0}, 5000),
    ],
)
def test_no_trap_again_and_again(guest: _Guest, registers: dict[str, int], grows: int) -> None:
    assert not any(guest.look(grows=grows, **registers) for _ in range(8))


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> _Guest:
    return _Guest(monkeypatch)


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
