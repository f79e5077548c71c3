"""The merge of two sources: what is equal goes through whole, and whatever differs is noticed."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.session import merge as merge_module
from cosim.session.merge import Merge
from hypervisor_model.events import (
    FLAG_STOP,
    EventBatch,
    Fence,
    Kind,
    Priv,
    PteOp,
    Satp,
    empty,
)
from hypervisor_model.isa import pte

COMMON = (Kind.TABLE_ADD, Kind.PTE_WRITE, Kind.FENCE, Kind.SATP_WRITE, Kind.MARK)
COMPARED = ("pc", "a", "b", "c", "kind", "sub", "hart", "priv", "flags", "size")


def event(kind: Kind, number: int, **fields: int) -> EventBatch:
    """Return one event that no other number gives."""
    made = empty(1)
    made["kind"], made["a"], made["pc"] = kind, number, 0x1000 + 4 * number
    made["icount"], made["priv"] = 10 * number, Priv.S
    for name, value in fields.items():
        made[name] = value
    return made


def joined(parts: list[EventBatch]) -> EventBatch:
    return np.concatenate([empty(0), *parts])


def as_gdb(stream: EventBatch) -> EventBatch:
    """Return what gdb sees of the plugin's stream: no accesses, no counts."""
    seen = stream[~np.isin(stream["kind"], (Kind.ACCESS, Kind.PAGE_FAULT))].copy()
    seen["icount"] = -1
    return seen


def sample(number: int, **fields: int) -> EventBatch:
    return event(Kind.ACCESS, number, icount=-1, flags=FLAG_STOP, **fields)


def run(
    stream: EventBatch,
    batches: list[EventBatch],
    *,
    at_end: bool = True,
    late_sites: tuple[int, ...] = (),
    hardware_ad: bool = False,
    killed: bool = False,
) -> tuple[Merge, EventBatch]:
    merge = Merge(stream, hardware_ad=hardware_ad, cut=killed)
    out = [piece for batch in batches for piece in merge.take(batch)]
    out += merge.finish(at_end=at_end, late_sites=late_sites)
    return merge, joined(out)


@st.composite
def streams(draw: st.DrawFn, least: int = 0) -> EventBatch:
    kinds = draw(
        st.lists(
            st.sampled_from((*COMMON, Kind.ACCESS, Kind.ACCESS, Kind.PAGE_FAULT)),
            min_size=least,
            max_size=30,
        )
    )
    return joined([event(kind, number) for number, kind in enumerate(kinds)])


def cut(batch: EventBatch, cuts: list[int]) -> list[EventBatch]:
    return np.split(batch, sorted(min(at, len(batch)) for at in cuts))


CUTS = st.lists(st.integers(0, 40), max_size=4)


@given(streams(), CUTS)
def test_equal_streams_come_out_as_the_plugins(stream: EventBatch, cuts: list[int]) -> None:
    merge, out = run(stream, cut(as_gdb(stream), cuts))
    assert (out == stream).all() and len(out) == len(stream)
    common = len(as_gdb(stream))
    assert merge.agreement.to_json() == {
        "events": common,
        "equal": common,
        "late": 0,
        "not_reached": 0,
        "difference": None,
    }


