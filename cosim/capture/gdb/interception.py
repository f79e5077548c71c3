"""The gdb source: what happens at the stops that interception owns.

:class:`Interception` holds breakpoints on the guest's fences and ``satp`` writes and watchpoints
on its live tables, all in QEMU's stub, out of gdb's sight.  The interposer
(:mod:`cosim.capture.gdb.interposer`) asks it at every stop whether the stop is its own; if so the
instruction that is about to execute is decoded, its translations are sampled, it is stepped, and
what it did becomes events.  An instruction is an event only when the step has executed it: under
replay a step may take an interrupt instead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosim.capture import marks
from cosim.capture.decode import CBO_BLOCK, Instruction, decode, instruction_length
from cosim.capture.encodings import InstructionKind
from cosim.capture.gdb.stop_points import Aliases, Points, Text
from cosim.capture.log import EventLog
from cosim.capture.tables import LiveTables
from cosim.debugger import registers as target
from cosim.debugger.rsp import StopReply, Stub
from cosim.errors import GuestError, RemoteError
from hypervisor_model.events import (
    FLAG_MXR,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    EventBatch,
    Kind,
    Priv,
    PteOp,
    Satp,
    fault_pa,
)
from hypervisor_model.isa import atp, causes, pte
from hypervisor_model.jit import signed, unsigned

_SP = 2
_PC = 32
_MASK = (1 << 64) - 1
_SSTATUS_SUM = 1 << 18
_SSTATUS_MXR = 1 << 19
_HARDWARE_AD = pte.A | pte.D
_BATCH = 4096
_BATCH_SECONDS = 1.0
_STEP_SECONDS = 20.0
_SHOWN = 20
"""What an audit found is listed up to this number."""

_NOTHING = decode((0x13).to_bytes(4, "little"))
"""A ``nop``, where there is no instruction to read."""

_OPS = {
    InstructionKind.STORE: PteOp.STORE,
    InstructionKind.AMO: PteOp.AMO,
    InstructionKind.SC: PteOp.SC,
    InstructionKind.CBO_ZERO: PteOp.CBO_ZERO,
}
_ATP = {0x180: Satp.SATP, 0x280: Satp.VSATP, 0x680: Satp.HGATP}
_ATP_NAMES = {0x180: "satp", 0x280: "vsatp", 0x680: "hgatp"}


@dataclass(frozen=True)
class Missed:
    """An entry of a live table that changed without an event."""

    page: int
    index: int
    expected: int
    found: int
    last_events: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The difference as the result document shows it."""
        return {
            "page": f"0x{self.page:x}",
            "index": self.index,
            "expected": f"0x{unsigned(self.expected):016x}",
            "found": f"0x{unsigned(self.found):016x}",
            "last_events": list(self.last_events),
        }


@dataclass
class Audit:
    """How often the live tables were compared with the tool's copy, and what that found."""

    checks: int = 0
    missed: list[Missed] = field(default_factory=list)
    hardware_ad: int = 0
    """Entries in which only A or D had changed: QEMU's MMU does that where Svadu is on."""
    missed_satp_writes: int = 0
    """How often ``satp`` held something else than the last write that was seen."""
    late_sites: set[int] = field(default_factory=set)
    """Fences and ``satp`` writes in text that appeared unseen: some may have been executed."""

    def to_json(self) -> dict[str, object]:
        """The audit as the result document shows it."""
        return {
            "checks": self.checks,
            "missed_writes": len(self.missed),
            "hardware_ad_updates": self.hardware_ad,
            "missed": [missed.to_json() for missed in self.missed[:_SHOWN]],
            "missed_satp_writes": self.missed_satp_writes,
            "late_sites": len(self.late_sites),
            "late_site_addresses": [f"0x{va:x}" for va in sorted(self.late_sites)[:_SHOWN]],
        }


@dataclass(frozen=True)
class Stepping:
    """Which instructions are single-stepped for their accesses.

    ``after`` instructions behind every fence and table store; with ``all``, the whole region.
    """

    after: int = 0
    all: bool = False


_FAULTING = {
    causes.FETCH_PAGE_FAULT: Access.FETCH,
    causes.LOAD_PAGE_FAULT: Access.READ,
    causes.STORE_PAGE_FAULT: Access.WRITE,
}


