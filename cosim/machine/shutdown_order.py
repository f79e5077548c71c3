"""Puts the last instructions of a finished recording before the shutdown that they led to.

QEMU writes EVENT_SHUTDOWN when the guest asks to be switched off, without the instructions that
were executed since the event before (``replay_shutdown_request`` does not call
``replay_save_instructions``).  Their count follows behind it.  So a re-execution shuts down before
it has executed them, and what the guest did last is lost.

Only the end of a long recording is read, so where an event begins is not known there.  The byte of
a shutdown also occurs in clock values and in counts.  So it is taken for a shutdown only if the
events before it lead to it.

The codes are those of QEMU 10.0 (``enum ReplayEvents`` in ``replay/replay-internal.h``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_ITEM = re.compile(
    rb"(?P<shutdown>[\x0a-\x14])"  # EVENT_SHUTDOWN + cause
    rb"|(?P<moved>\x00.{4}"  # EVENT_INSTRUCTION, count
    rb"|[\x1c\x1d].{8}"  # EVENT_CLOCK + clock, value
    rb"|[\x1e-\x26])"  # EVENT_CHECKPOINT + where
    rb"|[\x01\x02]"  # EVENT_INTERRUPT, EVENT_EXCEPTION
    rb"|\x16.{8}"  # EVENT_CHAR_WRITE, result, offset
    rb"|\x1b.{4}\x00\x00\x00\x20.{32}",  # EVENT_RANDOM, result, a seed of 32 bytes
    re.DOTALL,
)
_QUIT, _GUEST = 0x0C, 0x10
"""EVENT_SHUTDOWN for a reset or a request to quit, and for a power-off by the guest."""
_END = b"\x0e\x27"
"""What ``replay_finish`` writes: a shutdown by a signal of the host, and EVENT_END."""
_HEAD = 12
"""Bytes before the first event: the version, and a field for later."""
_LOOK = 4096
"""How much of the end is read."""
_SURE = 16
"""A reading that begins in the middle of an event meets the right one within a few events, because
only one byte in ten can begin an event."""


class _Item(NamedTuple):
    at: int
    data: bytes
    shutdown: bool
    moved: bool
    """True if it may stand before a shutdown instead of behind it."""


def mend(data: bytes, *, whole: bool = False) -> bytes:
    """Return the end of a recording in the right order.

    It has the same length.  It is unchanged if it cannot be read as events of QEMU 10.0, or can be
    read in more than one way.

    :param whole: ``data`` is the whole recording, not only its end.
    """
    starts = _starts(data)
    known = whole and _HEAD in starts
    if not starts:
        return data
    items = _items(data, _HEAD if known else starts[0])
    sure = known or set(starts) == {item.at for item in items}
    for number, item in enumerate(items):
        if item.data[0] in (_QUIT, _GUEST):
            behind = items[number:]
            if (sure or number >= _SURE) and all(x.shutdown or x.moved for x in behind):
                ordered = [x.data for x in sorted(behind, key=lambda x: x.shutdown)]
                return data[: item.at] + b"".join(ordered) + _END
            break
    return data


def mend_file(path: Path) -> None:
    """Put the end of the finished recording ``path`` right, if it is not.

    :raises OSError: when the file cannot be read or written.
    """
    with path.open("r+b") as file:
        file.seek(max(file.seek(0, 2) - _LOOK, 0))
        start = file.tell()
        end = file.read()
        mended = mend(end, whole=start == 0)
        if mended != end:
            file.seek(start)
            file.write(mended)


def _starts(data: bytes) -> list[int]:
    """Return the places, in order, from which ``data`` can be read as events up to its end."""
    end = len(data) - len(_END)
    if data[max(end, 0) :] != _END:
        return []
    good = {end}
    for at in reversed(range(end)):
        match = _ITEM.match(data, at, end)
        if match is not None and match.end() in good:
            good.add(at)
    return sorted(good - {end})


def _items(data: bytes, at: int) -> list[_Item]:
    """Read the events from ``at``, one of :func:`_starts`, to the end."""
    items = []
    end = len(data) - len(_END)
    while at < end:
        match = _ITEM.match(data, at, end)
        assert match is not None, "the place is no start"
        items.append(
            _Item(at, match.group(), match["shutdown"] is not None, match["moved"] is not None)
        )
        at = match.end()
    return items
