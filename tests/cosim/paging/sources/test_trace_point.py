"""The tables of a trace at an event are those that a plain replay of its events gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosim.errors import UnreadableMemory, UsageError
from cosim.paging.sources.trace_point import at_event, until
from cosim.trace.reader import TraceReader
from hypervisor_model.events import Kind, Satp, empty
from tests.cosim.streams import arbitrary_batch, write_trace

RAM = 0x8000_0000
TABLE_KINDS = (Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.TABLE_DROP)


@pytest.mark.parametrize("event", [0, 1, 63, 64, 65, 500, 900, None])
def test_it_is_what_a_plain_replay_gives(event: int | None, tmp_path: Path) -> None:
    batch = arbitrary_batch(900, seed=3)
    # Few pages, so that tables come and go.
    is_table = np.isin(batch["kind"], [Kind.TABLE_ADD, Kind.TABLE_DROP])
    in_table = np.isin(batch["kind"], [Kind.TABLE_ENTRY, Kind.PTE_WRITE])
    batch["a"][is_table] = RAM + (batch["a"][is_table] & 7) * 4096
    batch["a"][in_table] = RAM + (batch["a"][in_table] & 0x7FF8)
    write_trace(tmp_path / "t", batch)
    point = at_event(TraceReader(tmp_path / "t"), event)
    live: dict[int, dict[int, int]] = {}
    satp = 0
    end = len(batch) if event is None else event
    while end < len(batch) and batch["kind"][end] in TABLE_KINDS:
        end += 1
    for one in batch[:end]:
        kind, a = int(one["kind"]), int(one["a"])
        if kind == Kind.TABLE_ADD:
            live[a] = {}
        elif kind == Kind.TABLE_DROP:
            live.pop(a, None)
        elif kind in (Kind.TABLE_ENTRY, Kind.PTE_WRITE) and a & ~4095 in live:
            live[a & ~4095][a & 4095] = int(one["c"])
        elif kind == Kind.SATP_WRITE and one["sub"] == Satp.SATP and one["hart"] == 0:
            satp = int(one["b"])
    assert point.events == end
    assert point.registers().satp == satp % (1 << 64)
    asked = np.arange(RAM, RAM + 8 * 4096, 4096)
    entries, readable = point.tables(asked)
    for row, address in enumerate(asked.tolist()):
        assert readable[row] == (address in live)
        if address in live:
            words = np.zeros(512, np.int64)
            for offset, value in live[address].items():
                words[offset // 8] = value
            assert entries[row].tolist() == words.tolist()
            assert point.read(address + 8, 16) == words[1:3].tobytes()
        else:
            with pytest.raises(UnreadableMemory):
                point.read(address, 8)


def test_events_and_harts_that_are_not_there(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", arbitrary_batch(100, seed=1))
    trace = TraceReader(tmp_path / "t")
    with pytest.raises(UsageError, match="event 101 is not in the trace"):
        at_event(trace, 101)
    with pytest.raises(UsageError, match="no hart 7"):
        at_event(trace, 5).registers(7)


def test_batches_are_cut_at_the_event() -> None:
    batches = [empty(3), empty(4), empty(5)]
    for batch in batches:
        batch["kind"] = Kind.FENCE
    for event in range(13):
        assert sum(len(batch) for batch in until(batches, event)) == min(event, 12)
    assert sum(len(batch) for batch in until(batches, None)) == 12


def test_tables_come_with_the_event_that_made_them_live() -> None:
    """Here they go on in the next batch, and end in the third."""
    batches = [empty(3), empty(4), empty(5)]
    for batch in batches:
        batch["kind"] = Kind.TABLE_ENTRY
    batches[0]["kind"][:2] = Kind.SATP_WRITE
    batches[2]["kind"][1:] = Kind.FENCE
    lengths = {
        event: sum(len(batch) for batch in until(batches, event)) for event in (1, 2, 5, 7, 8, 9)
    }
    assert lengths == {1: 1, 2: 8, 5: 8, 7: 8, 8: 8, 9: 9}
