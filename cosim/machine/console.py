"""The guest's serial console: always drained, logged, and searched through pexpect."""

from __future__ import annotations

import contextlib
import fcntl
import re
import select
import sys
import termios
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pexpect
from pexpect.spawnbase import SpawnBase

from cosim.errors import GuestError, StorageError
from cosim.machine.echo import Echo

_ECHO_SECONDS = 5.0
"""How long the guest may show nothing of what was typed."""
_NO_ECHO_SECONDS = 0.3
"""How long after that: perhaps the guest never shows it, as at a password."""
_LOOK_SECONDS = 0.25
"""How often whoever waits looks whether that is hopeless."""
_KEEP = 1 << 20
_LOG_LIMIT = 64 << 20
_SEARCHED = 64 << 10


class _Stream(SpawnBase):  # type: ignore[misc]
    """Gives pexpect the bytes that the reader thread has collected."""

    def __init__(self) -> None:
        super().__init__(
            timeout=30,
            maxread=_SEARCHED,
            # Without a bound, every new piece of a flood makes pexpect search from the start.
            searchwindowsize=_SEARCHED,
            encoding="utf-8",
            codec_errors="replace",
        )
        self.delayafterread = None
        self.delaybeforesend = None
        self.closed = False
        self.arrived = threading.Condition()
        self.pending = bytearray()
        self.ended = False

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.pending or self.ended, timeout):
                raise pexpect.TIMEOUT("no console output")
            if not self.pending:
                self.flag_eof = True
                raise pexpect.EOF("console closed")
            chunk = bytes(self.pending[:size])
            del self.pending[:size]
        text: str = self._decoder.decode(chunk, final=False)
        return text


