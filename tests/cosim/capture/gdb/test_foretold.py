"""Stops that were foretold: the same events in fewer round trips, and nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cosim.capture.gdb.foretold import Foretold
from cosim.capture.log import records
from cosim.debugger.rsp import StopReply
from hypervisor_model.events import EventBatch, Kind, empty
from tests.cosim.capture.gdb.fake_stub import INTERRUPT_CAUSE, Does, Step, Traps
from tests.cosim.capture.gdb.test_interception import (
    A0,
    A1,
    CODE,
    FENCE_AT,
    LEAF,
    SATP,
    SATP_AT,
    SD,
    STORE_AT,
    Run,
    leaf,
    linear,
)

OTHER_STORE_AT = CODE + 0x300

Stops = list[tuple[int, int | None, Step]]
"""Where the guest stops, the page watched there if it is a store, and what it does then."""


def fence(step: Step | None = None) -> tuple[int, int | None, Step]:
    return FENCE_AT, None, step or Does()


def store(number: int, value: int, at: int = STORE_AT) -> tuple[int, int | None, Step]:
    va = linear(LEAF) + 8 * number
    return at, va, Does({va: value.to_bytes(8, "little")})


def stream(stops: Stops, foretell: Callable[[EventBatch], EventBatch] | None) -> EventBatch:
    """Return the events of ``stops``.

    :param foretell: makes what is foretold from these events; None: nothing is foretold.
    """
    run = Run()
    told = None if foretell is None else Foretold(foretell(stream(stops, None)))
    run.interception._foretold = told
    run.interception.begin()
    run.code(STORE_AT, SD)
    run.code(OTHER_STORE_AT, SD)
    for place, va, step in stops:
        run.fake.general[32] = linear(place)
        run.fake.general[A0] = SATP if va is None else va
        if isinstance(step, Does) and va is not None:
            run.fake.general[A1] = int.from_bytes(step.stores[va], "little")
        run.fake.script.append(step)
        watch = None if va is None else va & -4096
        reply = StopReply(b"T05", 5, watch)
        if foretell is None or not run.interception.execute_foretold(reply):
            run.interception.execute(run.interception.state())
        # The interposer lets the guest run; here it is only asked if it has executed the fence.
        run.interception.state()
        run.interception._prepare()
    run.interception.flush()
    made: EventBatch = np.concatenate(run.batches)
    stream.answered = run.fake.answered  # type: ignore[attr-defined]
    kept: EventBatch = made[made["kind"] != Kind.ACCESS]
    return kept


STOPS: Stops = [
    store(9, leaf(CODE)),
    fence(),
    store(9, 0),
    fence(),
    # An interrupt comes first; then the guest is back at the fence.
    fence(Traps(INTERRUPT_CAUSE | 5)),
    fence(),
    # The value does not change, so only pc shows that the store ran.
    store(9, 0),
    store(10, leaf(CODE), OTHER_STORE_AT),
    store(10, 0, OTHER_STORE_AT),
    fence(),
]


def test_the_same_events() -> None:
    expected = stream(STOPS, None)
    careful = len(stream.answered)  # type: ignore[attr-defined]
    assert np.count_nonzero(expected["kind"] == Kind.FENCE) == 4
    assert np.count_nonzero(expected["kind"] == Kind.PTE_WRITE) == 5
    made = stream(STOPS, lambda events: events)
    assert made.tobytes() == expected.tobytes()
    # sp is not asked for.
    assert len(stream.answered) < careful  # type: ignore[attr-defined]


def missing(events: EventBatch) -> EventBatch:
    return np.delete(events, np.flatnonzero(events["kind"] == Kind.FENCE)[1])


def elsewhere(events: EventBatch) -> EventBatch:
    """The second store is said to be the other store's."""
    told = events.copy()
    told["pc"][np.flatnonzero(told["kind"] == Kind.PTE_WRITE)[1]] += OTHER_STORE_AT - STORE_AT
    return told


def other_address(events: EventBatch) -> EventBatch:
    told = events.copy()
    told["a"][np.flatnonzero(told["kind"] == Kind.PTE_WRITE)[2]] ^= 0x18
    return told


@pytest.mark.parametrize("wrong", [missing, elsewhere, other_address, lambda events: events[:5]])
def test_what_was_not_foretold_is_seen_all_the_same(
    wrong: Callable[[EventBatch], EventBatch],
) -> None:
    assert stream(STOPS, wrong).tobytes() == stream(STOPS, None).tobytes()


def test_a_write_of_satp_where_a_fence_was_foretold() -> None:
    """It is stepped before it is looked at; its old value is in the registers read before."""
    other = SATP ^ 1 << 44
    write: Stops = [fence(), fence(), (SATP_AT, None, Does(csrs={"satp": other})), fence()]

    def fences_only(events: EventBatch) -> EventBatch:
        return events[events["kind"] != Kind.SATP_WRITE] if len(events) else events

    expected, made = stream(write, None), stream(write, fences_only)
    written = expected[expected["kind"] == Kind.SATP_WRITE][-1]
    assert int(written["a"]) & (1 << 64) - 1 == SATP
    assert int(written["b"]) & (1 << 64) - 1 == other
    assert made.tobytes() == expected.tobytes()


def test_what_comes_is_compared() -> None:
    events = empty(3)
    events["kind"], events["pc"], events["icount"] = Kind.FENCE, [4, 8, 12], [1, 2, 3]
    foretold = Foretold(events)
    first = foretold.next()
    assert first is not None and (first.kind, first.pc) == (Kind.FENCE, 4)
    same = events.copy()
    same["icount"] = -1
    foretold.came(records(same[:1]))
    assert not foretold.lost
    following = foretold.next()
    assert following is not None and following.pc == 8
    same["b"][1] = 1
    foretold.came(records(same[1:2]))
    assert foretold.lost and foretold.next() is None
