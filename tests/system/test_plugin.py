"""The TCG plugin under real QEMU: what it sees, counts and keeps, on guests with known answers."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import guest
from cosim.capture import marks
from cosim.capture.plugin.source import PluginSource
from cosim.capture.plugin.stream import Summary
from cosim.errors import MachineError
from cosim.kernel import symbols
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing, parse_memory
from cosim.machine.qemu import Machine
from guest import GuestSpec
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_STOP,
    Access,
    EventBatch,
    Fence,
    Kind,
    Order,
    Priv,
    PteOp,
    fault_pa,
)
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed
from tests.system import bare_kernel

pytestmark = pytest.mark.system

SECONDS = 50.0
PLACE = 1 << 30
"""The micro guest's scenario N works from virtual address (16 + N) * PLACE on."""


class Capture:
    """The events of one run."""

    def __init__(self, events: EventBatch, summary: Summary, labels: list[str]) -> None:
        self.events = events
        self.summary = summary
        self.labels = labels

    def of(self, *kinds: Kind) -> EventBatch:
        picked: EventBatch = self.events[np.isin(self.events["kind"], kinds)]
        return picked


@contextmanager
def running(
    config: MachineConfig, folder: Path, timing: Timing | None = None, **options: Any
) -> Iterator[tuple[PluginSource, Machine]]:
    """A machine with the plugin; not resumed yet."""
    emulator = tools.qemu().path
    options.setdefault("timeout", SECONDS)
    with (
        PluginSource(emulator, memory=config.memory, **options) as source,
        Machine(
            emulator,
            config,
            folder=folder,
            timing=timing,
            plugin_arguments=tuple(source.qemu_args()),
            pass_fds=source.pass_fds,
        ) as machine,
    ):
        yield source, machine


def capture(
    config: MachineConfig, folder: Path, timing: Timing | None = None, **options: Any
) -> Capture:
    with running(config, folder, timing, **options) as (source, machine):
        machine.resume()
        batches = list(source.batches())
        assert "cosim plugin" not in machine.stderr_log.read_text()
        assert source.summary is not None
        return Capture(np.concatenate(batches), source.summary, source.labels)


def config_of(spec: GuestSpec, append: str, cpu: str = "") -> MachineConfig:
    return MachineConfig(
        kernel=spec.kernel,
        initrd=spec.initrd,
        append=append,
        bios=spec.bios,
        memory=parse_memory(spec.memory),
        cpu=tools.default_cpu(tools.qemu()) + cpu,
    )


def micro(append: str, cpu: str = "") -> tuple[MachineConfig, dict[str, Any]]:
    spec = guest.ensure("micro", lambda *_: None)
    address = symbols.load(spec.kernel).address(marks.SYMBOL)
    return config_of(spec, append, cpu), {"mark": address, "mark_in_user": False}


# -- the probe: every instruction with its answer -------------------------------------------------


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    return bare_kernel.build("plugin_probe", folder, bare_kernel.M_MODE)


def run_probe(elf: Path, folder: Path, **options: Any) -> tuple[Capture, symbols.Symbols]:
    known = symbols.load(elf)
    config = MachineConfig(kernel=elf, bios="none", memory=128 << 20, cpu="rv64,svade=on,v=on,h=on")
    mark = known.address(marks.SYMBOL)
    return capture(config, folder, mark=mark, mark_in_user=False, **options), known


@pytest.fixture(scope="module")
def probed(
    probe: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Capture, symbols.Symbols]:
    return run_probe(probe, tmp_path_factory.mktemp("run"))


def test_instructions_are_counted_as_they_retire(probed: tuple[Capture, symbols.Symbols]) -> None:
    run, _ = probed
    assert run.labels == ["m", "count", "trap", "vector", "end"]
    at = dict(zip(run.labels, run.of(Kind.MARK)["icount"], strict=True))
    # ret; li; 100 times addi and bnez; a load and a store that fault, 4 instructions of handler
    # each; an ecall that does not retire, 5 of handler; nop; 8 that lead to the next mark.
    assert at["trap"] - at["count"] == 1 + 1 + 200 + 4 + 4 + 5 + 1 + 8
    # ret; li (2); ecall, sfence.vma and csrw all trap (TVM), 5 of handler each; 8.
    assert at["vector"] - at["trap"] == 1 + 1 + 15 + 8
    assert (np.diff(run.events["icount"]) >= 0).all()


