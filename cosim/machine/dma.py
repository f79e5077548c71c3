"""Where devices write to guest RAM: evidence for changes that no instruction made.

QEMU's trace event ``address_space_map`` names each piece of RAM that a device is about to access,
before it does.  virtio devices access their buffers in this way.
"""

from __future__ import annotations

import re
import threading
from io import FileIO
from pathlib import Path

EVENT = "address_space_map"
"""The name of QEMU's trace event; old versions of QEMU do not have it."""

_WRITE = re.compile(rb"address_space_map .*addr 0x([0-9a-f]+):([0-9a-f]+) write:1")
_GRANULE_BITS = 3
"""The evidence is kept for each page-table entry, which has 8 bytes."""
_PAGE_BITS = 12
_LONGEST_LINE = 4096


def arguments(descriptor: int) -> list[str]:
    """Return QEMU's arguments that send its log, with the trace event, to ``descriptor``."""
    return ["-trace", EVENT, "-D", f"/proc/self/fd/{descriptor}"]


class DmaWrites:
    """Reads QEMU's log as long as QEMU lives, and remembers where devices have written.

    :param line: the pipe that QEMU writes its log to.
    :param log: receives the lines that are not about devices.
    """

    def __init__(self, line: FileIO, log: Path) -> None:
        self._line = line
        self._log = log
        self._entries: dict[int, int] = {}
        """By the number of a page: one bit for each entry that was written to."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="dma", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                chunk = self._line.read(1 << 16)
            except (OSError, ValueError):
                chunk = b""
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:_LONGEST_LINE]
            self._take(lines)

    def _take(self, lines: list[bytes]) -> None:
        others = []
        with self._lock:
            for line in lines:
                found = _WRITE.search(line)
                if found:
                    self._add(int(found[1], 16), int(found[2], 16))
                elif EVENT.encode() not in line:
                    others.append(line + b"\n")
        if others:
            with self._log.open("ab") as log:
                log.writelines(others)

    def _add(self, start: int, size: int) -> None:
        at, end = start >> _GRANULE_BITS, (start + size - 1) >> _GRANULE_BITS
        in_page = _PAGE_BITS - _GRANULE_BITS
        while size and at <= end:
            page, first = at >> in_page, at & ((1 << in_page) - 1)
            last = min(end - (page << in_page), (1 << in_page) - 1)
            bits = ((1 << (last - first + 1)) - 1) << first
            self._entries[page] = self._entries.get(page, 0) | bits
            at = (page + 1) << in_page

    def covers(self, pa: int) -> bool:
        """Return True if a device has written to the page-table entry at ``pa``."""
        with self._lock:
            bits = self._entries.get(pa >> _PAGE_BITS, 0)
        return bool(bits >> (pa >> _GRANULE_BITS & ((1 << (_PAGE_BITS - _GRANULE_BITS)) - 1)) & 1)

    def finish(self) -> None:
        """Wait for the rest of the log; QEMU is gone, or just going."""
        self._thread.join(2)
