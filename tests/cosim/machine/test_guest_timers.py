"""Which timers of a guest are set again, and how."""

from __future__ import annotations

import pytest

from cosim.errors import MachineError
from cosim.machine import guest_timers

NOW = 1000
NEVER = (1 << 64) - 1
SSTATUS = 322


def _answer(value: int | None) -> bytes:
    return b"E14" if value is None else value.to_bytes(8, "little").hex().encode()


def _commands(
    stimecmp: int | None = 0, vstimecmp: int | None = 0, mtimecmp: int = NEVER, mtime: int = NOW
) -> list[str]:
    registers = [_answer(value) for value in (NOW, stimecmp, vstimecmp)]
    return guest_timers.commands(
        SSTATUS, [*registers, b"OK", _answer(mtime), _answer(mtimecmp), b"OK"]
    )


def test_each_question_has_one_answer() -> None:
    # time, stimecmp and vstimecmp are 0xc01, 0x14d and 0x24d; sstatus is 0x100.
    assert guest_timers.questions(SSTATUS) == [
        *(b"pc43", b"p18f", b"p28f"),
        *(b"Qqemu.PhyMemMode:1", b"m200bff8,8", b"m2004000,8", b"Qqemu.PhyMemMode:0"),
    ]


def test_a_timer_that_is_still_to_come_is_set_again() -> None:
    assert _commands(stimecmp=0x1234) == ["P18f=3412000000000000"]
    assert _commands(vstimecmp=0x1234) == ["P28f=3412000000000000"]
    assert _commands(mtimecmp=0x1234) == [
        *("Qqemu.PhyMemMode:1", "M2004000,8:3412000000000000", "Qqemu.PhyMemMode:0"),
    ]


@pytest.mark.parametrize("due", [0, NOW, NEVER, None])
def test_a_timer_that_is_due_never_set_or_not_there_is_left_alone(due: int | None) -> None:
    assert _commands(due, due, NEVER if due is None else due) == []


def test_a_board_with_its_timer_elsewhere_is_refused() -> None:
    with pytest.raises(MachineError, match="its timer at another address"):
        _commands(mtime=0)
