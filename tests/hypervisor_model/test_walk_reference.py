"""The walker against the plain transcription of the specification, on random tables."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor_model import walk_cache
from hypervisor_model.events import Access, Priv
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Status
from tests.hypervisor_model import reference_mmu
from tests.hypervisor_model.random_tables import Layout, Space, Tables

BASE, SIZE = 0x8000_0000, 0x800_0000
LAYOUT = Layout(pool=BASE, pool_pages=8192, data=0x8400_0000, data_size=0x400_0000, outside=1 << 40)
ACCESSES = {"load": Access.READ, "store": Access.WRITE, "fetch": Access.FETCH}
MODES = st.sampled_from((0, 8, 9, 10))
STATUSES = st.builds(
    Status,
    priv=st.sampled_from((Priv.U, Priv.S)),
    sum=st.booleans(),
    mxr=st.booleans(),
    vs_mxr=st.booleans(),
    adue=st.booleans(),
    g_adue=st.booleans(),
    pbmte=st.booleans(),
    g_pbmte=st.booleans(),
    ram_only=st.just(True),
)
COMMON = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def reference_hart(
    memory: reference_mmu.Memory, space: Space, status: Status, hlvx: bool = False
) -> reference_mmu.Hart:
    return reference_mmu.Hart(
        memory,
        space.satp,
        space.hgatp,
        supervisor=status.priv is Priv.S,
        sum=status.sum,
        mxr_first=status.vs_mxr or (space.hgatp is None and status.mxr),
        mxr_both=status.mxr and space.hgatp is not None,
        adue=status.adue,
        g_adue=status.g_adue,
        pbmte=status.pbmte,
        g_pbmte=status.g_pbmte,
        hlvx=hlvx,
    )


def expected(hart: reference_mmu.Hart, va: int, access: str) -> reference_mmu.Outcome:
    """The reference's outcome, with the final access made: outside RAM it is an access fault."""
    out = reference_mmu.translate(hart, va, access)
    if out.pa is not None:
        try:
            hart.memory.check(out.pa)
        except reference_mmu.AccessFault:
            out.pa = None
            out.gpa = None
            out.cause = {"fetch": 1, "load": 5, "store": 7}[access]
    return out


def check(
    space: Space, memory: reference_mmu.Memory, statuses: list[Status], seed: int, ways: int
) -> set[int | None]:
    rng = random.Random(seed)
    mine = GuestMemory(BASE, SIZE)
    for address, value in memory.words.items():
        mine.write(address, signed(value))
    registers: dict[str, Any] = (
        {"satp": space.satp} if space.hgatp is None else {"vsatp": space.satp, "hgatp": space.hgatp}
    )
    mmu = Mmu(mine, walk_cache=walk_cache.make(ways), **registers)
    causes = set()
    for va in space.addresses:
        for status in statuses:
            access = rng.choice(("load", "store", "fetch"))
            hlvx = access == "load" and space.hgatp is not None and rng.random() < 0.3
            out = expected(reference_hart(memory, space, status, hlvx), va, access)
            got = mmu.translate(va, ACCESSES[access], status=status, hlvx=hlvx)
            what = (hex(va), access, hlvx, status, out, got)
            assert (got.cause, got.pa) == (out.cause, out.pa), what
            assert got.tval == (None if out.cause is None else va), what
            if space.hgatp is not None:
                assert (got.gpa, got.implicit) == (out.gpa, out.implicit), what
            if out.cause is None:
                assert got.level == out.leaf_level, what
            names = {"S": "first", "VS": "first", "G": "G"}
            references = [(r.address, names[r.stage], r.level, r.update) for r in got.references]
            if ways == 0:
                # Hardware translates an address before it uses it; the reference does, too, so
                # the order is the same.
                assert references == out.references, what
            else:
                # A walk cache leaves out references, and adds none.
                rest = iter(out.references)
                assert all(r in rest for r in references), what
            causes.add(out.cause)
    for address, value in memory.words.items():
        assert unsigned(mine.read(address)) == value, hex(address)
    return causes


@COMMON
@given(st.integers(0, 2**32), MODES, st.lists(STATUSES, min_size=3, max_size=6))
def test_one_stage_equals_the_specification(seed: int, mode: int, statuses: list[Status]) -> None:
    memory = reference_mmu.Memory(BASE, SIZE)
    space = Tables(random.Random(seed), LAYOUT, memory).one_stage(mode, 12)
    check(space, memory, statuses, seed, ways=0)


@COMMON
@given(st.integers(0, 2**32), MODES, MODES, st.lists(STATUSES, min_size=3, max_size=6))
def test_two_stages_equal_the_specification(
    seed: int, mode: int, g_mode: int, statuses: list[Status]
) -> None:
    memory = reference_mmu.Memory(BASE, SIZE)
    space = Tables(random.Random(seed), LAYOUT, memory).two_stage(mode, g_mode, 12)
    check(space, memory, statuses, seed, ways=0)


@COMMON
@given(
    st.integers(0, 2**32),
    MODES,
    MODES | st.none(),
    st.lists(STATUSES, min_size=3, max_size=6),
    st.integers(1, 4),
)
def test_walk_caches_change_references_and_never_results(
    seed: int, mode: int, g_mode: int | None, statuses: list[Status], ways: int
) -> None:
    memory = reference_mmu.Memory(BASE, SIZE)
    tables = Tables(random.Random(seed), LAYOUT, memory)
    if g_mode is None:
        space = tables.one_stage(mode, 12)
    else:
        space = tables.two_stage(mode, g_mode, 12)
    check(space, memory, statuses, seed, ways)


def test_the_random_tables_reach_every_cause_and_success() -> None:
    """Guards the three tests above: a generator of nothing but page faults would pass them."""
    causes = set()
    statuses = [
        Status(priv=priv, sum=True, adue=adue, ram_only=True)
        for priv in (Priv.U, Priv.S)
        for adue in (False, True)
    ]
    for seed in range(30):
        for mode, g_mode in ((8, None), (9, None), (10, None), (8, 8), (9, 9), (10, 10)):
            memory = reference_mmu.Memory(BASE, SIZE)
            tables = Tables(random.Random(seed), LAYOUT, memory)
            if g_mode is None:
                space = tables.one_stage(mode, 12)
            else:
                space = tables.two_stage(mode, g_mode, 12)
            causes |= check(space, memory, statuses, seed, 0)
    assert causes == {None, 1, 5, 7, 12, 13, 15, 20, 21, 23}
