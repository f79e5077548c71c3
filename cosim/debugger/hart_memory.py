"""The registers of a stopped guest, read from QEMU's memory.

QEMU is our child, so its memory can be read.  That takes some microseconds, and QEMU does nothing
for it.  The stub's answers to ``g`` and ``p priv`` come from the same places, but they take ten
times as long.

Where the registers are is found before the guest starts: each gets a value through the stub that
stands nowhere else, and then its old value again.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cosim.debugger.registers import RegisterNumbers, parse_value, read_description
from cosim.debugger.rsp import Stub
from hypervisor_model.events import Priv

_WORD = 8
_COUNT = 32
_PC = 32
_NEAR = 32768
"""All registers of a hart are in one object, less than this behind x0."""
_VIRTUAL = Priv.VIRT | Priv.S
_EXCHANGED = frozenset(("vsstatus",))
"""QEMU exchanges this for another register when V changes."""


class Places(NamedTuple):
    """Where the registers are, in bytes behind x0."""

    pc: slice
    priv: int
    virt: int | None
    """The byte that is 1 if V=1; None if the hart has no hypervisor extension."""

    @property
    def size(self) -> int:
        """How many bytes hold them all."""
        return max(int(self.pc.stop), self.priv + _WORD, (self.virt or 0) + 1)


class HartMemory:
    """x0..x31, pc and the privilege of the one hart of a QEMU process.

    :param pid: the process.
    :param first: where x0 is in its memory.
    :param places: where the others are.
    """

    def __init__(self, pid: int, first: int, places: Places) -> None:
        self._memory: int | None = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._first = first
        self._size = places.size
        self.places = places

    def close(self) -> None:
        """Read no more.  May be called twice."""
        memory, self._memory = self._memory, None
        if memory is not None:
            os.close(memory)

    def read(self) -> bytes | None:
        """Return QEMU's memory from x0 on; None if QEMU is gone.  The guest must be stopped.

        :class:`PeekedState` says what it means.
        """
        if self._memory is None:
            return None
        try:
            data = os.pread(self._memory, self._size, self._first)
        except OSError:
            return None
        return data if len(data) == self._size else None


class PeekedState(NamedTuple):
    """The registers at one moment."""

    data: bytes
    """QEMU's memory from x0 on."""
    places: Places

    @property
    def general(self) -> list[int]:
        """x0..x31, then pc."""
        return [*_GENERAL.unpack_from(self.data), self.pc]

    @property
    def pc(self) -> int:
        """The address of the instruction that executes next."""
        return int.from_bytes(self.data[self.places.pc], "little")

    @property
    def priv(self) -> int:
        """As :class:`hypervisor_model.events.Priv`."""
        priv, virt = self.data[self.places.priv], self.places.virt
        return priv | Priv.VIRT if virt is not None and self.data[virt] else priv


_GENERAL = struct.Struct(f"<{_COUNT}Q")


def find(pid: int, stub: Stub) -> HartMemory | None:
    """Find the registers in the memory of QEMU; None if that does not succeed.

    :param pid: QEMU, which runs one hart.
    :param stub: its stub; the guest has not started.
    :raises RemoteError: when the stub is gone.
    """
    numbers = read_description(stub)
    general = sorted(numbers.number, key=lambda name: numbers.number[name])[1 : _PC + 1]
    # The privilege is written back first: with it, QEMU writes others, too.
    names = ["priv", *general, *_EXCHANGED.intersection(numbers.number)]
    reads = [numbers.read(name) for name in names]
    before = dict(zip(names, map(parse_value, stub.ask(*reads)), strict=True))
    try:
        return _find(pid, stub, numbers, general)
    except OSError:
        # Not allowed here.
        return None
    finally:
        stub.ask(*(numbers.write(name, value) for name, value in before.items()))


def _find(
    pid: int, stub: Stub, numbers: RegisterNumbers, names: Sequence[str]
) -> HartMemory | None:
    # Even, as each pc is.
    values = [secrets.randbits(62) << 1 for _ in names]
    stub.ask(*(numbers.write(*written) for written in zip(names, values, strict=True)))
    words = [value.to_bytes(_WORD, "little") for value in values]
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        heap, data = _heap(pid, memory)
        first = _only(data, b"".join(words[:-1]))
        if first is None:
            return None
        first -= _WORD
        pc = _only(data[first : first + _NEAR], words[-1])
        with_virtual = "vsatp" in numbers.number
        modes = [Priv.U, Priv.S, Priv.M, *([_VIRTUAL] if with_virtual else []), Priv.U, Priv.S]
        seen = []
        for mode in modes:
            stub.ask(numbers.write("priv", mode))
            if parse_value(stub.request(numbers.read("priv"))) & 7 != mode:
                return None
            seen.append((mode, os.pread(memory, _NEAR, heap + first)))
    finally:
        os.close(memory)
    places = places_of(seen, pc)
    return None if places is None else HartMemory(pid, heap + first, places)


def places_of(seen: Sequence[tuple[int, bytes]], pc: int | None) -> Places | None:
    """Return where the privilege is; None if that is not clear.

    :param seen: some privileges, and the memory from x0 on with each.
    :param pc: where pc is in it.
    """
    priv = _byte(seen, {mode: mode & Priv.M for mode, _ in seen})
    virt = _byte(seen, {mode: int(bool(mode & Priv.VIRT)) for mode, _ in seen})
    virtual = any(mode & Priv.VIRT for mode, _ in seen)
    if pc is None or priv is None or (virtual and virt is None):
        return None
    return Places(slice(pc, pc + _WORD), priv, virt if virtual else None)


def _byte(seen: Sequence[tuple[int, bytes]], values: Mapping[int, int]) -> int | None:
    """Return the one byte that has the value of each mode in ``values``."""
    length = min(len(data) for _, data in seen)
    has = np.ones(length, dtype=bool)
    for mode, data in seen:
        has &= np.frombuffer(data, dtype=np.uint8, count=length) == values[mode]
    found = np.flatnonzero(has)
    return int(found[0]) if len(found) == 1 else None


def _heap(pid: int, memory: int) -> tuple[int, bytes]:
    """Return where the heap of a process begins, and what it holds."""
    maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
    for line in maps:
        if line.endswith("[heap]"):
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            return first, os.pread(memory, last - first, first)
    return 0, b""


def _only(data: bytes, wanted: bytes) -> int | None:
    """Return where ``wanted`` is in ``data``; None if it is not there, or more than once."""
    at = data.find(wanted)
    return at if at >= 0 and data.find(wanted, at + 1) < 0 else None
