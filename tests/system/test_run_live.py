"""`cosim run --live` at a real terminal: keys reach the guest, and the terminal is given back."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect.fdpexpect
import pytest

from tests.system.cosim_process import Command, Home

pytestmark = pytest.mark.system

WAIT = 50
LIVE = ("--live", "--model", "native", "--json")


class Terminal:
    """A pseudo-terminal: what the user sees and types on ``screen``, and ``end`` for a command."""

    def __init__(self) -> None:
        self._keyboard, self.end = os.openpty()
        self.before = termios.tcgetattr(self.end)
        self.screen = pexpect.fdpexpect.fdspawn(self._keyboard, timeout=WAIT, encoding="utf-8")

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.end)

    @property
    def raw(self) -> bool:
        return not self.settings[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

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
    screen = terminal.screen
    with Command(words, home.environment(), terminal=terminal.end) as command:
        screen.expect("Ctrl-] ends the session")
        screen.expect("guest# ")
        screen.expect("the region has begun")
        assert terminal.raw
        assert command.child("rr=") is None
        assert command.child("-icount") is None
        screen.send("echo $((6 * 7)) gr\u00fcn\r")
        screen.expect("\r\n42 gr\u00fcn\r\n")
        screen.expect("guest# ")
        # A process of its own has tables of its own.
        screen.send("(exit 7); echo $?\r")
        screen.expect("\r\n7\r\n")
        screen.expect("guest# ")
        # Ctrl-C is the guest's, too: of what runs there, once the shell has read its line.
        screen.send("(echo go''ing; sleep 1000)\r")
        screen.expect("going\r\n")
        screen.send("\x03")
        screen.expect("guest# ")
        assert command.process.poll() is None
        screen.send("\x1d")
        screen.expect(r"cosim: interrupted \(logs: (\S+)\)")
        ended = command.end(20)
        folder = Path(screen.match[1])
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
        terminal.screen.expect("micro: lsp-bench 16 pages, 30 modifications, 30 loads")
        terminal.screen.expect("micro: done, 1 scenarios, 0 failures")
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
        terminal.screen.expect("micro: mode sv39")
        assert terminal.raw
        os.kill(pid, 9)
        terminal.screen.expect("cosim: QEMU was killed by signal 9")
        ended = command.end(20)
    assert ended.status == 3
    assert terminal.settings == terminal.before
    assert home.leftovers() == []
