"""Registers of a running guest, read without QEMU's help.

QEMU answers neither its monitor nor its stub while the guest traps without end and is recorded: the
trap executes no instruction, so its thread never gives the lock of the recording back.  But QEMU is
our child, so its memory can be read.  Where a register is in it is found before the guest starts:
each gets a value through the stub that stands nowhere else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from cosim.debugger.registers import parse_value, read_description
from cosim.debugger.rsp import Stub
from hypervisor_model.isa import atp
from hypervisor_model.jit import unsigned

_AROUND = 8192
"""All registers of a hart are in one object, this near to its pc."""
_ROOT_BITS = (1 << 44) - 1


class Peek:
    """The registers ``names`` of one QEMU process.

    :param pid: the process.
    :param places: where each register is in its memory.
    """

    def __init__(self, pid: int, places: Mapping[str, int]) -> None:
        self._memory = Path(f"/proc/{pid}/mem")
        self._places = places

    def read(self) -> dict[str, int]:
        """Return the registers as they are now.  The guest goes on meanwhile.

        :raises ProcessLookupError: when the process is gone.
        """
        found = {}
        with self._memory.open("rb", buffering=0) as memory:
            for name, place in self._places.items():
                memory.seek(place)
                word = memory.read(8)
                # It ended after the file was opened.
                if len(word) < 8:
                    raise ProcessLookupError(f"the process has no memory any more ({name})")
                found[name] = int.from_bytes(word, "little")
        return found


def find(pid: int, stub: Stub, names: Sequence[str]) -> Peek | None:
    """Find registers in the memory of QEMU; None if that does not succeed.

    :param stub: its stub; the guest has not started.
    :param names: ``pc`` and others.
    :raises RemoteError: when the stub is gone, or does not know a register.
    """
    numbers = read_description(stub)
    reads = [numbers.read(name) for name in names]
    before = dict(zip(names, map(parse_value, stub.ask(*reads)), strict=True))
    values = {name: _unusual(name, number) for number, name in enumerate(names)}
    try:
        stub.ask(*(numbers.write(name, value) for name, value in values.items()))
        taken = dict(zip(names, map(parse_value, stub.ask(*reads)), strict=True))
        places = _places(pid, values) if taken == values else None
    finally:
        stub.ask(*(numbers.write(name, value) for name, value in before.items()))
    return None if places is None else Peek(pid, places)


def _unusual(name: str, number: int) -> int:
    """Return a value that ``name`` takes and that stands nowhere else."""
    value = secrets.randbits(40) << 20 | number << 12
    return unsigned(atp.make(atp.Mode.SV39, 0)) | value & _ROOT_BITS if name == "satp" else value


def _places(pid: int, values: Mapping[str, int]) -> dict[str, int] | None:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
        for line in maps:
            if not line.endswith("[heap]"):
                continue
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(first)
                found = _search(memory.read(last - first), values)
            if found is not None:
                return {name: first + at for name, at in found.items()}
    except OSError:
        # Not allowed here.
        pass
    return None


def _search(data: bytes, values: Mapping[str, int]) -> dict[str, int] | None:
    pc = data.find(values["pc"].to_bytes(8, "little"))
    if pc < 0:
        return None
    start = max(pc - _AROUND, 0)
    near = data[start : pc + _AROUND]
    found = {}
    for name, value in values.items():
        wanted = value.to_bytes(8, "little")
        hits, at = [], near.find(wanted)
        while at >= 0:
            hits.append(start + at)
            at = near.find(wanted, at + 1)
        if not hits:
            return None
        # QEMU keeps a second copy of some.
        found[name] = min(hits, key=lambda hit: abs(hit - pc))
    return found
