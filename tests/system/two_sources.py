"""One recording of a guest, looked at by both sources: gdb, stop by stop, and the plugin."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cosim.capture import marks
from cosim.capture.processes import Process
from cosim.machine.configuration import Timing
from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument
from cosim.run import plan
from cosim.run.plan import Plan
from cosim.run.run_spec import RunSpec
from cosim.session import recording
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import execute
from cosim.session.origin import origin
from cosim.session.protocol import Backend, Outcome, Watchers
from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from tests.system.test_plugin import Capture, capture

OF_ACCESSES = (Kind.ACCESS, Kind.PAGE_FAULT)
"""What is there only where accesses are: the guest's own faults are found by stepping, too."""
EVERY_ACCESS = 0
"""Slots of the plugin's filter."""


@dataclass(frozen=True)
class Recorded:
    """One run of a guest, to be looked at again and again."""

    plan: Plan
    log: Path
    folder: Path
    gdb: Gdb
    _processes: dict[str, dict[int, Process]] = field(default_factory=dict)

    def through_gdb(self) -> tuple[EventBatch, ResultDocument]:
        return self._through(replace(self.gdb, recording=self.log))

    def through_plugin(self) -> tuple[EventBatch, ResultDocument]:
        return self._through(Plugin(timing=Timing("replay", self.log)))

    def with_accesses(self, slots: int) -> Capture:
        return self.capture(Timing("replay", self.log), slots)

    def capture(self, timing: Timing, slots: int) -> Capture:
        run = capture(
            self.plan.machine,
            self.folder,
            timing,
            accesses="all",
            slots=slots,
            start=self.plan.begin.text,
            end="end" if self.plan.end.form == "power-off" else self.plan.end.text,
            mark=self.plan.mark_at,
            mark_in_user=self.plan.mark_at == marks.USER_MARK,
            processes=self.plan.naming.layout,
        )
        assert run.summary.missed == 0
        return run

    def processes(self, backend: Backend) -> dict[int, Process]:
        """The processes that ``backend`` has found."""
        return self._processes[backend.name]

    def _through(self, backend: Backend) -> tuple[EventBatch, ResultDocument]:
        logs = self.folder / backend.name
        logs.mkdir()
        resolved = replace(self.plan, backend=backend)
        pipeline = Pipeline(origin(resolved), {})
        batches: list[EventBatch] = []
        outcome = execute(resolved, logs, pipeline, watchers=Watchers(keep=batches.append))
        self._processes[backend.name] = dict(pipeline.processes())
        return finish(outcome, batches)


def record(spec: RunSpec, folder: Path) -> Recorded:
    """Record the guest of ``spec``, a run through gdb, in ``folder``."""
    assert isinstance(spec.backend, Gdb)
    resolved = plan.resolve(spec)
    log = folder / "record.bin"
    end = recording.record(resolved, log, folder, time.monotonic() + 30, lambda *_: None)
    assert end.reason is not None
    return Recorded(resolved, log, folder, spec.backend)


def finish(outcome: Outcome, batches: list[EventBatch]) -> tuple[EventBatch, ResultDocument]:
    """The events and the document of a run that is complete and has missed no store."""
    assert outcome.error is None
    assert outcome.document is not None
    audit = outcome.document["audit"]
    assert audit is not None
    assert audit["missed_writes"] == 0
    return np.concatenate(batches), outcome.document


def is_sample(stream: EventBatch) -> NDArray[np.bool_]:
    """True for each access that was found at a stop, not executed by a stepped instruction."""
    flagged: NDArray[np.bool_] = stream["flags"] & FLAG_STOP != 0
    of_accesses: NDArray[np.bool_] = stream["kind"] == Kind.ACCESS
    return flagged & of_accesses


def comparable(stream: EventBatch) -> EventBatch:
    """All but samples, which are no action of the guest, and the instruction count, which gdb does
    not show."""
    kept: EventBatch = stream[~is_sample(stream)]
    kept["icount"] = -1
    return kept


def without_accesses(stream: EventBatch) -> EventBatch:
    """What gdb sees without stepping, too."""
    kept: EventBatch = stream[~np.isin(stream["kind"], OF_ACCESSES)]
    return kept


def assert_equal(through_gdb: EventBatch, through_plugin: EventBatch) -> None:
    """Fail at the first event that differs, and show those around it."""
    through_gdb, through_plugin = map(comparable, (through_gdb, through_plugin))
    shorter = min(len(through_gdb), len(through_plugin))
    for at in np.flatnonzero(through_gdb[:shorter] != through_plugin[:shorter])[:1]:
        lines = zip(through_gdb[at - 3 : at + 3], through_plugin[at - 3 : at + 3], strict=False)
        pytest.fail(f"event {at} of {len(through_gdb)} and {len(through_plugin)}: {list(lines)}")
    assert len(through_gdb) == len(through_plugin)


def step_through(scenario: str, folder: Path) -> tuple[EventBatch, EventBatch]:
    """Each event of a scenario of micro, stepped from end to end and at speed."""
    spec = RunSpec(
        name="agree",
        backend=Gdb(step_all=True),
        guest="micro",
        workload=f"scenario={scenario}",
        region_from=f"mark:{scenario}",
        region_to="mark:end",
    )
    recorded = record(spec, folder)
    through_gdb, document = recorded.through_gdb()
    assert document["accesses"] == "all"
    assert np.count_nonzero(through_gdb["kind"] == Kind.ACCESS) > 1000
    return through_gdb, recorded.with_accesses(EVERY_ACCESS).events
