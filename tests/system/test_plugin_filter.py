"""The access filter changes no answer: captures of one run with filters of several sizes, compared
event by event and through every policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import guest
from cosim.capture.plugin.limits import FILTER_SLOTS
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing
from cosim.machine.qemu import Machine
from cosim.trace.reader import TraceReader
from hypervisor_model import policies
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.exits import Exit
from hypervisor_model.policies import MachineModel, PolicyResult
from hypervisor_model.tlb import Replacement, TlbConfig
from tests.system import bare_kernel
from tests.system.test_plugin import SECONDS, capture, config_of, micro

pytestmark = [pytest.mark.system, pytest.mark.long]

POLICIES = (
    *("native", "nested", "shadow", "shadow:fill=whole", "lsp", "lsp:fence_global=drop"),
    *("vtlb", "unsync", "oos", "ssp"),
)
NO_FILTER = 0
"""Every fetch, load and store is an event."""
ONE_SLOT = 1
"""Every change of page is an event.  What the boot of Linux is held to, for without a filter it has
4 GB of events; that both give equal results is shown on the other runs."""
LARGE = 256

RUNS = ["of_micro", "of_program", "of_linux"]


MACHINE = MachineModel(ram_size=512 << 20, svvptc=True)


def result(model: str, events: EventBatch, machine: MachineModel = MACHINE) -> PolicyResult:
    policy = policies.make(model, machine)
    policy.feed(events)
    return policy.result()


class Captures:
    """Captures of one recorded run, by the filter's slots."""

    def __init__(self, events: dict[int, EventBatch]) -> None:
        self.events = events
        self._results: dict[tuple[str, int], PolicyResult] = {}

    def result(self, model: str, slots: int) -> PolicyResult:
        """The model's result over the capture with ``slots``, which several tests look at."""
        if (model, slots) not in self._results:
            self._results[model, slots] = result(model, self.events[slots])
        return self._results[model, slots]


def captures(config: MachineConfig, folder: Path, *sizes: int, **options: Any) -> Captures:
    """Record a run, and capture it with filters of these ``sizes``."""
    log = folder / "log"
    emulator = tools.qemu().path
    with Machine(emulator, config, folder=folder, timing=Timing("record", log)) as machine:
        machine.resume()
        assert machine.wait(SECONDS)
    return Captures(
        {
            slots: capture(
                config, folder, Timing("replay", log), accesses="all", slots=slots, **options
            ).events
            for slots in sizes
        }
    )


