"""Who called a store of the stock kernel, which has no debug information: frame pointers tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import guest
from cosim.debug.call_chain import Wanted, call_chains
from cosim.debug.counted_events import Place
from cosim.kernel.places import Places
from cosim.machine.configuration import Timing
from cosim.models.pipeline import Pipeline
from cosim.run.plan import resolve
from cosim.run.run_spec import RunSpec
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import execute
from cosim.session.origin import origin
from cosim.session.protocol import Watchers
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.jit import unsigned

pytestmark = pytest.mark.system


def test_a_store_of_linux_has_its_callers(tmp_path: Path) -> None:
    guest.ensure("linux", lambda *_: None)
    log = tmp_path / "recording"
    backend = Plugin(accesses=False, timing=Timing("record", log))
    plan = replace(resolve(RunSpec(name="chain", guest="linux", backend=backend)), backend=backend)
    batches: list[EventBatch] = []
    pipeline = Pipeline(origin(plan), {})
    outcome = execute(plan, tmp_path, pipeline, watchers=Watchers(keep=batches.append))
    assert outcome.error is None and outcome.counts is not None
    events = np.concatenate(batches)
    stores = np.flatnonzero(events["kind"] == Kind.PTE_WRITE)
    wanted = []
    for number in stores[[len(stores) // 3, len(stores) // 2]].tolist():
        event = events[number]
        place = Place(outcome.counts.of(int(event["icount"])), unsigned(int(event["pc"])))
        entry, old = unsigned(int(event["a"])) & ~7, unsigned(int(event["b"]))
        wanted.append(Wanted(number, place, entry, old))
    # Another value in the entry shows that the guest is not where it should be.
    wanted.append(wanted[-1]._replace(event=-1, old=wanted[-1].old ^ 1 << 10))
    places = Places(plan.machine.kernel)
    found = call_chains(plan, log, wanted, places, tmp_path, lambda done, of: None)
    for one in wanted[:2]:
        chain = found[one.event]
        assert not isinstance(chain, str), chain
        assert chain[0].pc == one.place.pc
        # Each store comes from a trap: a page fault or a system call.
        assert str(chain[-1].symbol).startswith("handle_exception+"), chain
        assert len(chain) > 3
    assert found[-1] == "the re-execution did not come to this store"
