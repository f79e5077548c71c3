"""Where `hsv` stores, by the tables of a virtual machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cosim.capture.decode import decode
from cosim.capture.gdb import virtual_stores
from cosim.capture.gdb.classify import Part, Stop
from cosim.capture.gdb.stopped_guest import HartState
from hypervisor_model.events import Access, Priv
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed
from hypervisor_model.memory import Ram
from hypervisor_model.walk import ADUE, G_ADUE, OK, PROBE, Request, trace_of, walk2
from hypervisor_model.walk_cache import make

BASE = 0x8000_0000
HSV_W, HSV_D, HLV_D, SD = 0x6AC5_C073, 0x6EC5_C073, 0x6C05_C573, 0x00C5_B023
RW = pte.V | pte.R | pte.W | pte.A | pte.D
SV39 = 8 << 60


class HandSet:
    """Registers as a test sets them; what is not set must not be asked for."""

    def __init__(self, registers: Mapping[str, int]) -> None:
        self._registers = registers

    def read(self, name: str) -> int:
        return self._registers[name]

    def read_general(self) -> list[int]:
        raise AssertionError


def _stop(word: int, a1: int, priv: int = Priv.S) -> Stop:
    general = [0] * 33
    general[11] = a1
    inst = decode(word.to_bytes(4, "little"))
    state = HartState(general, priv, 0, 0)
    return Stop(state, inst, [], [], Part(0, Access.READ, 8), frozenset())


def _ram() -> np.ndarray:
    """Tables of a guest, all of whose addresses the G-stage moves up by 0x80000000.

    The guest's root is page 1 of RAM, its other tables pages 2 and 3; the G-stage's root are pages
    8 to 11.  The guest maps 0x5000, a 2 MiB page at 0x200000 and 64 KiB at 0x10000.
    """
    ram = np.zeros(16 * 512, dtype=np.int64)

    def put(page: int, index: int, value: int) -> None:
        ram[page * 512 + index] = value

    put(1, 0, 0x2000 >> 2 | pte.V)
    put(2, 0, 0x3000 >> 2 | pte.V)
    put(2, 1, 0x20_0000 >> 2 | RW)
    put(3, 5, 0x7000 >> 2 | RW)
    put(3, 6, 0x7000 >> 2)
    for index in range(16, 32):
        put(3, index, pte.N | (0x1_0000 >> 12 | pte.NAPOT_64K) << 10 | RW)
    put(8, 0, BASE >> 2 | RW | pte.U)
    # Above 512 GiB: the root of a G-stage has 2048 entries.
    put(11, 511, BASE >> 2 | RW | pte.U)
    return ram


def _written(word: int, va: int, vsatp: int, hgatp: int) -> list[tuple[int, int]]:
    registers = HandSet({"vsatp": vsatp, "hgatp": hgatp})
    return virtual_stores.written(_stop(word, va), registers, _ram(), BASE)


@pytest.mark.parametrize(
    ("va", "vsatp", "hgatp", "pa"),
    [
        (BASE + 0x123, 0, 0, BASE + 0x123),
        (0x5008, SV39 | 1, SV39 | BASE + 0x8000 >> 12, BASE + 0x7008),
        (0x1_5008, SV39 | 1, SV39 | BASE + 0x8000 >> 12, BASE + 0x1_5008),
        (0x20_1008, SV39 | 1, SV39 | BASE + 0x8000 >> 12, BASE + 0x20_1008),
        (0x7008, 0, SV39 | BASE + 0x8000 >> 12, BASE + 0x7008),
        (2047 << 30 | 0x40, 0, SV39 | BASE + 0x8000 >> 12, BASE + 0x40),
        # Not mapped in the guest; its tables not mapped in the G-stage; a table outside RAM.
        (0x6008, SV39 | 1, SV39 | BASE + 0x8000 >> 12, None),
        (0x5008, SV39 | 1 << 20, SV39 | BASE + 0x8000 >> 12, None),
        (0x5008, SV39 | 1, 0, None),
    ],
)
def test_the_walk_leads_where_the_model_leads(
    va: int, vsatp: int, hgatp: int, pa: int | None
) -> None:
    assert _written(HSV_D, va, vsatp, hgatp) == ([] if pa is None else [(pa, 8)])
    ram = Ram(_ram(), BASE)
    flags = ADUE | G_ADUE | PROBE
    request = Request(va, int(Access.WRITE), int(Priv.S), flags)
    model = walk2(ram, ram, make(), signed(vsatp), signed(hgatp), request, trace_of(0))
    assert (model.pa if model.cause == OK else None) == pa


def test_a_store_over_the_end_of_a_page_has_two_parts() -> None:
    assert _written(HSV_W, BASE + 0xFFE, 0, 0) == [(BASE + 0xFFE, 2), (BASE + 0x1000, 2)]


@pytest.mark.parametrize("word", [HLV_D, SD])
def test_no_other_instruction_is_looked_at(word: int) -> None:
    assert virtual_stores.written(_stop(word, BASE), HandSet({}), _ram(), BASE) == []


def test_hsv_traps_in_a_virtual_machine() -> None:
    stop = _stop(HSV_D, BASE, Priv.VIRT | Priv.S)
    assert virtual_stores.written(stop, HandSet({}), _ram(), BASE) == []
