"""Where the ``cosim`` command begins: Ctrl-C has its answer before all else is imported."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line (:func:`cosim.cli.main`)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who started us in the background with SIGINT ignored wants it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from cosim.cli import main as command

    try:
        command()
    finally:
        # Python, while it ends, would let them kill us: with another status than ours.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _leave(signum: int, frame: object) -> None:
    # Nothing is there yet that would have to be torn down.
    try:
        os.write(2, b"cosim: interrupted\n")
    finally:
        os._exit(130)