@dataclass(frozen=True)
class Counting:
    """One of the two ways in which instructions are counted."""

    timing: Timing
    accesses: Literal["all", "none"]

    def capture(self, name: str, folder: Path, cpu: str = "rv64") -> Capture:
        elf = bare_kernel.build(name, folder, bare_kernel.M_MODE)
        config = MachineConfig(kernel=elf, bios="none", memory=128 << 20, cpu=cpu)
        return capture(config, folder, self.timing, start="boot", end="end", accesses=self.accesses)


@pytest.fixture(params=["record", "live"])
def counting(request: pytest.FixtureRequest, accesses: str, tmp_path: Path) -> Counting:
    """QEMU counts the instructions of a recording, and the guest's code those of a live run."""
    # No block is split, so that a wfi may have others behind it.
    recording = Timing("record", tmp_path / "recording", split=frozenset())
    timing = Timing("live") if request.param == "live" else recording
    return Counting(timing, "all" if accesses == "all" else "none")


@pytest.mark.parametrize("accesses", ["all", "none"])
def test_what_does_not_retire_is_not_counted(counting: Counting, tmp_path: Path) -> None:
    run = counting.capture("counts", tmp_path)
    # The comments of counts.S say what comes from fence to fence.
    between = [5, 5, 5, 5, 5, 5, 5, 5, 8, 6, 9, 12, 9, 9, 16, 8]
    assert np.diff(run.of(Kind.FENCE)["icount"]).tolist() == between
    assert run.summary.instructions == run.of(Kind.FENCE)["icount"][-1] + 1 + 1 + 2 + 1


@pytest.mark.parametrize("accesses", ["all", "none"])
def test_a_trap_behind_a_return_or_at_a_vector(counting: Counting, tmp_path: Path) -> None:
    run = counting.capture("traps_in_traps", tmp_path)
    # The fences that trap are none.
    assert np.diff(run.of(Kind.FENCE)["icount"]).tolist() == [14, 5]
    assert run.summary.instructions == run.of(Kind.FENCE)["icount"][-1] + 1 + 18 + 23


@pytest.mark.parametrize("accesses", ["none"])
def test_a_jump_that_the_cpu_does_not_have(counting: Counting, tmp_path: Path) -> None:
    run = counting.capture("not_there", tmp_path, cpu="rv64,c=off,zifencei=off")
    assert np.diff(run.of(Kind.FENCE)["icount"]).tolist() == [5] * 7


def test_the_machine_ends_with_the_store_that_switches_it_off(
    probed: tuple[Capture, symbols.Symbols],
) -> None:
    run, _ = probed
    assert run.summary.instructions == run.of(Kind.MARK)["icount"][-1] + 5  # ret; li (3); sw


def test_fences_of_every_form_in_machine_mode(probed: tuple[Capture, symbols.Symbols]) -> None:
    run, _ = probed
    found = [(int(e["sub"]), int(e["a"]), int(e["b"])) for e in run.of(Kind.FENCE)]
    assert found == [
        (Fence.SFENCE_VMA, 0, 0),
        (Fence.SFENCE_VMA | Fence.VA, 0x5000, 0),
        (Fence.SFENCE_VMA | Fence.ASID, 0, 7),  # of 0x10007 only 16 bits count
        (Fence.SFENCE_VMA | Fence.VA_ASID, 0x5000, 7),
        (Fence.HFENCE_VVMA | Fence.VA_ASID, 0x5000, 7),
        (Fence.HFENCE_GVMA | Fence.VA_ASID, 0x5000 << 2, 7),  # the register holds GPA >> 2
        (Fence.HFENCE_GVMA, 0, 0),
    ]
    assert set(run.of(Kind.FENCE)["priv"].tolist()) == {Priv.M}


