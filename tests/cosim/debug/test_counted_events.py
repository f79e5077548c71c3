"""Where the recorded events are in QEMU's own count."""

from __future__ import annotations

import numpy as np

from cosim.capture.processes import Process
from cosim.debug.counted_events import Place, Timeline, following
from hypervisor_model.events import FLAG_CONT, FLAG_STOP, Kind, Satp, empty

PCS = (0x100, 0x104, 0x108, 0x108, 0x200)


def timeline(calls: list[int], before: int = 7) -> Timeline:
    events = empty(5)
    events["icount"] = [10, 11, 12, 12, 12]
    events["pc"] = PCS
    events["kind"] = [Kind.SATP_WRITE, Kind.FENCE, Kind.ACCESS, Kind.PAGE_FAULT, Kind.ACCESS]
    return Timeline(events, before, calls)


def test_calls_count_for_what_comes_behind_them() -> None:
    counts = [timeline([11, 11]).place(event).count for event in range(5)]
    assert counts == [17, 11 + 7 + 2, *([12 + 7 + 2] * 3)]


def test_what_has_happened_before_a_place() -> None:
    line = timeline([])
    assert [line.happened(line.place(event)) for event in range(5)] == [0, 1, 2, 2, 4]
    # The handler of a fault begins at the count of the instruction that faulted.
    assert line.happened(Place(19, 0x9000)) == 5
    assert line.happened(Place(19, None)) == 2
    assert line.happened(Place(500, 0x100)) == 5


def test_a_place_that_was_met_later_moves_what_follows() -> None:
    line = timeline([])
    line.learn(2, 22)
    assert [line.place(event).count for event in range(5)] == [17, 18, 22, 22, 22]
    line.learn(2, 20)
    assert line.place(2).count == 22


def test_only_the_guests_own_instructions_are_selected() -> None:
    events = empty(4)
    events["kind"] = [Kind.SATP_WRITE, Kind.SATP_WRITE, Kind.PTE_WRITE, Kind.PTE_WRITE]
    events["flags"] = [FLAG_STOP, 0, 0, FLAG_CONT]
    events["sub"] = [0, 0, 1, 1]
    line = Timeline(events, 0, [])
    assert line.select([Kind.SATP_WRITE, Kind.PTE_WRITE]).tolist() == [1, 2]
    assert line.select([Kind.PTE_WRITE], [0]).tolist() == []


def test_neighbours() -> None:
    numbers = np.array([3, 5, 9])
    assert [following(numbers, n) for n in (0, 3, 4, 9, 10)] == [3, 3, 5, 9, None]


def test_the_process_is_that_of_the_last_root_loaded_before() -> None:
    events = empty(5)
    events["kind"] = [Kind.FENCE, *[Kind.SATP_WRITE] * 4]
    events["sub"][3] = Satp.VSATP
    events["c"] = [0, 1, 2, 1, 0]
    line = Timeline(events, 0, [], {1: Process(45, "sh"), 2: Process(46, "ls")})
    found = [None if one is None else one.name for one in map(line.process, range(6))]
    assert found == [None, None, "sh", "ls", "ls", None]
