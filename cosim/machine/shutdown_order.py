"""Puts the last instructions of a finished recording before the shutdown that they led to.

QEMU writes EVENT_SHUTDOWN when the guest asks to be switched off, without the instructions that
were executed since the event before (``replay_shutdown_request`` does not call
``replay_save_instructions``).  Their count follows behind it.  So a re-execution shuts down before
it has executed them, and what the guest did last is lost.

The codes are those of QEMU 10.0 (``enum ReplayEvents`` in ``replay/replay-internal.h``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_ITEM = re.compile(
    rb"(?P<shutdown>[\x0a-\x14])"  # EVENT_SHUTDOWN + cause
    rb"|\x00.{4}"  # EVENT_INSTRUCTION, count
    rb"|[\x1b-\x1d].{8}"  # EVENT_CLOCK + clock, value
    rb"|[\x1e-\x26]",  # EVENT_CHECKPOINT + where
    re.DOTALL,
)
_QUIT, _GUEST = 0x0C, 0x10
"""EVENT_SHUTDOWN for a reset or a request to quit, and for a power-off by the guest."""
_END = b"\x0e\x27"
"""What ``replay_finish`` writes: a shutdown by a signal of the host, and EVENT_END."""
_LOOK = 96
"""The events at the end need fewer bytes than this."""


class _Item(NamedTuple):
    at: int
    data: bytes
    shutdown: bool


def mend(data: bytes) -> bytes:
    """Return the end of a recording in the right order.

    It has the same length.  It is unchanged if it cannot be read as events of QEMU 10.0, or can be
    read in more than one way.
    """
    found = {
        at: items
        for at in range(len(data))
        if data[at] in (_QUIT, _GUEST) and (items := _items(data, at))
    }
    if not found:
        return data
    first = min(found)
    items = found[first]
    if not set(found) <= {item.at for item in items if item.shutdown}:
        return data
    ordered = [item.data for item in sorted(items, key=lambda item: item.shutdown)]
    return data[:first] + b"".join(ordered) + _END


def mend_file(path: Path) -> None:
    """Put the end of the finished recording ``path`` right, if it is not.

    :raises OSError: when the file cannot be read or written.
    """
    with path.open("r+b") as file:
        file.seek(max(file.seek(0, 2) - _LOOK, 0))
        start = file.tell()
        end = file.read()
        mended = mend(end)
        if mended != end:
            file.seek(start)
            file.write(mended)


def _items(data: bytes, at: int) -> list[_Item]:
    """Read the events from ``at`` to the end; return none if it cannot be done."""
    items = []
    while data[at:] != _END:
        match = _ITEM.match(data, at, len(data) - len(_END))
        if match is None:
            return []
        items.append(_Item(at, match.group(), match["shutdown"] is not None))
        at = match.end()
    return items
