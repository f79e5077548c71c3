"""Our MMU against QEMU's own, on random tables of every kind; and QEMU's known departures.

Each test runs with the installed QEMU and with Debian 13's.  ``COSIM_TRANSLATIONS`` sets how many
translations are compared (default 20,000), ``COSIM_SEED`` the seed; both are printed.  The random
cases stay away from QEMU's departures from the specification (docs/qemu-departures.md); a test of
its own shows each departure.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from cosim import cli
from cosim.debugger.registers import parse_value, read_description
from cosim.debugger.rsp import Stub
from cosim.machine import tools
from cosim.machine.configuration import RAM_BASE, MachineConfig, Timing
from cosim.machine.qemu import Machine
from hypervisor_model import walk, walk_cache
from hypervisor_model.events import FLAG_MXR, FLAG_SUM
from hypervisor_model.isa import atp, causes
from hypervisor_model.jit import signed, unsigned
from tests.hypervisor_model.random_tables import A, D, R, Space, Tables, U, V, W, X
from tests.hypervisor_model.reference_mmu import Memory
from tests.system import debian13, mmu_probe
from tests.system.mmu_probe import LAYOUT, Case, Probe, Result, differential

pytestmark = pytest.mark.system

TRANSLATIONS = int(os.environ.get("COSIM_TRANSLATIONS", "20000"))
SEED = int(os.environ.get("COSIM_SEED", "20250101"))
BY_GDB = min(TRANSLATIONS, 6000)
"""The monitor answers for at most this many; it gives no causes, so more add little."""


EMULATORS = ("installed",) if debian13.is_installed() else ("installed", "debian13")


@pytest.fixture(params=EMULATORS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A stopped machine whose guest is the probe."""
    emulator = tools.qemu().path if request.param == "installed" else debian13.emulator()
    config = MachineConfig(
        mmu_probe.build(tmp_path), bios="none", memory=mmu_probe.RAM_SIZE, cpu=mmu_probe.CPU
    )
    with Machine(emulator, config, folder=tmp_path, timing=Timing("live"), stub=True) as running:
        yield running


def test_accesses_end_as_qemus_do(machine: Machine) -> None:
    report = differential(machine, SEED, TRANSLATIONS)
    print(f"seed {SEED}: {report.translations} accesses in {report.seconds:.1f} s")
    print(f"causes {dict(report.causes)}, leaf levels {dict(report.levels)}")
    print(f"A/D updates {report.updates}, left out {dict(report.left_out)}")
    assert report.differences == [], f"seed {SEED}"
    assert report.translations >= TRANSLATIONS
    # The run must have been worth it: every combination of modes, cause and leaf level.
    modes = {(m, g) for m in (0, 8, 9, 10) for g in (None, 0, 8, 9, 10)}
    assert set(report.modes) == modes
    assert set(report.causes) == {None, 1, 5, 7, 12, 13, 15, 20, 21, 23}
    assert set(report.levels) == {-1, 0, 1, 2, 3, 4}
    assert report.updates > TRANSLATIONS // 100
    assert sum(report.left_out.values()) < report.translations // 10


class Debugger:
    """Sets registers of the stopped hart through gdb's protocol."""

    def __init__(self, machine: Machine) -> None:
        self.stub = Stub(machine.stub)
        self.stub.start()
        self.registers = read_description(self.stub)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.stub.command(self.registers.write(name, value))

    def get(self, name: str) -> int:
        return parse_value(self.stub.request(self.registers.read(name)))

    def translate(self, addresses: list[int]) -> list[str]:
        self.stub.post(*[self.stub.monitor(f"gva2gpa {va:#x}") for va in addresses])
        return [self.stub.monitor_answer().strip() for _ in addresses]


