"""The user's terminal, connected to the guest's console by ``cosim run --live``."""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from cosim.errors import CosimError
from cosim.machine.console import Console
from cosim.output import messages, note, note_in_raw_mode, safe
from cosim.session.protocol import Progress

_LEAVE = b"\x1d"
"""Ctrl-]."""


class LiveTerminal:
    """Shows a live guest's console to the user, and passes on what the user types."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._patience = 2
        self._said = False
        self._raw = False

    @contextmanager
    def attached(self, console: Console) -> Iterator[None]:
        """Pass keys to the guest, and what it prints to stderr, until the context is left.

        Ctrl-] interrupts the session.  Every other key goes to the guest, even Ctrl-C.  If stdin is
        not a terminal, nothing is typed, and control characters of the guest are only shown.
        """
        self._console = console
        if sys.stdin is None or not sys.stdin.isatty():
            console.mirror(_Shown())
            yield
            return
        # The terminal is the guest's now, so the guest's editing of lines must reach it.
        console.mirror(lambda chunk: os.write(sys.stderr.fileno(), chunk))
        self._raw = True
        note("the guest's console; Ctrl-] ends the session")
        keyboard = sys.stdin.fileno()
        saved = termios.tcgetattr(keyboard)
        done = threading.Event()
        thread = threading.Thread(target=_type, args=(keyboard, console, done), daemon=True)
        tty.setraw(keyboard, termios.TCSANOW)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(2)
            termios.tcsetattr(keyboard, termios.TCSANOW, saved)
            console.mirror(None)

    def view(self, progress: Progress) -> None:
        """Say where the region begins: on a separate line if the guest soon ends its own."""
        if self._said or progress.phase != "in the region":
            return
        self._patience -= 1
        fresh = self._console is None or self._console.at_line_start
        if fresh or self._patience < 0:
            self._said = True
            said = "cosim: the region has begun; what the guest does counts from here"
            if self._raw:
                note_in_raw_mode(said, fresh=fresh)
            else:
                note(said)


class _Shown:
    """Writes what a guest prints to stderr; control characters are shown, not acted on."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, chunk: bytes) -> None:
        # A serial line ends lines with both.
        text = self._decoder.decode(chunk).replace("\r", "")
        messages.file.write(safe(text))
        messages.file.flush()


def _type(keyboard: int, console: Console, done: threading.Event) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while not done.is_set():
        if not select.select([keyboard], [], [], 0.1)[0]:
            continue
        try:
            keys = os.read(keyboard, 1024)
        except OSError:
            keys = b""
        if not keys or _LEAVE in keys:
            # Do what Ctrl-C does on a terminal that is not raw.  No keys: the terminal is gone.
            os.kill(os.getpid(), signal.SIGINT)
            return
        try:
            console.send(decoder.decode(keys))
        except CosimError:
            return
