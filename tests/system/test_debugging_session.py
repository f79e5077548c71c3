"""The sessions with gdb that docs/debugging.md shows are what gdb prints."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cosim.paths import SOURCE
from tests.system.cosim_process import Home
from tests.system.test_debug import debugging

pytestmark = pytest.mark.system

_BLOCK = re.compile(r"<!-- gdb session( continues)? -->\n```\n(.*?)```", re.DOTALL)


def _sessions() -> list[str]:
    sessions: list[str] = []
    for continues, text in _BLOCK.findall((SOURCE / "docs/debugging.md").read_text()):
        if continues:
            sessions[-1] += text
        else:
            sessions.append(text)
    return sessions


def _words(text: str) -> list[str]:
    """The words of a text, without what another compiler or another checkout may choose."""
    text = re.sub(r"\S*/guest/micro/", "", text.replace("guest/micro/", "/guest/micro/"))
    text = re.sub(r"0x[0-9a-f]+|#\d+|[\d,]{4,}|\+\d+>", "N", text)
    # A model that was loaded before is not loaded again.
    return [word for line in text.split("\n") if "loading the" not in line for word in line.split()]


@pytest.mark.parametrize("session", _sessions())
def test_a_session_of_the_document(tmp_path: Path, session: str) -> None:
    start, *steps = session.split("(gdb) ")
    command, _, said = start.partition("\n")
    home = Home(tmp_path, "micro")
    kernel = home.cache / "guests/micro/micro.elf"
    # It may have been made by another checkout, and before this one was.
    assert str(SOURCE).encode() not in kernel.read_bytes()
    os.utime(kernel, (0, 0))
    with debugging(home, *command.split()[2:]) as gdb:
        printed = " ".join(_words(gdb.start))
        assert " ".join(_words(said)) in printed
        for step in steps:
            typed, _, shown = step.partition("\n")
            assert _words(gdb(typed)) == _words(shown)
        assert gdb.quit() == 0


def test_the_document_has_both_sessions() -> None:
    assert [session.split()[4] for session in _sessions()] == ["bug-unmap", "fixed-unmap"]
