"""Commands for QEMU's gdb stub before a machine's guest starts.

The remote protocol has its client in :mod:`cosim.debugger`, which is built on machines.  A machine
that is about to start needs a few commands of it, each of which the stub answers with ``OK``.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable

_SECONDS = 20.0
_OK = b"$OK#9a"


def send(line: socket.socket, commands: Iterable[bytes]) -> bool:
    """Send ``commands`` one after the other through a stub that nobody has talked to yet.

    :param line: our end of the line to the stub.
    :param commands: the packets' data, in which nothing needs an escape.
    :return: False if the stub refuses one, is gone, or does not answer within 20 s.
    """
    limit = time.monotonic() + _SECONDS
    for body in commands:
        try:
            line.sendall(b"$%s#%02x" % (body, sum(body) & 0xFF))
            answer = b""
            while len(answer) < len(_OK):
                if not select.select([line], [], [], max(limit - time.monotonic(), 0.0))[0]:
                    return False
                more = line.recv(4096)
                if not more:
                    return False
                # An acknowledgement comes before the answer.
                answer = (answer + more).lstrip(b"+")
        except OSError:
            return False
        if answer != _OK:
            return False
    return True
