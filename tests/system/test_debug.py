"""A real gdb, driven through pexpect as a user types, on real guests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

import guest
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing
from cosim.machine.qemu import Machine
from tests.system.cosim_process import COMMAND, Home, run

pytestmark = pytest.mark.system

_VA = 0x9_0000_0000
"""The page that scenario ``bug-unmap`` unmaps."""
_PLAIN = ["-nx", "-iex", "set height 0", "-iex", "set style enabled off", "-iex", "set confirm off"]


class Gdb:
    """One ``cosim debug`` on a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        environment = {**environment, "TERM": "dumb", "TMUX": ""}
        self.terminal = pexpect.spawn(
            words[0], words[1:], env=environment, encoding="utf-8", timeout=280, echo=False
        )
        self.start = self._prompt()

    def _prompt(self) -> str:
        self.terminal.expect_exact("(gdb) ")
        return str(self.terminal.before).replace("\r", "")

    def __call__(self, command: str) -> str:
        """Type ``command`` and return what gdb prints."""
        self.terminal.sendline(command)
        return self._prompt()

    def value(self, expression: str) -> int:
        """The unsigned value of an expression of gdb's."""
        found = re.search(r"= (0x[0-9a-f]+)", self(f"p/x (unsigned long long) {expression}"))
        assert found is not None
        return int(found[1], 16)

    def python(self, expression: str) -> str:
        """What a Python expression inside gdb comes to."""
        return self(f"python print({expression})").strip().split("\n")[-1]

    def quit(self) -> int:
        """End gdb, and return the exit status of ``cosim``."""
        self.terminal.sendline("quit")
        self.terminal.expect(pexpect.EOF)
        self.terminal.close()
        status: int = self.terminal.exitstatus
        return status


@contextmanager
def debugging(home: Home, *words: str) -> Iterator[Gdb]:
    options = [f"--gdb-arg={word}" for word in _PLAIN]
    gdb = Gdb([*COMMAND, "debug", *words, *options], home.environment())
    try:
        yield gdb
    finally:
        gdb.terminal.close(force=True)


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gdb]:
    home = Home(tmp_path_factory.mktemp("debug"), "micro")
    with debugging(home, "micro", "--scenario", "bug-unmap") as gdb:
        yield gdb
        assert gdb.quit() == 0
    assert not home.leftovers()


def test_gdb_stands_where_the_region_begins_with_symbols(micro: Gdb) -> None:
    assert "cosim_mark" in micro.start
    assert "console is in" in micro.start
    assert "kernel_main" in micro("bt")


def test_walk_maps_and_find_say_what_qemu_says(micro: Gdb) -> None:
    walked = micro.python("hex(paging('walk', gdb.parse_and_eval('$pc'))['pa'])")
    assert walked in micro(f"monitor gva2gpa {micro.value('$pc'):#x}").replace("gpa: ", "")
    ranges = micro("monitor info mem").split("\n")
    rows = [line.split() for line in ranges if re.match(r"[0-9a-f]{16} ", line)]
    shown = micro.python(
        "[(hex(r['va']), hex(r['pa']), hex(r['size'])) for r in paging('maps')['ranges']]"
    )
    for va, pa, size, _ in rows:
        assert str((hex(int(va, 16)), hex(int(pa, 16)), hex(int(size, 16)))) in shown
    assert "1 range" in micro("paging maps")
    assert "mapped 1 time" in micro("paging find $pc")
    assert "root" in micro("paging tables")


def test_errors_are_lines_and_no_tracebacks(micro: Gdb) -> None:
    for command in (
        "paging walk",
        "paging walk nonsense",
        "paging maps --has q",
        "paging find -5 6",
    ):
        said = micro(command)
        assert "Traceback" not in said
        assert len(said.strip().split("\n")) <= 2, said


def test_each_command_has_help_and_completion(micro: Gdb) -> None:
    listed = micro("help paging")
    names = ("walk", "maps", "find", "tables", "who", "watch", "break-on", "back")
    for name in (*names, "snapshot", "tlb", "shadow", "exits"):
        assert f"paging {name} -- " in listed
        assert "Example: paging" in micro(f"help paging {name}")
    assert "paging walk --satp" in micro("complete paging walk --s")
    assert "paging walk cosim_mark" in micro("complete paging walk cosim_ma")


