"""gdb's remote serial protocol: framing, and a client of QEMU's stub.

The framing follows the gdb manual, appendix "Remote Serial Protocol": ``$payload#checksum``, with
``}`` escapes and ``*`` run lengths, acknowledged by ``+`` until no-ack mode is agreed on.

Packets are logged at level DEBUG, one line each: ``->`` to QEMU and ``<-`` from QEMU by the logger
``cosim.rsp``; ``->`` to gdb and ``<-`` from gdb by ``cosim.rsp.gdb``.  Set the level before the
connection is made.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import time
from binascii import hexlify
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cosim.errors import RemoteError

INTERRUPT = b"\x03"
_AT_ONCE = 64
_ESCAPED = frozenset(b"#$}*")
_CHECKSUMS = [b"%02x" % value for value in range(256)]
_TICK_SECONDS = 0.02
"""A read looks at its deadline so often."""
_TICK = struct.pack("@ll", 0, int(_TICK_SECONDS * 1e6))
"""The same as a ``struct timeval``."""
_SHORT = 100
"""Data of so few bytes is often the same: stops and ``OK``."""
_SHOWN = 160
"""A log line shows this many characters of a packet."""


def readable(payload: bytes) -> str:
    """Return ``payload`` as one line: monitor commands decoded, binary escaped, cut if long.

    >>> readable(b"qRcmd,696e666f20726567")
    "qRcmd,'info reg'"
    >>> readable(b"X80,2:\\x00\\xff")
    'X80,2:\\\\x00\\\\xff'
    """
    if payload == INTERRUPT:
        return "interrupt"
    prefix, hexadecimal = b"", b""
    if payload.startswith(b"qRcmd,"):
        prefix, hexadecimal = payload[:6], payload[6:]
    elif payload[:1] == b"O" and payload != b"OK":
        prefix, hexadecimal = payload[:1], payload[1:]
    try:
        text = prefix.decode() + repr(bytes.fromhex(hexadecimal.decode()).decode())
    except ValueError:
        text = ""
    if not prefix or not text:
        text = repr(payload)[2:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(payload)} bytes)"


class PacketLog:
    """Logs the packets of one connection.

    Ask :attr:`enabled` before each call: without a log, a packet costs no more than that.

    :param name: of the logger.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self.enabled = self._logger.isEnabledFor(logging.DEBUG)

    def sent(self, *payloads: bytes) -> None:
        """Log packets that go to the other side."""
        for payload in payloads:
            self._logger.debug("-> %s", readable(payload))

    def received(self, *payloads: bytes) -> None:
        """Log packets that have come from the other side."""
        for payload in payloads:
            self._logger.debug("<- %s", readable(payload))


@lru_cache(maxsize=4096)
def frame(payload: bytes) -> bytes:
    """Return ``payload`` as a packet, escaped and with its checksum."""
    if _ESCAPED.isdisjoint(payload):
        body = payload
    else:
        body = b"".join(
            bytes((0x7D, byte ^ 0x20)) if byte in _ESCAPED else bytes((byte,)) for byte in payload
        )
    return b"$%s#%02x" % (body, sum(body) & 0xFF)


@lru_cache(maxsize=4096)
def _frames(payloads: tuple[bytes, ...]) -> bytes:
    return b"".join(map(frame, payloads))


def _unpack(body: bytes) -> bytes:
    out = bytearray()
    data = iter(body)
    for byte in data:
        if byte == 0x7D:
            out.append(next(data, 0) ^ 0x20)
        elif byte == 0x2A and out:
            out += out[-1:] * (next(data, 29) - 29)
        else:
            out.append(byte)
    return bytes(out)


class Decoder:
    """Splits a byte stream into packets.

    Acknowledgements are dropped.  ``damaged`` counts the packets with a wrong checksum, which are
    dropped too.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.damaged = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take in ``data``; return the payloads that it completes, an interrupt as INTERRUPT."""
        if self._rest or len(data) > _SHORT:
            packets, self._rest, damaged = _split(self._rest + data)
        else:
            packets, self._rest, damaged = _split_short(data)
        self.damaged += damaged
        return list(packets)


