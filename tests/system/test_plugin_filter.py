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
from cosim import tools
from cosim.machine import Machine, MachineConfig, Timing
from hypervisor_model import policies
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.policies import MachineModel, PolicyResult
from tests.system.test_plugin import SECONDS, capture, config_of, micro

pytestmark = pytest.mark.system

POLICIES = (
    *("native", "nested", "shadow", "shadow:fill=whole", "lsp", "lsp:fence_global=drop"),
    *("vtlb", "unsync", "oos", "ssp"),
)
UNFILTERED = 1
"""One slot: every change of page is an event."""
FIRST_LEVEL_SETS = 8
"""Sets of either first-level buffer of the default TLB."""
LARGE = 256


def captures(config: MachineConfig, folder: Path, **options: Any) -> dict[int, EventBatch]:
    """Captures of one recorded run, by the filter's slots."""
    log = folder / "log"
    emulator = tools.qemu().path
    with Machine(emulator, config, folder=folder, timing=Timing("record", log)) as machine:
        machine.resume()
        assert machine.wait(SECONDS)
    return {
        slots: capture(
            config, folder, Timing("replay", log), accesses="all", slots=slots, **options
        ).events
        for slots in (UNFILTERED, FIRST_LEVEL_SETS, LARGE)
    }


@pytest.fixture(scope="module")
def of_micro(tmp_path_factory: pytest.TempPathFactory) -> dict[int, EventBatch]:
    config, mark = micro("scenario=all")
    folder = tmp_path_factory.mktemp("micro")
    return captures(config, folder, start="mark:begin", end="mark:end", **mark)


@pytest.fixture(scope="module")
def of_linux(tmp_path_factory: pytest.TempPathFactory) -> dict[int, EventBatch]:
    spec = guest.ensure("linux", lambda *_: None)
    folder = tmp_path_factory.mktemp("linux")
    return captures(config_of(spec, spec.append), folder, start="mark:init", end="mark:done")


def rest(events: EventBatch) -> bytes:
    """Everything but the accesses."""
    others: EventBatch = events[events["kind"] != Kind.ACCESS]
    return others.tobytes()


def records(events: EventBatch) -> NDArray[np.uint64]:
    """A hash of every access."""
    accesses = events[events["kind"] == Kind.ACCESS]
    words = accesses.view(np.uint64).reshape(len(accesses), 6)
    odd = np.array([2 * (0x9E3779B97F4A7C15 >> i) + 1 & (1 << 64) - 1 for i in range(6)], np.uint64)
    hashes: NDArray[np.uint64] = (words * odd).sum(axis=1, dtype=np.uint64)
    return hashes


@pytest.mark.parametrize("name", ["of_micro", "of_linux"])
def test_a_larger_filter_only_takes_accesses_away(
    name: str, request: pytest.FixtureRequest
) -> None:
    taken: dict[int, EventBatch] = request.getfixturevalue(name)
    unfiltered = taken[UNFILTERED]
    everything = records(unfiltered)
    for slots in (FIRST_LEVEL_SETS, LARGE):
        assert rest(taken[slots]) == rest(unfiltered)
        kept = records(taken[slots])
        assert len(kept) < len(everything) and np.isin(kept, everything).all()
    assert 4 * len(taken[LARGE]) < len(unfiltered) or name == "of_micro"


MACHINE = MachineModel(ram_size=512 << 20, svvptc=True)


def result(model: str, events: EventBatch, machine: MachineModel = MACHINE) -> PolicyResult:
    policy = policies.make(model, machine)
    policy.feed(events)
    return policy.result()


@pytest.mark.parametrize("model", POLICIES)
@pytest.mark.parametrize("name", ["of_micro", "of_linux"])
def test_no_exit_and_no_synchronisation_changes(
    name: str, model: str, request: pytest.FixtureRequest
) -> None:
    taken: dict[int, EventBatch] = request.getfixturevalue(name)
    unfiltered, filtered = (result(model, taken[slots]) for slots in (UNFILTERED, LARGE))
    assert filtered.exits == unfiltered.exits
    assert filtered.counters == unfiltered.counters
    if model != "native":
        assert sum(count or 0 for count in unfiltered.exits.values()) > 100


@pytest.mark.parametrize("name", ["of_micro", "of_linux"])
@pytest.mark.parametrize("model", ["nested", "lsp"])
def test_a_filter_no_larger_than_the_first_level_changes_no_miss(
    name: str, model: str, request: pytest.FixtureRequest
) -> None:
    """What it drops hits the most recent entry of a set, so not even the order of use changes;
    as long as no exit displaces entries."""
    taken: dict[int, EventBatch] = request.getfixturevalue(name)
    unfiltered, filtered = (
        result(model, taken[slots], replace(MACHINE, footprint_data=0, footprint_code=0))
        for slots in (UNFILTERED, FIRST_LEVEL_SETS)
    )
    assert filtered.tlb_misses == unfiltered.tlb_misses
    assert filtered.walk_refs == unfiltered.walk_refs
    if model == "nested":
        # Its G-stage maps 4 KiB pages, so that no entry covers several slots of the filter.
        assert filtered.tlb_hits is not None and unfiltered.tlb_hits is not None
        assert filtered.tlb_hits["second"] == unfiltered.tlb_hits["second"]
