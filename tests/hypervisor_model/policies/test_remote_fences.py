"""Remote fences: one exit at the call, and on each hart that it names what its own fences do."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor_model import policies
from hypervisor_model.errors import ModelError
from hypervisor_model.events import Access, EventBatch, Kind, Priv
from hypervisor_model.exits import Exit
from hypervisor_model.policies import MachineModel
from hypervisor_model.tlb import TlbConfig
from tests.hypervisor_model.guests import PAGE, USER, A, D, G, Guest, R, V, W, X, leaf

VA = 0x4000_0000
SIZE = 64 << 20
FENCES = {Exit.FENCE, Exit.FENCE_FAST, Exit.FENCE_GLOBAL, Exit.REMOTE_FENCE}


class Caller(Guest):
    """A guest whose remote fences may be told as what each hart does for them, page by page."""

    def __init__(self, harts: int, *, apart: bool) -> None:
        super().__init__(harts=harts, size=SIZE)
        self.apart = apart
        self.calls = 0

    def call(self, harts: list[int], va: int | None, size: int, asid: int | None) -> None:
        self.calls += 1
        if not self.apart:
            self.remote_fence(harts, va, size, asid)
            return
        for hart in sorted(harts):
            if va is None:
                self.fence(None, asid, hart=hart)
                continue
            for page in range(va // PAGE, (va + size - 1) // PAGE + 1) if size else ():
                self.fence(page * PAGE, asid, hart=hart)


def play(seed: int, harts: int, *, apart: bool) -> tuple[EventBatch, int]:
    """A random guest of several harts that share three address spaces."""
    rng = random.Random(seed)
    guest = Caller(harts, apart=apart)
    roots = [guest.page() for _ in range(3)]
    frames = [guest.page() for _ in range(4)]
    pages = [VA + i * PAGE for i in range(3)] + [VA + (2 << 20) + i * PAGE for i in range(2)]
    for hart in range(harts):
        guest.load(rng.choice(roots), 1 + hart % 2, hart=hart)
    for _ in range(120):
        hart, va = rng.randrange(harts), rng.choice(pages)
        action = rng.random()
        if action < 0.3:
            bits = rng.choice((V | R | W | X | A | D, V | R | A, USER | G, 0))
            guest.store(
                guest.entry(rng.choice(roots), va), leaf(rng.choice(frames), bits), hart=hart
            )
        elif action < 0.4:
            guest.load(rng.choice(roots), rng.choice((1, 2)), hart=hart)
        elif action < 0.5:
            named = [one for one in range(harts) if rng.random() < 0.6]
            size = rng.choice((0, 1, PAGE, 3 * PAGE, 2 << 20))
            first = rng.choice((None, va + rng.randrange(PAGE)))
            guest.call(named, first, size, rng.choice((None, 1, 2)))
        elif action < 0.55:
            guest.fence(rng.choice((None, va)), rng.choice((None, 1)), hart=hart)
        else:
            kind = rng.choice((Access.READ, Access.WRITE))
            guest.access(va, kind, priv=rng.choice((Priv.S, Priv.U)), hart=hart)
    return guest.batch(), guest.calls


def outcome(spec: str, machine: MachineModel, batch: EventBatch) -> dict[str, Any]:
    policy = policies.make(spec, machine)
    answers = policy.feed(batch)[batch["kind"] == Kind.ACCESS]
    result = policy.result()
    return {
        "answers": answers.tolist(),
        "exits": {kind.key: n for kind, n in result.exits.items() if kind not in FENCES},
        "misses": (result.tlb_misses, result.tlb_hits, result.walk_refs),
        "calls": result.exits.get(Exit.REMOTE_FENCE),
        "at_calls": policy.exits_taken[batch["kind"] == Kind.REMOTE_FENCE].tolist(),
    }


@pytest.mark.parametrize("spec", policies.POLICIES)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), harts=st.sampled_from((2, 4, 8)))
def test_a_remote_fence_is_the_fences_of_the_harts_that_it_names(
    spec: str, seed: int, harts: int
) -> None:
    called, calls = play(seed, harts, apart=False)
    apart, _ = play(seed, harts, apart=True)
    rng = random.Random(seed)
    machine = MachineModel(
        ram_size=SIZE,
        harts=harts,
        # Each fence exit displaces TLB entries, and there are more of them apart.
        footprint_data=0,
        footprint_code=0,
        tlb=rng.choice((TlbConfig(), TlbConfig((2, 2), (2, 2), (4, 2), superpages=True))),
        walk_cache_ways=rng.choice((0, 2)),
        setup=rng.choice(("h", "base")),
    )
    one, other = outcome(spec, machine, called), outcome(spec, machine, apart)
    for key in ("answers", "exits", "misses"):
        assert one[key] == other[key], key
    assert one["calls"] == (None if spec == "native" else calls)
    assert one["at_calls"] == [0 if spec == "native" else 1] * calls


def test_lsp_synchronises_a_space_once_for_all_harts_of_a_call() -> None:
    counts = []
    for harts in ([0], [0, 1], [0, 1, 2, 3]):
        guest = Guest(harts=4, size=SIZE)
        root = guest.page()
        for hart in range(4):
            guest.load(root, 1, hart=hart)
        guest.map(root, VA, guest.page())
        for hart in range(4):
            guest.access(VA, hart=hart)
        guest.remote_fence(harts)
        policy = policies.make("lsp", MachineModel(ram_size=SIZE, harts=4))
        policy.feed(guest.batch())
        counts.append(policy.result().to_json()["sync_reads"])
    assert counts == [3, 3, 3]


@pytest.mark.parametrize("spec", policies.POLICIES)
def test_guests_of_one_hart_have_no_such_exit_in_their_results(spec: str) -> None:
    policy = policies.make(spec, MachineModel(ram_size=SIZE))
    assert Exit.REMOTE_FENCE not in policy.result().exits


def test_a_fence_whose_bytes_wrap_around_covers_everything() -> None:
    for va, size in ((VA, -1), (VA, 1 << 63), ((1 << 63) - PAGE, 2 * PAGE)):
        guest = Guest(harts=2, size=SIZE)
        root = guest.page()
        for hart in range(2):
            guest.load(root, 1, hart=hart)
        entry = guest.map(root, VA, guest.page())
        guest.access(VA, hart=1)
        new = guest.page()
        guest.store(entry, leaf(new))
        guest.remote_fence([1], va, size)
        guest.access(VA, hart=1)
        policy = policies.make("nested", MachineModel(ram_size=SIZE, harts=2))
        assert policy.feed(guest.batch())[-1] == new


def test_a_hart_that_the_machine_does_not_have_is_refused() -> None:
    guest = Guest(harts=2, size=SIZE)
    guest.remote_fence([1, 3])
    policy = policies.make("native", MachineModel(ram_size=SIZE, harts=2))
    with pytest.raises(ModelError, match="a remote fence of hart 3, but the machine has 2"):
        policy.feed(guest.batch())


def test_more_harts_than_a_call_can_name_may_fence_by_themselves() -> None:
    guest = Guest(harts=64, size=SIZE)
    root = guest.page()
    guest.load(root, 1, hart=63)
    entry = guest.map(root, VA, guest.page())
    guest.access(VA, hart=63)
    new = guest.page()
    guest.store(entry, leaf(new))
    guest.fence(VA, hart=63)
    guest.access(VA, hart=63)
    policy = policies.make("shadow", MachineModel(ram_size=SIZE, harts=64))
    assert policy.feed(guest.batch())[-1] == new
