"""The event stream of a made-up guest, for benchmarks and tests that need no QEMU.

The guest has one hart, Sv39, 4 KiB pages, and a kernel half that all address spaces share.
Processes come and go: each is loaded, faults its pages in, works on them, unmaps some with a fence,
and dies.  The stream keeps every rule of docs/architecture.md (live tables, order of events).
Every access has the answer that the tables give at that moment, and all fences are in place, so no
result can be stale.  The guest stands for no real program; use it if only the shape of the stream
matters.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hypervisor_model.events import (
    EVENT,
    Access,
    EventBatch,
    Fence,
    Kind,
    Priv,
    PteOp,
    Satp,
    fault_pa,
)
from hypervisor_model.jit import signed

RAM_BASE = 0x8000_0000
RAM_SIZE = 512 << 20
_PAGE = 4096
_LINEAR = 0xFFFF_FFD6_0000_0000
"""VA at which the kernel half maps RAM."""
_KERNEL_LEAF = 0xE7  # D A G . . W R V
_USER_LEAF = 0xD7  # D A . U . W R V
_LINK = 1
_TEXT = 0xFFFF_FFFF_8000_0000

_NAMES = EVENT.names or ()


@dataclass
class _Process:
    asid: int
    root: int
    tables: list[int]
    leaves: list[int]
    """The leaf tables, one for 2 MiB each."""
    mapped: dict[int, int] = field(default_factory=dict)
    """PA of each mapped page number below the first leaf table's address."""


