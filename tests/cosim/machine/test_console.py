"""The console on a real pipe: bounded in a flood, searched as it comes, logged."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from cosim.errors import GuestError, StorageError
from cosim.machine.console import Console
from cosim.run.run_spec import Exchange
from cosim.session import dialogue

Line = tuple[FileIO, FileIO]
"""Our end of the console's output, and the guest's."""


@pytest.fixture
def line() -> Iterator[Line]:
    output, guest = os.pipe()
    with FileIO(output) as ours, FileIO(guest, "w") as theirs:
        yield ours, theirs


def _close(console: Console, line: Line) -> None:
    """The guest ends, and we close what is left."""
    line[1].close()
    console.close()


def _later(guest: FileIO, text: bytes, seconds: float) -> None:
    threading.Timer(seconds, guest.write, [text]).start()


def test_a_pattern_is_seen_once(line: Line) -> None:
    console = Console(line[0], None)
    line[1].write(b"one two ")
    assert console.seen("two", 5)
    assert not console.seen("two")
    assert not console.seen("one")
    _later(line[1], b"two", 0.2)
    assert console.seen("two", 5)
    _close(console, line)


def test_a_dialogue_can_expect_what_was_printed_before(line: Line) -> None:
    console = Console(line[0], None, before="guest# ")
    assert not console.seen("guest# ")
    assert console.last_line() == "guest# "
    assert console.expect("guest# ", 5) == "guest# "
    line[1].write(b"guest# ")
    assert console.expect("guest# ", 5) == "guest# "
    _close(console, line)


def test_a_pattern_in_two_pieces(line: Line) -> None:
    console = Console(line[0], None)
    line[1].write(b"log")
    assert not console.seen("login:", 0.1)
    line[1].write(b"in: ")
    assert console.seen("login:", 5)
    _close(console, line)


def test_what_a_dialogue_has_read_is_not_seen_again(line: Line) -> None:
    console = Console(line[0], None)
    line[1].write(b"login: and then login: ")
    assert console.expect("login:", 5) == "login:"
    assert console.seen("login:", 5)
    assert not console.seen("login:")
    _close(console, line)


def test_waiting_ends_with_the_guest(line: Line) -> None:
    console = Console(line[0], None)
    line[1].write(b"goodbye\r\n")
    line[1].close()
    started = time.monotonic()
    assert not console.seen("never", 30)
    with pytest.raises(GuestError, match=r"the guest ended before 'never'.*'goodbye'"):
        console.expect("never", 30)
    assert time.monotonic() - started < 10
    _close(console, line)


def test_waiting_ends_when_it_is_hopeless(line: Line) -> None:
    console = Console(line[0], None)
    line[1].write(b"some text that is read mean")
    assert console.expect("meanwhile", 30, hopeless=lambda: True) is None
    line[1].write(b"while")
    assert console.expect("meanwhile", 30) == "meanwhile"
    line[1].close()
    _close(console, line)


def test_a_flood_stays_bounded(line: Line, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    console = Console(line[0], log)
    piece = b"y" * 65535 + b"\n"
    count = (70 << 20) // len(piece)
    for _ in range(count):
        line[1].write(piece)
    line[1].write(b"THE-END\n")
    line[1].close()
    assert console.drained(60)
    assert console.bytes_seen == count * len(piece) + 8
    assert console.seen("THE-END")
    assert console.last_line() == "THE-END"
    held = len(console._stream.pending) + len(console._unseen) + len(console._tail)
    assert held < 3 << 20
    text = log.read_bytes()
    assert 64 << 20 <= len(text) < 65 << 20
    assert text.endswith(b"[log cut here: the guest printed more than 64 MiB]\n")
    # A cut log is no fault.
    console.check_log()
    _close(console, line)


def test_a_log_on_a_full_disk_stops_nothing(line: Line) -> None:
    console = Console(line[0], Path("/dev/full"))
    line[1].write(b"first ")
    assert console.seen("first", 5)
    line[1].write(b"second")
    assert console.seen("second", 5)
    line[1].close()
    assert console.drained(5)
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        console.check_log()
    _close(console, line)


def test_a_mirror_that_is_gone_stops_nothing(line: Line) -> None:
    def gone(chunk: bytes) -> None:
        raise BrokenPipeError

    console = Console(line[0], None)
    console.mirror(gone)
    line[1].write(b"first")
    assert console.seen("first", 5)
    line[1].write(b"second")
    assert console.seen("second", 5)
    _close(console, line)


class _Guest:
    """A guest behind a UART that holds ``room`` bytes and loses what does not fit.

    It takes a byte every 2 ms and shows it, unless it is silent.
    """

    def __init__(
        self, line: Line, *, room: int = 1, silent: bool = False, pause: float = 0
    ) -> None:
        self._output, self._room, self._silent, self._pause = line[1], room, silent, pause
        taken, ours = os.pipe()
        self._input, self.typed = FileIO(taken), FileIO(ours, "w")
        self._uart: list[int] = []
        self.took = bytearray()
        self._threads = [threading.Thread(target=each) for each in (self._fill, self._work)]
        for thread in self._threads:
            thread.start()

    def _fill(self) -> None:
        while data := self._input.read(64):
            for byte in data:
                if len(self._uart) < self._room:
                    self._uart.append(byte)
        self._room = 0

    def _work(self) -> None:
        time.sleep(self._pause)
        while self._room or self._uart:
            if self._uart:
                byte = self._uart.pop(0)
                self.took.append(byte)
                shown = b"" if self._silent else b"\r\n" if byte == 10 else bytes([byte])
                self._output.write(b"[%]" * (len(self.took) % 3 == 0) + shown)
            time.sleep(0.002)

    def end(self) -> None:
        self.typed.close()
        for thread in self._threads:
            thread.join()
        self._input.close()


TEXT = "echo abcdefghijklmnopqrstuvwxyz; gr\u00fcn; poweroff\n"


@pytest.mark.parametrize("pause", [0, 1])
def test_a_slow_uart_of_one_byte_loses_nothing(line: Line, pause: float) -> None:
    guest = _Guest(line, pause=pause)
    console = Console(line[0], None, guest.typed)
    missing = console.send(TEXT)
    guest.end()
    assert (missing, guest.took.decode()) == ("", TEXT)
    _close(console, line)


def test_what_is_typed_at_once_is_lost(line: Line) -> None:
    """The fake loses, so the test above can fail."""
    guest = _Guest(line)
    console = Console(line[0], None, guest.typed)
    console.type(TEXT.encode())
    guest.end()
    assert len(guest.took) < len(TEXT)
    _close(console, line)


def test_a_guest_that_shows_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosim.machine.console._ECHO_SECONDS", 0.2)
    monkeypatch.setattr("cosim.machine.console._NO_ECHO_SECONDS", 0.02)
    guest = _Guest(line, silent=True)
    console = Console(line[0], None, guest.typed)
    assert console.send("secret\n") == "secret"
    guest.end()
    assert guest.took == b"secret\n"
    _close(console, line)


def test_what_is_lost_is_reported(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosim.machine.console._ECHO_SECONDS", 0.3)
    monkeypatch.setattr("cosim.machine.console._NO_ECHO_SECONDS", 0.02)
    taken, ours = os.pipe()

    def guest() -> None:
        while byte := takes.read(1):
            if byte not in b"fgh":
                line[1].write(byte)

    with FileIO(taken) as takes, FileIO(ours, "w") as typed:
        thread = threading.Thread(target=guest)
        thread.start()
        console = Console(line[0], None, typed)
        said: list[str] = []
        line[1].write(b"=> ")
        dialogue.hold(console, [Exchange("=> ", "abcdefghijk\n"), Exchange("k", "")], said.append)
        typed.close()
        thread.join()
    assert said == [
        "cosim: the guest did not take 'fgh' of 'abcdefghijk\\n', which was typed on its console"
    ]
    _close(console, line)


def test_a_guest_that_ends_while_it_is_typed_to(line: Line) -> None:
    guest, ours = os.pipe()
    started = time.monotonic()
    with FileIO(guest), FileIO(ours, "w") as typed:
        console = Console(line[0], None, typed)
        threading.Timer(0.2, line[1].close).start()
        assert console.send("x" * 100) == "x" * 100
        _close(console, line)
    assert time.monotonic() - started < 20


def test_what_is_typed(line: Line) -> None:
    guest, ours = os.pipe()
    with FileIO(guest) as takes, FileIO(ours, "w") as typed:
        console = Console(line[0], None, typed)
        console.type(b"ls\n")
        assert takes.read(16) == b"ls\n"
        _close(console, line)
        with pytest.raises(GuestError, match="console is closed"):
            console.type(b"ls\n")
        with pytest.raises(GuestError, match="console is closed"):
            console.send("ls\n")


def test_a_console_without_input(line: Line) -> None:
    console = Console(line[0], None)
    with pytest.raises(GuestError, match="takes no input"):
        console.send("ls\n")
    _close(console, line)


def test_what_was_printed_before_the_question_counts(line: Line) -> None:
    """Whoever asks is not told of a console that lags behind the guest."""
    console = Console(line[0], None)
    for number in range(300):
        line[1].write(b"." * 9000 + b"line %d\n" % number)
        assert console.last_line().endswith(f"line {number}")
        assert console.seen(f"line {number}$")
    _close(console, line)
