"""Where the registers of a hart are in QEMU's memory."""

from __future__ import annotations

import random

import pytest

from cosim.debugger.hart_memory import PeekedState, Places, places_of
from hypervisor_model.events import Priv

VS = Priv.VIRT | Priv.S
_rng = random.Random(1)
NOISE = bytes(_rng.randbytes(2000))
PC, PRIV, VIRT = 900, 1200, 1208
PLACES = Places(slice(PC, PC + 8), PRIV, VIRT)
MODES = (Priv.U, Priv.S, Priv.M, VS, Priv.U)


def memory(mode: int) -> bytes:
    """Return the memory of a hart with the privilege ``mode``."""
    data = bytearray(NOISE)
    data[PRIV : PRIV + 8] = (mode & 3).to_bytes(8, "little")
    data[VIRT] = mode >> 2
    return bytes(data)


def test_the_privilege_is_where_each_mode_shows() -> None:
    seen = [(mode, memory(mode)) for mode in MODES]
    assert places_of(seen, PC) == PLACES
    assert places_of([pair for pair in seen if pair[0] != VS], PC) == PLACES._replace(virt=None)


@pytest.mark.parametrize("copied", [PRIV, VIRT])
def test_what_is_in_two_places_is_in_none(copied: int) -> None:
    seen = []
    for mode in MODES:
        data = bytearray(memory(mode))
        data[40] = data[copied]
        seen.append((int(mode), bytes(data)))
    assert places_of(seen, PC) is None


def test_without_pc_nothing_is_found() -> None:
    assert places_of([(mode, memory(mode)) for mode in MODES], None) is None


def test_the_registers_are_read_from_their_places() -> None:
    general = [_rng.getrandbits(64) for _ in range(32)]
    data = bytearray(memory(VS))
    data[:256] = b"".join(value.to_bytes(8, "little") for value in general)
    data[PC : PC + 8] = (0xFFFF_FFFF_8000_1234).to_bytes(8, "little")
    state = PeekedState(bytes(data[: PLACES.size]), PLACES)
    assert state.general == [*general, 0xFFFF_FFFF_8000_1234]
    assert state.pc == 0xFFFF_FFFF_8000_1234
    assert state.priv == VS
    assert PeekedState(bytes(data), PLACES._replace(virt=None)).priv == Priv.S
