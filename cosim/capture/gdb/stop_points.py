"""The breakpoints and watchpoints that interception holds in QEMU, out of gdb's sight.

Both are virtual in QEMU.  :mod:`cosim.capture.gdb.coverage` decides where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Protocol

from cosim.debugger.rsp import StopReply


class Deferring(Protocol):
    """The stub, as far as points need it."""

    def defer(self, *payloads: bytes) -> None:
        """Send requests that are answered ``OK`` along with the next one."""


class PointSet:
    """The addresses that should have a point of one kind, and those that have one in QEMU.

    There are hundreds of addresses, and few change at a stop.  The work depends on those few only.

    :param kind: the type in ``Z`` and ``z`` packets.
    :param length: the last field of these packets.
    """

    def __init__(self, kind: bytes, length: bytes) -> None:
        self._form = kind + b",%x," + length
        self._wanted: set[int] = set()
        self._inserted: set[int] = set()
        self.changed: set[int] = set()
        """The addresses for which :meth:`requests` may have something to send."""

    def __contains__(self, address: int) -> bool:
        return address in self._wanted

    def __iter__(self) -> Iterator[int]:
        return iter(self._wanted)

    def add(self, addresses: Set[int]) -> None:
        """Want points at ``addresses``, too."""
        self.changed |= addresses - self._wanted
        self._wanted |= addresses

    def remove(self, addresses: Set[int]) -> None:
        """Want no points at ``addresses``."""
        self.changed |= addresses & self._wanted
        self._wanted -= addresses

    def become(self, addresses: Set[int]) -> None:
        """Want points at ``addresses`` and nowhere else."""
        self.changed |= addresses ^ self._wanted
        self._wanted = set(addresses)

    def requests(self) -> list[bytes]:
        """Return the packets that give QEMU what is wanted, and count them as done."""
        if not self.changed:
            return []
        removed = (self.changed & self._inserted) - self._wanted
        added = (self.changed & self._wanted) - self._inserted
        self.changed.clear()
        self._inserted -= removed
        self._inserted |= added
        return [b"z" + self._form % address for address in removed] + [
            b"Z" + self._form % address for address in added
        ]


class StopPoints:
    """Breakpoints, and watchpoints that each cover a whole page.

    QEMU takes watchpoints of 4,096 bytes.
    """

    def __init__(self, stub: Deferring) -> None:
        self._stub = stub
        self.breaks = PointSet(b"0", b"4")
        self.watches = PointSet(b"2", b"1000")

    def sync(self) -> None:
        """Insert and remove points with the next request, until QEMU has what is wanted."""
        if self.breaks.changed or self.watches.changed:
            self._stub.defer(*self.breaks.requests(), *self.watches.requests())

    def own(self, reply: StopReply | None, pc: int) -> bool:
        """Return True if one of these points explains a stop.

        :param reply: what QEMU said; None if the guest has not run since the last stop.
        :param pc: where the guest stands.
        """
        if reply is not None and reply.watch is not None:
            return reply.watch in self.watches
        return pc in self.breaks
