"""Frames as gdb tells them, and which places are asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cosim.debug import call_chain
from cosim.debug.counted_events import Place
from cosim.errors import GdbError
from cosim.kernel.places import Frame
from cosim.machine.configuration import RAM_BASE
from cosim.session.protocol import QemuCounts


class Named:
    """Names each address by its number."""

    def symbol(self, pc: int) -> str | None:
        return f"f+{pc:#x}" if pc < 0x3000 else None

    def source(self, pc: int) -> str | None:
        return f"f.c:{pc}"


class Gdb:
    """Answers as gdb does."""

    def __init__(self, *frames: dict[str, str]) -> None:
        self.frames = frames
        self.refuses: set[str] = set()
        self.said: list[str] = []

    def command(self, text: str) -> dict[str, Any]:
        self.said.append(text)
        return {"stack": [{"frame": frame} for frame in self.frames]}

    def execute(self, line: str) -> str:
        if line in self.refuses:
            raise GdbError("no such command")
        self.said.append(line)
        return ""


def frames(*told: dict[str, str]) -> Any:
    return call_chain._frames(Gdb(*told), Named())  # type: ignore[arg-type]


def test_a_caller_is_named_by_the_line_of_its_call() -> None:
    """Its pc is behind the call, which may be the last instruction of its line."""
    assert frames({"addr": "0x1000"}, {"addr": "0x2000"}) == [
        Frame(0x1000, "f+0x1000", "f.c:4096"),
        Frame(0x2000, "f+0x2000", f"f.c:{0x1FFF}"),
    ]


def test_gdb_knows_functions_that_were_inlined_and_lines() -> None:
    inlined = {"addr": "0x1000", "func": "inner", "file": "/a/g.h", "line": "7"}
    outer = {"addr": "0x1000", "func": "outer", "file": "/a/g.c", "line": "9"}
    unnamed = {"addr": "0x4000", "func": "elsewhere"}
    assert frames(inlined, outer, unnamed) == [
        Frame(0x1000, "f+0x1000", "g.h:7"),
        Frame(0x1000, "outer", "g.c:9"),
        Frame(0x4000, "elsewhere", f"f.c:{0x3FFF}"),
    ]


F, G, H = 0x1000, 0x2000, 0x2800
STACK = 0x9000


class Functions:
    """Three functions of 256 bytes."""

    def symbol(self, pc: int) -> str | None:
        return next((f"f{at:x}+{pc - at:#x}" for at in (F, G, H) if at <= pc < at + 256), None)

    def source(self, pc: int) -> str | None:
        return None


def followed(ra: int, fp: int, words: dict[int, int]) -> list[int]:
    general = [0] * 33
    general[1], general[8], general[32] = ra, fp, F + 8
    places: Any = Functions()
    return [frame.pc for frame in call_chain.followed_frames(general, words.get, places)]


def test_frame_pointers_are_followed_up_to_the_first_that_leads_nowhere() -> None:
    words = {
        STACK - 8: G + 4,
        STACK - 16: STACK + 64,
        STACK + 56: H + 4,
        STACK + 48: 0,
    }
    # The function has a frame.  Its ra is still its caller's, or of a call that it made itself.
    assert followed(G + 4, STACK, words) == [F + 8, G + 4, H + 4]
    assert followed(F + 4, STACK, words) == [F + 8, G + 4, H + 4]
    # It has none, so the frame is its caller's.
    assert followed(H + 8, STACK, words) == [F + 8, H + 8, G + 4, H + 4]
    # A frame pointer that does not lead up the stack, or leads too far, is none.
    for above in (STACK, STACK - 64, STACK + 68, STACK + (1 << 15)):
        assert followed(F, STACK, words | {STACK - 16: above}) == [F + 8, G + 4]
    assert followed(F, STACK, {STACK - 8: 0x5000}) == []
    assert followed(F, 0x100, words) == []


def test_an_entry_that_has_another_value_is_another_place() -> None:
    ram = np.array([0, -5], np.int64)
    rerun: Any = SimpleNamespace(ram=ram)
    place = Place(7, 0x1000)
    for old, expected in (((1 << 64) - 5, True), (5, False)):
        wanted = call_chain.Wanted(0, place, RAM_BASE + 8, old)
        assert call_chain._stands_before(wanted, rerun) is expected
    assert call_chain._stands_before(call_chain.Wanted(0, place, None, 1), rerun)


def test_an_older_gdb_forgets_registers_by_another_command() -> None:
    gdb: Any = Gdb()
    gdb.refuses = {"maintenance flush register-cache"}
    call_chain._forget_registers(gdb)
    assert gdb.said == ["flushregs"]
    gdb.refuses.add("flushregs")
    with pytest.raises(GdbError, match="cannot forget"):
        call_chain._forget_registers(gdb)


def test_qemu_counts_more_than_what_retires() -> None:
    counts = QemuCounts(before=3, calls=[10, 10, 20])
    assert [counts.of(retired) for retired in (9, 10, 19, 20)] == [12, 15, 24, 26]
