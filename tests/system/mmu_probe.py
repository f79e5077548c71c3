"""Runs translations on QEMU's own MMU and on ours, one by one, and says where they differ.

A bare program in the guest (``mmu_probe.S``) performs accesses under given registers: loads,
stores and AMOs of M-mode with MPRV (and MPV), instruction fetches by ``mret``, and ``hlv``,
``hsv`` and ``hlvx``.  Tables are written into the stopped guest's RAM.  Every doubleword of the
data range says where it lies, also to an instruction fetch (it begins with an illegal
instruction whose bits QEMU reports), so the physical address that was reached is known.

The model works on a copy of that RAM.  After each batch the copies must be equal, which compares
the A and D updates and the target of every store.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosim.machine.configuration import RAM_BASE
from cosim.machine.qemu import Machine
from guest import compiler
from hypervisor_model import walk, walk_cache
from hypervisor_model.events import FLAG_MXR, FLAG_SUM, Access, Priv
from hypervisor_model.isa import causes, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.memory import GuestMemory, holds, load, store
from hypervisor_model.walk import Walk
from tests.hypervisor_model import reference_mmu
from tests.hypervisor_model.random_tables import Layout, Space, Tables

CPU = "rv64,h=true,svade=on,svadu=on,svnapot=on,svpbmt=on"
RAM_SIZE = 64 << 20
CONTROL = RAM_BASE + 0x10_0000
VECTORS = CONTROL + 64
LAYOUT = Layout(
    pool=RAM_BASE + 0x20_0000,
    pool_pages=7680,
    data=RAM_BASE + 0x200_0000,
    data_size=0x200_0000,
    outside=1 << 40,
)
OPERATIONS = ("load", "store", "fetch", "amo", "hlv", "hsv", "hlvx")
ACCESS = dict(
    zip(
        OPERATIONS,
        map(Access, (0, 1, 2, 1, 0, 1, 0)),
        strict=True,
    )
)
(ATP, HGATP, VA, OP, MSTATUS, VSSTATUS, MENVCFG, HENVCFG, HSTATUS, STORED, TWO) = range(11)
(CAUSE, TVAL, GPA, INST, VALUE) = range(11, 16)
PMPADDR = 17
WIDTH = 20
"""Doublewords of a vector."""

MPRV, SUM, MXR, MPV = 1 << 17, 1 << 18, 1 << 19, 1 << 39
XLEN64 = 2 << 32
ADUE, PBMTE = 1 << 61, 1 << 62
SPVP = 1 << 8
PMP_ALL = (1 << 54) - 1
PMP_RAM = (RAM_BASE | RAM_SIZE // 2 - 1) >> 2
"""Makes everything outside RAM an access fault, tables and devices included."""
ILLEGAL_INSTRUCTION = 2
IMPLICIT = {0x3000: walk.IMPLICIT_READ, 0x3020: walk.IMPLICIT_UPDATE}


def build(folder: Path) -> Path:
    """Compile the guest's program into ``folder``."""
    here = Path(__file__).parent
    output = folder / "mmu_probe.elf"
    compiler.build(output, [here / "mmu_probe.S"], here / "mmu_probe.ld")
    return output


def signature(pa: NDArray[np.int64]) -> NDArray[np.int64]:
    """The content of the doublewords at ``pa``: unique, and beginning with an instruction of the
    custom-0 opcode, which QEMU's generic CPU has none of."""
    number = pa >> 3
    return number << 32 | (number & 0x1FF_FFFF) << 7 | 0x0B


