"""Commands for a stub, which is one end of a socket pair here."""

from __future__ import annotations

import socket
import threading

from cosim.debugger.rsp import frame
from cosim.machine import stub_commands

COMMANDS = [b"Z0,fff,4", b"P18f=5000000000000000"]


def _stub(line: socket.socket, answers: list[bytes], heard: list[bytes]) -> None:
    for answer in answers:
        heard.append(line.recv(100))
        line.sendall(answer)
    line.close()


def _send(*answers: bytes) -> tuple[bool, list[bytes]]:
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []
    thread = threading.Thread(target=_stub, args=(theirs, list(answers), heard))
    thread.start()
    with ours:
        done = stub_commands.send(ours, COMMANDS)
    thread.join()
    return done, heard


def test_commands_are_sent_one_after_the_other() -> None:
    done, heard = _send(b"+$OK#9a", b"+$OK#9a")
    assert done
    assert heard == [frame(command) for command in COMMANDS]


def test_a_refusal_or_an_end_is_reported() -> None:
    assert not _send(b"+$E22#a9")[0]
    assert not _send(b"+$OK#9a")[0]
