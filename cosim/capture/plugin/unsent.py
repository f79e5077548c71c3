"""The events that the plugin has not sent yet, read from the memory of QEMU.

They would be lost with a QEMU that has to be killed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile

from hypervisor_model.events import EVENT, EventBatch

_NAME = "cosim_unsent"
"""``struct unsent`` of ``stream.c``: how many events, then the events."""
_ROOM = 4096


def read(pid: int, library: Path) -> EventBatch:
    """Return the events that were not sent; the guest must be at a standstill.

    :param pid: the QEMU, our child, that has loaded the plugin.
    :param library: the plugin.
    :return: none if they cannot be read.
    """
    place = _place(pid, library)
    data = b""
    if place is not None:
        try:
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(place)
                used = min(int.from_bytes(memory.read(8), "little"), _ROOM)
                data = memory.read(used * EVENT.itemsize)
        except OSError:
            data = b""
    batch: EventBatch = np.frombuffer(data, dtype=EVENT)
    return batch


def _place(pid: int, library: Path) -> int | None:
    with library.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").get_symbol_by_name(_NAME)
    if not symbols:
        return None
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        # The first mapping of the file is of its beginning.
        if line.endswith(str(library)):
            return int(line.split("-")[0], 16) + int(symbols[0]["st_value"])
    return None
