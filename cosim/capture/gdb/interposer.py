"""What stands between gdb and QEMU's stub.

gdb stays in charge of running, stepping, breakpoints and inspection: its requests are passed on,
and QEMU answers them.  The interposer steps in only while the guest runs.  If a stop is one that
:class:`cosim.capture.gdb.interception.Interception` owns, it is handled and the guest resumed, and
gdb does not learn of it.  gdb sees its own stops, the marks that the session waits for, and the
guest's end.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosim.capture.gdb.interception import Interception
from cosim.capture.gdb.stopped_guest import GuestEnded
from cosim.debugger.gdb_side import GdbSide
from cosim.debugger.rsp import INTERRUPT, StopReply, Stub
from cosim.errors import CosimError, RemoteError, StorageError

_POLL_SECONDS = 0.05
_CLOSE_SECONDS = 25.0
"""Longer than any wait of the thread, which may also be compiling the models."""
_STOP_SECONDS = 10.0
_TRAP = StopReply(b"T05thread:01;", 5)
_INTERRUPTED = StopReply(b"T02thread:01;", 2)
_ENDED = StopReply(b"W00", None)


class Interposer:
    """Serves one gdb at a time on a Unix socket, from a separate thread.

    :param stub: QEMU's stub; from now on only the interposer talks to it.
    :param interception: owns the stops that gdb is not to see.
    :param path: where the socket is made.  It is unlinked at once, so that no stale socket stays
        whatever ends us; gdb reaches it by :attr:`path`.
    :raises StorageError: when the socket cannot be made.
    """

    def __init__(self, stub: Stub, interception: Interception, path: Path) -> None:
        self._stub = stub
        self._interception = interception
        self._lock = threading.Lock()
        self._closing = False
        self._last_stop = _TRAP.raw
        self.failure: CosimError | None = None
        self.ended = False
        """True if the guest has ended; QEMU may still hold it."""
        self.gone = False
        """True if QEMU has ended, too."""
        self.running = False
        self._listener, self._handle = _listen(path)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._handle}")
        """What gdb connects to."""
        self._listener.settimeout(_POLL_SECONDS)
        self._thread = threading.Thread(target=self._serve, name="interposer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the guest, then end the thread.  May be called twice."""
        if self._closing:
            return
        self._closing = True
        self._thread.join(_CLOSE_SECONDS)
        self._listener.close()
        os.close(self._handle)

    @contextmanager
    def stopped(self) -> Iterator[Interception]:
        """Lend interception to the caller while the guest is stopped.

        :raises RemoteError: when the guest runs.
        """
        if not self._lock.acquire(timeout=5):
            raise RemoteError("the guest must be stopped for this, but it runs")
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
    def busy(self) -> bool:
        """True if the thread is still at work, as it may be after a failed close."""
        return self._thread.is_alive()

    @property
    def closing(self) -> bool:
        """True if :meth:`close` has been called."""
        return self._closing


