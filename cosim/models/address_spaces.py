"""The address spaces of a guest: which one each event belongs to.

An address space is a value of ``satp``: its mode, its root table and its ASID.  No event says which
process owns it.  A guest may use the same value again for another process, after it has freed the
root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import EventBatch, Kind, Priv, Satp, small_fields
from hypervisor_model.isa.atp import ASID_MASK, ID_SHIFT, MODE_SHIFT, PPN_MASK, Mode
from hypervisor_model.jit import unsigned

MOST = 1000
"""Address spaces that are told apart, in the order in which they are loaded first."""
OTHERS = MOST
"""The number that all later ones share."""


class AddressSpaces:
    """Numbers the address spaces of a run, in the order in which harts load them.

    Each hart begins without translation, as after reset (``satp`` 0).

    :param harts: how many there are.
    """

    def __init__(self, harts: int = 1) -> None:
        self.satps = [0]
        """``satp`` of each address space, by its number."""
        self._numbers = {0: 0}
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
            known = [loaded, *map(self.number, batch["b"][own].tolist())]
            numbers[mine] = np.array(known)[np.searchsorted(own, asked[mine])]
            # Events of users up to each write, and after the last.
            seen = np.diff(np.searchsorted(by_user, own, "right"), prepend=0, append=len(by_user))
            self._with_user.update(known[at] for at in np.flatnonzero(seen).tolist())
            self._current[hart] = known[-1]
        return numbers

    def has_user(self, number: int) -> bool:
        """Return True if programs (U-mode) have caused an event in this address space."""
        return number in self._with_user

    def name(self, number: int) -> str:
        """Return what people call this address space."""
        return "other address spaces" if number == OTHERS else space_name(self.satps[number])

    def number(self, satp: int) -> int:
        """Return the number of the address space of ``satp``, an int64 as events have it."""
        found = self._numbers.get(satp)
        if found is None:
            found = min(len(self._numbers), OTHERS)
            self._numbers[satp] = found
            if found < OTHERS:
                self.satps.append(unsigned(satp))
        return found


def space_name(satp: int) -> str:
    """Return an unsigned ``satp`` as people read it: ``root 0x80a3c000, ASID 12``."""
    if satp >> MODE_SHIFT == Mode.BARE:
        return "no translation (Bare)"
    return f"root {(satp & PPN_MASK) << 12:#x}, ASID {satp >> ID_SHIFT & ASID_MASK}"
