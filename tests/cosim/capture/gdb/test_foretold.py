"""Stops that were foretold: the same events in fewer round trips, and nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cosim.capture.gdb.foretold import Foretold
from cosim.capture.log import records
from cosim.debugger.rsp import StopReply
from hypervisor_model.events import EventBatch, Kind, PteOp, empty
from tests.cosim.capture.gdb.fake_stub import INTERRUPT_CAUSE, Does, Ends, Step, Traps
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
    attached,
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


def test_which_store_comes_again() -> None:
    """Only from a vector store, the lowest entry says nothing of what it writes first."""
    events = empty(2)
    events["kind"] = Kind.PTE_WRITE
    events["a"] = 0x80002040, 0x80002038
    for op, lower, again in [
        (PteOp.STORE, 0x80002038, False),
        (PteOp.STORE, 0x80002044, True),
        (PteOp.VECTOR, 0x80002038, True),
    ]:
        events["a"][1], events["sub"][1] = lower, op
        following = Foretold(events).next()
        assert following is not None and following.again == again


ENTRY = linear(LEAF) + 8 * 9


class Stores:
    """A guest that stores to one entry, with a fence behind each store.

    :param values: what it stores.
    :param twice: it stores this before each value from the fourth on, unless the number is None.
    """

    def __init__(self, values: list[int], twice: int | None = None) -> None:
        self.run = run = Run()
        run.code(STORE_AT, SD)
        run.fake.general[32] = linear(FENCE_AT)
        script = run.fake.script
        for number, value in enumerate(values):
            stored = [value] if twice is None or number < 3 else [twice, value]
            ready = {A0: ENTRY, A1: stored[0]}
            script += [Does(), Does(general=ready, jump=linear(STORE_AT))]
            for this, following in zip(stored, [*stored[1:], None], strict=True):
                after = {A0: SATP} if following is None else {A1: following}
                goes_to = linear(FENCE_AT if following is None else STORE_AT)
                script.append(Does({ENTRY: this.to_bytes(8, "little")}, after, jump=goes_to))
        script += [Does(), Ends()]

    def events(self) -> EventBatch:
        """The events that interception has told, without accesses."""
        self.run.interception.flush()
        made: EventBatch = np.concatenate(self.run.batches)
        kept: EventBatch = made[made["kind"] != Kind.ACCESS]
        return kept

    def through_gdb(self, folder: Path, foretold: EventBatch | None) -> EventBatch:
        """Let gdb run the guest to its end; return :meth:`events`."""
        self.run.interception._foretold = None if foretold is None else Foretold(foretold)
        with attached(self.run, folder) as (gdb, interposer):
            with interposer.stopped() as interception:
                interception.begin()
            assert gdb.ask(b"vCont;c") == b"T03thread:01;"
        return self.events()


VALUES = [leaf(CODE) ^ number << 30 for number in range(10)]


def test_a_store_to_the_same_entry_comes_next(tmp_path: Path) -> None:
    """Where a second one is foretold, the first is stepped, with the entry watched again behind."""
    expected = Stores(VALUES, twice=0).through_gdb(tmp_path, None)
    assert np.count_nonzero(expected["kind"] == Kind.PTE_WRITE) == 17
    again = Stores(VALUES, twice=0)
    assert again.through_gdb(tmp_path, expected).tobytes() == expected.tobytes()
    assert again.run.interception.audit.missed == []


def test_a_second_store_that_nobody_foretold_is_noticed(tmp_path: Path) -> None:
    """The entry is not watched then, but RAM does not hold what the first store left."""
    foretold = Stores(VALUES).through_gdb(tmp_path, None)
    guest = Stores(VALUES, twice=0)
    made = guest.through_gdb(tmp_path, foretold)
    assert guest.run.interception.audit.missed
    assert made.tobytes() != foretold.tobytes()


def test_an_interrupt_comes_before_a_store_that_was_let_go(tmp_path: Path) -> None:
    """Its handler fences, which nobody has foretold.  The store is an event once it has run."""
    foretold = Stores(VALUES).through_gdb(tmp_path, None)

    def interrupted() -> Stores:
        guest = Stores(VALUES)
        script = guest.run.fake.script
        store = Does({ENTRY: VALUES[6].to_bytes(8, "little")}, {A0: SATP}, jump=linear(FENCE_AT))
        handler = [Does(jump=linear(FENCE_AT)), Does(), Does(jump=linear(STORE_AT))]
        at = script.index(store)
        steps: list[Step] = [Traps(INTERRUPT_CAUSE | 5), *handler]
        for number, step in enumerate(steps, at):
            script.insert(number, step)
        return guest

    expected = interrupted().through_gdb(tmp_path, None)
    assert len(expected) == len(foretold) + 1
    guest = interrupted()
    assert guest.through_gdb(tmp_path, foretold).tobytes() == expected.tobytes()
    assert guest.run.interception.audit.missed == []


ROUNDS = 40
OTHER_SATP = SATP ^ 1 << 44


def through_gdb(folder: Path, foretold: EventBatch | None) -> tuple[EventBatch, list[bytes]]:
    """Let gdb run a guest that stores and fences, and writes ``satp`` halfway.

    :return: its events without accesses, and what its stub was asked for.
    """
    run = Run()
    run.interception._foretold = None if foretold is None else Foretold(foretold)
    run.code(STORE_AT, SD)
    run.code(OTHER_STORE_AT, SD)
    run.fake.general[32] = linear(FENCE_AT)

    def to(pa: int, **general: int) -> Does:
        registers = {{"a0": A0, "a1": A1}[name]: value for name, value in general.items()}
        return Does(jump=linear(pa), general=registers)

    for number in range(ROUNDS):
        va, value = linear(LEAF) + 8 * (9 + number % 3), leaf(CODE) ^ number << 30
        if number == ROUNDS // 2:
            run.fake.script += [Does(), to(SATP_AT), Does(csrs={"satp": OTHER_SATP}), to(FENCE_AT)]
        # A store that was not seen before comes late, behind a fence that was foretold.
        store_at = OTHER_STORE_AT if number == ROUNDS - 3 else STORE_AT
        run.fake.script += [Does(), to(store_at, a0=va, a1=value)]
        run.fake.script += [Does({va: value.to_bytes(8, "little")}), to(FENCE_AT)]
    run.fake.script += [Does(), Ends()]
    with attached(run, folder) as (gdb, interposer):
        with interposer.stopped() as interception:
            interception.begin()
        assert gdb.ask(b"vCont;c") == b"T03thread:01;"
    run.interception.flush()
    made: EventBatch = np.concatenate(run.batches)
    return made[made["kind"] != Kind.ACCESS], run.fake.answered


def test_stops_that_were_foretold_go_on_to_one_that_was_not(tmp_path: Path) -> None:
    """The write of satp is handled with care, and so is every stop behind a wrong event."""
    expected, careful = through_gdb(tmp_path, None)
    kinds = expected["kind"]
    assert np.count_nonzero(kinds == Kind.PTE_WRITE) == ROUNDS
    assert np.count_nonzero(kinds == Kind.FENCE) == ROUNDS + 2
    made, asked = through_gdb(tmp_path, expected)
    assert made.tobytes() == expected.tobytes()
    # Each of these stores is executed without a step, while its entry is not watched.
    left_out = asked.count(b"Z2,%x,48" % linear(LEAF)) + asked.count(b"Z2,%x,50" % linear(LEAF))
    left_out += asked.count(b"Z2,%x,58" % linear(LEAF))
    assert left_out > 3 * ROUNDS // 4
    assert asked.count(b"vCont;s") == careful.count(b"vCont;s") - left_out
    translations = [sum(ask.startswith(b"qRcmd") for ask in asked) for asked in (asked, careful)]
    assert translations[0] < translations[1] / 4
    wrong = expected.copy()
    wrong["b"][np.flatnonzero(kinds == Kind.PTE_WRITE)[ROUNDS // 2]] ^= 1
    assert through_gdb(tmp_path, wrong)[0].tobytes() == expected.tobytes()
