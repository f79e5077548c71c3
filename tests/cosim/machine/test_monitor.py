"""The monitor against a QMP server of our own: answers, refusals, silence, a line that breaks."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cosim.machine import monitor as monitor_module
from cosim.machine.monitor import Monitor, Refused

_GREETING = {
    "QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}}, "capabilities": []}
}
_SHUTDOWN = {
    "event": "SHUTDOWN",
    "data": {"guest": True, "reason": "guest-reset"},
    "timestamp": {"seconds": 1, "microseconds": 0},
}


class _Server:
    """Answers commands by name; a command without an answer gets none."""

    def __init__(self) -> None:
        self.line, self._end = socket.socketpair()
        self.answers: dict[str, list[Any]] = {"qmp_capabilities": [{"return": {}}]}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def say(self, document: Any) -> None:
        self._end.sendall(json.dumps(document).encode() + b"\r\n")

    def hang_up(self) -> None:
        self._end.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        # A test may end, or break the line, at any moment.
        with contextlib.suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        self.say(_GREETING)
        text = ""
        while data := self._end.recv(4096):
            text += data.decode()
            # As in QEMU, a command ends with its object; no line end follows.
            with contextlib.suppress(json.JSONDecodeError):
                while text := text.lstrip():
                    asked, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:]
                    self._answer_one(asked)

    def _answer_one(self, asked: dict[str, Any]) -> None:
        for answer in self.answers.get(asked["execute"], []):
            if answer == "hang up":
                self.hang_up()
                return
            same_id = {"id": asked["id"]} if "id" in asked and "event" not in answer else {}
            self.say({**answer, **same_id})

    def close(self) -> None:
        self._end.close()
        self.line.close()


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    yield made
    made.close()


@pytest.fixture
def monitor(server: _Server) -> Iterator[Monitor]:
    made = Monitor(server.line)
    assert made.connect()
    yield made
    made.close()


def test_an_answer(server: _Server, monitor: Monitor) -> None:
    server.answers["query-replay"] = [{"return": {"icount": 7}}]
    assert monitor.ask("query-replay", 5)["icount"] == 7


def test_a_refusal_says_why(server: _Server, monitor: Monitor) -> None:
    server.answers["dance"] = [
        {"error": {"class": "CommandNotFound", "desc": "The command dance has not been found"}}
    ]
    with pytest.raises(Refused, match="dance has not been found"):
        monitor.ask("dance", 5)


def test_silence_ends_at_the_deadline(monitor: Monitor) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        monitor.ask("cont", 0.3)
    assert time.monotonic() - started < 5


def test_a_line_that_breaks_is_no_silence(server: _Server, monitor: Monitor) -> None:
    server.answers["quit"] = ["hang up"]
    started = time.monotonic()
    with pytest.raises(Refused):
        monitor.ask("quit", 20)
    assert time.monotonic() - started < 10
    assert monitor.shutdown_reason() is None


def test_the_reason_of_the_end_is_kept(server: _Server, monitor: Monitor) -> None:
    assert monitor.shutdown_reason() is None
    server.say(_SHUTDOWN)
    monitor.wait_event(5)
    server.hang_up()
    assert monitor.shutdown_reason() == "guest-reset"
    monitor.close()
    monitor.close()
    assert monitor.shutdown_reason() == "guest-reset"


def test_the_reason_is_found_behind_other_events(server: _Server, monitor: Monitor) -> None:
    """A session that never looked at the events finds the reason when QEMU has gone."""
    for name in ("RESUME", "STOP", "RESUME"):
        server.say({"event": name, "timestamp": {"seconds": 1, "microseconds": 0}})
    server.say(_SHUTDOWN)
    server.hang_up()
    assert monitor.shutdown_reason(gone=True) == "guest-reset"


def test_a_reason_that_is_known_is_not_waited_for(
    server: _Server, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.say(_SHUTDOWN)
    monitor.wait_event(5)

    def waits(_: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(monitor, "wait_event", waits)
    assert monitor.shutdown_reason(gone=True) == "guest-reset"


def test_events_between_answers_are_not_lost(server: _Server, monitor: Monitor) -> None:
    server.answers["cont"] = [_SHUTDOWN, {"return": {}}]
    monitor.ask("cont", 5)
    assert monitor.shutdown_reason() == "guest-reset"


def test_who_does_not_greet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "ANSWER_SECONDS", 0.3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        silent = Monitor(ours)
        assert not silent.connect()
        silent.close()