def test_satp_is_what_the_hart_made_of_it(probed: tuple[Capture, symbols.Symbols]) -> None:
    run, known = probed
    value = signed(8 << 60 | known.address("root") >> 12)
    first, *writes = [(int(e["a"]), int(e["b"]), int(e["flags"])) for e in run.of(Kind.SATP_WRITE)]
    assert first == (0, 0, FLAG_STOP)
    # The second write names a mode that does not exist; one that traps is none at all.
    assert writes == [(0, value, 0), (value, value, 0)]


def test_the_first_tables_are_read_whole(probed: tuple[Capture, symbols.Symbols]) -> None:
    run, known = probed
    root, middle, leaf = (known.address(name) for name in ("root", "middle", "leaf"))
    added = [(int(e["a"]), int(e["b"]), int(e["sub"])) for e in run.of(Kind.TABLE_ADD)]
    assert added == [(root, 2, 1), (middle, 1, 0), (leaf, 0, 0)]
    entries = {int(e["a"]): int(e["c"]) for e in run.of(Kind.TABLE_ENTRY)}
    assert entries == {
        root: middle >> 2 | 1,
        root + 16: 0x80000000 >> 2 | 0xCF,
        middle: leaf >> 2 | 1,
        leaf + 0x800: 0x100000 >> 2 | 0xC7,
    }
    assert run.summary.tables == 3 and run.summary.missed == 0


def test_a_vector_store_is_one_store_of_the_entries_that_it_changed(
    probed: tuple[Capture, symbols.Symbols],
) -> None:
    run, known = probed
    leaf = known.address("leaf")
    one, two = 0x1111_0000, 0x2222_0000
    written = run.of(Kind.PTE_WRITE)
    found = [
        (int(e["a"]) - leaf, int(e["b"]), int(e["c"]), int(e["flags"] & FLAG_CONT)) for e in written
    ]
    assert found == [
        (0, 0, one, 0),
        (8, 0, two, FLAG_CONT),
        (64, 0, two, 0),  # entry 0 had its value
        (24, 0, two, 0),
        (264, 0, two, 0),
        (512, 0, one, 0),  # in halves
        (520, 0, two, FLAG_CONT),
    ]
    assert set(written["sub"].tolist()) == {int(PteOp.VECTOR)}
    assert set(written["size"].tolist()) == {0}


def test_a_faulting_access_comes_before_its_fault(probe: Path, tmp_path: Path) -> None:
    run, _ = run_probe(probe, tmp_path, accesses="all", slots=1)
    kinds = run.events["kind"]
    at = np.flatnonzero(kinds == Kind.PAGE_FAULT)
    assert [(int(run.events[i]["a"]), int(run.events[i]["b"])) for i in at] == [(8, 13), (16, 15)]
    before = run.events[at - 1]
    assert before["kind"].tolist() == [Kind.ACCESS, Kind.ACCESS]
    assert before["b"].tolist() == [fault_pa(13), fault_pa(15)]
    assert before["sub"].tolist() == [Access.READ, Access.WRITE]
    # The store to the test device, which is mapped by the leaf table at its own address.
    last = run.of(Kind.ACCESS)[-1]
    assert (int(last["a"]), int(last["b"]), int(last["size"])) == (0x100000, 0x100000, 4)


# -- the micro guest ------------------------------------------------------------------------------


def test_every_modification_of_lsp_bench_is_one_store_and_one_fence(tmp_path: Path) -> None:
    config, mark = micro("scenario=lsp-bench pages=64 ops=2000 share=30")
    run = capture(config, tmp_path, start="mark:lsp-bench", end="mark:end", **mark)
    assert run.summary.region_ended and run.summary.missed == 0
    writes, fences = run.of(Kind.PTE_WRITE), run.of(Kind.FENCE)
    assert len(writes) == len(fences) == 600
    assert set((writes["b"] ^ writes["c"]).tolist()) == {pte.W}
    assert set(fences["sub"].tolist()) == {Fence.SFENCE_VMA | Fence.VA}
    # Entry and address name the same page, and the store comes first.
    assert ((writes["a"] >> 3 & 63) == (fences["a"] >> 12 & 63)).all()
    assert (writes["icount"] < fences["icount"]).all()


