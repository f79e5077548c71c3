"""What a step did, from registers that a test sets by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cosim.capture.gdb import effects
from cosim.capture.gdb.classify import Classifier, Stop
from cosim.capture.gdb.effects import Executed, Fault, Trap
from cosim.capture.gdb.layout import GuestLayout
from cosim.capture.gdb.stopped_guest import HartState
from cosim.capture.log import EventLog
from cosim.capture.tables import LiveTables
from hypervisor_model.events import Access, Kind, Priv
from hypervisor_model.isa import causes

BASE = 0x8000_0000
PC, TABLE = BASE + 0x100, BASE + 0x1000
SD, SC_D, CSRW_SATP, JUMP = 0x00B5_3023, 0x18B5_362F, 0x1805_1073, 0x0000_006F
HSV_D = 0x6EB5_4073
INTERRUPT = 1 << 63


class HandSet:
    """Registers and code as a test sets them; what is not set must not be asked for."""

    def __init__(self, word: int, registers: Mapping[str, int], general: list[int] | None = None):
        self._word = word
        self._registers = registers
        self._general = general

    def code(self, va: int, *, physical: bool = False) -> bytes:
        return self._word.to_bytes(4, "little")

    def read(self, name: str) -> int:
        return self._registers[name]

    def read_general(self) -> list[int]:
        assert self._general is not None
        return self._general


def _layout() -> GuestLayout:
    ram = np.zeros(8 * 512, dtype=np.int64)
    return GuestLayout(ram, BASE, extents=lambda: [(BASE, ram.nbytes)], mark_at=0)


def _stop(word: int, layout: GuestLayout, a0: int = TABLE, priv: int = Priv.S) -> Stop:
    general = [0] * 33
    general[10], general[32] = a0, PC
    stop = Classifier(HandSet(word, {}), layout).classify(HartState(general, priv, 0, 0))
    return stop.translated(stop.asked, [part.va for part in stop.asked])


def _after(
    word: int, registers: Mapping[str, int], general: list[int] | None = None
) -> tuple[Executed, LiveTables]:
    layout = _layout()
    tables = LiveTables(layout.ram, BASE, EventLog())
    tables.start(8 << 60 | TABLE >> 12)
    done = effects.after_step(_stop(word, layout), 0, HandSet(word, registers, general), tables)
    return done, tables


def test_an_instruction_that_ends_behind_itself_has_completed() -> None:
    done, _ = _after(SD, {"pc": PC + 4})
    assert done.trap is None and done.fault is None
    assert done.writes == [(TABLE, 8)] and done.intercepted
    assert str(done) == f"sd a1, 0(a0) to {TABLE:#x} at {PC:#x}"


def test_a_jump_is_no_trap() -> None:
    elsewhere = {"sepc": PC + 0x40, "mepc": 0}
    done, _ = _after(JUMP, {"pc": PC - 0x80, **elsewhere})
    assert done.trap is None and not done.intercepted


def test_a_jump_with_an_old_trap_at_its_address_is_no_trap() -> None:
    """sepc still holds the address of the jump, but pc is not where its vector leads."""
    old = {"sepc": PC, "scause": 13, "stvec": PC + 0x800, "mepc": 0}
    done, _ = _after(JUMP, {"pc": PC - 0x80, **old})
    assert done.trap is None


@pytest.mark.parametrize(
    ("cause", "vector", "arrives"),
    [
        (INTERRUPT | 5, BASE + 0x400, BASE + 0x400),
        (INTERRUPT | 5, BASE + 0x401, BASE + 0x414),
        (8, BASE + 0x401, BASE + 0x400),
    ],
)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_traps_arrive_at_their_vectors(cause: int, vector: int, arrives: int, mode: str) -> None:
    registers = {"pc": arrives, "sepc": 0, "mepc": 0}
    registers |= {f"{mode}epc": PC, f"{mode}cause": cause, f"{mode}tvec": vector}
    done, _ = _after(SD, registers)
    assert done.trap == Trap(cause, mode == "m")
    assert done.interrupted == bool(cause >> 63)
    assert done.writes == [] and not done.intercepted


def test_a_page_fault_has_its_address_from_the_mode_that_took_it() -> None:
    taken = {"pc": BASE, "sepc": 0, "mepc": PC, "mcause": causes.STORE_PAGE_FAULT, "mtvec": BASE}
    done, _ = _after(SD, {**taken, "mtval": 0x1234, "stval": 0x5678})
    assert done.fault == Fault(0x1234, causes.STORE_PAGE_FAULT, 1)
    assert [part.kind for part in done.fetches] == [Access.FETCH]
    assert done.operands == []


def test_a_fault_of_m_mode_itself_is_no_page_fault_of_the_guest() -> None:
    layout = _layout()
    taken = {"pc": BASE, "sepc": 0, "mepc": PC, "mcause": causes.STORE_PAGE_FAULT, "mtvec": BASE}
    registers = HandSet(HSV_D, taken)
    tables = LiveTables(layout.ram, BASE, EventLog())
    stop = _stop(HSV_D, layout, priv=Priv.M)
    done = effects.after_step(stop, 0, registers, tables, [(TABLE, 8)])
    assert done.trap == Trap(causes.STORE_PAGE_FAULT, True)
    assert done.fault is None and done.writes == []


@pytest.mark.parametrize(("pa", "writes"), [(TABLE, [(TABLE, 8)]), (BASE, [])])
def test_an_hsv_stores_where_the_virtual_machine_leads(
    pa: int, writes: list[tuple[int, int]]
) -> None:
    layout = _layout()
    tables = LiveTables(layout.ram, BASE, EventLog())
    tables.start(8 << 60 | TABLE >> 12)
    stop = _stop(HSV_D, layout, a0=0x5000)
    done = effects.after_step(stop, 0, HandSet(HSV_D, {"pc": PC + 4}), tables, [(pa, 8)])
    assert done.writes == writes and done.intercepted == bool(writes)


@pytest.mark.parametrize(("rd", "writes"), [(0, [(TABLE, 8)]), (1, [])])
def test_an_sc_writes_if_it_leaves_zero(rd: int, writes: list[tuple[int, int]]) -> None:
    general = [0] * 33
    general[12], general[32] = rd, PC + 4
    done, _ = _after(SC_D, {}, general)
    assert done.writes == writes
    assert bool(done.operands) == bool(writes)


def test_a_satp_write_is_read_back() -> None:
    """WARL: what the register holds afterwards counts, not what was written."""
    layout = _layout()
    log = EventLog()
    tables = LiveTables(layout.ram, BASE, log)
    tables.start(0)
    log.take()
    stop = _stop(CSRW_SATP, layout, a0=0xDEAD)
    registers = HandSet(CSRW_SATP, {"satp": 0x77, "pc": PC + 4})
    old = effects.before_step(stop, HandSet(CSRW_SATP, {"satp": 0x11}))
    done = effects.after_step(stop, old, registers, tables)
    effects.record(done, registers, tables, log)
    (event,) = log.take()
    assert (event["kind"], event["b"], event["a"]) == (Kind.SATP_WRITE, 0x77, 0x11)
