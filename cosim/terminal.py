"""The user's terminal on the guest's console, for ``cosim run --live``."""

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

from cosim.console import Console
from cosim.errors import CosimError
from cosim.output import note

_LEAVE = b"\x1d"
"""Ctrl-]."""


@contextmanager
def attached(console: Console) -> Iterator[None]:
    """Pass keys to the guest and what it prints to stderr, until left.

    Ctrl-] interrupts the session; every other key, Ctrl-C too, goes to the guest.  Without a
    terminal on stdin the guest's output is shown and nothing is typed.
    """
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
            # As Ctrl-C would, were the terminal not in raw mode; no keys: it is gone.
            os.kill(os.getpid(), signal.SIGINT)
            return
        try:
            console.send(decoder.decode(keys))
        except CosimError:
            return