def test_a_finding_its_store_and_the_way_back(micro: Gdb) -> None:
    assert "1 place" in micro("paging break-on finding")
    landed = micro("continue")
    assert "load_word" in landed
    assert "permission-lost" in landed
    assert "unmap+" in landed
    # The access itself is the next instruction.
    assert "ld" in micro("x/i $pc")
    assert "why: V is clear" in micro(f"paging walk {_VA:#x}")
    told = micro(f"paging who {_VA:#x}")
    assert "bugs.c:24" in told
    assert "4 changes" in told
    there = micro(f"paging back {_VA:#x}")
    assert "*e = 0;" in there
    assert micro("x/i $pc").split()[-2:] == ["sd", "zero,0(s1)"]
    assert "pa 0x" in micro(f"paging walk {_VA:#x}")
    micro("stepi")
    assert "why: V is clear" in micro(f"paging walk {_VA:#x}")


def test_gdb_runs_backwards(micro: Gdb) -> None:
    micro("paging break-on finding --delete")
    pc = micro.value("$pc")
    micro("stepi")
    micro("stepi")
    micro("reverse-stepi")
    micro("reverse-stepi")
    assert micro.value("$pc") == pc
    micro("tbreak unmap")
    assert "unmap" in micro("reverse-continue")
    assert "va=" in micro("frame")
    # gdb 16 has other words for it than gdb 13.
    assert re.search("No more reverse-execution|end of recorded history", micro("reverse-continue"))
    assert "cosim_mark" in micro("frame")
    assert "no earlier store to an entry" in micro("paging back")


def test_a_watch_stops_before_the_next_change(micro: Gdb) -> None:
    assert "4 changes to come" in micro(f"paging watch {_VA:#x}")
    for level in (2, 1, 0, 0):
        assert f"translation of {_VA:#x}, level {level}" in micro("continue")
    micro("paging watch --delete")
    assert "history" in micro("continue")
    assert "history" in micro("continue")


# -- gdb and QEMU of one's own ---------------------------------------------------------------------


@contextmanager
def _machine(folder: Path) -> Iterator[tuple[Machine, Path]]:
    """A machine of somebody else, whose stub waits at a socket."""
    spec = guest.load("micro")
    path = folder / "stub"
    config = MachineConfig(kernel=spec.kernel, append="scenario=bug-unmap", memory=256 << 20)
    with Machine(
        tools.qemu().path, config, folder=folder, timing=Timing("icount"), gdb=path, hold=True
    ) as machine:
        yield machine, path


def _questions(ask: Gdb, machine: Machine) -> None:
    ask("break load_word")
    assert "load_word" in ask("continue")
    assert "why: V is clear" in ask(f"paging walk {_VA:#x}")
    walked = ask.python("hex(paging('walk', gdb.parse_and_eval('$sp'))['pa'])")
    assert machine.qmp(
        "human-monitor-command", **{"command-line": f"gva2gpa {walked}"}
    ).strip() == (f"gpa: {walked}")
    assert "1 range" in ask("paging maps")
    assert "needs a recorded run" in ask("paging back")
    assert "needs a recorded run" in ask(f"paging who {_VA:#x}")


def test_a_qemu_of_somebody_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    kernel = guest.load("micro").kernel
    with _machine(tmp_path) as (machine, path):
        with debugging(home, "--attach", str(path), "--kernel", str(kernel)) as gdb:
            _questions(gdb, machine)
            assert gdb.quit() == 0
        assert machine.alive()
    assert not home.leftovers()


def test_a_gdb_of_ones_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    printed = run(["debug", "--print-gdbinit"], home.environment())
    assert printed.status == 0
    (tmp_path / "paging.py").write_text(printed.stdout)
    kernel = guest.load("micro").kernel
    with _machine(tmp_path) as (machine, path):
        words = [
            str(tools.gdb().path),
            "-q",
            *_PLAIN,
            str(kernel),
            "-x",
            str(tmp_path / "paging.py"),
        ]
        gdb = Gdb([*words, "-ex", f"target remote {path}"], home.environment())
        try:
            _questions(gdb, machine)
            assert gdb.quit() == 0
        finally:
            gdb.terminal.close(force=True)


def test_the_first_finding_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    with debugging(home, "micro", "--scenario", "bug-unmap", "--at", "finding") as gdb:
        assert "permission-lost" in gdb.start
        assert "load_word" in gdb("info symbol $pc")
        assert gdb.quit() == 0
    assert not home.leftovers()
