"""QEMU's monitor: commands and events over QMP, each with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

from qemu.qmp.error import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol
from qemu.qmp.protocol import ConnectError

from cosim.machine import interrupts

_LAST_SECONDS = 0.5
"""How long the client may take to read what QEMU sent before it ended."""
ANSWER_SECONDS = 20.0
"""How long QEMU may take to answer a command."""


class Refused(Exception):
    """QEMU answered a command with an error, or the line to it broke."""


class Monitor:
    """The QMP client of one QEMU process.

    :param line: our end of the socket pair.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._qmp = QEMUMonitorProtocol(line)
        self._events: list[dict[str, Any]] = []
        self._open = True

    def connect(self) -> bool:
        """Read QEMU's greeting; return True if it came within 20 s."""
        # The client's own time-out covers commands, not this.
        deadline = threading.Timer(ANSWER_SECONDS, self._hang_up)
        deadline.start()
        try:
            self._qmp.connect()
        except (ConnectError, QMPError, OSError, EOFError):
            return False
        finally:
            deadline.cancel()
        return True

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """Run one command and return its answer.

        :raises TimeoutError: when QEMU does not answer within ``timeout`` seconds.
        :raises Refused: when QEMU answers with an error, or has closed the line.
        """
        try:
            # An interruption inside the event loop would leave a task half done.
            with interrupts.deferred():
                self._qmp.settimeout(timeout)
                return self._qmp.cmd(command, **arguments)
        except TimeoutError:
            raise
        except (QMPError, OSError, EOFError) as error:
            raise Refused(str(error)) from None

    def wait_event(self, seconds: float) -> None:
        """Wait until an event arrives, at most ``seconds``; keep it for :meth:`shutdown_reason`."""
        if not self._open:
            time.sleep(seconds)
            return
        try:
            with contextlib.suppress(asyncio.TimeoutError), interrupts.deferred():
                self._events += [dict(event) for event in self._qmp.get_events(wait=seconds)]
        except (QMPError, OSError, EOFError):
            # QEMU is going away.  What came before may still wait to be taken.
            with contextlib.suppress(QMPError, OSError, EOFError), interrupts.deferred():
                self._events += [dict(event) for event in self._qmp.get_events(wait=False)]
            time.sleep(min(seconds, 0.01))

    def shutdown_reason(self, *, gone: bool = False) -> str | None:
        """Return the reason in QEMU's SHUTDOWN event, or None if it has sent none so far.

        :param gone: QEMU has ended, so that its last events are on the line.
        """
        taken = -1
        while len(self._events) > taken:
            for event in self._events:
                if event.get("event") == "SHUTDOWN":
                    return str(event["data"]["reason"])
            # The client may give one event at a time.
            taken = len(self._events)
            self.wait_event(_LAST_SECONDS if gone else 0.001)
        return None

    def close(self) -> None:
        """Take the last events and close the line; idempotent."""
        if not self._open:
            return
        self.wait_event(0.001)
        self._open = False
        with contextlib.suppress(Exception):
            self._qmp.close()