def test_translations_equal_qemus_monitor(machine: Machine) -> None:
    """CSRs and privilege set through gdb; the monitor translates as a load of the current mode."""
    gdb = Debugger(machine)
    probe = Probe(machine, SEED)
    rng = random.Random(SEED)
    gdb.set(pmpaddr0=mmu_probe.PMP_RAM, pmpcfg0=0x1F)
    compared, mapped = 0, 0
    while compared < BY_GDB:
        for space in probe.spaces():
            supervisor, sum_bit, mxr = (rng.random() < 0.5 for _ in range(3))
            status = mmu_probe.XLEN64 | mmu_probe.XLEN64 << 2
            status |= (mmu_probe.SUM if sum_bit else 0) | (mmu_probe.MXR if mxr else 0)
            flags = (FLAG_SUM if sum_bit else 0) | (FLAG_MXR if mxr else 0) | walk.PROBE
            # From M-mode with V=0, the registers are the ones that their names say.
            gdb.set(priv=3, menvcfg=0)
            if space.hgatp is None:
                gdb.set(satp=space.satp, mstatus=status, priv=int(supervisor))
            else:
                gdb.set(vsatp=space.satp, hgatp=space.hgatp, vsstatus=status, henvcfg=0)
                gdb.set(mstatus=mmu_probe.XLEN64 | mmu_probe.XLEN64 << 2)
                gdb.set(priv=4 | int(supervisor))
            ram, satp = probe.model.ram, signed(space.satp)
            for va, answer in zip(space.addresses, gdb.translate(space.addresses), strict=True):
                request = walk.Request(signed(va), 0, int(supervisor), flags)
                if space.hgatp is None:
                    w = walk.walk1(ram, probe.cache, satp, request, probe.trace)
                else:
                    hgatp = signed(space.hgatp)
                    w = walk.walk2(ram, ram, probe.cache, satp, hgatp, request, probe.trace)
                ours = f"gpa: {w.pa:#x}" if w.cause == walk.OK else "Unmapped"
                if space.modes in ((0, None), (0, 0)) and va >> walk.BARE_BITS:
                    # The monitor makes no access, so it cannot meet the access fault of an address
                    # that is not physical.  The test above does.
                    assert w.cause == causes.LOAD_ACCESS_FAULT
                    ours = f"gpa: {va:#x}"
                assert answer == ours, f"seed {SEED}: {va:#x} in {space}"
                compared += 1
                mapped += w.cause == walk.OK
    print(f"seed {SEED}: {compared} translations, {mapped} of them mapped")
    assert BY_GDB // 10 < mapped < compared