def test_every_instruction_that_can_store_to_a_table(tmp_path: Path) -> None:
    config, mark = micro("scenario=stores")
    run = capture(config, tmp_path, start="mark:stores", end="mark:end", **mark)
    writes = run.of(Kind.PTE_WRITE)
    found = Counter((PteOp(int(e["sub"])).name, int(e["size"])) for e in writes)
    # By stores.c; 8 bytes: links of two new tables, sd, c.sd, fsd, and what prepares five others.
    assert found == Counter(
        {
            ("STORE", 8): 2 + 3 + 5,
            ("STORE", 4): 1,
            ("STORE", 2): 1,
            ("STORE", 1): 1,
            ("AMO", 8): 3,
            ("AMO", 4): 1,
            ("SC", 8): 1,
            ("SC", 4): 1,
        }
    )
    assert run.summary.missed == 0


def test_cbo_zero_empties_eight_entries_at_once(tmp_path: Path) -> None:
    config, mark = micro("scenario=cbo-zero")
    run = capture(config, tmp_path, start="mark:cbo-zero", end="mark:end", **mark)
    writes = run.of(Kind.PTE_WRITE)
    zeroed = writes[writes["sub"] == PteOp.CBO_ZERO]
    assert len(zeroed) == 8 and set(zeroed["size"].tolist()) == {64}
    assert zeroed["flags"].tolist() == [0] + 7 * [FLAG_CONT]
    assert (zeroed["b"] != 0).all() and (zeroed["c"] == 0).all()
    assert np.diff(zeroed["a"]).tolist() == 7 * [8] and zeroed["a"][0] % 64 == 0
    assert run.summary.missed == 0


def test_a_store_across_entries_and_out_of_its_table(tmp_path: Path) -> None:
    config, mark = micro("scenario=misaligned")
    run = capture(config, tmp_path, start="mark:misaligned", end="mark:end", **mark)
    first, second, last = run.of(Kind.PTE_WRITE)[-3:]
    assert first["a"] % 8 == 4 and second["a"] == first["a"] + 4
    assert (int(first["flags"]), int(second["flags"])) == (0, FLAG_CONT)
    # The last entry's upper half; the rest lies in a page that is no table.
    assert last["a"] % 4096 == 4092 and last["flags"] == 0 and last["size"] == 8
    assert run.summary.missed == 0


def test_the_guests_own_faults(tmp_path: Path) -> None:
    config, mark = micro("scenario=fault")
    run = capture(config, tmp_path, start="mark:fault", end="mark:end", **mark)
    page, mega = 31 * PLACE, 31 * PLACE + (2 << 20)
    found = Counter((int(e["b"]), int(e["a"])) for e in run.of(Kind.PAGE_FAULT))
    # By faults.c: loads, stores and fetches of entries that do not allow them, with Svade.
    assert found == {
        (13, page): 8,
        (15, page): 9,
        (12, page): 2,
        (13, mega): 3,
        (15, mega): 3,
        (13, 1 << 62): 1,
    }
    assert set(run.of(Kind.PAGE_FAULT)["priv"].tolist()) == {Priv.S}


def test_svinval_is_a_fence_between_two_that_order_it(tmp_path: Path) -> None:
    config, mark = micro("scenario=svinval", cpu=",svinval=on")
    run = capture(config, tmp_path, start="mark:svinval", end="mark:end", **mark)
    found = Counter(run.of(Kind.FENCE)["sub"].tolist())
    assert found[Fence.SINVAL_VMA | Fence.VA_ASID] == 8 + 1  # and the one that tries it out
    kinds = [*run.of(Kind.FENCE_ORDER, Kind.FENCE)[["kind", "sub"]].tolist()]
    triple = [
        (Kind.FENCE_ORDER, Order.SFENCE_W_INVAL),
        (Kind.FENCE, Fence.SINVAL_VMA | Fence.VA_ASID),
        (Kind.FENCE_ORDER, Order.SFENCE_INVAL_IR),
    ]
    assert kinds == triple * 9