@pytest.fixture(scope="module")
def of_micro(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    config, mark = micro("scenario=all")
    folder = tmp_path_factory.mktemp("micro")
    sizes = (NO_FILTER, ONE_SLOT, FILTER_SLOTS, LARGE)
    return captures(config, folder, *sizes, start="mark:begin", end="mark:end", **mark)


@pytest.fixture(scope="module")
def of_program(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    """Two processes under Linux."""
    spec = guest.ensure("linux", lambda *_: None)
    config = config_of(
        spec,
        f'{spec.append} cosim.run="cosim-mark begin; cosim-mark a; cosim-mark b; cosim-mark end"',
    )
    folder = tmp_path_factory.mktemp("program")
    sizes = (NO_FILTER, ONE_SLOT, FILTER_SLOTS, LARGE)
    return captures(config, folder, *sizes, start="mark:begin", end="mark:end")


@pytest.fixture(scope="module")
def of_linux(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    spec = guest.ensure("linux", lambda *_: None)
    config, folder = config_of(spec, spec.append), tmp_path_factory.mktemp("linux")
    sizes = (ONE_SLOT, FILTER_SLOTS, LARGE)
    return captures(config, folder, *sizes, start="mark:init", end="mark:done")


def rest(events: EventBatch) -> bytes:
    """Everything but the accesses."""
    others: EventBatch = events[events["kind"] != Kind.ACCESS]
    return others.tobytes()


def records(events: EventBatch) -> NDArray[np.uint64]:
    """A hash of every access, in ascending order."""
    accesses = events[events["kind"] == Kind.ACCESS]
    words = accesses.view(np.uint64).reshape(len(accesses), 6)
    odd = np.array([2 * (0x9E3779B97F4A7C15 >> i) + 1 & (1 << 64) - 1 for i in range(6)], np.uint64)
    hashes: NDArray[np.uint64] = (words * odd).sum(axis=1, dtype=np.uint64)
    return np.sort(hashes)


@pytest.mark.parametrize("name", RUNS)
def test_a_larger_filter_only_takes_accesses_away(
    name: str, request: pytest.FixtureRequest
) -> None:
    taken: dict[int, EventBatch] = request.getfixturevalue(name).events
    (least, unfiltered), *others = taken.items()
    everything = records(unfiltered)
    for _, filtered in others:
        assert rest(filtered) == rest(unfiltered)
        kept = records(filtered)
        assert len(kept) < len(everything)
        at = np.searchsorted(everything, kept)
        assert at[-1] < len(everything) and (everything[at] == kept).all()
    if least == NO_FILTER:
        # An instruction is fetched between any two that access memory.
        assert 4 * len(taken[ONE_SLOT]) < len(unfiltered)
    assert 4 * len(taken[LARGE]) < len(taken[ONE_SLOT]) or name == "of_micro"


@pytest.mark.parametrize("model", POLICIES)
@pytest.mark.parametrize("name", RUNS)
def test_no_exit_and_no_synchronisation_changes(
    name: str, model: str, request: pytest.FixtureRequest
) -> None:
    taken: Captures = request.getfixturevalue(name)
    unfiltered, *others = (taken.result(model, slots) for slots in taken.events)
    for filtered in others:
        assert filtered.exits == unfiltered.exits
        assert filtered.counters == unfiltered.counters
    if model != "native":
        assert sum(count or 0 for count in unfiltered.exits.values()) > 100


@pytest.mark.parametrize("model", POLICIES)
@pytest.mark.parametrize("name", RUNS)
def test_the_usual_filter_changes_no_miss(
    name: str, model: str, request: pytest.FixtureRequest
) -> None:
    """Whatever the policy, with the usual TLB and what its exits displace."""
    taken: Captures = request.getfixturevalue(name)
    unfiltered, *others = (taken.result(model, slots) for slots in taken.events if slots != LARGE)
    for filtered in others:
        assert filtered.tlb_misses == unfiltered.tlb_misses
        assert filtered.walk_refs == unfiltered.walk_refs
        assert filtered.tlb_displaced == unfiltered.tlb_displaced
        assert filtered.tlb_hits is not None and unfiltered.tlb_hits is not None
        assert filtered.tlb_hits["second"] == unfiltered.tlb_hits["second"]
        assert filtered.tlb_misses


@pytest.mark.parametrize("replacement", [Replacement.PLRU, Replacement.RANDOM])
@pytest.mark.parametrize("name", ["of_program", "of_linux"])
def test_nor_with_another_replacement_or_a_walk_cache(
    name: str, replacement: Replacement, request: pytest.FixtureRequest
) -> None:
    taken: dict[int, EventBatch] = request.getfixturevalue(name).events
    machine = replace(MACHINE, tlb=TlbConfig(replacement=replacement), walk_cache_ways=8)
    unfiltered, *others = (
        result("nested", taken[slots], machine) for slots in taken if slots != LARGE
    )
    for filtered in others:
        assert filtered.tlb_misses == unfiltered.tlb_misses
        assert filtered.walk_refs == unfiltered.walk_refs
        assert filtered.walk_cache_hits == unfiltered.walk_cache_hits


def test_a_smaller_tlb_is_right_to_refuse_the_usual_filter(
    of_linux: Captures,
) -> None:
    """What :func:`~hypervisor_model.tlb.misses_through` refuses does differ."""
    small = replace(MACHINE, tlb=TlbConfig(data=(8, 4), fetch=(8, 4), second=None))
    unfiltered, filtered = (
        result("nested", of_linux.events[slots], small) for slots in (ONE_SLOT, FILTER_SLOTS)
    )
    assert filtered.tlb_misses != unfiltered.tlb_misses


def test_the_fetch_behind_a_fence_in_the_same_block(tmp_path: Path) -> None:
    """It misses, and walks the tables of that moment, though no jump leads there.

    So the G-stage has three pages: the code, and both roots.
    """
    kernel = bare_kernel.build("fence_in_a_block", tmp_path)
    bare_kernel.capture(kernel, "plugin", tmp_path / "captured")
    batches = TraceReader(tmp_path / "captured/trace").batches()
    nested = result("nested", np.concatenate(list(batches)))
    assert nested.exits[Exit.GSTAGE_FAULT] == 3
    # An access starts over after its exit, and misses again.
    assert nested.tlb_misses == 1 + 20 + 3