@given(streams(), CUTS, st.data())
def test_samples_stand_before_the_next_common_event(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    at = sorted(data.draw(st.lists(st.integers(0, len(seen)), max_size=8)))
    samples = joined([sample(1000 + number) for number in range(len(at))])
    # What gdb stepped is a sample, too: the plugin has the access itself.
    samples["flags"][::2] = 0
    merge, out = run(stream, cut(np.insert(seen, at, samples), cuts))
    is_sample = out["a"] >= 1000
    assert out["a"][is_sample].tolist() == [1000 + number for number in range(len(at))]
    assert (out["flags"][is_sample] & FLAG_STOP).all()
    assert (out[~is_sample] == stream).all()
    assert merge.agreement.equal == len(seen)
    positions = np.flatnonzero(~np.isin(stream["kind"], (Kind.ACCESS, Kind.PAGE_FAULT)))
    for number, place in enumerate(at):
        following = out[np.flatnonzero(out["a"] == 1000 + number)[0] + 1 :]
        following = following[following["a"] < 1000]
        expected = stream[positions[place] :] if place < len(positions) else stream[:0]
        assert len(following) == len(expected) and (following == expected).all()


@given(streams(), CUTS, st.data())
def test_what_comes_ahead_changes_nothing(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    at = sorted(data.draw(st.lists(st.integers(0, len(seen)), max_size=8)))
    samples = joined([sample(1000 + number) for number in range(len(at))])
    batches = cut(np.insert(seen, at, samples), cuts)
    _, expected = run(stream, batches)
    out: list[EventBatch] = []
    with mock.patch.object(merge_module, "_CHUNK", 2):
        merge = Merge(stream)
        for batch in batches:
            out += merge.take(batch)
            while (piece := merge.ahead()) is not None:
                out.append(piece)
            # No event that gdb has still to see, and all but a small piece before it.
            shown = as_gdb(joined(out))
            assert (shown["flags"] & FLAG_STOP == 0).sum() == merge.reached
            there = np.flatnonzero(~np.isin(stream["kind"], (Kind.ACCESS, Kind.PAGE_FAULT)))
            end = there[merge.reached] if merge.reached < len(there) else len(stream)
            assert end - (joined(out)["a"] < 1000).sum() < 2
        out += merge.finish(at_end=True, late_sites=())
    assert (joined(out) == expected).all() and len(joined(out)) == len(expected)


@given(streams(1), CUTS, st.data())
def test_a_changed_field_is_a_difference(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    if not len(seen):
        return
    at = data.draw(st.integers(0, len(seen) - 1))
    name = data.draw(st.sampled_from([one for one in COMPARED if one != "kind"]))
    seen[name][at] ^= 1
    merge, out = run(stream, cut(seen, cuts))
    difference = merge.agreement.difference
    if (name, seen["kind"][at]) == ("c", Kind.SATP_WRITE):
        # It says which process owns the address space, as each source finds it.
        assert difference is None
        return
    assert difference is not None
    # If the other field says that it is a virtual machine's event, it is another event.
    assert difference.equal == at or not merge.agreement.equal < at
    assert difference.plugin is not None or difference.gdb is not None
    # The models get the plugin's stream, whole, all the same.
    assert (out == stream).all() and len(out) == len(stream)


@given(streams(1), CUTS, st.data())
def test_a_missing_event_is_a_difference(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    if not len(seen):
        return
    at = data.draw(st.integers(0, len(seen) - 1))
    merge, out = run(stream, cut(np.delete(seen, at), cuts))
    assert merge.agreement.difference is not None
    assert (out == stream).all() and len(out) == len(stream)


@given(streams(), CUTS, st.data())
def test_a_further_event_is_a_difference(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    at = data.draw(st.integers(0, len(seen)))
    kind = data.draw(st.sampled_from((*COMMON, Kind.PAGE_FAULT)))
    further = event(kind, 500, icount=-1)
    merge, out = run(stream, cut(np.insert(seen, at, further), cuts))
    difference = merge.agreement.difference
    assert difference is not None and difference.gdb is not None
    assert "0x17d0" in difference.gdb  # pc of event 500
    assert (out == stream).all() and len(out) == len(stream)


@given(streams(), CUTS, st.data())
def test_what_gdb_does_not_reach_is_the_plugins_alone(
    stream: EventBatch, cuts: list[int], data: st.DataObject
) -> None:
    seen = as_gdb(stream)
    count = data.draw(st.integers(0, len(seen)))
    merge, out = run(stream, cut(seen[:count], cuts), at_end=False)
    assert merge.agreement.difference is None
    assert merge.agreement.not_reached == len(seen) - count
    assert (out == stream).all() and len(out) == len(stream)


def test_a_killed_plugin_lacks_what_it_saw_in_part() -> None:
    whole = joined([event(Kind.FENCE, 0), event(Kind.SATP_WRITE, 1), event(Kind.PAGE_FAULT, 2)])
    seen = joined([event(Kind.FENCE, 0, icount=-1), sample(7), *np.split(whole[1:], 2)])
    for cuts in ([], [1], [2], [3]):
        merge, out = run(whole[:1], cut(seen, cuts), killed=True)
        assert merge.agreement.difference is None
        assert (merge.agreement.events, merge.agreement.equal) == (1, 1)
        assert list(out["kind"]) == [Kind.FENCE, Kind.ACCESS, Kind.SATP_WRITE]
        merge, _ = run(whole[:1], cut(seen, cuts))
        assert merge.agreement.difference is not None
    # What it did see must still be equal.
    merge, _ = run(whole[:1], [event(Kind.FENCE, 5, icount=-1)], killed=True)
    assert merge.agreement.difference is not None


def test_sites_are_where_something_was_executed() -> None:
    stream = joined(
        [
            event(Kind.SATP_WRITE, 0, flags=FLAG_STOP),
            event(Kind.PTE_WRITE, 1),
            event(Kind.FENCE, 2),
            event(Kind.FENCE, 2),
            event(Kind.SATP_WRITE, 3, pc=-8),
            event(Kind.FENCE_ORDER, 4),
        ]
    )
    assert Merge(stream).sites() == {0x1008, (1 << 64) - 8, 0x1010}


def test_a_difference_shows_both_sides() -> None:
    stream = joined([event(Kind.FENCE, number) for number in range(9)])
    seen = as_gdb(stream)
    seen["a"][7] = 0x99
    merge, _ = run(stream, [seen])
    shown = merge.agreement.to_json()["difference"]
    assert shown["event"] == 7 and shown["fields"] == ["a"]
    assert shown["gdb"] == "fence sfence.vma at 0x101c S"
    assert shown["plugin"] == "fence sfence.vma at 0x101c S"
    pcs = [0x1008, 0x100C, 0x1010, 0x1014, 0x1018]
    for side in ("gdb", "plugin"):
        lines = shown["last_events"][side]
        assert [line.split(" at ")[1] for line in lines] == [f"{pc:#x} S" for pc in pcs]


def test_page_faults_of_gdb_must_be_the_plugins() -> None:
    fault = event(Kind.PAGE_FAULT, 1, b=15)
    stream = joined([event(Kind.FENCE, 0), fault, event(Kind.FENCE, 2)])
    seen = stream.copy()
    seen["icount"] = -1
    merge, _ = run(stream, [seen])
    assert merge.agreement.difference is None
    seen["b"][1] = 13
    merge, _ = run(stream, [seen])
    assert merge.agreement.difference is not None
    assert merge.agreement.difference.fields == ("b",)
    # The plugin saw it elsewhere.
    elsewhere = fault.copy()
    elsewhere["icount"] = -1
    merge, _ = run(stream, [seen[[0, 2]], elsewhere])
    assert merge.agreement.difference is not None


def test_gdb_sees_only_some_events_of_virtual_machines() -> None:
    virtual = event(Kind.SATP_WRITE, 1, sub=Satp.VSATP)
    stream = joined([event(Kind.FENCE, 0), virtual, event(Kind.FENCE, 2)])
    for seen in (stream.copy(), stream[[0, 2]].copy()):
        seen["icount"] = -1
        merge, _ = run(stream, [seen])
        assert merge.agreement.difference is None
        assert merge.agreement.events == merge.agreement.equal == 2


def test_updates_by_hardware_are_not_compared() -> None:
    leaf = pte.V | pte.R | pte.W | pte.A
    update = event(Kind.PTE_WRITE, 1, b=leaf, c=leaf | pte.D, sub=PteOp.HARDWARE_AD)
    store = event(Kind.PTE_WRITE, 2, b=leaf, c=0, size=8)
    stream = joined([event(Kind.FENCE, 0), store])
    replaced = event(Kind.PTE_WRITE, 2, b=leaf | pte.D, c=0, size=8)
    seen = as_gdb(joined([event(Kind.FENCE, 0), update, replaced]))
    merge, out = run(stream, [seen], hardware_ad=True)
    assert merge.agreement.difference is None
    assert (out == stream).all()
    # Without such a MMU, the replaced value must be the same.
    merge, _ = run(stream, [seen])
    assert merge.agreement.difference is not None


def test_the_mmu_may_have_used_a_table_before_the_plugin_reads_it() -> None:
    leaf = pte.V | pte.R | pte.X
    stream = joined([event(Kind.TABLE_ENTRY, 1, c=leaf | pte.A), event(Kind.FENCE, 2)])
    seen = as_gdb(stream)
    seen["c"][0] = leaf
    assert run(stream, [seen], hardware_ad=True)[0].agreement.difference is None
    assert run(stream, [seen])[0].agreement.difference is not None
    seen["c"][0] = leaf | pte.W
    assert run(stream, [seen], hardware_ad=True)[0].agreement.difference is not None


def test_changes_without_a_store_are_not_compared_and_the_plugins_are_kept() -> None:
    fence, end = event(Kind.FENCE, 0), event(Kind.FENCE, 3)
    ours = event(Kind.PTE_WRITE, 1, c=5, sub=PteOp.OTHER)
    theirs = event(Kind.PTE_WRITE, 2, c=5, sub=PteOp.OTHER)
    stream = joined([fence, end, theirs])
    merge, out = run(stream, [as_gdb(joined([fence, ours, end]))])
    assert merge.agreement.difference is None
    assert merge.agreement.events == merge.agreement.equal == 2
    assert (out == stream).all()
    # A store that gdb only found afterwards is a difference.
    store = event(Kind.PTE_WRITE, 1, c=5, size=8)
    merge, _ = run(joined([fence, store, end]), [as_gdb(joined([fence, ours, end]))])
    assert merge.agreement.difference is not None


@pytest.mark.parametrize("found", [True, False])
def test_fences_in_late_text(found: bool) -> None:
    """Only the plugin sees a fence in text that appeared; gdb's search must find the text later."""
    late = event(Kind.FENCE, 50, sub=Fence.SFENCE_VMA, pc=-0x7FFFFFFF0000)
    stream = joined([event(Kind.FENCE, 0), late, late, event(Kind.PTE_WRITE, 2), late])
    seen = as_gdb(stream)[[0, 3]]
    sites = (2**64 - 0x7FFFFFFF0000,) if found else ()
    merge, out = run(stream, [seen], late_sites=sites)
    assert merge.agreement.late == 3
    assert (merge.agreement.difference is None) is found
    assert (out == stream).all()


A, B, C = 0xA, 0xB, 0xC
LATE = 0x8040_0000


def loads(number: int, old: int, new: int, pc: int) -> EventBatch:
    """Return a write of ``satp`` and the root that it makes live, as one place tells them."""
    written = event(Kind.SATP_WRITE, 0, a=old, b=new, pc=pc)
    return joined([written, event(Kind.TABLE_ADD, number, pc=pc, sub=1)])


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("cuts", [[], [1], [3], [4]])
def test_a_late_write_of_satp(found: bool, cuts: list[int]) -> None:
    """gdb finds at its next stop what ``satp`` holds, and compares all the rest."""
    fence = event(Kind.FENCE, 50, pc=LATE + 4)
    rest = [event(Kind.PTE_WRITE, number) for number in (2, 3)]
    start = event(Kind.FENCE, 0)
    stream = joined([start, event(Kind.ACCESS, 1), loads(7, A, B, LATE), fence, *rest])
    seen = as_gdb(joined([start, loads(7, A, B, 0x5000), *rest]))
    merge, out = run(stream, cut(seen, cuts), late_sites=(LATE, LATE + 4) if found else ())
    assert (out == stream).all() and len(out) == len(stream)
    assert merge.agreement.late == 2
    assert merge.agreement.not_reached == 0
    if found:
        assert merge.agreement.difference is None
    else:
        assert merge.agreement.difference is not None
        assert merge.agreement.difference.plugin is not None
        assert "satp_write" in merge.agreement.difference.plugin


@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("at_end", [True, False])
def test_two_late_writes_of_satp(back: bool, found: bool, at_end: bool) -> None:
    """gdb does not know the tables in between, so nothing behind them is compared."""
    last = A if back else C
    start, store = event(Kind.FENCE, 0), event(Kind.PTE_WRITE, 2)
    stream = joined([start, loads(7, A, B, LATE), loads(8, B, last, LATE), store])
    if at_end:
        stream = stream[:-1]
    notes = [] if back else [loads(8, A, C, 0x5000)]
    seen = as_gdb(joined([start, *notes, *([] if at_end else [store])]))
    merge, out = run(stream, [seen], late_sites=(LATE,) if found else ())
    assert (out == stream).all() and len(out) == len(stream)
    assert merge.differs is not found
    assert merge.agreement.equal == 1
    assert merge.agreement.not_reached == len(stream) - 1


def test_a_late_write_of_satp_excuses_nothing_that_only_gdb_saw() -> None:
    stream = joined([loads(7, A, B, LATE), event(Kind.PTE_WRITE, 2)])
    further = event(Kind.PTE_WRITE, 3)
    merge, _ = run(stream, [as_gdb(further)], late_sites=(LATE,))
    assert merge.differs
