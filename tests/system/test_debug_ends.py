"""However ``cosim debug`` ends, no gdb and no QEMU is left, and the terminal is as it was."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.system.cosim_process import PATIENCE, Home, _environments
from tests.system.test_debug import Gdb, debugging

pytestmark = pytest.mark.system

_MARK = "COSIM_TEST_DEBUG"


class Living:
    """The processes of one command, found by a mark in their environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mark = f"{_MARK}={uuid.uuid4()}"
        monkeypatch.setenv(*self._mark.split("="))

    def all(self) -> list[int]:
        return [
            pid
            for pid, environment in _environments()
            if self._mark in environment and pid != os.getpid()
        ]

    def one(self, name: str) -> int:
        found = [pid for pid in self.all() if name in Path(f"/proc/{pid}/cmdline").read_text()[:80]]
        assert len(found) == 1, (name, found)
        return found[0]

    def await_end(self) -> None:
        limit = time.monotonic() + PATIENCE
        while self.all():
            assert time.monotonic() < limit, self.all()
            time.sleep(0.05)


def _ended(gdb: Gdb) -> tuple[int | None, int | None, str]:
    gdb.terminal.expect(pexpect.EOF)
    said = str(gdb.terminal.before)
    gdb.terminal.close()
    return gdb.terminal.exitstatus, gdb.terminal.signalstatus, said


def _end_cosim(gdb: Gdb, living: Living) -> None:
    os.kill(gdb.terminal.pid, signal.SIGTERM)
    status, _, said = _ended(gdb)
    assert status == 130
    assert "cosim: interrupted" in said


def _kill_cosim(gdb: Gdb, living: Living) -> None:
    os.kill(gdb.terminal.pid, signal.SIGKILL)
    assert _ended(gdb)[1] == signal.SIGKILL


def _kill_gdb(gdb: Gdb, living: Living) -> None:
    os.kill(living.one("gdb"), signal.SIGKILL)
    status, _, said = _ended(gdb)
    assert status == 3
    assert "cosim: gdb was killed by signal 9" in said


def _kill_qemu(gdb: Gdb, living: Living) -> None:
    os.kill(living.one("qemu-system"), signal.SIGKILL)
    gdb.terminal.sendline("stepi")
    status, _, said = _ended(gdb)
    assert status == 3
    assert "cosim: QEMU" in said
    assert "Traceback" not in said


def _hang_up(gdb: Gdb, living: Living) -> None:
    terminal = gdb.terminal
    os.close(terminal.child_fd)
    terminal.closed = terminal.ptyproc.closed = True


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("ends"), "micro")


@pytest.mark.parametrize("end", [_end_cosim, _kill_gdb, _kill_qemu, _hang_up, _kill_cosim])
def test_nothing_is_left(
    home: Home, monkeypatch: pytest.MonkeyPatch, end: Callable[[Gdb, Living], None]
) -> None:
    living = Living(monkeypatch)
    with debugging(home, "micro", "--scenario", "bug-unmap") as gdb:
        assert len(living.all()) == 3
        end(gdb, living)
        living.await_end()
    if end is _end_cosim:
        assert not home.leftovers()


def test_ctrl_c_belongs_to_gdb(home: Home) -> None:
    with debugging(home, "micro", "--scenario", "bug-unmap") as gdb:
        gdb.terminal.sendintr()
        gdb.terminal.expect_exact("Quit")
        gdb._prompt()
        assert "cosim_mark" in gdb("info symbol $pc")
        assert gdb.quit() == 0
