"""The stopped guest: what QEMU's stub tells about it, and how it executes one instruction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from cosim.debugger.registers import parse_general, parse_value, read_description
from cosim.debugger.rsp import Stub
from cosim.errors import RemoteError
from hypervisor_model.events import Priv

_STEP_SECONDS = 20.0
_PC = 32


class GuestEnded(Exception):
    """The guest ended while it executed a single instruction.

    Private to the gdb source: the interposer turns it into a stop for gdb.
    """


class Registers(Protocol):
    """The registers of the stopped guest, by the names of QEMU's target description."""

    def read(self, name: str) -> int:
        """Return the unsigned value of register ``name``."""

    def read_general(self) -> list[int]:
        """Return x0..x31 and pc."""


class HartState(NamedTuple):
    """The registers that each stop begins with.

    ``satp`` is ``vsatp`` if the hart runs with V=1: the hypervisor extension swaps them.
    """

    general: list[int]
    """x0..x31, then pc."""
    priv: int
    """As :class:`hypervisor_model.events.Priv`."""
    sstatus: int
    satp: int

    @property
    def pc(self) -> int:
        """The address of the instruction that executes next."""
        return self.general[_PC]

    @property
    def virtual(self) -> bool:
        """True if the hart runs a virtual machine of the guest (V=1)."""
        return bool(self.priv & Priv.VIRT)


class StoppedGuest:
    """The guest behind a stub.

    :param stub: QEMU's stub; the guest must be stopped.
    :raises RemoteError: from each method, when the stub refuses, is gone or does not answer.
    """

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._numbers = read_description(stub)
        self._state = [b"g", *(self._numbers.read(name) for name in ("priv", "sstatus", "satp"))]

    def state(self) -> HartState:
        """Return the registers that each stop begins with, in one round trip."""
        general, priv, sstatus, satp = self._stub.ask(*self._state)
        return HartState(
            parse_general(general), parse_value(priv) & 7, parse_value(sstatus), parse_value(satp)
        )

    def read(self, name: str) -> int:
        """Return the unsigned value of register ``name``."""
        return parse_value(self._stub.request(self._numbers.read(name)))

    def find(self, name: str) -> int | None:
        """Return the unsigned value of register ``name``; None if the hart has no such register."""
        return self.read(name) if name in self._numbers.number else None

    def read_general(self) -> list[int]:
        """Return x0..x31 and pc."""
        return parse_general(self._stub.request(b"g"))

    def code(self, va: int) -> bytes:
        """Return the 4 bytes at ``va``, or 2 if no more are mapped, or none."""
        answer = self._stub.request(b"m%x,4" % va)
        if len(answer) < 8:
            # The end of the last mapped page: a compressed instruction may still be there.
            answer = self._stub.request(b"m%x,2" % va)
        return b"" if answer.startswith(b"E") else bytes.fromhex(answer.decode())

    # -- one instruction ------------------------------------------------------------------------

    def step(self) -> None:
        """Execute one instruction.

        :raises GuestEnded: when the guest ends in it.
        """
        self._stub.resume(b"vCont;s")
        self.finish_step()

    def start_step(self, translate: Iterable[int]) -> None:
        """Ask for the translations of the addresses ``translate``, then let one instruction go.

        All of it is sent at once.  :meth:`translations` and :meth:`finish_step` must follow.
        """
        stub = self._stub
        stub.post(*(stub.monitor(f"gva2gpa {va:#x}") for va in translate), b"vCont;s")

    def translations(self, count: int) -> list[int | None]:
        """Return the ``count`` physical addresses asked for; None for each that has none."""
        return [_physical(self._stub.monitor_answer()) for _ in range(count)]

    def finish_step(self) -> None:
        """Wait until the instruction has executed.

        :raises GuestEnded: when the guest ends in it.
        """
        stop = self._stub.stop(_STEP_SECONDS)
        if stop is None:
            raise RemoteError(f"QEMU did not finish a single step within {_STEP_SECONDS:g} s")
        if stop.ended:
            raise GuestEnded


def _physical(answer: str) -> int | None:
    """Return the PA in the answer to ``gva2gpa``; None if QEMU says that nothing is mapped."""
    words = answer.split()
    return int(words[1], 16) if words[:1] == ["gpa:"] else None