class _Client:
    """One connection of gdb, and what the guest does for it."""

    def __init__(self, line: socket.socket, owner: Interposer) -> None:
        self._gdb = GdbSide(line)
        self._owner = owner
        self._stub = owner._stub
        self._interception = owner._interception
        self._breaks: set[int] = set()
        self._stop_asked = False
        self._ready = select.poll()
        self._ready.register(line, select.POLLIN)
        self._ready.register(self._stub.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Answer gdb until it goes away."""
        while not self._owner.closing:
            packets = self._gdb.receive(_POLL_SECONDS)
            if packets is None:
                return
            for payload in packets:
                with self._owner._lock:
                    if not self._take(payload):
                        return

    def _take(self, payload: bytes) -> bool:
        """Handle one packet; return False if gdb has said goodbye."""
        if payload == INTERRUPT:
            # The guest is stopped already.  gdb learns that from the stop it asked for last.
            return True
        if payload == b"QStartNoAckMode":
            self._gdb.end_acknowledgements()
        elif payload.startswith(b"qSupported"):
            self._gdb.answer(self._stub.request(payload) + b";QStartNoAckMode+")
        elif payload == b"?":
            # QEMU would drop every breakpoint, ours included.
            self._gdb.answer(self._owner._last_stop)
        elif payload[:2] in (b"D", b"D;") or payload in (b"k", b"vKill;1"):
            # gdb lets go of the guest.  It belongs to the session, so it stays.
            self._gdb.answer(b"OK")
            return payload[:1] != b"k"
        elif payload[:6] in (b"vCont;", b"c", b"s"):
            self._resume(payload)
        elif payload[:2] in (b"Z0", b"Z1", b"z0", b"z1"):
            address = int(payload.split(b",")[1], 16)
            (self._breaks.add if payload[:1] == b"Z" else self._breaks.discard)(address)
            self._gdb.answer(self._stub.request(payload))
        elif payload.startswith(b"qRcmd,"):
            self._monitor(payload)
        else:
            self._gdb.answer(self._stub.request(payload))
        return True

    def _monitor(self, payload: bytes) -> None:
        self._stub.post(payload)
        while True:
            answer = self._stub.answer()
            self._gdb.answer(answer)
            if answer[:1] != b"O" or answer == b"OK":
                return

    # -- the guest runs -------------------------------------------------------------------------

    def _resume(self, payload: bytes) -> None:
        one = payload[:1] == b"s" or payload.startswith(b"vCont;s")
        self._owner.running = True
        self._stop_asked = False
        try:
            stop = _ENDED if self._owner.ended else self._run(one)
        except GuestEnded:
            stop = _ENDED
        finally:
            self._owner.running = False
        self._owner.ended = stop.ended
        self._owner.gone = stop.signal is None
        self._owner._last_stop = stop.raw
        self._gdb.answer(stop.raw)

    def _run(self, one: bool) -> StopReply:
        """Let the guest run until gdb is to see a stop.

        :param one: let it execute one instruction only.
        :return: the stop for gdb.
        """
        interception = self._interception
        state = interception.state()
        stop: StopReply | None = None
        first = True
        while True:
            mine = interception.owns(stop, state.pc) or interception.stepping
            if mine and (first or state.pc not in self._breaks):
                if not interception.execute(state):
                    return _TRAP
                if one or interception.halted:
                    return _TRAP
                if self._interrupted():
                    return _INTERRUPTED
                if interception.stepping:
                    interception.idle()
                    state, stop, first = interception.state(), None, False
                    if state.pc in self._breaks:
                        return _TRAP
                    continue
            elif stop is not None:
                return stop
            interception.resume(b"vCont;s" if one else b"vCont;c")
            interception.idle()
            stop = self._wait()
            while not one and not stop.ended and stop.signal == 5:
                handled, following = interception.run_ahead(stop)
                stop = self._wait() if following is None else following
                if not handled:
                    break
                interception.idle()
                if following is not None and not stop.ended and self._interrupted():
                    return _INTERRUPTED
            if stop.ended or stop.signal != 5:
                return stop
            state, first = interception.state(), False
            if one and stop.watch is None:
                return stop

    def _interrupted(self) -> bool:
        """Return True if the guest is to stop: gdb asks for it or is gone, or the session ends."""
        packets = self._gdb.receive(0)
        # Kept until gdb is answered: a stop of interception may come before the one asked for.
        self._stop_asked |= packets is None or INTERRUPT in packets
        return self._stop_asked or self._owner.closing

    def _wait(self) -> StopReply:
        """Wait until the guest stops, by itself or because it is to."""
        stub, line = self._stub.fileno(), self._gdb.fileno()
        # The stop may have come together with an answer.
        waited = self._stub.has_read
        while True:
            ready = {stub} if waited else {at for at, _ in self._ready.poll(_POLL_SECONDS * 1000)}
            waited = False
            if not ready:
                self._interception.idle(ran_on=True)
            if stub in ready:
                stop = self._stub.stop(0)
                if stop is not None:
                    return stop
            if (line in ready or self._owner.closing) and self._interrupted():
                self._stub.interrupt()
                stop = self._stub.stop(_STOP_SECONDS)
                if stop is None:
                    raise RemoteError(f"QEMU did not stop the guest within {_STOP_SECONDS:g} s")
                return stop


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Return a listening socket without a name, and a descriptor of its inode to connect to."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            # Relative to the folder: the name of a socket holds only 107 bytes.
            short = f"/proc/self/fd/{folder}/{path.name}"
            listener.bind(short)
            handle = os.open(short, os.O_PATH | os.O_NOFOLLOW)
            os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise StorageError(f"cannot make a socket in {path.parent}: {error.strerror}") from None
    return listener, handle
