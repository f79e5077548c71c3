"""The timers of a guest, which QEMU does not save.

QEMU before 10.2 saves the registers that say when a timer is due, and not that it waits for that
moment.  So a guest that is loaded again waits for ever for the timer that it has set.  To write the
same value to the register again sets the timer.  QEMU's gdb stub can do that before the guest
starts: the guest executes nothing for it, and a recording repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosim.errors import MachineError

_SSTATUS = 0x100
_STIMECMP, _VSTIMECMP, _TIME = 0x14D, 0x24D, 0xC01
_MTIMECMP, _MTIME = 0x0200_4000, 0x0200_BFF8
"""Physical addresses on QEMU's ``virt`` board."""
_PHYSICAL, _VIRTUAL = b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0"
_COMMAND = re.compile(r"P[0-9a-f]{1,8}=[0-9a-f]{16}|M2004000,8:[0-9a-f]{16}|Qqemu\.PhyMemMode:[01]")


def questions(sstatus: int) -> list[bytes]:
    """Return the packets that ask QEMU's stub for the timers of a stopped guest.

    QEMU's list of registers leaves some of them out, but the stub answers for them all.

    :param sstatus: the stub's number of the register ``sstatus``.
    """
    registers = [b"p%x" % _number(sstatus, csr) for csr in (_TIME, _STIMECMP, _VSTIMECMP)]
    memory = [b"m%x,8" % address for address in (_MTIME, _MTIMECMP)]
    return [*registers, _PHYSICAL, *memory, _VIRTUAL]


def commands(sstatus: int, answers: Sequence[bytes]) -> list[str]:
    """Return the packets that set the guest's timers again.

    A timer that is due has left its mark in ``mip``, which QEMU saves, so it is left alone.

    >>> commands(322, [b"40" + 7 * b"00", b"50" + 7 * b"00", b"E14", b"OK"]
    ...          + [b"40" + 7 * b"00", 8 * b"ff", b"OK"])
    ['P18f=5000000000000000']

    :param answers: the stub's answers to :func:`questions`.
    :raises MachineError: when the board's timer is not where it is expected.
    """
    time, stimecmp, vstimecmp, _, mtime, mtimecmp, _ = map(_value, answers)
    if time is None or time != mtime or mtimecmp is None:
        raise MachineError(
            "this board has its timer at another address, so a snapshot would lose what the guest "
            "waits for; use the board without options"
        )
    found = []
    for csr, value in ((_STIMECMP, stimecmp), (_VSTIMECMP, vstimecmp)):
        if value is not None and _waits(value, time):
            found.append(f"P{_number(sstatus, csr):x}={_hex(value)}")
    if _waits(mtimecmp, time):
        set_it = f"M{_MTIMECMP:x},8:{_hex(mtimecmp)}"
        found += [_PHYSICAL.decode(), set_it, _VIRTUAL.decode()]
    return found


def is_command(text: str) -> bool:
    """Return True if ``text`` is a packet that :func:`commands` can have made.

    The packets of a snapshot come from a file, and QEMU's stub also takes such as write files.
    """
    return _COMMAND.fullmatch(text) is not None


def _number(sstatus: int, csr: int) -> int:
    return sstatus - _SSTATUS + csr


def _waits(due: int, now: int) -> bool:
    return now < due < (1 << 64) - 1


def _hex(value: int) -> str:
    return value.to_bytes(8, "little").hex()


def _value(answer: bytes) -> int | None:
    """Return the number in an answer; None if there is no such register or memory."""
    try:
        return int.from_bytes(bytes.fromhex(answer.decode()), "little")
    except ValueError:
        return None
