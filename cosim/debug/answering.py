"""Answers a gdb that the user has started: ``python -m cosim.debug.answering DESCRIPTOR``."""

from __future__ import annotations

import socket
import sys

from cosim.debug import commands
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Link


def main(descriptor: int) -> None:
    """Answer over an inherited socket until gdb ends."""
    with socket.socket(fileno=descriptor) as line:
        link = Link(line)
        debuggee = Debuggee(link)
        while link.serve(lambda words: commands.answer(debuggee, words)):
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
