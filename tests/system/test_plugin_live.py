"""`cosim run --backend plugin` with somebody beside it: a gdb of the user's, a console, a limit."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from cosim.machine import tools
from tests.system.cosim_process import Command, Home, processor_seconds, run
from tests.system.inspecting_gdb import InspectingGdb

pytestmark = pytest.mark.system

WORKLOAD = "scenario=lsp-bench pages=64 ops=400 share=50"
PLUGIN = ("run", "micro", "--workload", WORKLOAD, "--backend", "plugin", "--json")


def _counts(document: dict[str, Any]) -> tuple[Any, Any, Any]:
    return document["events"], document["policies"], document["translations"]


def test_a_gdb_of_the_users_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    alone = run(PLUGIN, home.environment())
    assert alone.status == 0, alone.stderr
    at = tmp_path / "gdb.sock"
    words = [*PLUGIN, "--gdb", str(at)]
    with Command(words, home.environment()) as command:
        command.until(at.is_socket, "a socket for gdb")
        with InspectingGdb(tools.gdb().path) as gdb:
            gdb.load_symbols(home.cache / "guests" / "micro" / "micro.elf")
            gdb.connect(at)
            # In charge of start, breakpoints, steps, inspection.
            number = gdb.break_insert(int(gdb.evaluate("(long)&say"), 0))
            gdb.resume()
            stop = gdb.wait_stop(20)
            assert stop is not None and not stop.ended
            first = gdb.registers(["pc", "sp"])
            assert first["pc"] == int(gdb.evaluate("(long)&say"), 0)
            assert len(gdb.read_memory(first["sp"], 16)) == 16
            # Others can walk the tables of the guest that is stopped.
            assert command.process.stderr is not None
            said = command.process.stderr.readline()
            assert said.startswith(f"cosim: the guest waits for gdb: (gdb) target remote {at}; ")
            ram = re.search(r"tables: cosim walk --ram (\S+) --base (\S+) ", said)
            assert ram is not None
            satp = str(gdb.registers(["satp"])["satp"])
            walk = ["walk", "--ram", ram[1], "--base", ram[2], "--satp", satp, "--json"]
            walked = run([*walk, str(first["pc"])], home.environment())
            assert walked.status == 0 and json.loads(walked.stdout)[0]["pa"] == first["pc"]
            assert gdb.step_instruction().ended is False
            assert gdb.registers(["pc"])["pc"] != first["pc"]
            gdb.break_delete(number)
            gdb.resume()
            ended = command.end()
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    assert _counts(ended.document) == _counts(alone.document)
    assert ended.document["region"] == alone.document["region"]
    assert not at.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    ended = run([*PLUGIN, "--gdb", notes], home.environment())
    assert ended.status == 2
    assert "exists and is not a socket" in ended.line
    assert notes.read_text() == "mine"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    at = tmp_path / "gdb.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(at))
    with Command([*PLUGIN, "--gdb", at], home.environment()) as command:
        command.until(lambda: command.child("path=") is not None, "QEMU")
        command.until(lambda: _answers(at), "an answer at the socket")
        command.send(signal.SIGINT)
        ended = command.end(20)
    assert ended.status == 130
    assert "interrupted before the region began" in ended.stderr
    assert not at.exists()


def _answers(at: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(at)) == 0


def test_edges_on_the_console(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    edges = ["--from", "console:micro: mode", "--to", "console:micro: done"]
    # The guest does not wait for our look at its console.  On a busy machine all its work may be
    # over by then, so work that was too short is doubled.
    for ops in (300_000 << turn for turn in range(7)):
        workload = f"scenario=lsp-bench pages=64 ops={ops} share=50"
        words = ["run", "micro", "--workload", workload, "--backend", "plugin", "--json"]
        ended = run([*words, *edges], home.environment())
        if ended.status != 0:
            assert ended.status == 3 and "ended before the region began" in ended.stderr
            continue
        document = ended.document
        assert document["complete"] is True
        assert document["region"]["from"] == "console:micro: mode"
        assert document["audit"]["missed_writes"] == 0
        # It begins where the guest next returns from a trap: before the benchmark, or in it.
        assert document["events"]["pte_write"] < ops // 2 + 5_000
        if document["events"]["pte_write"]:
            return
    raise AssertionError("the region never began while the guest worked")


@pytest.mark.parametrize("words", [["--step-all"], ["--mi-log", "mi.log"]])
def test_what_only_gdb_does_is_refused(tmp_path: Path, words: list[str]) -> None:
    ended = run([*PLUGIN, *words], Home(tmp_path / "home", "micro").environment())
    assert ended.status == 2
    assert "works only with the gdb+plugin or gdb backend; this run uses plugin" in ended.line


def test_a_gdb_beside_gdb_is_refused(tmp_path: Path) -> None:
    words = ["run", "micro", "--gdb", str(tmp_path / "s")]
    ended = run(words, Home(tmp_path / "home", "micro").environment())
    assert ended.status == 2
    assert "--gdb works only with the plugin backend" in ended.line


def test_an_interruption_keeps_what_there_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    workload = "scenario=lsp-bench pages=64 ops=4000000 share=50"
    words = ["run", "micro", "--workload", workload, "--backend", "plugin", "--json"]
    logs = tmp_path / "logs"
    with Command([*words, "--logs", logs], home.environment()) as command:
        console = logs / "plugin.console.log"
        command.until(lambda: console.exists() and b"lsp-bench" in console.read_bytes(), "a start")
        # Some events have been read: the stream is far longer than what a socket holds.
        command.until(lambda: processor_seconds(command.await_child("-plugin")) > 2.0, "some work")
        command.send(signal.SIGINT)
        ended = command.end(20)
    assert ended.status == 130, ended.stderr
    assert ended.stdout, ended.stderr
    assert ended.document["complete"] is False, ended.stderr
    assert ended.document["events"]["pte_write"] > 0