@dataclass(frozen=True)
class Case:
    """One access and its circumstances."""

    space: Space
    va: int
    operation: str
    supervisor: bool
    sum: bool
    mxr: bool
    vs_mxr: bool
    adue: bool
    g_adue: bool
    pbmte: bool
    g_pbmte: bool
    stored: int
    pmp: int = PMP_RAM
    hlvx_exact: bool = False
    """Predict an hlvx as specified, and not as QEMU does it (departure 1)."""

    @property
    def two_stage(self) -> bool:
        return self.space.hgatp is not None

    def __str__(self) -> str:
        on = ("sum", "mxr", "vs_mxr", "adue", "g_adue", "pbmte", "g_pbmte")
        status = " ".join(name for name in on if getattr(self, name))
        atps = f"satp={self.space.satp:#x}"
        if self.space.hgatp is not None:
            atps = f"v{atps} hgatp={self.space.hgatp:#x}"
        priv = "S" if self.supervisor else "U"
        return f"{self.operation} {self.va:#x} {atps} {priv} {status}"

    def flags(self) -> int:
        chosen = (
            (self.sum, FLAG_SUM),
            (self.vs_mxr if self.two_stage else self.mxr, FLAG_MXR),
            (self.mxr and self.two_stage, walk.HS_MXR),
            (self.adue, walk.ADUE),
            (self.g_adue, walk.G_ADUE),
            (self.pbmte, walk.PBMTE),
            (self.g_pbmte, walk.G_PBMTE),
            (self.operation == "hlvx", walk.HLVX),
            (True, walk.RAM_ONLY),
        )
        return sum(flag for on, flag in chosen if on)

    def vector(self) -> list[int]:
        mpp = (1 if self.supervisor else 0) << 11
        mstatus = mpp | XLEN64 | XLEN64 << 2
        mstatus |= MPRV if self.operation in ("load", "store", "amo") else 0
        mstatus |= MXR if self.mxr else 0
        vsstatus = XLEN64
        if self.two_stage:
            mstatus |= MPV
            vsstatus |= (SUM if self.sum else 0) | (MXR if self.vs_mxr else 0)
            first, second = self.g_adue, self.g_pbmte
        else:
            mstatus |= SUM if self.sum else 0
            first, second = self.adue, self.pbmte
        menvcfg = (ADUE if first else 0) | (PBMTE if second else 0)
        henvcfg = (ADUE if self.adue else 0) | (PBMTE if self.pbmte else 0)
        out = [0] * WIDTH
        out[ATP], out[HGATP], out[VA] = self.space.satp, self.space.hgatp or 0, self.va
        out[OP] = OPERATIONS.index(self.operation)
        out[MSTATUS], out[VSSTATUS], out[MENVCFG], out[HENVCFG] = (
            mstatus,
            vsstatus,
            menvcfg,
            henvcfg if self.two_stage else 0,
        )
        out[HSTATUS] = XLEN64 | (SPVP if self.supervisor else 0)
        out[STORED], out[TWO] = self.stored, int(self.two_stage)
        out[PMPADDR] = self.pmp
        return [signed(x) for x in out]


@dataclass(frozen=True)
class Result:
    """What an access came to: the exception (None: none) and the value it read."""

    cause: int | None
    tval: int = 0
    gpa: int = 0
    implicit: int = 0
    value: int = 0


