"""Which process of Linux owns an address space, read from guest RAM.

A write of ``satp`` says which root is loaded.  The process that owns it is the one whose
``task_struct.mm->pgd`` is that root.  At the write ``tp`` still points to the process that ran
before, so it does not tell; the kernel's list of all processes does.

An address space of a process has a number, from 1 on.  A root that another process uses later gets
another number.  ``execve`` gives a process another name, and Linux sets that name only after it has
loaded the new root.  So the name is read when the root is loaded first, and again when a hart
leaves it for the first time; the last one counts.  If a process gives itself another name later,
its address space gets another number when it is loaded the next time.

The plugin does the same in C (``processes.c``), and the tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import plain, unsigned

MOST = 1 << 16
"""Processes that are looked at; a damaged list may have no end."""
LARGEST_PID = 1 << 22
"""The kernel's own limit (``PID_MAX_LIMIT``); what is beyond it is no process."""
NAME_BYTES = 16
"""Bytes of ``task_struct.comm``, with the zero at its end."""

_mode, _root, _levels = plain(atp.mode), plain(atp.root), plain(atp.levels)


class Process(NamedTuple):
    """A process of the guest."""

    pid: int
    name: str
    """What Linux calls it (``comm``): at most 15 bytes, chosen by the guest.  Bytes that are not
    UTF-8 are shown as ``\\xff``."""


@dataclass(frozen=True)
class ProcessLayout:
    """Where one kernel keeps what is needed: a virtual address, and offsets in bytes."""

    init_task: int
    """The virtual address of the first task, which begins the list of all processes."""
    tasks: int
    """``task_struct.tasks``: the link to the next process."""
    mm: int
    """``task_struct.mm``."""
    pid: int
    """``task_struct.pid``."""
    comm: int
    """``task_struct.comm``."""
    pgd: int
    """``mm_struct.pgd``."""

    def option(self) -> str:
        """Return it as the plugin takes it."""
        offsets = (self.tasks, self.mm, self.pid, self.comm, self.pgd)
        return ":".join([f"{self.init_task:#x}", *map(str, offsets)])


@dataclass
class _Known:
    task: int
    pid: int
    comm: bytes = b""
    left: bool = False
    """True if a hart has left the address space, so its name stands."""
    over: bool = False
    """True if the task has got another number since."""


