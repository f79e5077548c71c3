"""Ctrl-C, SIGTERM and SIGHUP, held back while an interruption would leave something behind.

Each signal ends a command: it raises :class:`KeyboardInterrupt` wherever the main thread is, so
that every teardown runs.  Inside :func:`deferred` the signal waits until that part ends, or until
the next :func:`check` or :func:`allowed` part.  So no process is left half started, and no teardown
is left half done.

Python discards an exception that is raised in a finaliser or in a weak reference's callback, and
imports run such callbacks.  A module that is interrupted while it is imported may also raise
another error instead.  So if a signal arrives during an import, or its exception is discarded, it
is raised again after :data:`_AGAIN`.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 0.02
"""Seconds after which the signal is raised again."""

_held = False
_pending = False
_over = False


def install() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP from now on; call it first, in the main thread."""
    global _pending, _over
    _pending, _over = False, False
    signal.signal(signal.SIGALRM, _arrived)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Keep a signal ignored if the parent ignored it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)
    sys.unraisablehook = _dropped


def _arrived(signum: int, frame: FrameType | None) -> None:
    global _pending
    if _over:
        return
    if _held:
        _pending = True
    elif _imports(frame):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Return True if ``frame`` runs while a module is imported."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _dropped(unraisable: sys.UnraisableHookArgs) -> None:
    """Try again if Python could not raise an interruption where it came."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        sys.__unraisablehook__(unraisable)


def check() -> None:
    """Act on a signal that was held back.

    :raises KeyboardInterrupt: when there was one.
    """
    global _pending
    if _pending and threading.current_thread() is threading.main_thread():
        _pending = False
        raise KeyboardInterrupt


def pending() -> bool:
    """Return True if a signal is held back; for threads that can make the main thread finish."""
    return _pending


def over() -> None:
    """Ignore all signals from now on, because the command is ending anyway."""
    global _pending, _over
    _pending, _over = False, True


@contextmanager
def deferred() -> Iterator[None]:
    """Hold signals back until the outermost such part ends.

    Only the main thread gets signals, so this does nothing in other threads.

    :raises KeyboardInterrupt: when a signal came; raised at the end of the part.
    """
    with _holding(True):
        yield
    if not _held:
        check()


@contextmanager
def allowed() -> Iterator[None]:
    """Let signals through again during this part of a :func:`deferred` part.

    :raises KeyboardInterrupt: when a signal was held back, or comes during this part.
    """
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
