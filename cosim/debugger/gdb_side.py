"""The stub's side of the remote protocol: what gdb is connected to."""

from __future__ import annotations

import contextlib
import select
import socket
from binascii import hexlify

from cosim.debugger.rsp import INTERRUPT, Decoder, PacketLog, frame


class GdbSide:
    """One connection of gdb.  The logger ``cosim.rsp.gdb`` shows its packets.

    :param line: the connected socket.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._decoder = Decoder()
        self._log = PacketLog("cosim.rsp.gdb")
        self._acks = True

    def fileno(self) -> int:
        """Return the descriptor to wait on for a packet."""
        return self._line.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def receive(self, timeout: float) -> list[bytes] | None:
        """Return the packets that came within ``timeout`` seconds; None if gdb is gone."""
        if not select.select([self._line], [], [], timeout)[0]:
            return []
        try:
            data = self._line.recv(65536)
        except OSError:
            data = b""
        if not data:
            return None
        packets = self._decoder.feed(data)
        if self._log.enabled:
            self._log.received(*packets)
        if self._acks:
            self._send(b"+" * sum(packet != INTERRUPT for packet in packets))
        return packets

    def answer(self, payload: bytes) -> None:
        """Send one packet."""
        if self._log.enabled:
            self._log.sent(payload)
        self._send(frame(payload))

    def end_acknowledgements(self) -> None:
        """Send no acknowledgements any more, as gdb has asked (``QStartNoAckMode``)."""
        self.answer(b"OK")
        self._acks = False

    def show(self, text: str) -> None:
        """Let gdb print ``text``, while it waits for the guest to stop."""
        self.answer(b"O" + hexlify(text.encode()))

    def _send(self, data: bytes) -> None:
        # If gdb is gone, the next read notices it.
        with contextlib.suppress(OSError):
            self._line.sendall(data)
