"""The process between gdb and QEMU's stub.

gdb stays in charge of running, stepping, breakpoints and inspection; what it asks is passed on
and answered by QEMU.  Only while the guest runs does the interposer look in: a stop that
:class:`cosim.capture.mi.Interception` owns is handled and the guest resumed without gdb learning
of it.  gdb sees its own stops, marks that the session waits for, and the guest's end.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosim.capture.mi import GuestEnded, Interception
from cosim.errors import CosimError, RemoteError
from cosim.gdb.rsp import INTERRUPT, Decoder, StopReply, Stub, frame

_POLL_SECONDS = 0.05
_TRAP = b"T05thread:01;"


class Interposer:
    """Serves one gdb at a time on a Unix socket, from a thread of its own.

    :param stub: QEMU's stub, which the interposer alone talks to from now on.
    :param interception: owns the stops that gdb is not to see.
    :param path: the socket's path; must not exist.
    """

    def __init__(self, stub: Stub, interception: Interception, path: Path) -> None:
        self.path = path
        self._stub = stub
        self._interception = interception
        self._lock = threading.Lock()
        self._closing = False
        self._pause = threading.Event()
        self._last_stop = _TRAP
        self.failure: CosimError | None = None
        self.ended = False
        self.running = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(_POLL_SECONDS)
        self._thread = threading.Thread(target=self._serve, name="interposer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; the guest stays as it is.  Idempotent."""
        self._closing = True
        self._thread.join(5)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def stopped(self) -> Iterator[Interception]:
        """Interception, for the caller's use while the guest is stopped.

        :raise RemoteError: when the guest runs.
        """
        if not self._lock.acquire(timeout=5):
            raise RemoteError("the guest must be stopped for this, and it runs")
        try:
            yield self._interception
        finally:
            self._lock.release()

    # -- gdb's side -----------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            with client:
                try:
                    _Client(client, self).serve()
                except CosimError as error:
                    self.failure = error
                    return
                except Exception as error:
                    self.failure = RemoteError(f"interception failed: {error!r}")
                    raise

    @property
    def closing(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._closing


class _Client:
    """One connection of a gdb."""

    def __init__(self, line: socket.socket, owner: Interposer) -> None:
        self._line = line
        self._owner = owner
        self._stub = owner._stub
        self._interception = owner._interception
        self._decoder = Decoder()
        self._acks = True
        self._breaks: set[int] = set()
        self._waiting: list[bytes] = []

    def serve(self) -> None:
        """Answer this gdb until it goes away."""
        while not self._owner.closing:
            packets = self._receive(_POLL_SECONDS)
            if packets is None:
                return
            for payload in packets:
                with self._owner._lock:
                    if not self._take(payload):
                        return

    def _receive(self, timeout: float) -> list[bytes] | None:
        """What gdb sent within ``timeout``; None when it is gone."""
        if not select.select([self._line], [], [], timeout)[0]:
            return []
        try:
            data = self._line.recv(65536)
        except OSError:
            data = b""
        if not data:
            return None
        packets = self._decoder.feed(data)
        if self._acks:
            self._line_send(b"+" * sum(p != INTERRUPT for p in packets))
        return packets

    def _line_send(self, data: bytes) -> None:
        # A gdb that is gone is noticed when it is read from.
        with contextlib.suppress(OSError):
            self._line.sendall(data)

    def _answer(self, payload: bytes) -> None:
        self._line_send(frame(payload))

    def _take(self, payload: bytes) -> bool:
        """Handle one packet; False when gdb has said goodbye."""
        if payload == INTERRUPT:
            # The guest is stopped already; gdb learns that from the stop it asked for last.
            return True
        if payload == b"QStartNoAckMode":
            self._answer(b"OK")
            self._acks = False
        elif payload.startswith(b"qSupported"):
            self._answer(self._stub.request(payload) + b";QStartNoAckMode+")
        elif payload == b"?":
            # QEMU would drop every breakpoint, ours included.
            self._answer(self._owner._last_stop)
        elif payload[:2] in (b"D", b"D;") or payload in (b"k", b"vKill;1"):
            # gdb lets go; the guest is the session's, and stays.
            self._answer(b"OK")
            return payload[:1] != b"k"
        elif payload[:6] in (b"vCont;", b"c", b"s"):
            self._resume(payload)
        elif payload[:2] in (b"Z0", b"Z1", b"z0", b"z1"):
            address = int(payload.split(b",")[1], 16)
            (self._breaks.add if payload[:1] == b"Z" else self._breaks.discard)(address)
            self._answer(self._stub.request(payload))
        elif payload.startswith(b"qRcmd,"):
            self._monitor(payload)
        else:
            self._answer(self._stub.request(payload))
        return True

    def _monitor(self, payload: bytes) -> None:
        self._stub.post(payload)
        while True:
            answer = self._stub.answer()
            self._answer(answer)
            if answer[:1] != b"O" or answer == b"OK":
                return

    # -- the guest runs -------------------------------------------------------------------------

    def _resume(self, payload: bytes) -> None:
        one = payload[:1] == b"s" or payload.startswith(b"vCont;s")
        self._owner.running = True
        try:
            reply = self._run(one)
        except GuestEnded:
            reply = b"W00"
        finally:
            self._owner.running = False
        self._owner.ended = reply[:1] in (b"W", b"X")
        self._owner._last_stop = reply
        self._answer(reply)

    def _run(self, one: bool) -> bytes:
        """Let the guest run until gdb is to see a stop (with ``one``: one instruction)."""
        interception = self._interception
        regs = interception.registers()
        stop: StopReply | None = None
        first = True
        while True:
            mine = interception.owns(stop, regs[32]) or interception.stepping
            if mine and (first or regs[32] not in self._breaks):
                if not interception.execute(regs):
                    return _TRAP
                if one or interception.halted:
                    return _TRAP
                if self._interrupted():
                    return b"T02thread:01;"
                if interception.stepping:
                    interception.idle()
                    regs, stop, first = interception.registers(), None, False
                    if regs[32] in self._breaks:
                        return _TRAP
                    continue
            elif stop is not None:
                return stop.raw
            self._stub.resume(b"vCont;s" if one else b"vCont;c")
            interception.idle()
            stop = self._wait()
            if stop.ended or stop.signal != 5:
                return stop.raw
            regs, first = interception.registers(), False
            if one and stop.watch is None:
                return stop.raw

    def _interrupted(self) -> bool:
        """Whether gdb asked for a stop, between two stops of ours."""
        packets = self._receive(0)
        if packets is None:
            raise RemoteError("gdb is gone")
        return INTERRUPT in packets

    def _wait(self) -> StopReply:
        """Wait for the guest to stop, passing an interrupt of gdb's on."""
        while True:
            stub, line = self._stub.fileno(), self._line.fileno()
            ready = select.select([stub, line], [], [], _POLL_SECONDS)[0]
            if line in ready and self._interrupted():
                self._stub.interrupt()
            if stub in ready:
                stop = self._stub.stop(0)
                if stop is not None:
                    return stop
            if self._owner.closing:
                self._stub.interrupt()
                stop = self._stub.stop(5)
                return stop or StopReply(b"X09", None)
