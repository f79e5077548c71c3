"""Ctrl-C, SIGTERM and SIGHUP, held back where being torn away would leave something behind.

Each ends a command by :class:`KeyboardInterrupt`, raised wherever the main thread is, so that
every teardown runs.  Inside :func:`deferred` they wait for its end, or for the next :func:`check`
or :func:`allowed` part: a process is never left half started, a teardown never half done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_held = False
_pending = False
_over = False


def install() -> None:
    """Take SIGINT, SIGTERM and SIGHUP; for the main thread of a command, at its beginning."""
    global _pending, _over
    _pending, _over = False, False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who started us in the background with SIGINT ignored wants it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)


def _arrived(signum: int, frame: object) -> None:
    global _pending
    if _over:
        return
    if _held:
        _pending = True
    else:
        raise KeyboardInterrupt


def check() -> None:
    """Act on a request that was held back.

    :raise KeyboardInterrupt: there was one.
    """
    global _pending
    if _pending and threading.current_thread() is threading.main_thread():
        _pending = False
        raise KeyboardInterrupt


def pending() -> bool:
    """Whether a request is held back; for threads that can bring the main thread to its end."""
    return _pending


def over() -> None:
    """The command ends: requests, held back or still to come, ask for what happens anyway."""
    global _pending, _over
    _pending, _over = False, True


@contextmanager
def deferred() -> Iterator[None]:
    """Hold requests back until the end of the outermost such part.

    Signals reach only the main thread, so this does nothing in others.

    :raise KeyboardInterrupt: at the end, when one has come.
    """
    with _holding(True):
        yield
    if not _held:
        check()


@contextmanager
def allowed() -> Iterator[None]:
    """Let requests through again, inside of :func:`deferred`, at any moment of this part."""
    with _holding(False):
        check()
        yield


@contextmanager
def _holding(hold: bool) -> Iterator[None]:
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _held = _held, hold
    try:
        yield
    finally:
        _held = before
