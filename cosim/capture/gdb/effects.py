"""What an instruction did in its step, and the events that say so.

An instruction becomes an event only if the step executed it.  The step may take an interrupt
instead (the recording decides when), or the instruction may fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cosim.capture.decode import Instruction
from cosim.capture.encodings import (
    CSR_NAMES,
    CSR_WRITES,
    HENVCFG,
    HGATP,
    MENVCFG,
    SATP,
    VSATP,
    InstructionKind,
)
from cosim.capture.gdb.classify import Part, Stop
from cosim.capture.gdb.stopped_guest import Registers
from cosim.capture.log import EventLog
from hypervisor_model.events import Access, Envcfg, Kind, Priv, PteOp, Satp
from hypervisor_model.isa import causes, pte

_PC = 32
_TRAP_REGISTERS = (("scause", "stvec", "sepc"), ("mcause", "mtvec", "mepc"))
_SPVP = 8
"""The bit of ``hstatus`` that says with which privilege ``hlv`` and ``hsv`` access memory."""

_OPS = {
    InstructionKind.STORE: PteOp.STORE,
    InstructionKind.AMO: PteOp.AMO,
    InstructionKind.SC: PteOp.SC,
    InstructionKind.CBO_ZERO: PteOp.CBO_ZERO,
}
_ATP = {SATP: Satp.SATP, VSATP: Satp.VSATP, HGATP: Satp.HGATP}
_ENVCFG = {MENVCFG: Envcfg.MENVCFG, HENVCFG: Envcfg.HENVCFG}

FAULTING = {
    causes.FETCH_PAGE_FAULT: Access.FETCH,
    causes.LOAD_PAGE_FAULT: Access.READ,
    causes.STORE_PAGE_FAULT: Access.WRITE,
}
"""The access that each page fault comes from."""


class Tables(Protocol):
    """The live tables, as far as the effects of an instruction need them."""

    def __contains__(self, page: int) -> bool:
        """Return True if ``page`` is a live table."""

    def changed(self, pa: int, size: int) -> bool:
        """Return True if an entry in ``size`` bytes at ``pa`` differs from its copy."""

    def differences(self) -> list[tuple[int, int, int]]:
        """Return (PA, copy, RAM) of each entry that differs from its copy."""

    def found(self, pa: int) -> None:
        """Take in an entry that differs, as an event."""

    def vector_store(self) -> None:
        """Take in an executed vector store, as events."""

    def store(self, parts: Sequence[tuple[int, int]], size: int, op: PteOp) -> None:
        """Take in an executed store, as events."""

    def write_satp(self, old: int, new: int) -> None:
        """Take in a write of ``satp``, as events."""

    def write_envcfg(self, register: Envcfg, old: int, new: int) -> None:
        """Take in a write of ``menvcfg`` or ``henvcfg``."""


class Trap(NamedTuple):
    """What the step did instead of the instruction."""

    cause: int
    """As in ``scause`` and ``mcause``."""
    in_firmware: bool
    """True if the trap went to M-mode."""

    @property
    def interrupt(self) -> bool:
        """True for an interrupt: the instruction has not begun."""
        return bool(self.cause >> 63)


class Fault(NamedTuple):
    """A page fault of the instruction."""

    va: int
    cause: int
    priv: int
    """The privilege of the access; a virtual machine's for ``hlv`` and ``hsv``."""


class Executed(NamedTuple):
    """What one step did."""

    stop: Stop
    trap: Trap | None
    """None if the instruction completed."""
    fault: Fault | None
    fetches: Sequence[Part]
    """The fetches that succeeded."""
    operands: Sequence[Part]
    """The reads and writes that succeeded."""
    writes: Sequence[tuple[int, int]]
    """(PA, bytes) of each part of a store that reached a live table; empty if none did."""
    old_atp: int
    """What the register held that one of CSR_WRITES writes."""
    unforeseen: bool = False
    """True if it touched a watched page that its operands do not name."""

    @property
    def interrupted(self) -> bool:
        """True if the step took an interrupt: the instruction is still to execute."""
        return self.trap is not None and self.trap.interrupt

    @property
    def intercepted(self) -> bool:
        """True if it was a fence, a write of a root register or a store to a live table."""
        kind = self.stop.instruction.kind
        done = self.trap is None
        return done and (kind in (InstructionKind.FENCE, *CSR_WRITES) or bool(self.writes))

    def __str__(self) -> str:
        text, pc = self.stop.instruction.text, self.stop.pc
        place = f" to {self.writes[0][0]:#x}" if self.writes else ""
        return f"{text}{place} at {pc:#x}"


def before_step(stop: Stop, registers: Registers) -> int:
    """Return what the register holds that the instruction writes; 0 if it is none of CSR_WRITES."""
    inst = stop.instruction
    return registers.read(CSR_NAMES[inst.csr]) if inst.kind in CSR_WRITES else 0