def _split(data: bytes) -> tuple[Sequence[bytes], bytes, int]:
    """Return the payloads in ``data``, what is left of it, and how many packets are damaged."""
    packets = []
    at, length, damaged = 0, len(data), 0
    while at < length:
        first = data[at]
        if first == 0x24:
            end = data.find(b"#", at)
            if end < 0 or length < end + 3:
                break
            body = data[at + 1 : end]
            if data[end + 1 : end + 3].lower() == _CHECKSUMS[sum(body) & 0xFF]:
                packets.append(_unpack(body) if b"}" in body or b"*" in body else body)
            else:
                damaged += 1
            at = end + 3
        else:
            if first == 0x03:
                packets.append(INTERRUPT)
            at += 1
    return packets, data[at:], damaged


_split_short = lru_cache(maxsize=4096)(_split)


@dataclass(frozen=True)
class StopReply:
    """What a stop reply says.  QEMU names no pc in it: read the registers."""

    raw: bytes
    signal: int | None
    """5 = trap, 2 = interrupted; None when QEMU exits."""
    watch: int | None = None
    """The base of the watchpoint that fired."""

    @property
    def ended(self) -> bool:
        """True if the guest or QEMU has ended.  QEMU shows a guest's end as SIGQUIT if it stays."""
        return self.signal in (None, 3)


@lru_cache(maxsize=4096)
def parse_stop(payload: bytes) -> StopReply | None:
    """Return the stop that ``payload`` reports; None if it is another packet."""
    if payload[:1] in b"WX" and payload:
        return StopReply(payload, None)
    if payload[:1] not in (b"T", b"S") or len(payload) < 3:
        return None
    watch = None
    for part in payload[3:].split(b";"):
        name, _, value = part.partition(b":")
        if name in (b"watch", b"awatch", b"rwatch"):
            watch = int(value, 16)
    return StopReply(payload, int(payload[1:3], 16), watch)


