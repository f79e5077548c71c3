"""`walk`: the models' own walk, over memory with holes, and a reason for each fault."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosim.errors import UnreadableMemory
from cosim.paging.explain import explain
from cosim.paging.physical import PhysicalMemory, RamWords
from cosim.paging.rendering import walk_document, walk_lines
from cosim.paging.space import Registers, Space
from hypervisor_model.events import Access, Priv
from hypervisor_model.jit import signed
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Status
from tests.cosim.paging.random_spaces import BASE, SIZE, Guest

MODES = st.sampled_from((0, 8, 9, 10))
STATUSES = st.builds(
    Status,
    priv=st.sampled_from((Priv.U, Priv.S, Priv.M)),
    sum=st.booleans(),
    mxr=st.booleans(),
    vs_mxr=st.booleans(),
    adue=st.booleans(),
    g_adue=st.booleans(),
    pbmte=st.booleans(),
    g_pbmte=st.booleans(),
)
FINE = 0xCF
SV39 = 8 << 60


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), MODES, MODES | st.none(), st.lists(STATUSES, min_size=3, max_size=5))
def test_it_is_the_walk_of_the_models_with_a_reason(
    seed: int, mode: int, g_mode: int | None, statuses: list[Status]
) -> None:
    guest, rng = Guest(seed, mode, g_mode), random.Random(seed)
    whole = GuestMemory(BASE, SIZE)
    whole.words[:] = guest.words
    for status in statuses:
        space = guest.space(status)
        mmu = Mmu(whole, satp=space.satp, vsatp=space.vsatp, hgatp=space.hgatp, status=status)
        for va in guest.addresses:
            access = rng.choice(list(Access))
            answer = explain(guest.memory, space, va, access)
            assert answer.translation == mmu.translate(va, access, probe=True)
            assert (answer.why is None) is (answer.pa is not None)
            assert answer.unreadable is None
            text = "\n".join(walk_lines(answer))
            assert answer.why is None or answer.why in text
            assert walk_document(answer).get("why") == answer.why


class Holes(PhysicalMemory):
    """A memory of single pages."""

    def __init__(self, pages: dict[int, dict[int, int]]) -> None:
        self.pages = pages

    @property
    def span(self) -> tuple[int, int]:
        return BASE, BASE + (1 << 40)

    def read(self, address: int, length: int) -> bytes:
        page = address & ~4095
        if page not in self.pages:
            raise UnreadableMemory(f"{address:#x}")
        words = np.zeros(512, np.int64)
        for index, value in self.pages[page].items():
            words[index] = signed(value)
        return words.tobytes()[address - page :][:length]


def test_a_table_that_is_not_there_is_an_answer() -> None:
    memory = Holes({BASE: {0: (BASE + 0x1000) >> 2 | 1, 1: (BASE + 0x7000) >> 2 | 1}})
    memory.pages[BASE + 0x1000] = {0: (BASE + 0x4000_0000) >> 2 | FINE & ~0xE | 2}
    space = Space(satp=SV39 | BASE >> 12)
    answer = explain(memory, space, 0x4000_0000)
    assert answer.unreadable == BASE + 0x7000
    assert (
        answer.why == "the table at 0x80007000 cannot be read, so the walk is not known from there"
    )
    # A leaf leads far behind what is there; only tables are read.
    assert explain(memory, space, 0x1234).pa == BASE + 0x4000_1234


def link(page: int) -> int:
    return (BASE + 0x1000 * page) >> 2 | 1


def leaf(bits: int, page: int = 9) -> int:
    return (BASE + 0x1000 * page) >> 2 | bits


WALK, FETCH, WRITE = Access.READ, Access.FETCH, Access.WRITE
USER = Status(priv=Priv.U)
S = Status()


@pytest.mark.parametrize(
    ("entry", "access", "status", "reason"),
    [
        (0, WALK, S, "V is clear"),
        (leaf(0x05), WALK, S, "W is set without R"),
        (leaf(FINE) | 1 << 60, WALK, S, "a reserved bit"),
        (link(4), WALK, S, "R, W and X are clear at level 0"),
        (leaf(FINE) | 1 << 61, WALK, S, "Svpbmt is off"),
        (leaf(FINE) | 3 << 61, WALK, Status(pbmte=True), "the memory type (PBMT) is reserved"),
        (leaf(FINE) | 1 << 63, WALK, S, "N is set"),
        (leaf(FINE), WALK, USER, "U is clear: the page is not for user mode"),
        (leaf(FINE | 16), WALK, S, "needs SUM"),
        (leaf(FINE | 16), FETCH, Status(sum=True), "never executes user pages"),
        (leaf(0xC3), FETCH, S, "X is clear"),
        (leaf(0xC3), WRITE, S, "W is clear"),
        (leaf(0xC9), WALK, S, "R is clear"),
        (leaf(0x8F), WALK, S, "A is clear"),
        (leaf(0x4F), WRITE, S, "D is clear"),
    ],
)
def test_why_a_leaf_faults(entry: int, access: Access, status: Status, reason: str) -> None:
    memory = Holes({BASE: {0: link(1)}, BASE + 0x1000: {0: link(2)}, BASE + 0x2000: {0: entry}})
    answer = explain(memory, Space(satp=SV39 | BASE >> 12, status=status), 0x123, access)
    assert answer.why is not None
    assert reason in answer.why


def test_why_an_address_or_a_root_is_wrong() -> None:
    memory = RamWords(np.zeros(1 << 12, np.int64), BASE)

    def why(
        va: int, satp: int | None = None, vsatp: int | None = None, hgatp: int | None = None
    ) -> str | None:
        return explain(memory, Space(satp=satp, vsatp=vsatp, hgatp=hgatp), va).why

    assert why(1 << 40, satp=SV39 | BASE >> 12) == (
        "bits 63 to 39 of the address are not all equal to bit 38"
    )
    assert why(0, satp=SV39 | 0x99999) == "the root table at 0x99999000 is outside of memory"
    assert why(1 << 60, satp=0) == "the physical address is outside of memory"
    g_root = SV39 | (BASE >> 12)
    assert why(1 << 41, vsatp=0, hgatp=g_root) == (
        "guest-physical 0x20000000000 is wider than the 41 bits of the G-stage"
    )
    text = why(0, vsatp=SV39 | 5, hgatp=g_root)
    assert text == (
        "guest-physical 0x5000, which holds a VS-stage table, is not accessible in the G-stage: "
        "V is clear: nothing is mapped"
    )
    assert why(0, vsatp=SV39 | 5, hgatp=SV39 | 0x99998) == (
        "the root table at 0x99998000 is outside of memory"
    )


def test_registers_select_the_space() -> None:
    registers = Registers(
        satp=SV39 | 1,
        vsatp=SV39 | 2,
        hgatp=SV39 | 7,
        mstatus=1 << 18,
        vsstatus=1 << 19,
        menvcfg=1 << 61,
        henvcfg=1 << 62,
        mode="VU",
    )
    own = registers.space()
    assert (own.vsatp, own.hgatp, own.satp) == (SV39 | 2, SV39 | 4, None)
    assert own.status == Status(priv=Priv.U, vs_mxr=True, g_adue=True, pbmte=True)
    s = registers.space("S")
    assert (s.satp, s.status) == (SV39 | 1, Status(priv=Priv.S, sum=True, adue=True))
    assert registers.space("U", satp=0).satp == 0
    assert registers.space("M").name == "Bare"
    assert registers.space("VS").name == "Sv39 on Sv39x4"