def after_step(
    stop: Stop,
    old_atp: int,
    registers: Registers,
    tables: Tables,
    virtual: Sequence[tuple[int, int]] = (),
) -> Executed:
    """Find out what the step did.

    :param stop: the stop before the step, translated.
    :param old_atp: the answer of :func:`before_step`.
    :param virtual: what ``hsv`` was to store (:mod:`cosim.capture.gdb.virtual_stores`).
    """
    inst = stop.instruction
    fetches, operands = stop.fetches, stop.operands
    writes = _table_writes(stop, virtual, tables)
    after = _after(stop, writes, registers, tables)
    trap = _trap(stop, after[_PC], registers)
    fault = None
    if trap is not None:
        operands, writes = [], []
        # A fault of M-mode's own (hsv, MPRV) goes to M-mode.  The plugin has it as no event either.
        if not trap.interrupt and trap.cause in FAULTING and stop.priv != Priv.M:
            fault = _fault(stop, trap, registers)
        if trap.cause in (causes.FETCH_PAGE_FAULT, causes.FETCH_ACCESS_FAULT):
            fetches = []
    elif inst.kind is InstructionKind.SC and not _stored(inst, after):
        operands, writes = [], []
    return Executed(stop, trap, fault, fetches, operands, writes, old_atp)


def completed(stop: Stop) -> Executed:
    """Return what a fence that completed did."""
    return Executed(stop, None, None, stop.fetches, stop.operands, [], 0)


def _table_writes(
    stop: Stop, virtual: Sequence[tuple[int, int]], tables: Tables
) -> list[tuple[int, int]]:
    if stop.instruction.kind not in _OPS:
        return []
    written = [(operand.pa, operand.size) for operand in stop.operands if operand.pa is not None]
    written += virtual
    return written if any(pa & -pte.PAGE in tables for pa, _ in written) else []


def _after(
    stop: Stop, writes: Sequence[tuple[int, int]], registers: Registers, tables: Tables
) -> list[int]:
    """Return the registers after the step, as far as they matter: all for ``sc``, else only pc.

    A changed entry proves that its store ran.  pc is read only if there is no such proof.
    """
    inst = stop.instruction
    if inst.kind is InstructionKind.SC:
        return registers.read_general()
    ran = any(tables.changed(pa, size) for pa, size in writes)
    return [0] * _PC + [stop.pc + inst.length if ran else registers.read("pc")]


def _trap(stop: Stop, after: int, registers: Registers) -> Trap | None:
    """Return the trap that the step took.

    A completed instruction ends behind itself, unless it is a jump.  If pc is elsewhere, the trap
    registers decide: ``sepc`` or ``mepc`` names the instruction, and pc is where its vector leads.
    """
    if after == stop.pc + stop.instruction.length:
        return None
    for status, vector, epc in _TRAP_REGISTERS:
        if registers.read(epc) != stop.pc:
            continue
        trap = Trap(registers.read(status), epc == "mepc")
        base = registers.read(vector)
        offset = 4 * (trap.cause & 0xFF) if trap.interrupt and base & 1 else 0
        if after == (base & ~3) + offset:
            return trap
    return None


def _fault(stop: Stop, trap: Trap, registers: Registers) -> Fault:
    # Firmware that takes a page fault hands it on as it is.
    va = registers.read("mtval" if trap.in_firmware else "stval")
    priv = stop.state.priv
    if stop.instruction.guest:
        priv = Priv.VIRT | registers.read("hstatus") >> _SPVP & 1
    return Fault(va, trap.cause, priv)


def _stored(inst: Instruction, after: Sequence[int]) -> bool:
    """Return True if an ``sc`` succeeded: it writes 0 to rd.  If rd is x0, nobody can tell."""
    rd = int.from_bytes(inst.code, "little") >> 7 & 31
    return rd == 0 or after[rd] == 0


def record(executed: Executed, registers: Registers, tables: Tables, log: EventLog) -> None:
    """Write the events of an instruction that completed, or the page fault of one that did not.

    The accesses come before them: see :mod:`cosim.capture.gdb.samples`.
    """
    stop, fault = executed.stop, executed.fault
    inst = stop.instruction
    if fault is not None:
        log.add(Kind.PAGE_FAULT, fault.va, fault.cause, priv=fault.priv)
    if inst.kind is InstructionKind.VECTOR_STORE:
        # One that traps has stored the elements before.
        tables.vector_store()
    if executed.trap is not None:
        return
    if inst.kind is InstructionKind.FENCE:
        sub, va, asid = inst.fence_operands(stop.state.general)
        log.add(Kind.FENCE, va, asid, sub=sub)
    elif inst.kind is InstructionKind.FENCE_ORDER:
        log.add(Kind.FENCE_ORDER, 0, sub=inst.sub)
    elif inst.kind is InstructionKind.ATP_WRITE:
        _record_atp_write(executed, registers, tables, log)
    elif inst.kind is InstructionKind.ENVCFG_WRITE:
        new = registers.read(CSR_NAMES[inst.csr])
        tables.write_envcfg(_ENVCFG[inst.csr], executed.old_atp, new)
    if executed.unforeseen and inst.kind is not InstructionKind.VECTOR_STORE:
        for pa, _, _ in tables.differences():
            tables.found(pa)
    if executed.writes:
        tables.store(executed.writes, inst.size, _OPS[inst.kind])


def _record_atp_write(
    executed: Executed, registers: Registers, tables: Tables, log: EventLog
) -> None:
    csr = executed.stop.instruction.csr
    new = registers.read(CSR_NAMES[csr])
    written = _ATP[csr]
    if written == Satp.SATP and executed.stop.state.virtual:
        written = Satp.VSATP
    if written == Satp.SATP:
        tables.write_satp(executed.old_atp, new)
    else:
        log.add(Kind.SATP_WRITE, executed.old_atp, new, sub=written)
