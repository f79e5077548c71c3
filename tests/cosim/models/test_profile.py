"""The profile of exits against plain sums."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.models.profile import FUNCTIONS, MARKS, USER, WINDOWS, Profiler
from hypervisor_model.events import EventBatch, Kind, Priv, empty
from hypervisor_model.jit import signed

NAMES = ("shadow", "lsp")
KERNEL = 0xFFFF_FFFF_8000_0000


def events(seed: int, count: int, step: int) -> tuple[EventBatch, list[np.ndarray]]:
    """Events at random places, up to ``step`` instructions apart, and exits at a third of them."""
    random = np.random.default_rng(seed)
    batch = empty(count)
    batch["kind"] = random.choice([Kind.ACCESS, Kind.FENCE, Kind.MARK], count)
    batch["icount"] = 1000 + np.cumsum(random.integers(0, step, count))
    batch["pc"] = signed(KERNEL) + 4 * random.integers(0, 500, count)
    batch["priv"] = random.choice([Priv.U, Priv.S, Priv.M], count)
    batch["a"] = random.integers(0, 4, count)
    taken = [random.integers(0, 3, count) * (random.integers(0, 3, count) == 0) for _ in NAMES]
    return batch, taken


def lookup(address: int) -> str:
    """Functions of 16 instructions."""
    offset = address - KERNEL
    return f"f{offset // 64}" + (f"+0x{offset % 64:x}" if offset % 64 else "")


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 400),
    st.sampled_from([2, 100, 10**6, 10**9]),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_every_exit_is_at_its_time_and_place(
    seed: int, count: int, step: int, cuts: list[int]
) -> None:
    batch, taken = events(seed, count, step)
    profiler = Profiler(NAMES)
    pieces = zip(*(np.split(one, sorted(cuts)) for one in (batch, *taken)), strict=True)
    for piece, *exits in pieces:
        profiler.feed(piece, exits)
    totals = {name: int(exits.sum()) for name, exits in zip(NAMES, taken, strict=True)}
    profile = profiler.profile(totals, lookup, {0: "zero", 1: "one"})
    over_time = profile["over_time"]
    assert over_time is not None and profile["reasons"] == {}

    start, window = int(batch["icount"][0]), over_time["window"]
    length = int(batch["icount"][-1]) - start
    assert length // window < WINDOWS
    assert window == 64 or length // (window // 2) >= WINDOWS, "no wider than needed"
    for name, exits in zip(NAMES, taken, strict=True):
        expected = [0] * (length // window + 1)
        for icount, number in zip(batch["icount"].tolist(), exits.tolist(), strict=True):
            expected[(icount - start) // window] += number
        assert over_time["exits"][name] == expected
    labels = {0: "zero", 1: "one"}
    marks = [
        {
            "at": int(event["icount"]) - start,
            "label": labels.get(int(event["a"]), f"mark {event['a']}"),
        }
        for event in batch
        if event["kind"] == Kind.MARK
    ]
    assert over_time["marks"] == marks[:MARKS]

    by_function: dict[str, dict[str, int]] = {}
    for index, event in enumerate(batch):
        place = USER if event["priv"] == Priv.U else lookup(int(event["pc"]) % 2**64).split("+")[0]
        for name, exits in zip(NAMES, taken, strict=True):
            function = by_function.setdefault(place, dict.fromkeys(NAMES, 0))
            function[name] += int(exits[index])
    by_function = {place: exits for place, exits in by_function.items() if any(exits.values())}
    order = sorted(by_function, key=lambda place: (-sum(by_function[place].values()), place))
    assert profile["by_function"] == [
        {"function": place, "exits": by_function[place]} for place in order[:FUNCTIONS]
    ]
    rest = order[FUNCTIONS:]
    assert profile["other_functions"] == {
        name: sum(by_function[place][name] for place in rest) for name in NAMES
    }


def test_what_a_source_cannot_say() -> None:
    batch, taken = events(1, 50, 10)
    batch["icount"] = -1
    profiler = Profiler(NAMES)
    profiler.feed(batch, taken)
    totals = {"shadow": int(taken[0].sum()), "lsp": int(taken[1].sum()) - 1}
    profile = profiler.profile(totals, None, {})
    assert profile["over_time"] is None
    assert set(profile["reasons"]) == {"over_time", "lsp", "functions"}
    # Without symbols each instruction stands for itself.
    assert all(set(one["exits"]) == {"shadow"} for one in profile["by_function"])
    assert {one["function"][:10] for one in profile["by_function"]} == {USER[:10], "0xffffffff"}


def test_samples_without_a_time_do_no_harm() -> None:
    batch, taken = events(3, 60, 10)
    batch["icount"][::2] = -1
    for exits in taken:
        exits[::2] = 0
    profiler = Profiler(NAMES)
    profiler.feed(batch, taken)
    totals = {name: int(exits.sum()) for name, exits in zip(NAMES, taken, strict=True)}
    over_time = profiler.profile(totals, lookup, {})["over_time"]
    assert over_time is not None
    assert {name: sum(counts) for name, counts in over_time["exits"].items()} == totals


def test_a_run_without_events_or_exits() -> None:
    profile = Profiler(NAMES).profile(dict.fromkeys(NAMES, 0), None, {})
    assert profile["over_time"] is None and profile["by_function"] == []
    profiler = Profiler(NAMES)
    batch, taken = events(1, 50, 10)
    profiler.feed(batch, [np.zeros_like(exits) for exits in taken])
    over_time = profiler.profile(dict.fromkeys(NAMES, 0), None, {})["over_time"]
    assert over_time is not None and not any(map(any, over_time["exits"].values()))
