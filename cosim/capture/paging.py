"""The paging features that a guest can switch: ADUE and PBMTE of ``menvcfg`` and ``henvcfg``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cosim.capture.log import EventLog
from hypervisor_model.events import ENVCFG_ADUE, FLAG_STOP, Envcfg, Kind


class Paging(NamedTuple):
    """What a CPU has of ADUE and PBMTE; both are bits of ``menvcfg``."""

    switches: int = 0
    """The bits that the CPU can switch."""
    features: int = ENVCFG_ADUE
    """What the bits are after reset.  Those that are no switches say what the CPU does."""


ALWAYS_SETS_AD = Paging()
"""Nothing can be switched, and the MMU sets A and D: QEMU before it had Svade."""


class PagingState:
    """What ``menvcfg`` and ``henvcfg`` of one hart hold, as far as it changes translation.

    :param paging: what the CPU has.
    """

    def __init__(self, paging: Paging) -> None:
        self._paging = paging
        self._held = {Envcfg.MENVCFG: paging.features & paging.switches, Envcfg.HENVCFG: 0}

    @property
    def sets_ad(self) -> bool:
        """True if the MMU sets A and D."""
        held = self._held[Envcfg.MENVCFG] | (self._paging.features & ~self._paging.switches)
        return bool(held & ENVCFG_ADUE)

    def begin(self, read: Callable[[str], int | None], log: EventLog) -> None:
        """Begin the region: write an event for each register that is not as after reset.

        :param read: returns the value of the register with this name; None if there is none.
        """
        if not self._paging.switches:
            return
        for register in Envcfg:
            value = read(register.name.lower()) or 0
            self._take(register, value, value, log, FLAG_STOP)

    def written(self, register: Envcfg, old: int, new: int, log: EventLog) -> None:
        """Take in a write of a register, as an event if it moves a switch."""
        self._take(register, old, new, log, 0)

    def _take(self, register: Envcfg, old: int, new: int, log: EventLog, flags: int) -> None:
        switches = self._paging.switches
        if (new ^ self._held[register]) & switches:
            log.add(Kind.ENVCFG_WRITE, old, new, switches, sub=register, flags=flags)
        self._held[register] = new & switches
