"""The user's terminal on the guest's console, for ``cosim run --live``."""

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
    while not done.is_set():
        if not select.select([keyboard], [], [], 0.1)[0]:
            continue
        keys = os.read(keyboard, 1024)
        if not keys or _LEAVE in keys:
            # As Ctrl-C would, were the terminal not in raw mode.
            os.kill(os.getpid(), signal.SIGINT)
            return
        try:
            console.send(keys.decode("utf-8", "replace"))
        except CosimError:
            return