def test_the_walk_command_takes_a_live_machines_ram(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    gdb = Debugger(machine)
    gdb.set(pmpaddr0=mmu_probe.PMP_RAM, pmpcfg0=0x1F, menvcfg=0)
    probe = Probe(machine, SEED)
    mapped = set()
    # Many random entries are broken, so one space may map next to nothing.
    for space in itertools.islice((s for s in probe.spaces() if s.modes == (9, None)), 8):
        gdb.set(satp=space.satp, priv=1)
        arguments = ["walk", "--ram", str(machine.ram_path), "--base", hex(RAM_BASE)]
        arguments += ["--satp", hex(space.satp), "--json", *map(str, space.addresses)]
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        answers = json.loads(capsys.readouterr().out)
        ours = [f"gpa: {a['pa']:#x}" if "pa" in a else "Unmapped" for a in answers]
        assert ours == gdb.translate(space.addresses)
        mapped |= {a["pa"] for a in answers if "pa" in a}
    assert len(mapped) > 5


def _legal_satp(old: int, new: int) -> int:
    """Return what ``satp`` holds after ``new`` is written over ``old``.

    A write with an unsupported MODE has no effect at all.
    """
    if atp.levels(new >> atp.MODE_SHIFT) < 0:
        return old
    return new & (15 << atp.MODE_SHIFT | atp.ASID_MASK << atp.ID_SHIFT | atp.PPN_MASK)


def test_satp_and_vsatp_are_legalised_as_in_qemu(machine: Machine) -> None:
    gdb = Debugger(machine)
    rng = random.Random(SEED)
    for name in ("satp", "vsatp"):
        old = gdb.get(name)
        for _ in range(200):
            new = rng.choice((0, 8, 9, 10, rng.randrange(16))) << 60 | rng.getrandbits(60)
            gdb.set(**{name: new})
            got = gdb.get(name)
            assert got == _legal_satp(old, new), f"{name} {old:#x} {new:#x}"
            old = got


# -- QEMU's departures, by number as in docs/qemu-departures.md -----------------------------------

LEAF = V | R | W | X | A | D
VA = 0x12_3456_7000
PAGE = LAYOUT.data + 0x5000
ELSEWHERE = LAYOUT.outside


class Bench:
    """Sound tables with one leaf, for a single access on QEMU and on the model."""

    def __init__(self, machine: Machine) -> None:
        self.probe = Probe(machine, 0)
        self.memory = Memory(RAM_BASE, mmu_probe.RAM_SIZE)
        self.tables = Tables(random.Random(0), LAYOUT, self.memory)

    def one_stage(self, leaf: int) -> Space:
        root = self.tables.page()
        self.tables.path(root, 3, VA, leaf=leaf)
        return Space(8 << 60 | root >> 12, None, [VA], (8, None))

    def two_stage(self, leaf: int, g_leaf: int, g_table: int = LEAF | U) -> Space:
        """``g_leaf`` maps the page itself, ``g_table`` is the permission of the leaf table."""
        g_root = self.tables.page(4)
        pages = [self.tables.page() for _ in range(3)]
        for page, permission in zip(pages, (LEAF | U, LEAF | U, g_table), strict=True):
            self.tables.path(g_root, 3, page, extra_bits=2, leaf=page >> 2 | permission)
        self.tables.path(g_root, 3, leaf >> 10 << 12, extra_bits=2, leaf=g_leaf)
        rest = iter(pages[1:])
        at = {page: page for page in pages}
        self.tables.path(pages[0], 3, VA, leaf=leaf, table=lambda: next(rest), pages=at)
        return Space(8 << 60 | pages[0] >> 12, 8 << 60 | g_root >> 12, [VA], (8, 8))

    def run(self, space: Space, operation: str, **status: bool | int) -> tuple[Result, Result]:
        """What QEMU makes of an access to :data:`VA`, and what the model makes of it."""
        probe = self.probe
        probe.load_tables(self.memory)
        flags = ("sum", "mxr", "vs_mxr", "adue", "g_adue", "pbmte", "g_pbmte")
        chosen: dict[str, Any] = (
            dict.fromkeys(flags, False) | {"supervisor": True, "stored": 0x0B} | status
        )
        case = Case(space, VA, operation, **chosen)
        model = probe.predict(case)
        return probe.decode(probe.execute([case])[0]), model

    def leaf_entry(self, ram: NDArray[Any]) -> int:
        """The entry that the access was translated by, as it is in a copy of RAM now."""
        rows = self.probe.trace
        entry = next(r for r in rows if r.stage == walk_cache.VS_STAGE and r.level == 0)
        return unsigned(ram[(int(entry.address) - RAM_BASE) >> 3])


@pytest.fixture
def bench(machine: Machine) -> Bench:
    return Bench(machine)


def show(number: int, qemu: Result, specified: Result, departed: Result) -> None:
    """The model gives what is specified; QEMU either that (repaired) or what is written up."""
    print(f"departure {number}: QEMU {qemu}; specified {specified}")
    assert qemu in (departed, specified)


def test_sound_tables_of_the_bench_agree(bench: Bench) -> None:
    """The frame of the tests below is right: without a trap in the tables both agree."""
    value = unsigned(bench.probe.model.read(PAGE))
    one = bench.one_stage(PAGE >> 2 | LEAF)
    two = bench.two_stage(PAGE >> 2 | LEAF, PAGE >> 2 | LEAF | U)
    for space, operation in ((one, "load"), (two, "load"), (two, "hlv")):
        assert bench.run(space, operation) == (Result(None, value=value),) * 2


def test_departure_1_hlvx_is_reported_as_a_fetch(bench: Bench) -> None:
    qemu, model = bench.run(bench.two_stage(0, PAGE >> 2 | LEAF | U), "hlvx", hlvx_exact=True)
    assert model == Result(13, VA)
    show(1, qemu, model, Result(12, VA))
    qemu, model = bench.run(bench.two_stage(PAGE >> 2 | LEAF, 0), "hlvx", hlvx_exact=True)
    assert model == Result(21, VA, PAGE >> 2)
    show(1, qemu, model, Result(12, VA, PAGE >> 2))
    space = bench.two_stage(PAGE >> 2 | LEAF | U, PAGE >> 2 | LEAF | U)
    qemu, model = bench.run(space, "hlvx", sum=True, hlvx_exact=True)
    assert model.cause is None
    show(1, qemu, model, Result(12, VA))


def test_departure_2_henvcfg_is_ignored_while_v_is_0(bench: Bench) -> None:
    space = bench.two_stage(PAGE >> 2 | LEAF & ~A, PAGE >> 2 | LEAF | U)
    value = unsigned(bench.probe.model.read(PAGE))
    for operation in ("hlv", "load"):
        qemu, model = bench.run(space, operation, adue=False, g_adue=True)
        assert model == Result(13, VA)
        show(2, qemu, model, Result(None, value=value))


def test_departure_3_access_faults_of_tables_become_page_faults(bench: Bench) -> None:
    root = bench.tables.page()
    bench.memory.words[root + 8 * (VA >> 30 & 511)] = ELSEWHERE >> 2 | V
    space = Space(8 << 60 | root >> 12, None, [VA], (8, None))
    qemu, model = bench.run(space, "load", pmp=mmu_probe.PMP_ALL)
    assert model == Result(5, VA)
    show(3, qemu, model, Result(13, VA))
    # A violated PMP is an access fault, as it should ...
    qemu, model = bench.run(space, "load")
    assert qemu == model == Result(5, VA)
    # ... but not where the G-stage translates the address of a VS-stage table.
    space = bench.two_stage(PAGE >> 2 | LEAF, PAGE >> 2 | LEAF | U)
    assert space.hgatp is not None
    g_root = (space.hgatp & (1 << 44) - 1) << 12
    vs_root = (space.satp & (1 << 44) - 1) << 12
    bench.memory.words[g_root + 8 * (vs_root >> 30)] = ELSEWHERE >> 2 | V
    qemu, model = bench.run(space, "load")
    assert model == Result(5, VA)
    entry = vs_root + 8 * (VA >> 30 & 511)
    show(3, qemu, model, Result(21, VA, entry >> 2, walk.IMPLICIT_READ))


def test_departure_4_reserved_napot_entries_get_a_and_d(bench: Bench) -> None:
    leaf = 1 << 63 | PAGE >> 2 | LEAF & ~A
    space = bench.one_stage(leaf)
    qemu, model = bench.run(space, "load", adue=True)
    assert qemu == model == Result(13, VA)
    assert bench.leaf_entry(bench.probe.model.words) == leaf
    left = bench.leaf_entry(bench.probe.ram)
    print(f"departure 4: QEMU leaves the entry {left:#x}, which was {leaf:#x}")
    assert left in (leaf, leaf | A)


def test_departure_5_vs_stage_updates_ignore_the_g_stage(bench: Bench) -> None:
    space = bench.two_stage(PAGE >> 2 | LEAF & ~A, PAGE >> 2 | LEAF | U, (LEAF | U) & ~W)
    value = unsigned(bench.probe.model.read(PAGE))
    qemu, model = bench.run(space, "load", adue=True, g_adue=True)
    entry = (space.satp & (1 << 44) - 1) * 4096 + 2 * 4096 + 8 * (VA >> 12 & 511)
    assert model == Result(21, VA, entry >> 2, walk.IMPLICIT_UPDATE)
    show(5, qemu, model, Result(None, value=value))


def test_departure_6_the_reserved_memory_type_is_taken(bench: Bench) -> None:
    space = bench.one_stage(3 << 61 | PAGE >> 2 | LEAF)
    value = unsigned(bench.probe.model.read(PAGE))
    qemu, model = bench.run(space, "load", pbmte=True)
    assert model == Result(13, VA)
    show(6, qemu, model, Result(None, value=value))


def test_departure_7_an_amo_is_translated_as_a_load_first(bench: Bench) -> None:
    space = bench.one_stage(ELSEWHERE >> 2 | LEAF & ~W)
    qemu, model = bench.run(space, "amo")
    assert model == Result(15, VA)
    show(7, qemu, model, Result(7, VA))


def test_departure_8_hgatp_is_not_legalised(machine: Machine) -> None:
    gdb = Debugger(machine)
    old = gdb.get("hgatp")
    for new in (8 << 60 | 3 << 58 | 0x80003, 5 << 60 | 7 << 44 | 0x80004):
        gdb.set(hgatp=new)
        got = gdb.get("hgatp")
        ours = unsigned(atp.legalise_hgatp(old, new))
        departed = new if new >> 60 == 8 else old
        print(f"departure 8: QEMU {got:#x}; specified {ours:#x}")
        assert got in (ours, departed)
        assert ours & 3 == 0
        assert ours >> 58 & 3 == 0
        old = got


def test_departure_9_mpv_cannot_be_written(machine: Machine) -> None:
    gdb = Debugger(machine)
    for bit in (mmu_probe.MPV, 0):
        before = gdb.get("mstatus")
        gdb.set(mstatus=before & ~mmu_probe.MPV | bit)
        got = gdb.get("mstatus")
        print(f"departure 9: QEMU {got:#x}, which was {before:#x}; written {bit:#x}")
        assert got & mmu_probe.MPV in (bit, before & mmu_probe.MPV)
        assert (got ^ before) & ~mmu_probe.MPV == 0


def test_departure_10_mxr_reads_vs_stage_tables(bench: Bench) -> None:
    execute_only = V | X | A | D | U
    space = bench.two_stage(PAGE >> 2 | LEAF, PAGE >> 2 | LEAF | U, execute_only)
    entry = (space.satp & (1 << 44) - 1) * 4096 + 2 * 4096 + 8 * (VA >> 12 & 511)
    value = unsigned(bench.probe.model.read(PAGE))
    for operation in ("load", "hlv"):
        qemu, model = bench.run(space, operation, mxr=True)
        assert model == Result(21, VA, entry >> 2, walk.IMPLICIT_READ)
        show(10, qemu, model, Result(None, value=value))
        # The same without MXR: both refuse it; and for what is explicit, both obey MXR.
        qemu, model = bench.run(space, operation, vs_mxr=True)
        assert qemu == model == Result(21, VA, entry >> 2, walk.IMPLICIT_READ)
    explicit = bench.two_stage(PAGE >> 2 | V | X | A | D, PAGE >> 2 | execute_only)
    qemu, model = bench.run(explicit, "load", mxr=True)
    assert qemu == model == Result(None, value=value)
