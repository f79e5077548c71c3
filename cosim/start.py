"""The entry point of ``cosim``: it handles Ctrl-C before it imports everything else."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line (:func:`cosim.cli.main`)."""
    _open_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Keep a signal ignored if the parent ignored it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from cosim.cli import main as command

    try:
        command()
    finally:
        # While Python exits, a signal would kill us and so change our exit status.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)


def _open_streams() -> None:
    """Open the standard streams that the caller closed (``>&-``).

    Otherwise the next file or socket would get their number, and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # What is written to a closed stdout is to fail: it would be lost in silence.
            opened = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def _leave(signum: int, frame: object) -> None:
    # Nothing has started yet, so nothing needs a teardown.
    try:
        os.write(2, b"cosim: interrupted\n")
    finally:
        os._exit(130)