@dataclass
class _Part:
    """What an access has in one page."""

    va: int
    kind: Access
    size: int
    pa: int | None = None
    """Where QEMU's walk leads, without a fault."""


@dataclass(frozen=True)
class _Fault:
    va: int
    cause: int
    priv: int
    """As which it was translated: a virtual machine's where ``hlv`` or ``hsv`` did."""


def _parts(va: int, kind: Access, size: int) -> list[_Part]:
    """An access by pages; one that crosses their border is translated for both."""
    left = pte.PAGE - (va & (pte.PAGE - 1))
    if size <= left:
        return [_Part(va, kind, size)]
    return [_Part(va, kind, left), _Part((va + left) & _MASK, kind, size - left)]


class Interception:
    """Owns the stops at fences, ``satp`` writes, marks and table stores of one guest.

    :param stub: QEMU's stub; the guest is stopped.
    :param ram: guest RAM as int64 words; ``base`` is the physical address of ``ram[0]``.
    :param extents: the parts of RAM that hold anything, as (physical address, bytes).
    :param firmware: physical ranges (first, bytes) of code that runs in M-mode, so untranslated.
    :param kernel: physical ranges of the kernel's text, which runs untranslated at first.
    :param sink: takes each batch of events, while the guest runs.
    :param mark_at: virtual address of the mark instruction.
    :param cbo_block: bytes that the CPU's ``cbo.zero`` clears.
    :param one_by_one: hand the events over after every stop, before the guest goes on.
    """

    def __init__(
        self,
        stub: Stub,
        ram: NDArray[np.int64],
        base: int,
        *,
        extents: Callable[[], list[tuple[int, int]]],
        firmware: Sequence[tuple[int, int]],
        kernel: Sequence[tuple[int, int]],
        sink: Callable[[EventBatch], None],
        mark_at: int,
        cbo_block: int = CBO_BLOCK,
        stepping: Stepping | None = None,
        one_by_one: bool = False,
    ) -> None:
        self._stub = stub
        self._registers = target.describe(stub)
        self._firmware = firmware
        self._kernel = kernel
        self._sink = sink
        self._mark_at = mark_at
        self._cbo_block = cbo_block
        self._stepping = stepping or Stepping()
        self._bytes = ram.view(np.uint8)
        self._base = base
        self._code: dict[int, tuple[Instruction, int]] = {}
        self._priv = 0
        self._sstatus = 0
        self._satp = 0
        self._log = EventLog()
        self.tables = LiveTables(ram, base, self._log)
        self._text = Text(ram, base, extents)
        self._writable = Aliases(pte.W)
        self._points = Points()
        self._sites: set[int] = set()
        self._firmware_sites: set[int] = set()
        self._kernel_sites: set[int] = set()
        self._suspects: set[int] = set()
        self._watched: dict[int, set[int]] = {}
        self._bare: bool | None = None
        self._steps_left = 0
        self._returns: set[int] = set()
        self._in_firmware = False
        self._last_batch = 0.0
        self._recent: deque[str] = deque(maxlen=5)
        self.active = False
        self.audit = Audit()
        self.labels = marks.Labels()
        self.stop_at_marks: set[str] = set()
        """A mark with one of these labels is shown to gdb, before its instruction executes."""
        self.stops = 0
        self.stepped = 0
        self.events = 0
        self.pc = 0
        self._one_by_one = one_by_one
        self.halted = False
        """Set by the sink: the guest must not go on."""
        self._points.breaks.add({mark_at})
        self._points.sync(stub)

    # -- the region -----------------------------------------------------------------------------

    def begin(self) -> None:
        """The region of interest begins at this stop: read the tables, insert the points."""
        self._log.pc, self._log.priv = self._read("pc"), self._privilege(self._read("priv"))
        if self._log.priv & Priv.VIRT:
            raise GuestError(
                "the region begins in a virtual machine of the guest (V=1), where the satp of the "
                "guest itself cannot be read; begin it elsewhere"
            )
        self.tables.start(self._read("satp"))
        for first, size in self._firmware:
            self._firmware_sites.update(self._text.scan(first, size))
        for first, size in self._kernel:
            self._kernel_sites.update(self._text.scan(first, size))
        if atp.mode(self.tables.satp) == 0:
            # Any of RAM can be executed until there is paging.
            self._kernel_sites |= self._text.everywhere()
        self.active = True
        self._steps_left = -1 if self._stepping.all else 0
        self._update_points()
        self._points.sync(self._stub)
        # Once here, so that neither loading its kernel nor what the models make of the first tables
        # falls between two stops.
        self.tables.differences()
        self.flush()

    def end(self, *, alive: bool) -> None:
        """The region ends at this stop (or with the guest, when not ``alive``)."""
        if not self.active:
            return
        if not self._privilege(self._read("priv")) & Priv.VIRT:
            self._satp = self._read("satp")
            self._catch_up()
        self._check()
        self._look_for_late_text()
        self.active = False
        if alive:
            self._points.breaks.become(set())
            self._points.watches.become(set())
            self._points.sync(self._stub)
        self.flush()

    def points(self) -> tuple[frozenset[int], frozenset[int]]:
        """The addresses of the breakpoints and of the page watchpoints held now."""
        return frozenset(self._points.breaks), frozenset(self._points.watches)

    def flush(self) -> None:
        """Hand the events collected so far to the sink."""
        self._last_batch = time.monotonic()
        if len(self._log):
            self._sink(self._log.take())

    def idle(self) -> None:
        """Called while the guest runs: a time to let the models work."""
        if len(self._log) >= _BATCH or (
            len(self._log) and time.monotonic() - self._last_batch > _BATCH_SECONDS
        ):
            self.flush()

    # -- stops ----------------------------------------------------------------------------------

    @property
    def stepping(self) -> bool:
        """Whether the next instruction is to be stepped rather than run to."""
        return self.active and self._steps_left != 0 and not self._returns

    def owns(self, stop: StopReply | None, pc: int) -> bool:
        """Whether the stop at ``pc`` is interception's; with None: whether a site is there."""
        if stop is not None and stop.watch is not None:
            return stop.watch in self._points.watches
        return pc in self._points.breaks

    def registers(self) -> list[int]:
        """x0..x31 and pc of the stopped guest."""
        names = ("priv", "sstatus", "satp")
        general, priv, sstatus, satp = self._stub.ask(b"g", *map(self._registers.read, names))
        self._priv = self._privilege(target.value(priv))
        self._sstatus = target.value(sstatus)
        self._satp = target.value(satp)
        return target.general(general)

    def execute(self, regs: list[int]) -> bool:
        """Execute the one instruction at pc and record what it does.

        :param regs: what :meth:`registers` has just answered.
        :return: False when it is a mark that gdb is to see: it is not executed then.
        """
        self.stops += 1
        pc = self.pc = regs[_PC]
        if self.active:
            # Rule 5 asks for the pc, and what is found belongs to this stop.
            self._log.pc, self._log.priv = pc, self._priv
            if not self._priv & Priv.VIRT:
                # With V=1 the register is vsatp.
                self._catch_up()
            if self._bare and pc in self._suspects:
                self.audit.late_sites.add(pc)
        if pc == self._mark_at and not self._mark(regs):
            return False
        if not self.active:
            self._step()
            return True
        if self._returns and self._priv != Priv.M:
            self._points.breaks.remove(self._returns - self._wanted_breaks())
            self._returns.clear()
        self._execute(self._instruction(pc), regs)
        self._points.sync(self._stub)
        if self._one_by_one:
            self.flush()
        return True

    def _instruction(self, pc: int) -> Instruction:
        """The instruction at ``pc``: what was read there before, if RAM still has it."""
        known = self._code.get(pc)
        if known is not None:
            instruction, pa = known
            first = pa - self._base
            if self._bytes[first : first + instruction.length].tobytes() == instruction.code:
                return instruction
        code = self._stub.request(b"m%x,4" % pc)
        if len(code) < 8:
            # The end of the last mapped page: a compressed instruction may still be there.
            code = self._stub.request(b"m%x,2" % pc)
        word = b"" if code.startswith(b"E") else bytes.fromhex(code.decode())
        if not word or len(word) < instruction_length(word):
            # It is not mapped, or not all of it: what is stepped is the fetch, which faults.
            return _NOTHING
        return decode(word, cbo_block=self._cbo_block)

    def _execute(self, inst: Instruction, regs: list[int]) -> None:
        pc, priv, stub = regs[_PC], self._priv, self._stub
        flags = (FLAG_SUM if self._sstatus & _SSTATUS_SUM else 0) | (
            FLAG_MXR if self._sstatus & _SSTATUS_MXR else 0
        )
        fetches = _parts(pc, Access.FETCH, inst.length)
        operands = self._operands(inst, regs)
        touched = {operand.va & -pte.PAGE for operand in operands}
        if inst.guest:
            # hlv, hsv: translated by a virtual machine's tables, which the monitor does not walk.
            operands = []
        sampled = _Part(regs[_SP], Access.READ, 8)
        asked = [*fetches, *operands, sampled]
        old_satp = self._read(_ATP_NAMES[inst.csr]) if inst.kind is InstructionKind.ATP_WRITE else 0
        vector = inst.kind is InstructionKind.VECTOR_STORE
        hidden = self._hide(set(self._points.watches) if vector else touched)
        stub.post(*(stub.monitor(f"gva2gpa {part.va:#x}") for part in asked), b"vCont;s")
        if inst.kind is InstructionKind.FENCE:
            # The fence itself writes no table, so this is the moment to look, for nothing.
            self._check()
        for part in asked:
            part.pa = _gpa(stub.monitor_answer())
        self._stepped_stop()
        self._reveal(hidden)
        first = fetches[0].pa
        if first is not None and len(fetches) == 1 and self.tables.holds(first):
            self._code[pc] = (inst, first)
        writes = self._table_writes(inst, operands)
        after = self._after(inst, pc, writes)
        trap = self._trap(pc, after[_PC], inst)
        if self.stepping and self._in_firmware:
            self._skip_firmware(pc, inst)
        if trap is not None and trap < 0:
            return
        self._log.pc, self._log.priv = pc, priv
        stepped = self._steps_left != 0
        fault = None
        if trap in _FAULTING:
            # Firmware that takes one hands it on as it is.
            va = self._read("mtval" if self._in_firmware else "stval")
            by = Priv.VIRT | self._read("hstatus") >> 8 & 1 if inst.guest else priv
            fault = _Fault(va, trap, by)
        if trap in (causes.FETCH_PAGE_FAULT, causes.FETCH_ACCESS_FAULT):
            fetches = []
        if trap is not None or (inst.kind is InstructionKind.SC and not self._stored(inst, after)):
            operands, writes = [], []
        if not stepped:
            flags |= FLAG_STOP
        self._log_accesses(fetches, sampled, operands, fault, flags)
        if self._steps_left > 0:
            self._steps_left -= 1
        if stepped:
            self.stepped += 1
        if trap is not None:
            if fault is not None:
                self._log.add(Kind.PAGE_FAULT, fault.va, fault.cause, priv=fault.priv)
            return
        self._log_effects(inst, regs, after, writes, old_satp)

    def _after(self, inst: Instruction, pc: int, writes: list[tuple[int, int]]) -> list[int]:
        """The registers after the step, as far as they are needed: pc, for ``sc`` all.

        A live entry that has changed tells that its store was executed, without a question.
        """
        if inst.kind is InstructionKind.SC:
            return target.general(self._stub.request(b"g"))
        done = any(self.tables.changed(pa, size) for pa, size in writes)
        return [0] * _PC + [pc + inst.length if done else self._read("pc")]

    def _log_effects(
        self,
        inst: Instruction,
        regs: list[int],
        after: list[int],
        writes: list[tuple[int, int]],
        old_satp: int,
    ) -> None:
        if inst.kind is InstructionKind.FENCE:
            sub, va, asid = inst.fence_operands(regs)
            self._log.add(Kind.FENCE, va, asid, sub=sub)
            self._note(f"{inst.text} at {regs[_PC]:#x}")
            self._more_sites(self._text.again())
        elif inst.kind is InstructionKind.ATP_WRITE:
            new = self._read(_ATP_NAMES[inst.csr])
            register = _ATP[inst.csr]
            if register == Satp.SATP and self._log.priv & Priv.VIRT:
                register = Satp.VSATP
            if register == Satp.SATP:
                self.tables.write_satp(old_satp, new)
            else:
                self._log.add(Kind.SATP_WRITE, old_satp, new, sub=register)
            self._note(f"{inst.text} at {regs[_PC]:#x}")
            self._update_points()
        elif inst.kind is InstructionKind.VECTOR_STORE:
            for pa, _, _ in self.tables.differences():
                self.tables.found(pa)
        if writes:
            self.tables.store(writes, inst.size, _OPS[inst.kind])
            self._note(f"{inst.text} to {writes[0][0]:#x} at {regs[_PC]:#x}")
        intercepted = inst.kind in (InstructionKind.FENCE, InstructionKind.ATP_WRITE) or writes
        if intercepted and self._steps_left >= 0:
            self._steps_left = self._stepping.after
        if self.tables.added or self.tables.dropped or self.tables.leaves:
            self._update_points()

    @staticmethod
    def _operands(inst: Instruction, regs: list[int]) -> list[_Part]:
        va = inst.address(regs)
        if va is None or not (inst.reads or inst.writes):
            return []
        return _parts(va, Access.WRITE if inst.writes else Access.READ, max(inst.size, 1))

    def _table_writes(self, inst: Instruction, operands: list[_Part]) -> list[tuple[int, int]]:
        """(PA, bytes) of each part of what the instruction writes; empty if to no live table."""
        if inst.kind not in _OPS:
            return []
        parts = [(operand.pa, operand.size) for operand in operands if operand.pa is not None]
        return parts if any(pa & -pte.PAGE in self.tables for pa, _ in parts) else []

    @staticmethod
    def _stored(inst: Instruction, after: list[int]) -> bool:
        """Whether an ``sc`` succeeded: it leaves 0 in its destination (x0 hides that)."""
        rd = int.from_bytes(inst.code, "little") >> 7 & 31
        return rd == 0 or after[rd] == 0

    def _mark(self, regs: list[int]) -> bool:
        """Record the mark at pc; False when gdb is to see it."""
        label = marks.label(regs)
        if label in self.stop_at_marks:
            return False
        if self.active:
            self._log.pc, self._log.priv = regs[_PC], self._privilege(self._read("priv"))
            self._log.add(Kind.MARK, self.labels.number(label))
        return True

    def _skip_firmware(self, pc: int, inst: Instruction) -> None:
        """The step has entered M-mode, whose accesses are not translated: run until it returns."""
        self._returns = {pc, pc + inst.length, self._read("stvec") & ~3}
        self._points.breaks.add(self._returns)
        self._points.sync(self._stub)

    # -- accesses -------------------------------------------------------------------------------

    def _log_accesses(
        self,
        fetches: list[_Part],
        sampled: _Part,
        operands: list[_Part],
        fault: _Fault | None,
        flags: int,
    ) -> None:
        """The translations at this stop: real accesses where stepped, else samples.

        :param fetches: what was fetched.
        :param sampled: where sp points, which is no access.
        :param operands: what was read or written.
        :param fault: the page fault that the instruction met.
        :param flags: with FLAG_STOP where the instruction is not stepped for its accesses.
        """
        if self._log.priv == Priv.M:
            return
        if self._log.priv == Priv.U:
            flags &= ~FLAG_SUM
        self._log_parts(fetches, flags)
        self._log_parts([sampled], flags | FLAG_STOP)
        self._log_parts(operands, flags)
        if fault is not None:
            if fault.priv != Priv.S:
                flags &= ~FLAG_SUM
            self._log.add(
                Kind.ACCESS,
                fault.va,
                fault_pa(fault.cause),
                sub=_FAULTING[fault.cause],
                flags=flags,
                priv=fault.priv,
            )

    def _log_parts(self, parts: list[_Part], flags: int) -> None:
        for part in parts:
            # Executed all the same where there is none: QEMU's debug walk asks for read permission,
            # which an execute-only page or an entry without A lacks.  There is no reference then.
            if part.pa is not None:
                self._log.add(
                    Kind.ACCESS, part.va, part.pa, sub=part.kind, flags=flags, size=part.size
                )

    # -- points ---------------------------------------------------------------------------------

    def _update_points(self) -> None:
        tables = self.tables
        fresh = False
        for leaf, entry in tables.leaves:
            fresh |= self._writable.learn(leaf, entry)
            self._more_sites(self._text.learn(leaf, entry))
        tables.leaves.clear()
        bare = atp.mode(tables.satp) == 0
        pages = set(tables) if fresh else {page for page in tables.added if page in tables}
        for page in tables.dropped:
            self._watched.pop(page, None)
        for page in pages:
            self._watched[page] = set(self._writable.of(page))
        if pages or tables.dropped or bare != self._bare:
            physical = set(tables) if bare else set()
            self._points.watches.become(physical.union(*self._watched.values()))
        if bare != self._bare:
            self._bare = bare
            self._points.breaks.become(self._wanted_breaks() | self._returns)
        tables.added.clear()
        tables.dropped.clear()

    def _wanted_breaks(self) -> set[int]:
        sites = self._sites | self._firmware_sites | (self._kernel_sites if self._bare else set())
        return sites | {self._mark_at}

    def _more_sites(self, found: set[int]) -> None:
        self._sites |= found
        self._points.breaks.add(found)

    def _hide(self, touched: set[int]) -> set[int]:
        """Take the watchpoints on the pages ``touched`` out: a step would stop at them again."""
        hidden = {page for page in touched if page in self._points.watches}
        if hidden:
            self._points.watches.remove(hidden)
            self._points.sync(self._stub)
        return hidden

    def _reveal(self, hidden: set[int]) -> None:
        self._points.watches.add(hidden)

    # -- the machine ----------------------------------------------------------------------------

    def _step(self) -> None:
        self._stub.resume(b"vCont;s")
        self._stepped_stop()

    def _stepped_stop(self) -> None:
        stop = self._stub.stop(_STEP_SECONDS)
        if stop is None:
            raise RemoteError(f"QEMU did not finish a single step within {_STEP_SECONDS:g} s")
        if stop.ended:
            raise GuestEnded

    def _read(self, register: str) -> int:
        return target.value(self._stub.request(self._registers.read(register)))

    @staticmethod
    def _privilege(priv: int) -> int:
        return priv & 7

    def _trap(self, pc: int, after: int, inst: Instruction) -> int | None:
        """What the step did instead of completing: None = completed, a cause, or -1 = interrupted.

        A completed instruction that is no jump ends behind itself; for others the trap registers
        decide.
        """
        self._in_firmware = False
        if after == pc + inst.length:
            return None
        for status, vector, epc in (("scause", "stvec", "sepc"), ("mcause", "mtvec", "mepc")):
            if self._read(epc) != pc:
                continue
            cause = self._read(status)
            interrupt = bool(cause >> 63)
            base = self._read(vector)
            offset = 4 * (cause & 0xFF) if interrupt and base & 1 else 0
            if after == (base & ~3) + offset:
                self._in_firmware = epc == "mepc"
                return -1 if interrupt else cause
        return None

    # -- audit ----------------------------------------------------------------------------------

    def _check(self) -> None:
        """Compare the live tables in RAM with the copy; what differs was missed."""
        self.audit.checks += 1
        for pa, copy, ram in self.tables.differences():
            if (copy ^ ram) & ~_HARDWARE_AD == 0:
                self.audit.hardware_ad += 1
            else:
                self.audit.missed.append(
                    Missed(pa & -pte.PAGE, (pa & 4095) >> 3, copy, ram, tuple(self._recent))
                )
            self.tables.found(pa)
        if self.audit.checks & (self.audit.checks - 1) == 0:
            # Too dear for every fence.  This doubles the distance, and does not depend on time.
            self._look_for_late_text()

    def _catch_up(self) -> None:
        """Take in a ``satp`` that no write explains, so that the models go on from the truth."""
        if signed(self._satp) == self.tables.satp:
            return
        self.audit.missed_satp_writes += 1
        self.tables.write_satp(unsigned(self.tables.satp), self._satp)
        self._note(f"satp found to be {self._satp:#x} at {self.pc:#x}")
        self._update_points()
        self._points.sync(self._stub)

    def _look_for_late_text(self) -> None:
        """Scan for sites in text that came without a change of a table or of a guarded page."""
        late = self._text.late()
        self._more_sites(late)
        if self._bare:
            # Most of RAM is data, such as the device tree that firmware writes: what looks like a
            # site is one when it is executed.
            suspects = self._text.everywhere()
            self._suspects |= suspects
            self._kernel_sites |= suspects
            self._points.breaks.add(suspects)
        self.audit.late_sites |= late

    def _note(self, text: str) -> None:
        self._recent.append(text)
        self.events += 1


class GuestEnded(Exception):
    """The guest ended while an instruction of its was stepped; private to the gdb source."""


def _gpa(answer: str) -> int | None:
    """The PA in the answer to ``gva2gpa``; None when QEMU says that nothing is mapped."""
    words = answer.split()
    return int(words[1], 16) if words[:1] == ["gpa:"] else None
