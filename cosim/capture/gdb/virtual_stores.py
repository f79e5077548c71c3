"""Where ``hsv`` stores: the tables of a virtual machine lead there, which QEMU's monitor does not
walk.

A watchpoint does not show such a store either, because it is on a virtual address of the hart.  So
each ``hsv`` has a breakpoint, and the walk is done here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosim.capture.gdb.classify import Stop, parts
from cosim.capture.gdb.stopped_guest import Registers
from hypervisor_model.events import Access
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import plain, signed

_G_TOP = 4 * pte.ENTRIES
"""Entries of the root of a G-stage."""

_is_leaf, _is_link, _target = plain(pte.is_leaf), plain(pte.is_link), plain(pte.target)
_level_bits = plain(pte.level_bits)
_mode, _levels, _root = plain(atp.mode), plain(atp.levels), plain(atp.root)


def written(
    stop: Stop, registers: Registers, ram: NDArray[np.int64], base: int
) -> list[tuple[int, int]]:
    """Return (PA, bytes) of each part of what ``hsv`` stores; none for other instructions.

    Permissions are not looked at: an ``hsv`` that may not store traps in its step.

    :param stop: before the step, which may change the tables.
    :param ram: guest RAM as int64 words; ``base`` is the physical address of ``ram[0]``.
    """
    inst = stop.instruction
    if not (inst.guest and inst.writes) or stop.state.virtual:
        return []
    vsatp, hgatp = (signed(registers.read(name)) for name in ("vsatp", "hgatp"))
    found = []
    walker = _Walker(ram, base, vsatp, hgatp)
    for part in parts(inst.address(stop.state.general) or 0, Access.WRITE, inst.size):
        pa = walker.pa(part.va)
        if pa is not None:
            found.append((pa, part.size))
    return found


class _Walker:
    """Walks the two stages of one virtual machine."""

    def __init__(self, ram: NDArray[np.int64], base: int, vsatp: int, hgatp: int) -> None:
        self._ram = ram
        self._base = base
        self._vsatp = vsatp
        self._hgatp = hgatp

    def pa(self, va: int) -> int | None:
        """Return where ``va`` leads to; None if nowhere."""
        gpa = self._follow(self._vsatp, va, pte.ENTRIES, through_g=True)
        return None if gpa is None else self._host(gpa)

    def _host(self, gpa: int) -> int | None:
        return self._follow(self._hgatp, gpa, _G_TOP, through_g=False)

    def _follow(self, root: int, address: int, top: int, *, through_g: bool) -> int | None:
        """Follow one stage.

        :param top: how many entries its root has.
        :param through_g: its tables have guest-physical addresses.
        """
        levels = _levels(_mode(root))
        if levels <= 0:
            return address
        # The root of a G-stage has four pages, so the lowest bits of its number are zero.
        table = int(_root(root)) & -8 * top
        for level in reversed(range(levels)):
            bits = int(_level_bits(level))
            entries = top if level == levels - 1 else pte.ENTRIES
            place = table + 8 * (address >> bits & entries - 1)
            entry = self._read(self._host(place) if through_g else place)
            if entry is None:
                return None
            if _is_leaf(entry):
                size = 1 << (pte.NAPOT_BITS if entry & pte.N else bits)
                return int(_target(entry)) & -size | address & size - 1
            if not _is_link(entry):
                return None
            table = int(_target(entry))
        return None

    def _read(self, place: int | None) -> int | None:
        word = -1 if place is None else (place - self._base) >> 3
        return int(self._ram[word]) if 0 <= word < len(self._ram) else None
