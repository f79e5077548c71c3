"""The address spaces of a guest: which one each event belongs to.

An address space is a value of ``satp`` (its mode, its root table and its ASID) together with the
process that owns it, if the source knows that.  A guest may use the same value again for another
process, after it has freed the root: that is another address space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cosim.capture.processes import Process
from hypervisor_model.events import EventBatch, Kind, Priv, Satp, small_fields
from hypervisor_model.isa.atp import ASID_MASK, ID_SHIFT, MODE_SHIFT, PPN_MASK, Mode
from hypervisor_model.jit import unsigned

MOST = 1000
"""Address spaces that are told apart, in the order in which they are loaded first."""
OTHERS = MOST
"""The number that all later ones share."""

_NONE: Mapping[int, Process] = {}


class AddressSpaces:
    """Numbers the address spaces of a run, in the order in which harts load them.

    Each hart begins without translation, as after reset (``satp`` 0).

    :param harts: how many there are.
    """

    def __init__(self, harts: int = 1) -> None:
        self.satps = [0]
        """``satp`` of each address space, by its number."""
        self._owners = [0]
        self._numbers = {(0, 0): 0}
        self._current = [0] * harts
        self._with_user: set[int] = set()

    def feed(self, batch: EventBatch, where: NDArray[np.intp] | None = None) -> NDArray[np.int64]:
        """Return the number of the address space in which each event of ``batch`` happened.

        A write of ``satp`` itself happens in the address space that it leaves.

        :param where: indices of the events that are asked about, in order; None: all.
        """
        small = small_fields(batch)
        writes = np.flatnonzero((small["kind"] == Kind.SATP_WRITE) & (small["sub"] == Satp.SATP))
        users = np.flatnonzero(small["priv"] == Priv.U)
        asked = np.arange(len(batch)) if where is None else where
        numbers = np.zeros(len(asked), np.int64)
        harts = small["hart"] if len(self._current) > 1 else None
        for hart, loaded in enumerate(self._current):
            mine = slice(None) if harts is None else np.flatnonzero(harts[asked] == hart)
            own, by_user = writes, users
            if harts is not None:
                own, by_user = writes[harts[writes] == hart], users[harts[users] == hart]
            into = zip(batch["b"][own].tolist(), batch["c"][own].tolist(), strict=True)
            known = [loaded, *(self.number(*one) for one in into)]
            numbers[mine] = np.array(known)[np.searchsorted(own, asked[mine])]
            # Events of users up to each write, and after the last.
            seen = np.diff(np.searchsorted(by_user, own, "right"), prepend=0, append=len(by_user))
            self._with_user.update(known[at] for at in np.flatnonzero(seen).tolist())
            self._current[hart] = known[-1]
        return numbers

    def has_user(self, number: int) -> bool:
        """Return True if programs (U-mode) have caused an event in this address space."""
        return number in self._with_user

    def owner(self, number: int, processes: Mapping[int, Process]) -> Process | None:
        """Return the process that owns this address space; None if it is not known.

        :param processes: the processes, by the number in SATP_WRITE events.
        """
        return None if number == OTHERS else processes.get(self._owners[number])

    def name(self, number: int, processes: Mapping[int, Process] = _NONE) -> str:
        """Return what people call this address space.

        :param processes: the processes, by the number in SATP_WRITE events.
        """
        if number == OTHERS:
            return "other address spaces"
        return space_name(self.satps[number], self.owner(number, processes))

    def number(self, satp: int, owner: int = 0) -> int:
        """Return the number of an address space.

        :param satp: an int64, as events have it.
        :param owner: the number of its process in SATP_WRITE events.
        """
        found = self._numbers.get((satp, owner))
        if found is None:
            found = min(len(self._numbers), OTHERS)
            self._numbers[satp, owner] = found
            if found < OTHERS:
                self.satps.append(unsigned(satp))
                self._owners.append(owner)
        return found


def space_name(satp: int, owner: Process | None = None) -> str:
    """Return an unsigned ``satp`` as people read it: ``sh (pid 45), root 0x80a3c000, ASID 12``."""
    if satp >> MODE_SHIFT == Mode.BARE:
        return "no translation (Bare)"
    root = f"root {(satp & PPN_MASK) << 12:#x}, ASID {satp >> ID_SHIFT & ASID_MASK}"
    return root if owner is None else f"{owner.name} (pid {owner.pid}), {root}"
