"""The entry point of ``cosim``: it handles Ctrl-C and the standard streams before all else."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line (:func:`cosim.cli.main`)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Keep a signal ignored if the parent ignored it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from cosim import streams

    streams.prepare()
    from cosim.cli import main as command

    try:
        command()
    finally:
        streams.finish()
        # While Python exits, a signal would kill us and so change our exit status.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _leave(signum: int, frame: object) -> None:
    # Nothing has started yet, so nothing needs a teardown.
    try:
        os.write(2, b"cosim: interrupted\n")
    finally:
        os._exit(130)
