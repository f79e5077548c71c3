"""Event streams and folders of traces for the tests of traces, replay and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from cosim.capture.processes import Process
from cosim.models.counts import EventCounter
from cosim.models.result import Ending, Origin, ResultDocument, TranslationCounts, document
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EVENT, EventBatch, Kind, empty
from hypervisor_model.policies import MachineModel, Stream

ORIGIN = Origin(
    guest={"name": "synthetic", "command_line": "console=ttyS0 é", "qemu": "10.0.2"},
    backend="plugin",
    region={"from": "boot", "to": "end"},
    stream=Stream(accesses="all", page_faults=True),
    machine=MachineModel(ram_size=64 << 20),
)
ENDING = Ending(
    complete=True,
    region={"instructions": 123456},
    stepped=None,
    audit={"checks": 7, "missed_writes": 0},
)


def arbitrary_batch(count: int, seed: int) -> EventBatch:
    """``count`` events with valid kinds and arbitrary bits in every other stored field."""
    random = np.random.default_rng(seed)
    bits = np.frombuffer(random.bytes(count * EVENT.itemsize), dtype=EVENT)
    # Bytes between fields, if there are any, are 0 as in every batch.
    batch = empty(count)
    for name in EVENT.fields or ():
        batch[name] = bits[name]
    batch["kind"] = random.integers(1, max(Kind), count, endpoint=True)
    # Negative counts other than -1 (unknown) do not exist.
    batch["icount"] = np.maximum(batch["icount"], -1)
    return batch


batches = st.builds(arbitrary_batch, st.integers(0, 60), st.integers(0, 2**32 - 1))


def label_marks(writer: TraceWriter, batch: EventBatch) -> None:
    """Give every mark in ``batch`` a label."""
    for number in set(batch["a"][batch["kind"] == Kind.MARK].tolist()):
        writer.label(number, f"mark {number}")


def write_trace(
    folder: Path,
    batch: EventBatch,
    *,
    segment_events: int = 64,
    processes: Mapping[int, Process] | None = None,
) -> None:
    """A closed trace of ``batch``, in which ``processes`` own address spaces."""
    with TraceWriter(folder, ORIGIN, segment_events=segment_events) as writer:
        label_marks(writer, batch)
        writer.name(processes or {})
        writer.write(batch)
        writer.close(ENDING)


def result_document(*, illegal: int = 0, missed_writes: int = 0) -> ResultDocument:
    """The result of a run without events."""
    counts = TranslationCounts(
        compared=9, fresh=9 - illegal, stale_legal=0, illegal=illegal, undecided=0
    )
    ending = Ending(complete=True, audit={"checks": 1, "missed_writes": missed_writes})
    whole = document(ORIGIN, ending, EventCounter().counts(), {}, {"reference": counts})
    read: ResultDocument = json.loads(json.dumps(whole))
    return read