@dataclass
class Report:
    """Sums of a differential run."""

    seed: int
    translations: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Cases that could not be compared, by reason."""
    causes: Counter[int | None] = field(default_factory=Counter)
    modes: Counter[tuple[int, int | None]] = field(default_factory=Counter)
    levels: Counter[int] = field(default_factory=Counter)
    updates: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


class Probe:
    """The guest's program in a machine that was just launched."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.rng = random.Random(seed)
        self.report = Report(seed)
        self.ram = machine.ram_words()
        first = (LAYOUT.data - RAM_BASE) >> 3
        count = LAYOUT.data_size >> 3
        self.ram[first : first + count] = signature(
            LAYOUT.data + 8 * np.arange(count, dtype=np.int64)
        )
        self.model = GuestMemory(RAM_BASE, RAM_SIZE)
        self.cache = walk_cache.make()
        self.trace = walk.trace_of(walk.MAX_REFERENCES)
        self._pool = slice((LAYOUT.pool - RAM_BASE) >> 3, (LAYOUT.data - RAM_BASE) >> 3)
        self._watched = slice(self._pool.start, RAM_SIZE >> 3)
        self.model.words[first : first + count] = self.ram[first : first + count]
        self._stores = 0

    def spaces(self) -> list[Space]:
        """Fresh random tables, in the guest's RAM and the model's, until the pool is used up."""
        memory = reference_mmu.Memory(RAM_BASE, RAM_SIZE)
        tables = Tables(self.rng, LAYOUT, memory)
        spaces = []
        while tables.room() > 900:
            mode = self.rng.choice((0, 8, 8, 9, 9, 10, 10))
            g_mode = self.rng.choice((None, None, None, 0, 8, 8, 9, 9, 10, 10))
            if g_mode is None:
                spaces.append(tables.one_stage(mode, 24))
            else:
                spaces.append(tables.two_stage(mode, g_mode, 24))
        self.load_tables(memory)
        return spaces

    def load_tables(self, memory: reference_mmu.Memory) -> None:
        """Put these tables, and no other, into the guest's RAM and the model's."""
        self.ram[self._pool] = 0
        for address, value in memory.words.items():
            self.ram[(address - RAM_BASE) >> 3] = signed(value)
        self.model.words[self._pool] = self.ram[self._pool]

    def case(self, space: Space, va: int) -> Case:
        """Random circumstances for an access to ``va``."""
        rng = self.rng
        two = space.hgatp is not None
        operation = rng.choice(OPERATIONS if two else OPERATIONS[:4])
        adue, pbmte = rng.random() < 0.5, rng.random() < 0.5
        # henvcfg's bits are zero where menvcfg's are; otherwise only an access made with V=1
        # obeys it in QEMU (departure 2).
        own = two and operation == "fetch"
        self._stores += 1
        return Case(
            space,
            va,
            operation,
            supervisor=rng.random() < 0.5,
            # In QEMU an hlvx obeys SUM as a fetch does (departure 1).
            sum=operation != "hlvx" and rng.random() < 0.5,
            mxr=rng.random() < 0.3,
            vs_mxr=two and rng.random() < 0.3,
            adue=adue and not (own and rng.random() < 0.3),
            g_adue=two and adue,
            pbmte=pbmte and not (own and rng.random() < 0.3),
            g_pbmte=two and pbmte,
            stored=(self._stores & 0xFFFF_FFFF) << 32 | (self._stores & 0x1FF_FFFF) << 7 | 0x0B,
        )

    def walk(self, case: Case, flags: int, kind: Access | None = None) -> walk.Walk:
        ram = self.model.ram
        access = int(ACCESS[case.operation] if kind is None else kind)
        priv = int(Priv.S if case.supervisor else Priv.U)
        request = walk.Request(signed(case.va), access, priv, flags)
        satp = signed(case.space.satp)
        if case.space.hgatp is None:
            return walk.walk1(ram, self.cache, satp, request, self.trace)
        hgatp = signed(case.space.hgatp)
        return walk.walk2(ram, ram, self.cache, satp, hgatp, request, self.trace)

    def left_out(self, case: Case) -> str | None:
        """Why a case cannot be compared: what it would reach, or QEMU's known departure."""
        flags = case.flags()
        w = self.walk(case, flags & ~walk.RAM_ONLY | walk.PROBE)
        trace = self.trace[: w.vs_refs + w.g_refs]
        if any(RAM_BASE <= address < LAYOUT.pool for address in trace["address"]):
            return "tables in the program's own memory"
        two = case.two_stage
        if w.cause == walk.OK:
            if RAM_BASE <= w.pa < LAYOUT.pool:
                return "an access to the program's own memory"
            if case.operation not in ("load", "hlv", "hlvx") and LAYOUT.pool <= w.pa < LAYOUT.data:
                return "a store to, or a fetch from, tables"
        if two and w.cause in (1, 5, 7) and w.g_level >= 0:
            # A G-stage table outside RAM: did the walk still look for a VS-stage leaf?
            first = trace[trace["stage"] == walk_cache.VS_STAGE]
            if case.space.satp and not (len(first) and pte.is_leaf(first[-1].entry)):
                return "departure 3"
        if two and case.mxr and w.implicit and self._is_execute_only(w):
            return "departure 10"
        if w.cause >= causes.FETCH_PAGE_FAULT and pte.is_leaf(w.entry):
            in_g = w.cause >= causes.FETCH_GUEST_PAGE_FAULT
            adue, pbmte = (case.g_adue, case.g_pbmte) if in_g else (case.adue, case.pbmte)
            low = w.entry >> pte.PPN_SHIFT & 15
            fresh = w.entry & (pte.A | pte.D) == pte.A | pte.D
            if w.entry & pte.N and low != pte.NAPOT_64K and adue and not fresh:
                return "departure 4"
            if w.entry >> pte.PBMT_SHIFT & 3 == 3 and pbmte:
                return "departure 6"
        rows = trace[["stage", "kind"]].tolist()
        if case.operation == "amo" and self._load_shows(case):
            return "departure 7"
        if two and w.implicit == walk.IMPLICIT_UPDATE:
            return "departure 5"
        g_update, vs_update = (walk_cache.G_STAGE, walk.UPDATE), (walk_cache.VS_STAGE, walk.UPDATE)
        if any(a == g_update and b == vs_update for a, b in itertools.pairwise(rows)):
            return "departure 5"
        return None

    @staticmethod
    def _is_execute_only(w: Walk) -> bool:
        """Return True if MXR would make a page of a VS-stage table readable."""
        return w.implicit == walk.IMPLICIT_READ and bool(w.entry & (pte.R | pte.X) == pte.X)

    def _load_shows(self, case: Case) -> bool:
        """Whether it can be seen that QEMU translates a faulting AMO as a load first."""
        flags = case.flags() | walk.PROBE
        w = self.walk(case, flags)
        updates = np.count_nonzero(self.trace[: w.vs_refs + w.g_refs]["kind"])
        as_load = self.walk(case, flags, Access.READ)
        updates += np.count_nonzero(self.trace[: as_load.vs_refs + as_load.g_refs]["kind"])
        if w.cause == walk.OK:
            return False
        causes_equal = as_load.cause + (causes.STORE_PAGE_FAULT - causes.LOAD_PAGE_FAULT) == w.cause
        same = as_load.cause == walk.OK or (causes_equal and as_load.gpa == w.gpa)
        return bool(not same or updates > 0)

    def predict(self, case: Case) -> Result:
        """What our MMU makes of a case; changes the model's memory."""
        w = self.walk(case, case.flags())
        report = self.report
        report.causes[None if w.cause == walk.OK else int(w.cause)] += 1
        report.modes[case.space.modes] += 1
        report.updates += int(
            np.count_nonzero(self.trace[: w.vs_refs + w.g_refs]["kind"] == walk.UPDATE)
        )
        if w.cause != walk.OK:
            gpa = 0 if w.gpa == -1 else unsigned(w.gpa) >> 2
            cause = int(w.cause)
            if case.operation == "hlvx" and not case.hlvx_exact:
                # Departure 1: QEMU reports an hlvx as a fetch, and no guest-page fault for it.
                cause = 1 if cause == causes.LOAD_ACCESS_FAULT else causes.FETCH_PAGE_FAULT
            return Result(cause, case.va, gpa, int(w.implicit))
        report.levels[int(w.level)] += 1
        assert holds(self.model.ram, w.pa)
        old = unsigned(load(self.model.ram, w.pa))
        if case.operation in ("store", "hsv", "amo"):
            store(self.model.ram, w.pa, signed(case.stored))
            return Result(None, value=old if case.operation == "amo" else 0)
        if case.operation == "fetch":
            return Result(ILLEGAL_INSTRUCTION, old & 0xFFFF_FFFF)
        return Result(None, value=old & 0xFFFF_FFFF if case.operation == "hlvx" else old)

    def batch(self, size: int) -> None:
        """Compare ``size`` accesses (fewer where some had to be left out) on fresh tables."""
        cases: list[Case] = []
        while len(cases) < size:
            spaces = self.spaces()
            picked = []
            for _ in range(min(size, 60 * len(spaces))):
                space = self.rng.choice(spaces)
                picked.append(self.case(space, self.rng.choice(space.addresses)))
            cases = picked
        kept, predicted = [], []
        for case in cases:
            reason = self.left_out(case)
            if reason is not None:
                self.report.left_out[reason] += 1
            else:
                kept.append(case)
                predicted.append(self.predict(case))
        rows = self.execute(kept)
        for case, expected, row in zip(kept, predicted, rows, strict=True):
            got = self.decode(row)
            if got != expected:
                self.report.differences.append(f"{case}: QEMU {got}, model {expected}")
        self.report.translations += len(kept)
        differ = np.flatnonzero(self.ram[self._watched] != self.model.words[self._watched])
        for index in differ[:10]:
            at = int(index) + self._watched.start
            self.report.differences.append(
                f"RAM at {RAM_BASE + 8 * at:#x}: QEMU {unsigned(self.ram[at]):#x}, "
                f"model {unsigned(self.model.words[at]):#x}"
            )
        # The next batch starts equal again, so that one difference is told once.
        self.model.words[self._watched] = self.ram[self._watched]

    def execute(self, cases: list[Case]) -> NDArray[np.int64]:
        """Let the guest perform the cases; returns its vectors."""
        first = (VECTORS - RAM_BASE) >> 3
        assert VECTORS + 8 * WIDTH * len(cases) <= LAYOUT.pool
        control = self.ram[(CONTROL - RAM_BASE) >> 3 :]
        vectors = self.ram[first : first + WIDTH * len(cases)].reshape(-1, WIDTH)
        vectors[:] = [case.vector() for case in cases]
        control[2] = len(cases)
        control[0] += 1
        self.machine.resume()
        deadline = time.monotonic() + 60
        while control[1] != control[0]:
            assert time.monotonic() < deadline, "the guest's program hangs"
            assert self.machine.alive(), self.machine.obituary()
            time.sleep(0.001)
        self.machine.qmp("stop")
        return vectors.copy()

    def decode(self, row: NDArray[np.int64]) -> Result:
        """What QEMU made of a case."""
        if row[CAUSE] == -1:
            return Result(None, value=unsigned(row[VALUE]))
        implicit = IMPLICIT.get(int(row[INST]), 0)
        return Result(int(row[CAUSE]), unsigned(row[TVAL]), unsigned(row[GPA]), implicit)


def differential(machine: Machine, seed: int, translations: int, batch: int = 2500) -> Report:
    """Compare at least ``translations`` accesses; the machine runs the program of :func:`build`."""
    started = time.monotonic()
    probe = Probe(machine, seed)
    while probe.report.translations < translations:
        probe.batch(batch)
    probe.report.seconds = time.monotonic() - started
    return probe.report
