"""Walks on small hand-made tables: reference counts, faults, A/D updates, typed results."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from hypervisor_model import mmu as mmu_module
from hypervisor_model import tlb, walk, walk_cache
from hypervisor_model.errors import ModelError
from hypervisor_model.events import Access, Priv
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Status, letters

BASE = 0x8000_0000
MODES = (Mode.BARE, Mode.SV39, Mode.SV48, Mode.SV57)
PAGED = MODES[1:]
RWX = pte.V | pte.R | pte.W | pte.X | pte.A | pte.D
GIB = 1 << 30


class Bench:
    """A guest's memory, a hypervisor's memory, and tables put into them by hand."""

    def __init__(self) -> None:
        self.guest = GuestMemory(BASE, 1 << 22)
        self.host = GuestMemory(1 << 40, 1 << 22)
        self._next = {"guest": BASE, "host": 1 << 40}

    def page(self, where: str, pages: int = 1) -> int:
        size = 4096 * pages
        page = -(-self._next[where] // size) * size
        self._next[where] = page + size
        return page

    def map(
        self, where: str, root: int, mode: Mode, address: int, leaf: int, level: int = 0, g: int = 0
    ) -> list[int]:
        """Install ``leaf`` for ``address`` at ``level``; the addresses of the entries, root
        first.  ``g`` = 2 for a G-stage root."""
        memory = self.guest if where == "guest" else self.host
        at, entries = root, []
        for i in range(mode.levels - 1, -1, -1):
            bits = 9 + (g if i == mode.levels - 1 else 0)
            entry = at + 8 * (address >> (12 + 9 * i) & ((1 << bits) - 1))
            entries.append(entry)
            if i == level:
                memory.write(entry, leaf)
                break
            if memory.read(entry) == 0:
                memory.write(entry, self.page(where) >> 2 | pte.V)
            at = pte.target(memory.read(entry))
        return entries

    def identity(self, mode: Mode, level: int = 0) -> int:
        """``hgatp`` that maps the guest's first 4 MiB of RAM to itself with pages of a level."""
        if mode is Mode.BARE:
            return 0
        root = self.page("host", 4)
        size = 1 << (12 + 9 * level)
        for gpa in range(BASE // size * size, BASE + (1 << 22), size):
            self.map("host", root, mode, gpa, gpa >> 2 | RWX | pte.U, level, g=2)
        return make(mode, root, 7)


def two_stage(mode: Mode, g_mode: Mode, level: int = 0, g_level: int = 0) -> tuple[Bench, Mmu, int]:
    """A bench with one page mapped through both stages, its Mmu, and an address in the page."""
    bench = Bench()
    hgatp = bench.identity(g_mode, g_level)
    va = BASE + 0x3000
    vsatp = 0
    if mode is not Mode.BARE:
        root = bench.page("guest")
        size = 1 << (12 + 9 * level)
        bench.map("guest", root, mode, va, va // size * size >> 2 | RWX, level)
        vsatp = make(mode, root, 3)
    mmu = Mmu(bench.guest, vsatp=vsatp, hgatp=hgatp, host=bench.host)
    return bench, mmu, va + 0x123


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("g_mode", MODES)
def test_references_of_every_combination_of_modes(mode: Mode, g_mode: Mode) -> None:
    _, mmu, va = two_stage(mode, g_mode)
    result = mmu.translate(va)
    n, m = mode.levels, g_mode.levels
    assert result.pa == va
    assert len(result.references) == (n + 1) * (m + 1) - 1
    assert (result.count("VS"), result.count("G")) == (n, (n + 1) * m)


def test_references_that_the_definitions_name() -> None:
    # paging-models.md, section 4, "nested".
    table = {(39, 39): 15, (39, 48): 19, (39, 57): 23, (48, 48): 24, (57, 57): 35}
    by_bits = {39: Mode.SV39, 48: Mode.SV48, 57: Mode.SV57}
    for (vs, g), references in table.items():
        _, mmu, va = two_stage(by_bits[vs], by_bits[g])
        assert len(mmu.translate(va).references) == references


@pytest.mark.parametrize("mode", PAGED)
@pytest.mark.parametrize("g_mode", PAGED)
def test_superpages_at_each_level_shorten_either_stage(mode: Mode, g_mode: Mode) -> None:
    for level in range(mode.levels):
        for g_level in range(g_mode.levels):
            _, mmu, va = two_stage(mode, g_mode, level, g_level)
            result = mmu.translate(va)
            n, m = mode.levels - level, g_mode.levels - g_level
            assert result.pa == va
            assert result.level == level
            assert result.page_size == 1 << (12 + 9 * min(level, g_level))
            assert (result.count("VS"), result.count("G")) == (n, (n + 1) * m)


@pytest.mark.parametrize("mode", PAGED)
def test_one_stage_superpages_at_each_level(mode: Mode) -> None:
    for level in range(mode.levels):
        bench = Bench()
        root = bench.page("guest")
        size = 1 << (12 + 9 * level)
        va = BASE + 0x5678
        entries = bench.map("guest", root, mode, va, va // size * size >> 2 | RWX, level)
        result = Mmu(bench.guest, satp=make(mode, root)).translate(va)
        assert [r.address for r in result.references] == entries
        assert (result.pa, result.level, result.page_size) == (va, level, size)
        assert [r.level for r in result.references] == list(range(mode.levels - 1, level - 1, -1))


def test_two_stage_references_come_in_order() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39, 0, 2)
    result = mmu.translate(va)
    assert [r.stage for r in result.references] == ["G", "VS", "G", "VS", "G", "VS", "G"]
    assert [r.level for r in result.references] == [2, 2, 2, 1, 2, 0, 2]
    inside = [bench.host.base <= r.address for r in result.references]
    assert inside == [True, False, True, False, True, False, True]


def test_a_wide_g_stage_root_uses_its_two_extra_bits() -> None:
    bench = Bench()
    root = bench.page("host", 4)
    gpa = 3 << 39 | 5 << 30 | 0x123
    entries = bench.map("host", root, Mode.SV39, gpa, RWX | pte.U, 2, g=2)
    assert entries == [root + 8 * (3 << 9 | 5)]
    mmu = Mmu(bench.guest, vsatp=0, hgatp=make(Mode.SV39, root), host=bench.host)
    assert mmu.translate(gpa).pa == 0x123
    for beyond in (1 << 41, (1 << 64) - 1):
        wide = mmu.translate(beyond)
        assert (wide.cause, wide.gpa, wide.references) == (21, beyond, ())


def test_hgatp_is_what_the_register_would_hold() -> None:
    bench = Bench()
    root = bench.page("host", 4)
    bench.map("host", root, Mode.SV39, 0x1000, RWX | pte.U, 2, g=2)
    written = make(Mode.SV39, root, 0xC005) | 3
    mmu = Mmu(bench.guest, vsatp=0, hgatp=written, host=bench.host)
    assert mmu.translate(0x1008).pa == 0x1008
    assert mmu.hgatp == make(Mode.SV39, root, 5)


def test_two_stages_tell_the_level_and_permissions_of_either_leaf() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39, 1, 2)
    result = mmu.translate(va)
    assert (result.level, result.g_level) == (1, 2)
    assert (result.perm, result.g_perm) == ("DA--XWRV", "DA-UXWRV")
    assert (result.gpa, result.page_size) == (va, 2 << 20)
    bare = Mmu(bench.guest, vsatp=0, hgatp=mmu.hgatp, host=bench.host).translate(va)
    assert (bare.level, bare.perm, bare.g_level, bare.g_perm) == (None, "", 2, "DA-UXWRV")
    fault = mmu.translate(0)
    assert (fault.cause, fault.g_level, fault.g_perm) == (13, None, "")
    _, one, va = two_stage(Mode.SV39, Mode.BARE)
    assert (one.translate(va).g_level, one.translate(va).g_perm) == (None, "")


def test_a_probe_writes_no_a_or_d_of_either_stage() -> None:
    bench = Bench()
    va = 0x1000
    clean = RWX & ~(pte.A | pte.D)
    guest_root, host_root = bench.page("guest"), bench.page("host", 4)
    guest_leaf = bench.map("guest", guest_root, Mode.SV39, va, BASE >> 2 | clean, 2)[-1]
    host_leaf = bench.map("host", host_root, Mode.SV39, BASE, BASE >> 2 | clean | pte.U, 2, g=2)[-1]
    vsatp, hgatp = make(Mode.SV39, guest_root), make(Mode.SV39, host_root)
    trace = walk.trace_of(walk.MAX_REFERENCES)
    for flags, written in ((walk.PROBE, False), (0, True)):
        result = walk.walk2(
            bench.guest.ram,
            bench.host.ram,
            walk_cache.make(),
            vsatp,
            hgatp,
            walk.Request(va, int(Access.WRITE), int(Priv.S), walk.ADUE | walk.G_ADUE | flags),
            trace,
        )
        assert (result.pa, result.perm & pte.D, result.g_perm & pte.D) == (BASE + va, pte.D, pte.D)
        assert bool(bench.guest.read(guest_leaf) & pte.A) is written
        assert bool(bench.host.read(host_leaf) & pte.A) is written


def one_page(leaf: int, mode: Mode = Mode.SV39, level: int = 0) -> tuple[Bench, Mmu, int]:
    """A bench with one leaf for address 1 GiB, and the address of its entry."""
    bench = Bench()
    root = bench.page("guest")
    entry = bench.map("guest", root, mode, GIB, leaf, level)[-1]
    return bench, Mmu(bench.guest, satp=make(mode, root)), entry


LEAF = BASE >> 2 | RWX


@pytest.mark.parametrize(
    ("leaf", "level", "why"),
    [
        (0, 0, "invalid"),
        (LEAF & ~pte.V, 0, "invalid though the rest is there"),
        (LEAF & ~pte.R, 0, "R=0 W=1"),
        (LEAF & ~(pte.R | pte.X), 0, "R=0 W=1 X=0"),
        (BASE >> 2 | pte.V, 0, "a pointer at level 0"),
        (LEAF | 1 << 54, 0, "reserved bit 54"),
        (LEAF | 1 << 60, 0, "reserved bit 60"),
        (LEAF | 1 << 61, 0, "PBMT without PBMTE"),
        (LEAF | pte.N, 0, "NAPOT with ppn[3:0] = 0"),
        (LEAF | pte.N | 4 << 10, 0, "NAPOT with ppn[3:0] = 4"),
        (LEAF | pte.N | 8 << 10, 1, "NAPOT above level 0"),
        (LEAF | 1 << 10, 1, "misaligned by one page"),
        (LEAF | 1 << 18, 1, "misaligned by half"),
        (LEAF | 1 << 19, 2, "misaligned 1 GiB"),
        (LEAF & ~pte.A, 0, "A=0 with Svade"),
    ],
)
def test_page_faults_of_a_load(leaf: int, level: int, why: str) -> None:
    _, mmu, _ = one_page(leaf, level=level)
    result = mmu.translate(GIB + 8)
    assert (result.pa, result.cause, result.tval) == (None, 13, GIB + 8), why
    assert result.cause_name == "load page fault"
    assert (result.level, result.page_size, result.perm) == (None, None, "")


@pytest.mark.parametrize("bit", [pte.U, pte.A, pte.D, 1 << 54, 1 << 61, pte.N])
def test_pointers_with_reserved_bits_fault(bit: int) -> None:
    bench, mmu, _ = one_page(LEAF)
    root = pte.PAGE * (mmu.satp & pte.PPN_MASK)
    bench.guest.write(root + 8, bench.guest.read(root + 8) | bit)
    assert mmu.translate(GIB).cause == 13
    assert len(mmu.translate(GIB).references) == 1


def test_napot_is_64_kib_where_the_machine_has_it() -> None:
    _, mmu, _ = one_page(LEAF | pte.N | 8 << 10)
    result = mmu.translate(GIB + 0x234)
    assert (result.pa, result.page_size) == (BASE + 0x234, 65536)
    assert mmu.translate(GIB + 0x234, status=Status(svnapot=False)).cause == 13


def test_napot_takes_the_low_page_number_from_the_address() -> None:
    bench = Bench()
    root = bench.page("guest")
    for page in range(16):
        bench.map("guest", root, Mode.SV39, GIB + 4096 * page, LEAF | pte.N | 8 << 10)
    mmu = Mmu(bench.guest, satp=make(Mode.SV39, root))
    assert [mmu.translate(GIB + 4096 * i).pa for i in range(16)] == [
        BASE + 4096 * i for i in range(16)
    ]


@pytest.mark.parametrize(("pbmt", "fine"), [(0, True), (1, True), (2, True), (3, False)])
def test_pbmt_when_enabled(pbmt: int, fine: bool) -> None:
    _, mmu, _ = one_page(LEAF | pbmt << 61)
    assert (mmu.translate(GIB, status=Status(pbmte=True)).cause is None) is fine


@pytest.mark.parametrize(
    ("bits", "status", "allowed"),
    [
        (pte.R, Status(), "read"),
        (pte.R | pte.W, Status(), "read write"),
        (pte.X, Status(), "fetch"),
        (pte.X, Status(mxr=True), "read fetch"),
        (pte.R | pte.W | pte.X | pte.U, Status(), ""),
        (pte.R | pte.W | pte.X | pte.U, Status(sum=True), "read write"),
        (pte.R | pte.W | pte.X | pte.U, Status(priv=Priv.U), "read write fetch"),
        (pte.R | pte.W | pte.X, Status(priv=Priv.U), ""),
        (pte.X | pte.U, Status(mxr=True), ""),
        (pte.X | pte.U, Status(mxr=True, sum=True), "read"),
        (pte.R | pte.U, Status(priv=Priv.M, mprv=True, mpp=Priv.U), "read fetch"),
        (pte.R, Status(priv=Priv.M, mprv=True, mpp=Priv.U), "fetch"),
        (pte.R, Status(priv=Priv.M, mprv=True, mpp=Priv.S), "read fetch"),
        (0, Status(priv=Priv.M), "read write fetch"),
        (0, Status(priv=Priv.M, mprv=True, mpp=Priv.M), "read write fetch"),
    ],
)
def test_permissions(bits: int, status: Status, allowed: str) -> None:
    _, mmu, _ = one_page(BASE >> 2 | pte.V | pte.A | pte.D | bits)
    done = [a.name.lower() for a in Access if mmu.translate(GIB, a, status=status).cause is None]
    assert done == allowed.split()


def test_non_canonical_addresses_fault_without_a_reference() -> None:
    _, mmu, _ = one_page(LEAF)
    for va in (1 << 38, 1 << 39, GIB | 1 << 63, (1 << 64) - (1 << 39) - 8):
        result = mmu.translate(va, Access.FETCH)
        assert (result.cause, result.tval, result.references) == (12, va, ())


def test_tables_outside_ram_are_access_faults_of_the_access() -> None:
    bench, mmu, _ = one_page(LEAF)
    root = pte.PAGE * (mmu.satp & pte.PPN_MASK)
    bench.guest.write(root + 8, (1 << 50) >> 2 | pte.V)
    causes = [mmu.translate(GIB, access).cause for access in Access]
    assert causes == [5, 7, 1]
    # ... and so is the access itself, where there are no devices.
    _, mmu, _ = one_page((1 << 50) >> 2 | RWX)
    assert mmu.translate(GIB).pa == 1 << 50
    assert mmu.translate(GIB, status=Status(ram_only=True)).cause == 5


def test_svadu_sets_a_then_d_and_counts_the_update() -> None:
    bench, mmu, entry = one_page(LEAF & ~(pte.A | pte.D))
    svadu = Status(adue=True)
    first = mmu.translate(GIB, Access.READ, status=svadu)
    assert [(r.level, r.update) for r in first.references] == [
        (2, False),
        (1, False),
        (0, False),
        (0, True),
    ]
    assert bench.guest.read(entry) == LEAF & ~pte.D
    assert len(mmu.translate(GIB, Access.READ, status=svadu).references) == 3
    assert mmu.translate(GIB, Access.WRITE).cause == 15
    stored = mmu.translate(GIB, Access.WRITE, status=svadu)
    assert bench.guest.read(entry) == LEAF
    assert stored.perm == "DA--XWRV"
    assert len(stored.references) == 4


def test_svadu_in_the_vs_stage_needs_the_g_stage_to_allow_a_store() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    leaf_entry = next(
        r for r in mmu.translate(va).references if r.stage == "VS" and r.level == 0
    ).address
    bench.guest.write(leaf_entry, bench.guest.read(leaf_entry) & ~pte.A)
    svadu = Status(adue=True)
    # G-stage permits: m references more for the recheck as a store, one for the update.
    probe = mmu.translate(va, status=svadu)
    assert (probe.count("VS"), probe.count("G")) == (4, 15)
    assert [r.stage for r in probe.references][-7:] == ["G", "G", "G", "VS", "G", "G", "G"]
    # G-stage forbids stores to the table's page: a guest-page fault of the original access, at
    # the address of the entry.
    bench.guest.write(leaf_entry, bench.guest.read(leaf_entry) & ~pte.A)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    bench.map(
        "host", root, Mode.SV39, leaf_entry, leaf_entry // 4096 * 4096 >> 2 | RWX & ~pte.W | pte.U,
        g=2,
    )  # fmt: skip
    fault = mmu.translate(va, Access.READ, status=svadu)
    assert (fault.cause, fault.gpa, fault.implicit) == (21, leaf_entry, "update")
    assert bench.guest.read(leaf_entry) & pte.A == 0


def test_guest_page_faults_say_where_and_on_which_access() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    table = next(r for r in mmu.translate(va).references if r.stage == "VS" and r.level == 1)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    bench.map("host", root, Mode.SV39, table.address, 0, g=2)
    for access, cause in ((Access.READ, 21), (Access.WRITE, 23), (Access.FETCH, 20)):
        result = mmu.translate(va, access)
        assert (result.cause, result.tval) == (cause, va)
        assert (result.gpa, result.implicit) == (table.address, "read")
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    # U=0 in the G-stage: every guest access is one of U-mode.
    bench.map("host", root, Mode.SV39, va, va // 4096 * 4096 >> 2 | RWX, g=2)
    result = mmu.translate(va, Access.FETCH)
    assert (result.cause, result.gpa, result.implicit) == (20, va, None)


def test_mxr_of_either_level() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    page = va // 4096 * 4096 >> 2
    vs_root = pte.PAGE * (mmu.satp & pte.PPN_MASK)
    exec_only = pte.V | pte.X | pte.A | pte.D
    bench.map("guest", vs_root, Mode.SV39, va, page | exec_only)
    assert mmu.translate(va).cause == 13
    assert mmu.translate(va, status=Status(vs_mxr=True)).pa == va
    bench.map("host", root, Mode.SV39, va, page | exec_only | pte.U, g=2)
    # vsstatus.MXR overrides the first stage only, sstatus.MXR both.
    assert mmu.translate(va, status=Status(vs_mxr=True)).cause == 21
    assert mmu.translate(va, status=Status(mxr=True)).pa == va


@pytest.mark.parametrize("level", [0, 1])
def test_mxr_reads_no_table(level: int) -> None:
    """MXR is for explicit loads: an execute-only G-stage page is no VS-stage table."""
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    at = [r.address for r in mmu.translate(va).references if r.stage == "VS"]
    table = at[2 - level]
    exec_only = pte.V | pte.X | pte.A | pte.D | pte.U
    bench.map("host", root, Mode.SV39, table, table // 4096 * 4096 >> 2 | exec_only, g=2)
    for access, cause in ((Access.READ, 21), (Access.WRITE, 23), (Access.FETCH, 20)):
        result = mmu.translate(va, access, status=Status(mxr=True, vs_mxr=True))
        assert (result.cause, result.gpa, result.implicit) == (cause, table, "read")
    hlvx = mmu.translate(va, status=Status(mxr=True), hlvx=True)
    assert (hlvx.cause, hlvx.gpa) == (21, table)


def test_mxr_reads_no_table_as_it_was_reported() -> None:
    """Identity Sv39x4; the page of the VS-stage table is V|X|U|A|D; HS-level MXR; read VA 0."""
    ram = GuestMemory(BASE, 1 << 20)
    g_root, g_leaves, vs_root = BASE + 0x4000, BASE + 0x9000, BASE + 0x2000
    ram.write(g_root + 8 * (BASE >> 30), BASE + 0x8000 >> 2 | pte.V)
    ram.write(BASE + 0x8000, g_leaves >> 2 | pte.V)
    for page in range(BASE, BASE + (1 << 20), 4096):
        ram.write(g_leaves + 8 * (page >> 12 & 511), page >> 2 | RWX | pte.U)
    exec_only = pte.V | pte.X | pte.U | pte.A | pte.D
    ram.write(g_leaves + 8 * (vs_root >> 12 & 511), vs_root >> 2 | exec_only)
    ram.write(vs_root, BASE >> 30 << 28 | RWX)
    vsatp, hgatp = make(Mode.SV39, vs_root), make(Mode.SV39, g_root)
    result = Mmu(ram, status=Status(mxr=True), vsatp=vsatp, hgatp=hgatp).translate(0)
    assert (result.cause, result.gpa, result.implicit) == (21, 0x8000_2000, "read")


ABOVE = (1 << 56, 1 << 63, (1 << 64) - 8, 1 << 56 | BASE)


@pytest.mark.parametrize("va", ABOVE)
def test_bare_addresses_above_the_physical_ones_are_access_faults(va: int) -> None:
    ram = GuestMemory(BASE, 1 << 20)
    for mmu in (Mmu(ram, tlb=tlb.make(), satp=0), Mmu(ram, tlb=tlb.make(), vsatp=0, hgatp=0)):
        for status in (Status(), Status(priv=Priv.M)):
            for access, cause in zip(Access, (5, 7, 1), strict=True):
                result = mmu.translate(va, access, status=status)
                assert (result.cause, result.tval, result.pa) == (cause, va, None)
                assert result.references == ()
        assert mmu.translate((1 << 56) - 8).pa == (1 << 56) - 8
    # A G-stage that translates has a width of its own, and faults as a G-stage.
    hgatp = Bench().identity(Mode.SV39)
    assert Mmu(ram, vsatp=0, hgatp=hgatp).translate(va).cause == 21


def test_hlvx_needs_execute_permission_in_both_stages_and_no_read_permission() -> None:
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    root = pte.PAGE * (mmu.hgatp & pte.PPN_MASK)
    vs_root = pte.PAGE * (mmu.satp & pte.PPN_MASK)
    page = va // 4096 * 4096 >> 2
    base = pte.V | pte.A | pte.D
    for vs_bits, g_bits, cause in (
        (pte.X, pte.X, None),
        (pte.X | pte.R, pte.R, 21),
        (pte.R, pte.X, 13),
    ):
        bench.map("guest", vs_root, Mode.SV39, va, page | base | vs_bits)
        bench.map("host", root, Mode.SV39, va, page | base | g_bits | pte.U, g=2)
        assert mmu.translate(va, hlvx=True).cause == cause
    assert mmu.translate(va).cause == 21


def test_the_global_bit_of_a_pointer_is_inherited() -> None:
    bench, mmu, _ = one_page(LEAF)
    root = pte.PAGE * (mmu.satp & pte.PPN_MASK)
    assert mmu.translate(GIB).perm == "DA--XWRV"
    bench.guest.write(root + 8, bench.guest.read(root + 8) | pte.G)
    assert mmu.translate(GIB).perm == "DAG-XWRV"
    bench, mmu, va = two_stage(Mode.SV39, Mode.SV39)
    root = pte.PAGE * (mmu.satp & pte.PPN_MASK) + 8 * (va >> 30)
    assert mmu.translate(va).perm == "DA--XWRV"
    bench.guest.write(root, bench.guest.read(root) | pte.G)
    assert mmu.translate(va).perm == "DAG-XWRV"


def test_probes_write_nothing() -> None:
    bench, mmu, entry = one_page(LEAF & ~pte.A)
    trace = mmu._trace
    request = walk.Request(GIB, 0, 1, walk.ADUE | walk.PROBE)
    result = walk.walk1(bench.guest.ram, mmu.walk_cache, mmu.satp, request, trace)
    assert result.pa == BASE
    assert bench.guest.read(entry) == LEAF & ~pte.A
    cache = walk_cache.make(2)
    for flags, references in ((walk.ADUE, 4), (walk.ADUE | walk.PROBE, 3), (walk.ADUE, 1)):
        before = cache.entries.copy(), cache.state.copy()
        request = walk.Request(GIB, 0, 1, flags)
        result = walk.walk1(bench.guest.ram, cache, mmu.satp, request, trace)
        assert result.vs_refs == references
        same = np.array_equal(before[0], cache.entries) and before[1] == cache.state
        assert bool(same) is bool(flags & walk.PROBE)


def test_misuse_is_refused_in_one_line() -> None:
    memory = GuestMemory(BASE, 4096)
    with pytest.raises(ModelError, match="either satp, or vsatp and hgatp"):
        Mmu(memory)
    with pytest.raises(ModelError, match="either satp, or vsatp and hgatp"):
        Mmu(memory, satp=0, vsatp=0, hgatp=0)
    with pytest.raises(ModelError, match="reserved MODE"):
        Mmu(memory, satp=5 << 60)


def test_the_example_of_the_library_runs() -> None:
    ran = doctest.testmod(mmu_module)
    assert (ran.failed, ran.attempted) == (0, 8)


def test_letters() -> None:
    assert letters(0) == "--------"
    assert letters(0xFF) == "DAGUXWRV"