class Stub:
    """The client of one stub, over a connected socket.

    While the guest is stopped, requests may be sent ahead of their answers: :meth:`post`, then
    :meth:`answer`, first in, first out.  The request that resumes the guest must be the last of
    such a group.

    While the guest runs, only :meth:`stop` and :meth:`interrupt` are allowed: QEMU takes any byte
    for an interrupt then.  So answers are never acknowledged.  QEMU takes the next packet for the
    acknowledgement, which also saves time.

    :param line: the connection.
    :raises RemoteError: when the stub is gone, damaged or past its deadline, in every method.
    """

    deadline = 20.0
    """Seconds that any answer may take."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._decoder = Decoder()
        self._packets: deque[bytes] = deque()
        self._deferred: list[bytes] = []
        self._at_stop: list[bytes] = []
        self._owed = 0
        self._log = PacketLog("cosim.rsp")
        # A read blocks in the kernel, so that an answer costs one call of it.
        line.setblocking(True)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
        # QEMU writes each acknowledgement for itself; that alone is not worth a wake-up.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)

    def start(self) -> bytes:
        """Agree on features; return the stub's answer to ``qSupported``."""
        return self.request(b"qSupported:multiprocess-;swbreak+;hwbreak+;vContSupported+")

    def fileno(self) -> int:
        """Return the descriptor to wait on for a stop."""
        return self._line.fileno()

    @property
    def has_read(self) -> bool:
        """True if something from the stub was read already that nobody has asked for."""
        return bool(self._packets)

    def has_sent(self, timeout: float) -> bool:
        """Return True if :meth:`stop` need not wait: a packet is there, or the line is closed.

        Answers to deferred requests do not count.

        :param timeout: seconds to wait for one at most; less if such answers come.
        """
        if len(self._packets) <= self._owed and select.select([self._line], [], [], timeout)[0]:
            try:
                self._fetch(0)
            except RemoteError:
                return True
        return len(self._packets) > self._owed

    def post(self, *payloads: bytes) -> None:
        """Send requests without waiting for their answers."""
        self._send(_frames(payloads), payloads)

    def defer(self, *payloads: bytes) -> None:
        """Send requests that are answered ``OK`` along with whatever is sent next.

        That saves a round trip.  A refusal shows as an error of the next answer or stop.
        """
        self._deferred += payloads

    def defer_to_stop(self, *payloads: bytes) -> None:
        """Send requests as :meth:`defer` does, but not before the guest has run and stopped."""
        self._at_stop += payloads

    def answer(self) -> bytes:
        """Return the answer to the oldest request still open."""
        return self.answers(1)[0]

    def answers(self, count: int) -> list[bytes]:
        """Return the answers to the oldest ``count`` requests still open."""
        self._settle(count)
        return [self._packets.popleft() for _ in range(count)]

    def request(self, payload: bytes) -> bytes:
        """Send one request and return its answer."""
        self.post(payload)
        return self.answer()

    def ask(self, *payloads: bytes) -> list[bytes]:
        """Send several requests in one go and return their answers."""
        self.post(*payloads)
        return self.answers(len(payloads))

    def command(self, payload: bytes) -> None:
        """Send a request whose answer must be ``OK``.

        :raises RemoteError: when it is another.
        """
        answer = self.request(payload)
        if answer != b"OK":
            raise RemoteError(f"QEMU's stub refused {readable(payload)}: {readable(answer)}")

    def resume(self, payload: bytes) -> None:
        """Let the guest run: ``vCont;c`` or ``vCont;s``."""
        self._send(frame(payload), (payload,))

    def stop(self, timeout: float) -> StopReply | None:
        """Wait for the running guest to stop; return None after ``timeout`` seconds.

        If the line closes meanwhile, QEMU has ended: 7.2 does not announce a power-off.
        """
        self._settle()
        limit = time.monotonic() + timeout
        while True:
            while self._packets:
                reply = parse_stop(self._packets.popleft())
                if reply is not None:
                    self._deferred += self._at_stop
                    self._at_stop.clear()
                    return reply
            try:
                if not self._fetch(limit - time.monotonic()):
                    return None
            except RemoteError:
                return StopReply(b"W00", None)

    def interrupt(self) -> None:
        """Ask a running guest to stop; the stop comes through :meth:`stop`."""
        self._send(INTERRUPT, (INTERRUPT,))

    def monitor(self, command: str) -> bytes:
        """Return the request that runs ``command`` in QEMU's monitor."""
        return b"qRcmd," + hexlify(command.encode())

    def monitor_answer(self) -> str:
        """Return the output of the oldest monitor command still open.

        :raises RemoteError: when QEMU's monitor answers with an error.
        """
        text = bytearray()
        while True:
            payload = self.answer()
            if payload == b"OK":
                return text.decode("utf-8", "replace")
            if payload[:1] == b"O":
                text += bytes.fromhex(payload[1:].decode("ascii", "replace"))
            else:
                raise RemoteError(f"QEMU's monitor answered {readable(payload)}")

    # -- the wire -----------------------------------------------------------------------------

    def _send(self, data: bytes, payloads: Sequence[bytes]) -> None:
        if self._log.enabled:
            self._log.sent(*self._deferred, *payloads)
        while len(self._deferred) > _AT_ONCE:
            # More would fill both directions of the line: each side would wait for the other.
            self._write(_frames(tuple(self._deferred[:_AT_ONCE])))
            self._owed += _AT_ONCE
            del self._deferred[:_AT_ONCE]
            self._settle()
        if self._deferred:
            data = _frames(tuple(self._deferred)) + data
            self._owed += len(self._deferred)
            self._deferred.clear()
        self._write(data)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._line.send(data, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not select.select([], [self._line], [], self.deadline)[1]:
                    raise RemoteError(
                        f"QEMU's stub took no request within {self.deadline:g} s"
                    ) from None
            except OSError:
                raise RemoteError("QEMU closed the debug line") from None

    def _settle(self, more: int = 0) -> None:
        """Take the answers to the deferred requests; wait until ``more`` are there behind them."""
        while len(self._packets) < self._owed + more:
            if not self._fetch(self.deadline):
                raise RemoteError(f"QEMU's stub did not answer within {self.deadline:g} s")
        for _ in range(self._owed):
            self._owed -= 1
            answer = self._packets.popleft()
            if answer != b"OK":
                raise RemoteError(f"QEMU's stub refused a request: {readable(answer)}")

    def _fetch(self, timeout: float) -> bool:
        """Read from the line until a packet is whole; return False after ``timeout`` seconds."""
        flags = 0 if timeout > 0 else socket.MSG_DONTWAIT
        limit = time.monotonic() + timeout
        while True:
            try:
                data = self._line.recv(65536, flags)
            except BlockingIOError:
                if time.monotonic() < limit:
                    continue
                return False
            except OSError:
                data = b""
            if not data:
                raise RemoteError("QEMU closed the debug line")
            packets = self._decoder.feed(data)
            if packets:
                if self._log.enabled:
                    self._log.received(*packets)
                self._packets.extend(packets)
                return True
