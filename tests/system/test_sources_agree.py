"""The two sources on one recording: what gdb sees stop by stop is what the plugin sees at speed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cosim import plan, session
from cosim.machine import Timing
from cosim.pipeline import Pipeline
from cosim.plugin_session import PluginSession
from cosim.recording import record
from cosim.runspec import RunSpec
from cosim.session import Session
from hypervisor_model.events import EventBatch, Kind

pytestmark = pytest.mark.system

COMPARED = ["pc", "a", "b", "c", "kind", "sub", "hart", "priv", "flags", "size"]


def _both(spec: RunSpec, folder: Path) -> tuple[EventBatch, EventBatch]:
    """The events of one recording through gdb, and through the plugin."""
    resolved = plan.resolve(spec)
    log = folder / "record.bin"
    assert record(resolved, log, folder, time.monotonic() + 30, lambda *_: None).reason is not None
    streams = []
    for name in ("mi", "plugin"):
        logs = folder / name
        logs.mkdir()
        pipeline = Pipeline(session.origin(resolved), [])
        batches: list[EventBatch] = []
        if name == "mi":
            live = Session(resolved, logs, pipeline, keep=batches.append, recording=log)
            outcome = live.run()
        else:
            timing = Timing("replay", log)
            outcome = PluginSession(
                resolved, logs, pipeline, keep=batches.append, timing=timing
            ).run()
        assert outcome.error is None
        assert outcome.document is not None
        audit = outcome.document["audit"]
        assert audit is not None
        assert audit["missed_writes"] == 0
        streams.append(np.concatenate(batches))
    return streams[0], streams[1]


def _events(stream: EventBatch) -> list[tuple[int, ...]]:
    """All but accesses (samples on one side, filtered on the other) and the guest's faults."""
    kept = stream[(stream["kind"] != Kind.ACCESS) & (stream["kind"] != Kind.PAGE_FAULT)]
    return [tuple(int(event[name]) for name in COMPARED) for event in kept]


def _assert_equal(through_gdb: EventBatch, through_plugin: EventBatch) -> None:
    left, right = _events(through_gdb), _events(through_plugin)
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        assert one == other, f"event {number} of {len(left)} and {len(right)}"
    assert len(left) == len(right)


@pytest.mark.parametrize(
    "scenarios",
    ["map,protect,alias,superpage,unlink", "asid,global,bare,stores,cbo-zero,misaligned,user"],
)
def test_micro(scenarios: str, tmp_path: Path) -> None:
    spec = RunSpec(name="agree", guest="micro", workload=f"scenario={scenarios}")
    through_gdb, through_plugin = _both(spec, tmp_path)
    assert np.count_nonzero(through_gdb["kind"] == Kind.PTE_WRITE) > 50
    _assert_equal(through_gdb, through_plugin)


def test_linux(tmp_path: Path) -> None:
    """A short stretch of the stock kernel: one small program, from mark to mark."""
    spec = RunSpec(
        name="agree",
        guest="linux",
        workload="cosim-mark begin; true; cosim-mark end",
        region_from="mark:begin",
        region_to="mark:end",
        time_limit=120,
    )
    through_gdb, through_plugin = _both(spec, tmp_path)
    assert np.count_nonzero(through_gdb["kind"] == Kind.FENCE) > 5
    _assert_equal(through_gdb, through_plugin)