class Processes:
    """Numbers the address spaces of processes.

    :param ram: guest RAM as int64 words, shared with the guest.
    :param base: physical address of ``ram[0]``.
    :param layout: of the guest's kernel; None if it is not known: then no address space has a
        number.
    """

    def __init__(self, ram: NDArray[np.int64], base: int, layout: ProcessLayout | None) -> None:
        self._bytes = ram.view(np.uint8).data
        self._base = base
        self._layout = layout
        self._known: list[_Known] = []
        self._by_root: dict[int, int] = {}

    @property
    def found(self) -> dict[int, Process]:
        """The processes found so far, by the number of the address space."""
        return {
            number: Process(known.pid, shown_name(known.comm))
            for number, known in enumerate(self._known, 1)
        }

    def loaded(self, satp: int) -> int:
        """Return the number of the address space that ``satp`` has loaded; 0 if no process owns it.

        :param satp: any 64-bit pattern.
        """
        layout, satp = self._layout, unsigned(satp)
        if layout is None or _levels(_mode(satp)) <= 0:
            return 0
        root = int(_root(satp))
        number = self._by_root.get(root, 0)
        if not (number and self._is_same(satp, number) and self._owns(satp, number, root)):
            number = self._search(satp, root)
        if number:
            number = self._named(satp, number)
        self._by_root[root] = number
        return number

    def leaves(self, satp: int) -> None:
        """Take in that a hart is about to leave the address space of ``satp``."""
        layout, satp = self._layout, unsigned(satp)
        if layout is None or _levels(_mode(satp)) <= 0:
            return
        root = int(_root(satp))
        number = self._by_root.get(root, 0)
        if number and not self._known[number - 1].left and self._is_same(satp, number):
            # A process that ends has given up its mm, but still has its name.
            ends = self._word(satp, self._known[number - 1].task + layout.mm) == 0
            if ends or self._owns(satp, number, root):
                self._named(satp, number)
            self._known[number - 1].left = True

    def _is_same(self, satp: int, number: int) -> bool:
        """Return True if the task is still the one that had the number, and has no later one."""
        assert self._layout is not None
        known = self._known[number - 1]
        if known.over:
            return False
        pid = self._read(satp, known.task + self._layout.pid, 4)
        return pid is not None and int.from_bytes(pid, "little") == known.pid

    def _owns(self, satp: int, number: int, root: int) -> bool:
        return self._root_of(satp, self._known[number - 1].task) == root

    def _root_of(self, satp: int, task: int) -> int | None:
        """Return the physical address of the root of a task; None if it has none."""
        assert self._layout is not None
        mm = self._word(satp, task + self._layout.mm)
        pgd = self._word(satp, mm + self._layout.pgd) if mm else None
        return self._translate(satp, pgd) if pgd else None

    def _search(self, satp: int, root: int) -> int:
        """Return the number for the first process in the list that owns ``root``; 0 if none."""
        layout = self._layout
        assert layout is not None
        head = layout.init_task + layout.tasks
        link = self._word(satp, head)
        for _ in range(MOST):
            if link is None or link == head:
                break
            task = link - layout.tasks
            if self._root_of(satp, task) == root:
                pid = int.from_bytes(self._read(satp, task + layout.pid, 4) or b"", "little")
                if not 0 < pid <= LARGEST_PID:
                    break
                return self._add(_Known(task, pid))
            link = self._word(satp, link)
        return 0

    def _add(self, fresh: _Known) -> int:
        """Return the number of ``fresh``, the latest of its task."""
        for known in reversed(self._known):
            # A task that execs may come back to a root that it had before.
            if (known.task, known.pid) == (fresh.task, fresh.pid):
                known.over = True
                break
        self._known.append(fresh)
        return len(self._known)

    def _named(self, satp: int, number: int) -> int:
        """Read the name of the process; return the number, or a new one if its name stands."""
        assert self._layout is not None
        known = self._known[number - 1]
        comm = self._read(satp, known.task + self._layout.comm, NAME_BYTES)
        if comm is None or comm == known.comm:
            return number
        if known.left:
            known = _Known(known.task, known.pid)
            number = self._add(known)
        known.comm = comm
        return number

    # -- memory ----------------------------------------------------------------------------------

    def _word(self, satp: int, va: int) -> int | None:
        data = self._read(satp, va, 8)
        return None if data is None else int.from_bytes(data, "little")

    def _read(self, satp: int, va: int, size: int) -> bytes | None:
        """Return ``size`` bytes at a virtual address; None if they are not all in RAM."""
        parts = []
        while size:
            part = min(size, pte.PAGE - va % pte.PAGE)
            pa = self._translate(satp, va)
            if pa is None:
                return None
            parts.append(bytes(self._bytes[pa - self._base :][:part]))
            va, size = va + part, size - part
        return b"".join(parts)

    def _in_ram(self, pa: int) -> bool:
        return 0 <= pa - self._base < len(self._bytes)

    def _translate(self, satp: int, va: int) -> int | None:
        """Return where ``va`` is in RAM by the tables of ``satp``; None if it is not there."""
        levels = int(_levels(_mode(satp)))
        unused = 64 - 12 - 9 * levels
        if va >> (63 - unused) not in (0, (1 << (unused + 1)) - 1):
            return None
        table = int(_root(satp))
        for level in reversed(range(levels)):
            if not self._in_ram(table):
                return None
            shift = 12 + 9 * level
            at = table - self._base + 8 * (va >> shift & 511)
            entry = int.from_bytes(self._bytes[at : at + 8], "little")
            target = (entry >> 10 & (1 << 44) - 1) << 12
            if not entry & pte.V:
                return None
            if entry & (pte.R | pte.X):
                if entry >> 63 and level == 0:
                    shift += 4
                inside = (1 << shift) - 1
                pa = target & ~inside | va & inside
                return pa if self._in_ram(pa) else None
            table = target
        return None


def shown_name(comm: bytes) -> str:
    """Return the name in the bytes of a ``comm``."""
    return comm.split(b"\0")[0].decode("utf-8", "backslashreplace")