def test_a_hart_without_svinval_orders_nothing(tmp_path: Path) -> None:
    config, mark = micro("scenario=svinval", cpu=",svinval=off")
    run = capture(config, tmp_path, start="mark:svinval", end="mark:end", **mark)
    assert not len(run.of(Kind.FENCE_ORDER))


def test_two_re_executions_of_a_recording_are_equal_and_so_is_a_part(tmp_path: Path) -> None:
    config, mark = micro("scenario=all")
    log = tmp_path / "log"
    emulator = tools.qemu().path
    with Machine(emulator, config, folder=tmp_path, timing=Timing("record", log)) as machine:
        machine.resume()
        assert machine.wait(SECONDS)
    replay = Timing("replay", log)
    whole = capture(config, tmp_path, replay, accesses="all", **mark)
    again = capture(config, tmp_path, replay, accesses="all", **mark)
    assert whole.events.tobytes() == again.events.tobytes()
    assert whole.summary.missed == 0
    # A region that begins at an address begins like one that begins at the mark there.
    marked = whole.of(Kind.MARK)[whole.labels.index("unlink")]
    part = capture(config, tmp_path, replay, start="mark:unlink", end="mark:asid", **mark)
    same = capture(
        config, tmp_path, replay, start="mark:unlink", end="mark:asid", accesses="all", **mark
    )
    assert part.events[0]["icount"] == marked["icount"]
    rest = whole.events[np.flatnonzero(whole.events["icount"] >= marked["icount"])]
    rest = rest[rest["icount"] < part.events[-1]["icount"] + 1]
    state = [Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.ACCESS]
    assert (actions(part.events, state) == actions(rest, state)).all()
    without = same.events[same.events["kind"] != Kind.ACCESS]
    assert without.tobytes() == part.events.tobytes()


def actions(events: EventBatch, but: list[Kind]) -> EventBatch:
    """What the guest did, without labels' numbers, which depend on the region."""
    keep = ~np.isin(events["kind"], [*but, Kind.MARK]) & (events["flags"] & FLAG_STOP == 0)
    picked: EventBatch = events[keep]
    return picked


# -- readers that fail ----------------------------------------------------------------------------


def test_a_slow_reader_slows_the_guest_and_loses_nothing(tmp_path: Path) -> None:
    config, mark = micro("scenario=lsp-bench pages=64 ops=20000 share=100")
    with running(config, tmp_path, **mark) as (source, machine):
        machine.resume()
        batches = source.batches()
        first = next(batches)
        # The stream holds less than 3 MB of events: the guest cannot end without a reader.
        assert not machine.wait(3)
        events = np.concatenate([first, *batches])
        assert machine.wait(SECONDS)
    count = Counter(events["kind"].tolist())
    assert count[Kind.FENCE] >= 20000 and count[Kind.PTE_WRITE] >= 20000
    assert source.summary is not None and source.summary.events == len(events)


def test_a_guest_goes_on_when_the_reader_dies(tmp_path: Path) -> None:
    config, mark = micro("scenario=lsp-bench pages=64 ops=20000 share=100")
    with running(config, tmp_path, **mark) as (source, machine):
        machine.resume()
        next(source.batches())
        source.close()
        assert machine.wait(SECONDS)
        said = machine.stderr_log.read_text().splitlines()
        assert [line for line in said if "the reader is gone" in line] == said[-1:]
        assert "micro: done, 1 scenarios, 0 failures" in machine.console_log.read_text()


def test_a_killed_qemu_cuts_the_stream(tmp_path: Path) -> None:
    config, mark = micro("scenario=lsp-bench pages=64 ops=1000000 share=100")
    with running(config, tmp_path, **mark) as (source, machine):
        machine.resume()
        batches = source.batches()
        next(batches)
        # By pid: the one that this test started.
        subprocess.run(["kill", "-KILL", str(machine.pid)], check=True)
        with pytest.raises(MachineError, match="cut"):
            list(batches)