class Console:
    """One end of the guest's serial line.

    A thread drains the line while it is open, so the guest never waits for us.  A flood stays
    bounded: the log holds at most 64 MiB, and at most 1 MiB of text waits to be searched; the
    oldest text is dropped first.  ``expect`` and ``send`` are for dialogues.

    :param line: the pipe that the guest's UART writes to.
    :param log: the file that receives everything the guest prints; None for no log.
    :param typed: the pipe that the UART reads from; None if nothing can be typed.
    :param before: what the guest printed before the line was opened.  A dialogue can expect it.
    :raises OSError: when the log cannot be opened.
    """

    def __init__(
        self, line: FileIO, log: Path | None, typed: FileIO | None = None, before: str = ""
    ) -> None:
        self._line = line
        self._typed = typed
        self._stream = _Stream()
        self._stream.pending += before.encode()
        self._tail = bytearray(before.encode())
        self._unseen = bytearray()
        self._echo: Echo | None = None
        self._mirror: Callable[[bytes], object] | None = None
        self.bytes_seen = 0
        self.log = log
        self.log_error: str | None = None
        self._log_file = log.open("wb", buffering=0) if log else None
        self._thread = threading.Thread(target=self._drain, name="console", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        stream = self._stream
        while True:
            with contextlib.suppress(OSError, ValueError):
                select.select([self._line], [], [])
            # Reading and storing are one step under the lock, so that _catch_up counts every byte.
            with stream.arrived:
                try:
                    chunk = self._line.read(65536)
                except (OSError, ValueError):
                    chunk = b""
                if not chunk:
                    stream.ended = True
                    stream.arrived.notify_all()
                    break
                if self._echo is not None:
                    self._echo.print(chunk)
                for kept in (stream.pending, self._unseen):
                    kept += chunk
                    del kept[: max(0, len(kept) - _KEEP)]
                self._tail += chunk
                del self._tail[: max(0, len(self._tail) - 4096)]
                self._write_log(chunk)
                self.bytes_seen += len(chunk)
                stream.arrived.notify_all()
            if self._mirror is not None:
                # If the terminal is gone, the session notices it.
                with contextlib.suppress(OSError):
                    self._mirror(chunk)
        if self._log_file:
            self._log_file.close()

    def _catch_up(self) -> None:
        """Take in what the guest has printed until now, even if it has ended since."""
        stream = self._stream
        waiting = bytearray(4)
        with stream.arrived:
            try:
                fcntl.ioctl(self._line.fileno(), termios.FIONREAD, waiting)
            except (OSError, ValueError):
                return
            until = self.bytes_seen + int.from_bytes(waiting, sys.byteorder)
            stream.arrived.wait_for(lambda: stream.ended or self.bytes_seen >= until, 1.0)

    def _write_log(self, chunk: bytes) -> None:
        if self._log_file is None or self.log_error:
            return
        try:
            if self.bytes_seen >= _LOG_LIMIT:
                self._log_file.write(b"\n[log cut here: the guest printed more than 64 MiB]\n")
                self.log_error = "cut at 64 MiB"
            else:
                self._log_file.write(chunk)
        except OSError as error:
            # The guest runs on; the session reports this when it ends.
            self.log_error = f"{self.log}: {error.strerror}"

    def expect(
        self, pattern: str, timeout: float, hopeless: Callable[[], bool] = lambda: False
    ) -> str | None:
        """Wait until ``pattern`` (a regular expression) appears; return the text it matched.

        :param hopeless: is asked a few times a second; if it says True, the answer is None.
        :raises GuestError: when it does not appear within ``timeout`` seconds, or the console
            closes first; the message quotes the last line seen.
        """
        stream = self._stream
        wanted = [pattern, pexpect.EOF, pexpect.TIMEOUT]
        deadline = time.monotonic() + timeout
        found = 2
        while found == 2:
            left = deadline - time.monotonic()
            found = stream.expect(wanted, timeout=max(0.0, min(left, _LOOK_SECONDS)))
            if found == 2 and left <= 0:
                break
            if found == 2 and hopeless():
                return None
        if found == 0:
            with stream.arrived:
                self._unseen[:] = str(stream.buffer).encode() + stream.pending
            return str(stream.after)
        what = "the guest ended" if found == 1 else f"{timeout:g} s passed"
        raise GuestError(
            f"{what} before {pattern!r} appeared on the console; last line: {self.last_line()!r}",
            log=str(self.log) if self.log else None,
        )

    def seen(self, pattern: str, within: float = 0.0) -> bool:
        """Return True if ``pattern`` has appeared since the last match or appears in time.

        :param pattern: a regular expression.
        :param within: how many seconds to wait for it.
        """
        self._catch_up()
        searched = re.compile(pattern.encode(), re.MULTILINE)
        deadline = time.monotonic() + within
        with self._stream.arrived:
            while True:
                match = searched.search(self._unseen)
                left = deadline - time.monotonic()
                if match or left <= 0 or self._stream.ended:
                    break
                self._stream.arrived.wait(left)
            if match:
                del self._unseen[: match.end()]
        return match is not None

    def type(self, data: bytes) -> None:
        """Type ``data`` at once, for a person who sees what the guest shows.

        While QEMU records a guest, it loses what does not fit into the UART; then use :meth:`send`.

        :raises GuestError: when the line is closed, or the console takes no input.
        """
        if self._typed is None:
            raise GuestError("the guest's console takes no input")
        try:
            self._typed.write(data)
        except (OSError, ValueError) as error:
            raise GuestError(f"the guest's console is closed ({error})") from None

    def send(self, text: str) -> str:
        """Type ``text``, byte by byte as the guest shows them.

        While QEMU records a guest, input that does not fit into the UART is lost.  So each byte
        waits for the echo of the one before it, but not for ever: a guest may show nothing of what
        is typed.

        :return: the characters that the guest did not show, in their order; "" if it showed all.
            They were lost, or the guest does not show them.  Control characters do not count.
        :raises GuestError: when the line is closed, or the console takes no input.
        """
        echo, patience = Echo(), _ECHO_SECONDS
        with self._stream.arrived:
            self._echo = echo
        try:
            for character in text:
                if character.isprintable() or character in "\r\n":
                    *first, last = _bytes(character)
                    for byte in first:
                        # Some guests show a character only when it is whole.
                        self._type_and_wait(byte, echo, _NO_ECHO_SECONDS)
                    shown = self._type_and_wait(last, echo, patience)
                    patience = _ECHO_SECONDS if shown else _NO_ECHO_SECONDS
                else:
                    # Who knows how the guest shows it.
                    self.type(_bytes(character))
                    time.sleep(_NO_ECHO_SECONDS)
            return echo.missing
        finally:
            self._echo = None

    def _type_and_wait(self, byte: int, echo: Echo, patience: float) -> bool:
        """Wait for the echo of ``byte`` as long as the guest goes on showing what was typed."""
        stream = self._stream
        with stream.arrived:
            echo.type(byte)
        self.type(bytes([byte]))
        with stream.arrived:
            deadline, before = time.monotonic() + patience, echo.shown
            while not (echo.newest_shown or stream.ended):
                if echo.shown > before:
                    deadline, before = time.monotonic() + patience, echo.shown
                if not stream.arrived.wait(deadline - time.monotonic()):
                    break
            return echo.newest_shown

    def mirror(self, to: Callable[[bytes], object] | None) -> None:
        """From now on also pass everything that the guest prints to ``to``; None stops that."""
        self._mirror = to

    @property
    def at_line_start(self) -> bool:
        """True if the next text from the guest begins a line."""
        return not self._tail or self._tail.endswith(b"\n")

    def last_line(self) -> str:
        """Return the last non-empty line that the guest printed."""
        self._catch_up()
        lines = bytes(self._tail).decode("utf-8", "replace").replace("\r", "").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def check_log(self) -> None:
        """Raise an error if the log could not be written completely.

        :raises StorageError: when the disk was full or the file not writable.
        """
        if self.log_error and self.log_error != "cut at 64 MiB":
            raise StorageError(
                f"the console log is incomplete ({self.log_error}); free space and run again"
            )

    def drained(self, timeout: float) -> bool:
        """Wait until the line has closed; return True if it did within ``timeout`` seconds.

        Then the log holds all that the guest printed.
        """
        deadline = time.monotonic() + timeout
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close the lines and the log; idempotent.

        The output ends by itself when QEMU, which holds the other end, is gone.
        """
        self._thread.join(2)
        self._line.close()
        if self._typed is not None:
            self._typed.close()


def _bytes(character: str) -> bytes:
    # A byte of the command line that is no UTF-8 comes as a lone surrogate.
    return character.encode(errors="surrogateescape")
