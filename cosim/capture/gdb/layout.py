"""What interception must know about a guest before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.capture.decode import CBO_BLOCK
from cosim.capture.paging import ALWAYS_SETS_AD, Paging
from cosim.capture.processes import ProcessLayout

Range = tuple[int, int]
"""A physical range: (first address, bytes)."""


class Loop(NamedTuple):
    """Where the guest traps without end.  QEMU could not be stopped any more in there."""

    at: int
    """The trap vector, where each trap also happens."""
    epc: str
    """The register that says where a trap happened."""


@dataclass(frozen=True)
class GuestLayout:
    """The guest's RAM, and where its code lies.

    >>> import numpy as np
    >>> ram = np.zeros(512, dtype=np.int64)
    >>> layout = GuestLayout(ram, 0x8000_0000, extents=lambda: [(0x8000_0000, 4096)], mark_at=0)
    >>> layout.holds(0x8000_0ff8), layout.holds(0x8000_1000)
    (True, False)
    """

    ram: NDArray[np.int64]
    """RAM as int64 words, shared with QEMU."""
    base: int
    """The physical address of ``ram[0]``."""
    extents: Callable[[], list[Range]]
    """Returns the parts of RAM that hold anything."""
    mark_at: int
    """The virtual address of the mark instruction."""
    firmware: Sequence[Range] = ()
    """What may hold code that runs in M-mode, so untranslated."""
    kernel: Sequence[Range] = ()
    """What may hold the kernel's text, which runs untranslated until there is paging."""
    machine_mode: bool = False
    """The kernel may run in M-mode while there is paging, and so store to tables untranslated."""
    loop: Loop | None = None
    """Known from the recording."""
    cbo_block: int = CBO_BLOCK
    """The bytes that ``cbo.zero`` of this CPU clears."""
    paging: Paging = ALWAYS_SETS_AD
    """What this CPU has of the paging features that a guest can switch."""
    processes: ProcessLayout | None = None
    """Where the kernel keeps which process owns an address space; None if that is not known."""

    def holds(self, pa: int) -> bool:
        """Return True if ``pa`` lies in RAM."""
        return self.base <= pa < self.base + self.ram.nbytes