class SyntheticGuest:
    """Makes events; equal seeds make equal streams.

    :param seed: of the random numbers.
    :param pages: the size of a process.
    :param turns: accesses per page that a process makes in its life.
    """

    def __init__(self, seed: int = 1, *, pages: int = 300, turns: int = 12) -> None:
        self._random = random.Random(seed)
        self._pages, self._turns = pages, turns
        self._rows: list[tuple[int, ...]] = []
        self._icount = 10_000_000
        self._pc = signed(_TEXT)
        free = list(range(RAM_BASE + (32 << 20), RAM_BASE + RAM_SIZE, _PAGE))
        self._random.shuffle(free)
        self._free = deque(free)
        self._satp = 0
        self._asid = 0

    def batches(self, events: int, size: int = 1 << 16) -> Iterator[EventBatch]:
        """Yield at least ``events`` events in all, in batches of at least ``size``."""
        made = 0
        while made < events:
            while len(self._rows) < min(size, events - made):
                self._live()
            batch = np.array(self._rows, dtype=EVENT)
            self._rows.clear()
            made += len(batch)
            yield batch

    def _emit(
        self,
        kind: Kind,
        a: int = 0,
        b: int = 0,
        c: int = 0,
        *,
        sub: int = 0,
        size: int = 0,
        priv: int = Priv.S,
        steps: int = 0,
    ) -> None:
        self._icount += steps
        values = {
            "icount": self._icount,
            "pc": self._pc,
            "a": signed(a),
            "b": signed(b),
            "c": signed(c),
            "kind": kind,
            "sub": sub,
            "priv": priv,
            "size": size,
        }
        self._rows.append(tuple(values.get(name, 0) for name in _NAMES))

    def _at(self, site: int) -> None:
        """Let the kernel's code at ``site`` run next."""
        self._pc = signed(_TEXT + 0x1000 + 0x3F2 * site)

    def _live(self) -> None:
        process = self._load()
        for _ in range(self._pages * self._turns):
            self._touch(process)
            if self._random.random() < 0.01:
                self._unmap(process)
        self._exit(process)

    def _load(self) -> _Process:
        """Make an address space: built out of sight, live from the write of ``satp`` on."""
        self._asid = self._asid % 0xFFFF + 1
        root, middle, *leaves = (self._free.pop() for _ in range(2 + -(-self._pages // 512)))
        process = _Process(self._asid, root, [root, middle, *leaves], leaves)
        satp = 8 << 60 | process.asid << 44 | root >> 12
        self._at(1)
        self._emit(Kind.SATP_WRITE, self._satp, satp, sub=Satp.SATP, steps=900)
        self._satp = satp
        first = _LINEAR >> 30 & 511
        self._emit(Kind.TABLE_ADD, root, 2, sub=1)
        self._emit(Kind.TABLE_ENTRY, root, 0, middle >> 2 | _LINK)
        # One gigabyte leaf maps all of RAM for the kernel.
        self._emit(Kind.TABLE_ENTRY, root + 8 * first, 0, RAM_BASE >> 2 | _KERNEL_LEAF)
        self._emit(Kind.TABLE_ADD, middle, 1)
        for index, leaf in enumerate(leaves):
            self._emit(Kind.TABLE_ENTRY, middle + 8 * index, 0, leaf >> 2 | _LINK)
        for leaf in leaves:
            self._emit(Kind.TABLE_ADD, leaf, 0)
        self._emit(Kind.FENCE, 0, process.asid, sub=Fence.SFENCE_VMA | Fence.ASID, steps=20)
        return process

    def _touch(self, process: _Process) -> None:
        """Make an access: of the kernel to RAM, or of the process to one of its pages."""
        steps = 1 + int(self._random.expovariate(1 / 120))
        access = self._random.choices((Access.READ, Access.WRITE, Access.FETCH), (5, 3, 2))[0]
        if access != Access.FETCH and self._random.random() < 0.3:
            self._at(self._random.randrange(300))
            offset = self._random.randrange(16 << 20) & ~7
            self._access(_LINEAR + offset, RAM_BASE + offset, access, Priv.S, steps)
            return
        page = min(int(self._random.expovariate(4 / self._pages)), self._pages - 1)
        va = page * _PAGE + self._random.randrange(512) * 8
        self._pc = va if access == Access.FETCH else 0x1_0000 + 4 * self._random.randrange(9000)
        if access == Access.FETCH:
            access = Access.READ
        if page not in process.mapped:
            cause = 15 if access == Access.WRITE else 13
            self._access(va, fault_pa(cause), access, Priv.U, steps)
            self._emit(Kind.PAGE_FAULT, va, cause, priv=Priv.U)
            pa = process.mapped[page] = self._free.pop()
            self._at(2)
            self._store(self._entry(process, page), 0, pa >> 2 | _USER_LEAF, PteOp.STORE, 400)
            # Without Svvptc, the old invalid entry may still be cached.
            self._fence(process, va)
        self._pc = 0x1_0000 + 4 * self._random.randrange(9000)
        self._access(va, process.mapped[page] + va % _PAGE, access, Priv.U, steps)

    def _unmap(self, process: _Process) -> None:
        if not process.mapped:
            return
        page, pa = process.mapped.popitem()
        self._at(3)
        entry = self._entry(process, page)
        self._store(entry, pa >> 2 | _USER_LEAF, 0, PteOp.AMO, 250)
        self._fence(process, page * _PAGE)
        self._free.appendleft(pa)

    def _exit(self, process: _Process) -> None:
        """Unmap everything, fence, and drop the tables, whose pages are used again."""
        self._at(4)
        for page, pa in process.mapped.items():
            entry = self._entry(process, page)
            self._store(entry, pa >> 2 | _USER_LEAF, 0, PteOp.AMO, 30)
            self._free.appendleft(pa)
        self._emit(Kind.FENCE, 0, process.asid, sub=Fence.SFENCE_VMA | Fence.ASID, steps=20)
        self._emit(Kind.SATP_WRITE, self._satp, 0, sub=Satp.SATP, steps=500)
        self._satp = 0
        for table in reversed(process.tables):
            self._emit(Kind.TABLE_DROP, table, steps=60)
            self._free.appendleft(table)

    def _entry(self, process: _Process, page: int) -> int:
        return process.leaves[page // 512] + page % 512 * 8

    def _store(self, pa: int, old: int, new: int, op: PteOp, steps: int) -> None:
        self._emit(Kind.PTE_WRITE, pa, old, new, sub=op, size=8, steps=steps)

    def _fence(self, process: _Process, va: int) -> None:
        sub = Fence.SFENCE_VMA | Fence.VA_ASID
        self._emit(Kind.FENCE, va, process.asid, sub=sub, steps=4)

    def _access(self, va: int, answer: int, access: Access, priv: Priv, steps: int) -> None:
        self._emit(Kind.ACCESS, va, answer, sub=access, size=8, priv=priv, steps=steps)