def test_a_guest_that_traps_all_the_time_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    """QEMU, which records it, is not asked."""
    kernel = bare_kernel.build("trap_handler", tmp_path, bare_kernel.M_MODE)
    config = MachineConfig(kernel=kernel, bios="none", memory=128 << 20, cpu="rv64")
    with running(config, tmp_path, Timing("record", tmp_path / "r.bin")) as (source, machine):
        machine.resume()
        batches = source.batches()
        next(batches)
        assert source.summary is None
        source.stop()
        for count, _ in enumerate(batches):
            assert count < 2_000, "millions of events later"
        assert source.summary is not None and not source.summary.never_started
        assert not source.summary.region_ended
        assert not machine.died(0)


def test_a_region_that_never_begins_is_told(tmp_path: Path) -> None:
    config, mark = micro("scenario=map")
    with running(config, tmp_path, start="mark:never", **mark) as (source, machine):
        machine.resume()
        assert list(source.batches()) == []
        assert source.summary is not None and source.summary.never_started


# -- Linux ----------------------------------------------------------------------------------------


def test_linux_boots_and_no_table_store_is_missed(tmp_path: Path) -> None:
    spec = guest.ensure("linux", lambda *_: None)
    config = config_of(spec, spec.append)
    held: list[np.ndarray] = []
    with running(config, tmp_path, start="boot") as (source, machine):
        machine.resume()
        reader = threading.Thread(target=lambda: held.extend(source.batches()))
        reader.start()
        deadline = time.monotonic() + SECONDS
        while reader.is_alive() and time.monotonic() < deadline:
            reader.join(0.2)
        assert not reader.is_alive()
        console = machine.console_log.read_text(errors="replace")
    assert "paging-workload: failures 0" in console
    events = np.concatenate(held)
    assert source.labels == ["init", "done"]
    assert source.summary is not None
    assert source.summary.missed == 0 and source.summary.tables > 100
    # The kernel maps the linear map through one fixmap slot: a fence of one address each time.
    fences = events[events["kind"] == Kind.FENCE]
    assert 80_000 < (fences["sub"] == Fence.VA).sum() < 95_000
    # What is live is what was added and not dropped.
    added = (events["kind"] == Kind.TABLE_ADD).sum()
    assert added - (events["kind"] == Kind.TABLE_DROP).sum() == source.summary.tables


def test_a_region_between_requests(tmp_path: Path) -> None:
    spec = guest.ensure("linux", lambda *_: None)
    # The guest waits for a line before and after what lies in the region.
    steps = "echo ready; read x; cosim-mark inside; ls; echo over; read x; cosim-mark outside"
    config = config_of(spec, f'{spec.append} cosim.run="{steps}"')
    with running(config, tmp_path, start="request", end="request") as (source, machine):
        machine.resume()
        held: list[EventBatch] = []
        reader = threading.Thread(target=lambda: held.extend(source.batches()))
        reader.start()
        machine.console.expect(r"\nready", SECONDS)
        source.begin()
        machine.console.send("\n")
        machine.console.expect(r"\nover", SECONDS)
        source.end()
        machine.console.send("\n")
        assert machine.wait(SECONDS)
        reader.join(SECONDS)
    events = np.concatenate(held)
    assert source.summary is not None
    assert source.summary.region_ended and source.summary.missed == 0
    assert source.labels == ["inside"]
    assert 100_000 < source.summary.instructions < 200_000_000
    kinds = Counter(events["kind"].tolist())
    assert kinds[Kind.PTE_WRITE] > 50 and kinds[Kind.PAGE_FAULT] > 20


def test_marks_in_quick_succession_share_batches(tmp_path: Path) -> None:
    kernel = bare_kernel.build("many_marks", tmp_path)
    config = MachineConfig(
        kernel=kernel,
        initrd=None,
        append="",
        bios=None,
        memory=128 << 20,
        cpu=tools.default_cpu(tools.qemu()),
    )
    mark = symbols.load(kernel).address(marks.SYMBOL)
    started = time.monotonic()
    with running(config, tmp_path, mark=mark, mark_in_user=False) as (source, machine):
        machine.resume()
        batches = list(source.batches())
    seconds = time.monotonic() - started
    assert sum(int((batch["kind"] == Kind.MARK).sum()) for batch in batches) == 5002
    # One for each new label, one for each full buffer, and ten a second.
    assert len(batches) <= 3 + 2 + 10 * seconds + 1
