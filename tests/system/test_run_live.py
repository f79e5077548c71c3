"""`cosim run --live` at a real terminal: keys reach the guest, and the terminal is given back."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect.fdpexpect
import pytest

from tests.system.cosim_process import Command, Home, Patience

pytestmark = pytest.mark.system

LIVE = ("--live", "--model", "native", "--json")


class Terminal:
    """A pseudo-terminal: what the user sees and types on ``screen``, and ``end`` for a command."""

    def __init__(self) -> None:
        self._keyboard, self.end = os.openpty()
        self.before = termios.tcgetattr(self.end)
        self._screen = pexpect.fdpexpect.fdspawn(self._keyboard, timeout=1, encoding="utf-8")

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.end)

    @property
    def raw(self) -> bool:
        return not self.settings[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def expect(self, command: Command, pattern: str) -> str:
        """Wait for ``pattern`` on the screen while ``command`` works; return its group."""
        patience = Patience(command)
        while self._screen.expect([pattern, pexpect.TIMEOUT]):
            assert not patience.over(), f"no {pattern!r} on the screen: {self._screen.before!r}"
        return "".join(self._screen.match.groups())

    def type(self, keys: str) -> None:
        """Send ``keys``."""
        self._screen.send(keys)

    def close(self) -> None:
        for descriptor in (self._keyboard, self.end):
            os.close(descriptor)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_a_shell_in_the_guest(terminal: Terminal, tmp_path: Path, backend: str) -> None:
    home = Home(tmp_path / "home", "linux")
    edge = ["--from", "console:guest# "]
    words = ["run", "linux", *LIVE, "--append", "quiet cosim.shell", "--backend", backend, *edge]
    with Command(words, home.environment(), terminal=terminal.end) as command:
        terminal.expect(command, "Ctrl-] ends the session")
        terminal.expect(command, "guest# ")
        terminal.expect(command, "the region has begun")
        assert terminal.raw
        assert command.child("rr=") is None
        assert command.child("-icount") is None
        terminal.type("echo $((6 * 7)) gr\u00fcn\r")
        terminal.expect(command, "\r\n42 gr\u00fcn\r\n")
        terminal.expect(command, "guest# ")
        # Another process has its own page tables.
        terminal.type("(exit 7); echo $?\r")
        terminal.expect(command, "\r\n7\r\n")
        terminal.expect(command, "guest# ")
        # Ctrl-C is the guest's, too: of what runs there, once the shell has read its line.
        terminal.type("(echo go''ing; sleep 1000)\r")
        terminal.expect(command, "going\r\n")
        terminal.type("\x03")
        terminal.expect(command, "guest# ")
        assert command.process.poll() is None
        terminal.type("\x1d")
        folder = Path(terminal.expect(command, r"cosim: interrupted \(logs: (\S+)\)"))
        ended = command.end(20)
    assert ended.status == 130
    assert terminal.settings == terminal.before
    assert home.sessions() == [folder]
    assert home.leftovers() == []
    document = ended.document
    assert document["complete"] is False
    assert document["audit"]["missed_writes"] == 0
    assert document["events"]["pte_write"] > 100
    assert document["region"]["from"] == "console:guest# "


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_a_live_guest_that_ends(terminal: Terminal, tmp_path: Path, backend: str) -> None:
    home = Home(tmp_path / "home", "micro")
    workload = "scenario=lsp-bench pages=16 ops=60 share=50"
    words = ["run", "micro", *LIVE, "--workload", workload, "--to", "power-off"]
    words += ["--backend", backend]
    with Command(words, home.environment(), terminal=terminal.end) as command:
        # The note that the region has begun may stand within the guest's line.
        terminal.expect(command, "16 pages, 30 modifications, 30 loads|lsp-bench ok, 60 steps")
        terminal.expect(command, "1 scenarios, 0 failures")
        ended = command.end(20)
    assert ended.status == 0
    assert terminal.settings == terminal.before
    assert ended.document["complete"] is True
    assert ended.document["events"]["pte_write"] == 30
    assert home.sessions() == []
    assert home.leftovers() == []


def test_the_terminal_is_given_back_when_qemu_dies(terminal: Terminal, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    workload = "scenario=lsp-bench pages=64 ops=200000 share=50"
    words = ["run", "micro", *LIVE, "--workload", workload]
    with Command(words, home.environment(), terminal=terminal.end) as command:
        pid = command.await_child("-gdb", "micro.elf")
        terminal.expect(command, "micro: mode sv39")
        assert terminal.raw
        os.kill(pid, 9)
        terminal.expect(command, "cosim: QEMU was killed by signal 9")
        ended = command.end(20)
    assert ended.status == 3
    assert terminal.settings == terminal.before
    assert home.leftovers() == []
