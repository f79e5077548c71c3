"""The stopped guest: what QEMU's stub tells about it, and how it executes one instruction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from cosim.capture.encodings import ATP_NAMES
from cosim.debugger.registers import parse_general, parse_value, read_description
from cosim.debugger.rsp import StopReply, Stub
from cosim.errors import RemoteError
from hypervisor_model.events import Priv

_STEP_SECONDS = 20.0
_PC = 32
_REFUSED = b"E14"
_ROOTS = frozenset(ATP_NAMES.values())
_TRAPPING = 1 << 20
"""TVM in ``mstatus`` and VTVM in ``hstatus``: reads and writes of ``satp`` trap."""


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


class PlainState(NamedTuple):
    """What a plain stop is asked for, as the stub has sent it.  Most of it is never looked at."""

    general: bytes
    """The answer to ``g``."""
    privilege: bytes

    @property
    def priv(self) -> int:
        """As :class:`hypervisor_model.events.Priv`."""
        return _privilege(self.privilege)


@lru_cache(maxsize=64)
def _privilege(answer: bytes) -> int:
    return parse_value(answer) & 7


class StoppedGuest:
    """The guest behind a stub.

    :param stub: QEMU's stub; the guest must be stopped.
    :raises RemoteError: when the stub refuses, is gone or does not answer, in every method.
    """

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._numbers = read_description(stub)
        self._state = [b"g", *(self._numbers.read(name) for name in ("priv", "sstatus", "satp"))]
        self._plain = self._state[:2]
        self._stepped = [*self._plain, b"vCont;s"]

    def state(self) -> HartState:
        """Return the registers that each stop begins with, in one round trip."""
        return self._state_of(self._stub.ask(*self._state))

    def _state_of(self, answers: Sequence[bytes]) -> HartState:
        general, priv, sstatus, satp = answers
        return HartState(
            parse_general(general),
            parse_value(priv) & 7,
            parse_value(sstatus),
            self._untrapped("satp") if satp == _REFUSED else parse_value(satp),
        )

    def read(self, name: str) -> int:
        """Return the unsigned value of register ``name``."""
        answer = self._stub.request(self._numbers.read(name))
        if answer == _REFUSED and name in _ROOTS:
            return self._untrapped(name)
        return parse_value(answer)

    def _untrapped(self, name: str) -> int:
        """Read a root register that traps: QEMU refuses it to the stub as it does to the guest.

        What makes it trap is taken away for the moment.  To write the privilege instead would take
        the hart's reservation away, so that an ``sc`` would fail that succeeded in the recording.
        """
        known = [status for status in ("mstatus", "hstatus") if status in self._numbers.number]
        before = {status: self.read(status) for status in known}
        for status, value in before.items():
            self._stub.command(self._numbers.write(status, value & ~_TRAPPING))
        try:
            return parse_value(self._stub.request(self._numbers.read(name)))
        finally:
            for status, value in before.items():
                self._stub.command(self._numbers.write(status, value))

    def find(self, name: str) -> int | None:
        """Return the unsigned value of register ``name``; None if the hart has no such register."""
        return self.read(name) if name in self._numbers.number else None

    def read_general(self) -> list[int]:
        """Return x0..x31 and pc."""
        return parse_general(self._stub.request(b"g"))

    def code(self, va: int, *, physical: bool = False) -> bytes:
        """Return the 4 bytes at ``va``, or 2 if no more are mapped, or none.

        :param physical: ``va`` is not translated.
        """
        if physical:
            self._stub.command(b"Qqemu.PhyMemMode:1")
        answer = self._stub.request(b"m%x,4" % va)
        if len(answer) < 8:
            # The end of the last mapped page: a compressed instruction may still be there.
            answer = self._stub.request(b"m%x,2" % va)
        if physical:
            self._stub.command(b"Qqemu.PhyMemMode:0")
        return b"" if answer.startswith(b"E") else bytes.fromhex(answer.decode())

    # -- one instruction ------------------------------------------------------------------------

    def step(self) -> StopReply:
        """Execute one instruction; return as :meth:`finish_step` does.

        :raises GuestEnded: when the guest ends in it.
        """
        self._stub.resume(b"vCont;s")
        return self.finish_step()

    def start_step(self, translate: Iterable[int]) -> None:
        """Ask for the translations of the addresses ``translate``, then let one instruction go.

        All of it is sent at once.  :meth:`translations` and :meth:`finish_step` must follow.
        """
        stub = self._stub
        stub.post(*(stub.monitor(f"gva2gpa {va:#x}") for va in translate), b"vCont;s")

    def go(self, payload: bytes) -> None:
        """Let the guest run: ``vCont;c`` or ``vCont;s``."""
        self._stub.resume(payload)

    def start_ahead(self, translate: Iterable[int]) -> None:
        """Ask for the registers of :meth:`state`, too, before the instruction goes.

        :meth:`registers_ahead`, :meth:`translations`, :meth:`finish_step` and :meth:`state_ahead`
        must follow.
        """
        stub = self._stub
        questions = (stub.monitor(f"gva2gpa {va:#x}") for va in translate)
        stub.post(*self._state, *questions, b"vCont;s")

    def registers_ahead(self) -> list[bytes]:
        """Return the answers of the registers, as they were before the instruction."""
        return self._stub.answers(len(self._state))

    def state_ahead(self, answers: Sequence[bytes]) -> HartState:
        """Return what :meth:`registers_ahead` says.  The guest must be stopped: satp may trap."""
        return self._state_of(answers)

    def ask_plain(self, *, step: bool = False) -> None:
        """Ask for what a :class:`PlainState` has.

        :meth:`plain_state` must follow.

        :param step: step then; :meth:`finish_step` must follow, too.
        """
        self._stub.post(*(self._stepped if step else self._plain))

    def plain_state(self) -> PlainState:
        """Return what :meth:`ask_plain` has asked for."""
        return PlainState(*self._stub.answers(2))

    def state_after(self, before: PlainState, satp: int) -> HartState:
        """Return the state before a step that was no write of a register.

        :param before: the part of it that was read then.
        :param satp: what it held.
        """
        general = parse_general(before.general)
        return HartState(general, before.priv, self.read("sstatus"), satp)

    def wait(self, timeout: float) -> StopReply | None:
        """Wait until the running guest stops; return None after ``timeout`` seconds."""
        return self._stub.stop(timeout)

    def has_sent(self, timeout: float) -> bool:
        """Return True if the running guest has stopped; wait at most ``timeout`` seconds for it."""
        return self._stub.has_sent(timeout)

    def resume(self, payload: bytes, *, asking: str) -> None:
        """Let the guest run with ``payload``, and ask what register ``asking`` holds before that.

        :meth:`asked` must follow.
        """
        self._stub.post(self._numbers.read(asking), payload)

    def asked(self) -> int:
        """Return the answer that :meth:`resume` has asked for."""
        return parse_value(self._stub.answer())

    def translate(self, addresses: Sequence[int]) -> list[int | None]:
        """Return the physical address of each of ``addresses``; None for each that has none."""
        stub = self._stub
        stub.post(*(stub.monitor(f"gva2gpa {va:#x}") for va in addresses))
        return self.translations(len(addresses))

    def translations(self, count: int) -> list[int | None]:
        """Return the ``count`` physical addresses asked for; None for each that has none."""
        return [_physical(self._stub.monitor_answer()) for _ in range(count)]

    def finish_step(self) -> StopReply:
        """Wait until the instruction has executed; return QEMU's stop.

        A watchpoint in it has stopped the guest before the instruction.

        :raises GuestEnded: when the guest ends in it.
        :raises RemoteError: when QEMU does not finish the step in time.
        """
        stop = self._stub.stop(_STEP_SECONDS)
        if stop is None:
            raise RemoteError(f"QEMU did not finish a single step within {_STEP_SECONDS:g} s")
        if stop.ended:
            raise GuestEnded
        return stop


def _physical(answer: str) -> int | None:
    """Return the PA in the answer to ``gva2gpa``; None if QEMU says that nothing is mapped."""
    words = answer.split()
    return int(words[1], 16) if words[:1] == ["gpa:"] else None
