"""The line between the part inside gdb and us."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from cosim.debug.link import Answer, Link
from cosim.errors import GdbError, UsageError


class Gdb:
    """The other end."""

    def __init__(self, line: socket.socket) -> None:
        self._file = line.makefile("rwb")

    def send(self, document: Any) -> None:
        self._file.write(json.dumps(document).encode() + b"\n")
        self._file.flush()

    def receive(self) -> Any:
        return json.loads(self._file.readline())


@pytest.fixture
def ends() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Link(ours), Gdb(theirs), theirs


def test_a_question_and_its_answer(ends: Any) -> None:
    link, gdb, _ = ends
    gdb.send({"ask": ["walk", "0x1000"]})
    assert link.serve(lambda words: Answer("text", list(words), ["stepi"]))
    assert gdb.receive() == {"answer": "text", "value": ["walk", "0x1000"], "run": ["stepi"]}


def test_an_error_is_one_message(ends: Any) -> None:
    link, gdb, _ = ends

    def fail(words: Any) -> Answer:
        raise UsageError("no such thing")

    gdb.send({"ask": ["walk"]})
    assert link.serve(fail)
    assert gdb.receive() == {"error": "no such thing"}


def test_what_gdb_is_asked_meanwhile(ends: Any) -> None:
    link, gdb, _ = ends

    def play() -> None:
        gdb.send({"ask": ["walk"]})
        assert gdb.receive() == {"say": "patience"}
        assert gdb.receive() == {"registers": ["satp", "none"]}
        gdb.send({"values": {"satp": 5, "none": None}})
        assert gdb.receive() == {"memory": [4096, 2]}
        gdb.send({"data": "0102"})
        assert gdb.receive() == {"memory": [0, 2]}
        gdb.send({"data": None})

    seen: list[object] = []

    def answer(words: Any) -> Answer:
        link.say("patience")
        seen.append(link.registers(["satp", "none"]))
        seen.append(link.memory(4096, 2))
        seen.append(link.memory(0, 2))
        return Answer()

    other = threading.Thread(target=play)
    other.start()
    assert link.serve(answer)
    other.join()
    assert seen == [{"satp": 5, "none": None}, b"\1\2", None]


def test_gdb_reads_a_register_over_another_line_while_it_is_asked(ends: Any) -> None:
    link, gdb, _ = ends
    here, there = socket.socketpair()

    class Stub:
        def fileno(self) -> int:
            return here.fileno()

        def serve(self) -> None:
            here.recv(1)
            gdb.send({"values": {"satp": 1}})

    link.beside = Stub()
    gdb.send({"ask": ["walk"]})
    there.send(b"g")
    assert link.serve(lambda words: Answer(value=dict(link.registers(["satp"]))))
    assert gdb.receive() == {"registers": ["satp"]}
    assert gdb.receive()["value"] == {"satp": 1}
    here.close()
    there.close()


@pytest.mark.parametrize("sent", [b"", b"no json\n"])
def test_a_gdb_that_is_gone_or_mad_ends_the_line(ends: Any, sent: bytes) -> None:
    link, _, theirs = ends
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    assert not link.serve(lambda words: Answer())
    with pytest.raises(GdbError):
        link.registers(["satp"])
