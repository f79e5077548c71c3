"""The breakpoints and watchpoints that interception holds in QEMU, out of gdb's sight.

Both are virtual in QEMU.  :mod:`cosim.capture.gdb.coverage` decides where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from functools import lru_cache
from typing import Protocol

from cosim.debugger.rsp import StopReply
from hypervisor_model.isa import pte

_ENTRY = 8


class Deferring(Protocol):
    """The stub, as far as points need it."""

    def defer(self, *payloads: bytes) -> None:
        """Send requests that are answered ``OK`` along with the next one."""

    def defer_to_stop(self, *payloads: bytes) -> None:
        """Send such requests with the next one behind the guest's next stop."""


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
        self._rest: tuple[int, int] | None = None
        """Where the second part of a page begins whose entry is left out, and the page."""

    def sync(self) -> None:
        """Insert and remove points with the next request, until QEMU has what is wanted."""
        self._rest = None
        if self.breaks.changed or self.watches.changed:
            self._stub.defer(*self.breaks.requests(), *self.watches.requests())

    def leave_out(self, entry: int) -> None:
        """Let the guest store to one entry of a watched page when it runs next.

        All of the page is watched again from the guest's next stop on.  This must be the last thing
        before the guest runs.

        :param entry: the virtual address of the entry.
        """
        without, whole = _left_out(entry)
        self._stub.defer(*without)
        self._stub.defer_to_stop(*whole)
        behind = entry + _ENTRY
        # Behind the last entry another page begins, which may be watched for itself.
        self._rest = (behind, entry & -pte.PAGE) if behind % pte.PAGE else None

    def watched_page(self, reply: StopReply) -> int | None:
        """Return the page of the watchpoint that a stop names; None if it names none.

        What is no watchpoint of these comes back as it is.
        """
        if self._rest is not None and reply.watch == self._rest[0]:
            return self._rest[1]
        return reply.watch

    def own(self, reply: StopReply | None, pc: int) -> bool:
        """Return True if one of these points explains a stop.

        :param reply: what QEMU said; None if the guest has not run since the last stop.
        :param pc: where the guest stands.
        """
        page = None if reply is None else self.watched_page(reply)
        return pc in self.breaks if page is None else page in self.watches


@lru_cache(maxsize=4096)
def _left_out(entry: int) -> tuple[list[bytes], list[bytes]]:
    """Return the packets that watch a page without its entry at ``entry``, then all of it again."""
    page, behind = entry & -pte.PAGE, entry + _ENTRY
    whole = b"2,%x,%x" % (page, pte.PAGE)
    spans = [(page, entry - page), (behind, page + pte.PAGE - behind)]
    parts = [b"2,%x,%x" % span for span in spans if span[1]]
    return (
        [b"z" + whole, *(b"Z" + part for part in parts)],
        [*(b"z" + part for part in parts), b"Z" + whole],
    )
