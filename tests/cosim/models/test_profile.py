"""The profile of exits against plain sums."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cosim.models.attribution import USER
from cosim.models.profile import MARKS, WINDOWS, Profiler
from hypervisor_model.events import EventBatch, Kind, Priv, empty
from hypervisor_model.exits import Exit
from hypervisor_model.jit import signed
from hypervisor_model.policies import PolicyResult

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


def counted(exits: int, misses: int | None) -> PolicyResult:
    """The result of a policy that counted only these."""
    return PolicyResult(
        exits={Exit.FENCE: exits},
        tlb_misses=misses,
        tlb_hits=None,
        tlb_displaced=None,
        walk_refs=None,
        walk_cache_hits=None,
        counters={},
        reasons={} if misses is not None else {"tlb_misses": "filtered"},
    )


def nothing(taken: list[np.ndarray]) -> list[np.ndarray]:
    """No misses at any event."""
    return [np.zeros_like(one) for one in taken]


def results(taken: list[np.ndarray]) -> dict[str, PolicyResult]:
    """The results of policies that had ``taken`` as exits, and no misses."""
    return {name: counted(int(one.sum()), 0) for name, one in zip(NAMES, taken, strict=True)}


def lookup(address: int) -> str:
    """Functions of 16 instructions."""
    offset = address - KERNEL
    return f"f{offset // 64}" + (f"+0x{offset % 64:x}" if offset % 64 else "")


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
        profiler.feed(piece, exits, nothing(exits))
    profile = profiler.profile(results(taken), lookup, {0: "zero", 1: "one"})
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


def test_what_a_source_cannot_say() -> None:
    batch, taken = events(1, 50, 10)
    batch["icount"] = -1
    profiler = Profiler(NAMES)
    profiler.feed(batch, taken, nothing(taken))
    sums = [int(one.sum()) for one in taken]
    counts = {"shadow": counted(sums[0], None), "lsp": counted(sums[1] - 1, 0)}
    profile = profiler.profile(counts, None, {})
    assert profile["over_time"] is None
    assert set(profile["reasons"]) == {"over_time", "lsp", "shadow.misses", "functions"}
    assert profile["reasons"]["shadow.misses"] == "filtered"
    # Without symbols each instruction stands for itself.
    functions = profile["causes"]["functions"]
    assert all(set(one["exits"]) == {"shadow"} for one in functions)
    assert all(set(one["misses"]) == {"lsp"} for one in functions)
    assert {(one["function"] or "")[:10] for one in functions} <= {"", USER[:10], "0xffffffff"}


def test_samples_without_a_time_do_no_harm() -> None:
    batch, taken = events(3, 60, 10)
    batch["icount"][::2] = -1
    for exits in taken:
        exits[::2] = 0
    profiler = Profiler(NAMES)
    profiler.feed(batch, taken, nothing(taken))
    over_time = profiler.profile(results(taken), lookup, {})["over_time"]
    assert over_time is not None
    for name, exits in zip(NAMES, taken, strict=True):
        assert sum(over_time["exits"][name]) == exits.sum()


def test_a_run_without_events_or_exits() -> None:
    none = dict.fromkeys(NAMES, counted(0, 0))
    profile = Profiler(NAMES).profile(none, None, {})
    assert profile["over_time"] is None
    assert profile["causes"] == {"functions": [], "sites": [], "spaces": [], "stacks": []}
    profiler = Profiler(NAMES)
    batch, taken = events(1, 50, 10)
    profiler.feed(batch, nothing(taken), nothing(taken))
    over_time = profiler.profile(none, None, {})["over_time"]
    assert over_time is not None and not any(map(any, over_time["exits"].values()))
