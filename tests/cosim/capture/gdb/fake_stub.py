"""A stub that serves a small scripted guest over the remote protocol, as QEMU's stub does.

The guest has one hart, some pages of RAM with Sv39 tables in them, and a script: what each of its
next instructions does.  Nothing is decoded here.  A test puts the code into RAM that interception
decodes, and says in the script what QEMU would do when it executes it.

As in QEMU, a watchpoint stops the guest before the store, also in a single step; a breakpoint
stops it before the instruction, but does not hold up a step.  What is read in M-mode is translated
if mstatus.MPRV is set, even code.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosim.debugger.rsp import INTERRUPT, Decoder, Stub, frame

BASE = 0x8000_0000
PAGES = 16
_PC = 32
_CSRS = (
    *("priv", "mstatus", "sstatus", "satp", "vsatp", "hgatp", "hstatus"),
    *("stvec", "scause", "sepc", "stval", "mtvec", "mcause", "mepc", "mtval"),
    *("pmpcfg0", "pmpaddr0"),
)
_FIRST_CSR = 100
_ROOTS = ("satp", "hgatp")
MPRV, TVM = 1 << 17, 1 << 20


@dataclass(frozen=True)
class Does:
    """The instruction completes."""

    stores: Mapping[int, bytes] = field(default_factory=dict)
    """What it stores, by virtual address."""
    general: Mapping[int, int] = field(default_factory=dict)
    """What it leaves in x1..x31."""
    csrs: Mapping[str, int] = field(default_factory=dict)
    length: int = 4
    jump: int | None = None
    """Where it goes on, if not behind itself."""


@dataclass(frozen=True)
class Traps:
    """The instruction traps, or an interrupt comes before it."""

    cause: int
    tval: int = 0
    to: str = "s"
    """``s`` or ``m``: the mode that takes the trap."""


@dataclass(frozen=True)
class Ends:
    """The guest ends in the instruction; QEMU stays."""


Step = Does | Traps | Ends
INTERRUPT_CAUSE = 1 << 63


class FakeStub:
    """The guest, and the stub that shows it.

    ``answered`` lists the packets served, ``breaks`` the breakpoints inserted, and ``spans`` the
    first bytes and lengths of the watchpoints.
    """

    def __init__(self, ram: NDArray[np.int64] | None = None) -> None:
        self.ram = np.zeros(PAGES * 512, dtype=np.int64) if ram is None else ram
        self.general = [0] * 33
        self.csrs = dict.fromkeys(_CSRS, 0)
        self.script: deque[Step] = deque()
        self.breaks: set[int] = set()
        self.spans: set[tuple[int, int]] = set()
        self.answered: list[bytes] = []
        self._physical = False

    @property
    def watches(self) -> set[int]:
        """The pages that are watched as a whole."""
        return {first for first, length in self.spans if length == 0x1000}

    def connect(self) -> Stub:
        """Serve the guest from a thread, until the line closes; return a client of it."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return Stub(ours)

    # -- memory ---------------------------------------------------------------------------------

    def put(self, pa: int, data: bytes) -> None:
        """Write ``data`` to RAM."""
        view = self.ram.view(np.uint8)
        view[pa - BASE : pa - BASE + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def entry(self, page: int, index: int, value: int) -> None:
        """Write an entry of a table."""
        self.put(page + 8 * index, value.to_bytes(8, "little"))

    def walk(self, va: int) -> int | None:
        """Return the PA of ``va`` by the current tables (Sv39), or None."""
        satp = self.csrs["satp"]
        untranslated = self.csrs["priv"] == 3 and not self.csrs["mstatus"] & MPRV
        if satp >> 60 == 0 or untranslated or self._physical:
            return va if BASE <= va < BASE + self.ram.nbytes else None
        table = (satp & (1 << 44) - 1) << 12
        for level in (2, 1, 0):
            at = table - BASE + 8 * (va >> 12 + 9 * level & 511)
            entry = int(self.ram[at >> 3])
            if not entry & 1:
                return None
            target = (entry >> 10 & (1 << 44) - 1) << 12
            if entry & 0b1110:
                size = 1 << 12 + 9 * level
                return target + va % size
            table = target
        return None

    # -- execution ------------------------------------------------------------------------------

    def _run(self, one: bool) -> bytes:
        """Execute one instruction, or as many as there are up to a stop; return the stop reply."""
        while True:
            if not one and self.general[_PC] in self.breaks:
                return b"T05thread:01;"
            step = self.script[0]
            if isinstance(step, Does):
                for va, data in step.stores.items():
                    for first, length in sorted(self.spans):
                        if first < va + len(data) and va < first + length:
                            return b"T05thread:01;watch:%x;" % first
            self.script.popleft()
            if isinstance(step, Ends):
                return b"T03thread:01;"
            self._execute(step)
            if one:
                return b"T05thread:01;"

    def _execute(self, step: Does | Traps) -> None:
        pc = self.general[_PC]
        if isinstance(step, Traps):
            mode = step.to
            self.csrs |= {f"{mode}cause": step.cause, f"{mode}epc": pc, f"{mode}tval": step.tval}
            self.csrs["priv"] = 3 if mode == "m" else 1
            vector = self.csrs[f"{mode}tvec"]
            vectored = step.cause & INTERRUPT_CAUSE and vector & 1
            self.general[_PC] = (vector & ~3) + (4 * (step.cause & 0xFF) if vectored else 0)
            return
        for va, data in step.stores.items():
            for offset, byte in enumerate(data):
                pa = self.walk(va + offset)
                assert pa is not None, f"the script stores to {va + offset:#x}, which is unmapped"
                self.put(pa, bytes((byte,)))
        for number, value in step.general.items():
            self.general[number] = value
        self.csrs |= step.csrs
        self.general[_PC] = pc + step.length if step.jump is None else step.jump

    # -- the protocol ---------------------------------------------------------------------------

    def _serve(self, line: socket.socket) -> None:
        decoder = Decoder()
        with line:
            while data := line.recv(65536):
                for payload in decoder.feed(data):
                    self.answered.append(payload)
                    for answer in self._answers(payload):
                        line.sendall(frame(answer))

    def _answers(self, payload: bytes) -> list[bytes]:
        match payload[:1]:
            case b"g":
                return [b"".join(_hex(value) for value in self.general)]
            case b"p":
                number = int(payload[1:], 16)
                if number < _FIRST_CSR:
                    return [_hex(self.general[number])]
                name = _CSRS[number - _FIRST_CSR]
                trapping = self.csrs["mstatus"] & TVM and self.csrs["priv"] == 1
                return [b"E14" if trapping and name in _ROOTS else _hex(self.csrs[name])]
            case b"P":
                register, _, value = payload[1:].partition(b"=")
                name = _CSRS[int(register, 16) - _FIRST_CSR]
                self.csrs[name] = int.from_bytes(bytes.fromhex(value.decode()), "little")
                return [b"OK"]
            case b"m":
                return [self._memory(*(int(word, 16) for word in payload[1:].split(b",")))]
            case b"Z" | b"z":
                return [self._point(payload)]
        if payload in (b"vCont;s", b"vCont;c"):
            return [self._run(payload == b"vCont;s")]
        if payload.startswith(b"Qqemu.PhyMemMode:"):
            self._physical = payload.endswith(b"1")
            return [b"OK"]
        if payload == INTERRUPT:
            return [b"T02thread:01;"]
        if payload.startswith(b"qRcmd,"):
            command, _, argument = bytes.fromhex(payload[6:].decode()).partition(b" ")
            assert command == b"gva2gpa"
            pa = self.walk(int(argument, 16))
            text = "Unmapped\n" if pa is None else f"gpa: {pa:#x}\n"
            return [b"O" + text.encode().hex().encode(), b"OK"]
        if payload.startswith(b"qXfer:features:read:target.xml:"):
            return [b"l" + _description()]
        return [b""]

    def _memory(self, va: int, size: int) -> bytes:
        data = b""
        for at in range(va, va + size):
            pa = self.walk(at)
            if pa is None:
                return b"E14"
            data += self.ram.view(np.uint8)[pa - BASE : pa - BASE + 1].tobytes()
        return data.hex().encode()

    def _point(self, payload: bytes) -> bytes:
        kind = payload[1:2]
        first, length = (int(word, 16) for word in payload[3:].split(b","))
        assert kind == b"2" or (kind == b"0" and length == 4)
        if payload[:1] == b"Z":
            assert (first, length) not in self.spans and first not in self.breaks, "inserted twice"
            self.spans.add((first, length)) if kind == b"2" else self.breaks.add(first)
        elif kind == b"2":
            self.spans.remove((first, length))
        else:
            self.breaks.remove(first)
        return b"OK"


def _hex(value: int) -> bytes:
    return value.to_bytes(8, "little").hex().encode()


def _description() -> bytes:
    general = [*(f"x{number}" for number in range(32)), "pc"]
    numbered = [*enumerate(general), *enumerate(_CSRS, _FIRST_CSR)]
    lines = "".join(f'<reg name="{name}" bitsize="64" regnum="{n}"/>' for n, name in numbered)
    return f'<target><feature name="all">{lines}</feature></target>'.encode()
