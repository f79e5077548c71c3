"""The user's terminal, connected to the guest's console by ``cosim run --live``."""

from __future__ import annotations

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
from cosim.output import note
from cosim.session.protocol import Progress

_LEAVE = b"\x1d"
"""Ctrl-]."""


class LiveTerminal:
    """Shows a live guest's console to the user, and passes on what the user types."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._patience = 2
        self._said = False

    @contextmanager
    def attached(self, console: Console) -> Iterator[None]:
        """Pass keys to the guest, and what it prints to stderr, until the context is left.

        Ctrl-] interrupts the session.  Every other key goes to the guest, even Ctrl-C.  If stdin is
        not a terminal, nothing is typed.
        """
        self._console = console
        console.mirror(lambda chunk: os.write(sys.stderr.fileno(), chunk))
        if not sys.stdin.isatty():
            yield
            return
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
            # In raw mode a line feed does not return.
            start = "" if fresh else "\r\n"
            note(f"{start}cosim: the region has begun; what the guest does counts from here\r")


def _type(keyboard: int, console: Console, done: threading.Event) -> None:
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
            console.type(keys)
        except CosimError:
            return
