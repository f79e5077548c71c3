"""No policy ever answers what the specification forbids, whatever the guest does or forgets.

Random guests store to tables, share and relink them, switch address spaces and fence now and then;
what is legal is decided by the definition (:mod:`tests.hypervisor_model.brute_legality`), which
knows nothing of policies.
"""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor_model import policies
from hypervisor_model.events import FLAG_STOP, Access, EventBatch, Priv
from hypervisor_model.jit import signed
from hypervisor_model.policies import MachineModel, Policy
from hypervisor_model.tlb import TlbConfig
from tests.hypervisor_model.brute_legality import (
    BASE,
    PAGE,
    SIZE,
    A,
    Ask,
    D,
    R,
    U,
    V,
    W,
    X,
    link,
)
from tests.hypervisor_model.test_legality_brute import FRAMES, LEVELS, Player

VARIANTS = (
    *policies.POLICIES,
    "shadow:fill=whole",
    "shadow:roots=switch",
    "shadow:roots=1",
    "lsp:fence_global=drop",
    "lsp:fast_path=off,roots=1",
    "lsp:links=fence",
    "unsync:flood=1,prefetch=1",
    "oos:tables=1,zero_writes=1",
    "ssp:root_buffer=1",
)


class PolicyPlayer(Player):
    """Asks policies where :class:`Player` asks the tracker."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rng = random.Random(~seed)
        machine = MachineModel(
            ram_base=BASE,
            ram_size=SIZE,
            harts=self.guest.harts,
            svadu=self.guest.svadu,
            svvptc=self.guest.svvptc,
            setup=rng.choice(("h", "base")),
            # Large enough to keep what is stale, or too small to keep anything.
            tlb=rng.choice((TlbConfig(), TlbConfig((1, 1), (1, 1), None))),
            walk_cache_ways=rng.choice((0, 4)),
            gstage_page=rng.choice((4096, 2 << 20)),
        )
        self.policies = {spec: policies.make(spec, machine) for spec in VARIANTS}
        self.stale = 0
        self.asked = 0

    def entry(self, level: int) -> int:
        """Mostly a link or a leaf that allows all, so that most accesses succeed."""
        if self.rng.random() < 0.2:
            return super().entry(level)
        if level:
            return link(self.rng.choice([page for page, of in LEVELS.items() if of == level - 1]))
        user = self.rng.choice((0, 0, U))
        frame = self.rng.choice(FRAMES) + PAGE * self.rng.randrange(2)
        return frame >> 2 | V | R | W | X | A | D | user

    def feed(self, events: list[EventBatch]) -> None:
        if events:
            batch = np.concatenate(events)
            for policy in self.policies.values():
                policy.feed(batch)

    def ask(self, hart: int) -> None:
        rng = self.rng
        ask = Ask(
            hart=hart,
            va=self.va(),
            access=rng.choice((Access.READ, Access.READ, Access.WRITE, Access.FETCH)),
            priv=rng.choice((Priv.S, Priv.S, Priv.S, Priv.U)),
            sum=rng.random() < 0.6,
            mxr=rng.random() < 0.2,
        )
        judged = self.guest.judge(ask)
        legal = {signed(answer) for answer in judged.legal}
        event = self.guest.access(ask)
        sample = event.copy()
        sample["flags"] |= FLAG_STOP
        for spec, policy in self.policies.items():
            before = counted(policy)
            (probed,) = policy.feed(sample)
            assert counted(policy) == before, (spec, "a sample was counted")
            (answer,) = policy.feed(event)
            assert probed == answer, (spec, ask, "a sample sees what the access will get")
            assert judged.doubt or answer in legal, (spec, ask, hex(answer), judged)
            self.stale += answer != signed(judged.today)
            self.asked += 1


def counted(policy: Policy) -> object:
    return policy.result().to_json()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_policies_answer_legally(seed: int) -> None:
    PolicyPlayer(seed).play(80)


def test_random_guests_show_staleness() -> None:
    """The guests above forget enough fences for stale answers not to be rare."""
    players = [PolicyPlayer(seed) for seed in range(20)]
    for player in players:
        player.play(80)
    asked, stale = (sum(getattr(p, name) for p in players) for name in ("asked", "stale"))
    assert stale > asked / 100, (asked, stale)
