"""The tracker against the definition, on random small guests that forget fences."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervisor_model.events import Access, EventBatch, Fence, Priv
from hypervisor_model.jit import signed
from hypervisor_model.legality import LegalityTracker, Limits
from hypervisor_model.policies.machine import MachineModel
from tests.hypervisor_model.brute_legality import (
    BASE,
    PAGE,
    PAGE_FAULTS,
    SIZE,
    A,
    Ask,
    D,
    G,
    Guest,
    N,
    R,
    U,
    V,
    W,
    X,
    link,
)

ROOTS = [BASE + PAGE * i for i in range(3)]
WIDE_ROOTS = [BASE + PAGE * i for i in range(3, 5)]
MIDDLES = [BASE + PAGE * i for i in range(5, 8)]
LEAVES = [BASE + PAGE * i for i in range(8, 12)]
LEVELS = {
    **dict.fromkeys(WIDE_ROOTS, 3),
    **dict.fromkeys(ROOTS, 2),
    **dict.fromkeys(MIDDLES, 1),
    **dict.fromkeys(LEAVES, 0),
}
FRAMES = [BASE + (8 << 20) + (i << 21) for i in range(3)]
PARTIES = 24
VERDICTS = ("fresh", "stale_legal", "illegal", "undecided")


class Player:
    """Plays a random guest and asks the tracker and the definition about accesses."""

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.rng = rng = random.Random(seed)
        svadu, svvptc = rng.random() < 0.3, rng.random() < 0.3
        harts = rng.choice((1, 1, 2, 4))
        self.guest = Guest(harts=harts, svadu=svadu, svvptc=svvptc, levels=LEVELS)
        machine = MachineModel(
            ram_base=BASE, ram_size=SIZE, harts=harts, svadu=svadu, svvptc=svvptc
        )
        self.tracker = LegalityTracker(machine, [str(i) for i in range(PARTIES)], limits)
        self.may_give_up = limits is not None
        self.seen: Counter[str] = Counter()
        # Few places, so that what is written is what is fenced and accessed.
        self.top = [0, rng.choice((1, 511))]
        self.places = [rng.randrange(2) for _ in range(2)]
        self.pages = [rng.randrange(16) for _ in range(3)]

    def va(self) -> int:
        rng = self.rng
        va = rng.choice(self.pages) << 12 | rng.choice(self.places) << 21
        va |= rng.choice(self.top) << 30 | 8 * rng.randrange(4)
        if rng.random() < 0.2:
            va |= rng.choice(self.places) << 39
        elif va >> 38:
            va |= (1 << 64) - (1 << 39)
        return va

    def feed(self, events: list[EventBatch]) -> None:
        if events:
            batch = np.concatenate(events)
            self.tracker.feed(batch, np.zeros((PARTIES, len(batch)), np.int64))

    def entry(self, level: int) -> int:
        rng = self.rng
        if rng.random() < 0.15:
            return rng.choice((0, 0, 2, 1 << 8))
        if level and rng.random() < 0.6:
            below = [page for page, of in LEVELS.items() if of == level - 1]
            page = rng.choice(below) if rng.random() < 0.97 else 0x4000_0000
            return link(page, rng.choice((0, 0, 0, G)))
        bits = rng.choice((R, R | W, R | X, R | W | X, X, W))
        bits |= rng.choice((0, 0, U)) | rng.choice((0, 0, G))
        bits |= rng.choice((A | D, A | D, A | D, A, 0)) | rng.choice((0, 0, 1 << 8))
        frame = rng.choice(FRAMES)
        if level == 0 and rng.random() < 0.25:
            return N | (frame | 8 << 12) >> 2 | V | bits
        if level == 0:
            frame += PAGE * rng.randrange(2)
        elif level > 1:
            frame = 0x8000_0000 if level == 2 else 0
        return frame >> 2 | V | bits

    def store(self) -> None:
        page = self.rng.choice([*ROOTS, *WIDE_ROOTS, *MIDDLES, *MIDDLES, *LEAVES, *LEAVES])
        level = LEVELS[page]
        places = {0: self.pages, 1: self.places, 2: self.top, 3: self.places}[level]
        self.feed(self.guest.store(page, self.rng.choice(places), self.entry(level)))

    def load_space(self, hart: int) -> None:
        rng = self.rng
        asid = rng.choice((1, 2))
        if rng.random() < 0.05:
            value = 0
        elif rng.random() < 0.25:
            value = 9 << 60 | asid << 44 | rng.choice(WIDE_ROOTS) >> 12
        else:
            value = 8 << 60 | asid << 44 | rng.choice(ROOTS) >> 12
        self.feed(self.guest.write_satp(hart, value))

    def fence(self, hart: int) -> None:
        form = self.rng.choice((Fence.VA, Fence.VA, Fence.VA_ASID, Fence.VA_ASID, Fence.ASID))
        if self.rng.random() < 0.1:
            form = Fence.ALL
        if self.guest.harts > 1 and self.rng.random() < 0.4:
            self.remote_fence(hart, form)
            return
        self.feed(self.guest.fence(hart, form, self.va(), self.rng.choice((1, 2))))

    def remote_fence(self, hart: int, form: Fence) -> None:
        named = [one for one in range(self.guest.harts) if self.rng.random() < 0.7]
        size = self.rng.choice((1, PAGE, 3 * PAGE, 2 << 20))
        asid = self.rng.choice((1, 2))
        self.feed(self.guest.remote_fence(hart, named, form, self.va(), size, asid))

    def ask(self, hart: int) -> None:
        rng = self.rng
        ask = Ask(
            hart=hart,
            va=self.va(),
            access=rng.choice(list(Access)),
            priv=rng.choice((Priv.S, Priv.S, Priv.U)),
            sum=rng.random() < 0.3,
            mxr=rng.random() < 0.2,
        )
        judged = self.guest.judge(ask)
        name = {Access.READ: "load", Access.WRITE: "store", Access.FETCH: "fetch"}[ask.access]
        fault = PAGE_FAULTS[name]
        offset = ask.va & 0xFFF
        answers = [-1 - fault, -1 - {12: 1, 13: 5, 15: 7}[fault], *judged.legal]
        for frame in FRAMES:
            page = ask.va >> 12 & 15
            answers += [frame | page << 12 | offset, frame | offset, frame + PAGE | offset]
            answers.append(frame | ask.va & 0x1FFFFF)
        answers = [*dict.fromkeys(answers)][:PARTIES]
        answers += [0x1234000 | offset] * (PARTIES - len(answers))
        before = {name: vars(c).copy() for name, c in self.tracker.counts.items()}
        column = np.array([[signed(answer)] for answer in answers], np.int64)
        self.tracker.feed(self.guest.access(ask), column)
        for answer, (party, counts) in zip(answers, self.tracker.counts.items(), strict=True):
            after = vars(counts)
            (verdict,) = (v for v in VERDICTS if after[v] != before[party][v])
            if answer == judged.today:
                expected = "fresh"
            elif answer in judged.legal:
                expected = "stale_legal"
            else:
                expected = "undecided" if judged.doubt else "illegal"
            if judged.loose and expected in ("illegal", "undecided"):
                assert verdict != "fresh", (ask, hex(answer), judged)
            elif not (self.may_give_up and verdict == "undecided"):
                assert verdict == expected, (ask, hex(answer), judged)
            self.seen[verdict] += 1

    def play(self, steps: int) -> None:
        for page in LEVELS:
            # Well-formed to begin with, as far as tables go.
            level = LEVELS[page]
            below = [other for other, of in LEVELS.items() if of == level - 1]
            places = {0: self.pages, 1: self.places, 2: self.top, 3: self.places}[level]
            for index in places:
                value = link(self.rng.choice(below)) if level else self.entry(0)
                self.feed(self.guest.store(page, index, value))
        for hart in range(self.guest.harts):
            self.load_space(hart)
        for _ in range(steps):
            hart = self.rng.randrange(self.guest.harts)
            action = self.rng.random()
            if action < 0.45:
                self.store()
            elif action < 0.55:
                self.load_space(hart)
            elif action < 0.7:
                self.fence(hart)
            else:
                self.ask(hart)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
# A hart loads the space again that it has, before a remote fence which may have come earlier.
@example(473038)
# A pointer replaces an invalid entry; then the page ceases to be a table, and becomes one again.
@example(4014699479)
def test_tracker_judges_as_the_definition_does(seed: int) -> None:
    Player(seed).play(60)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.builds(
        Limits,
        records=st.integers(1, 40),
        fences=st.integers(1, 12),
        spaces=st.sampled_from((1, 2, 8)),
        states=st.sampled_from((1, 4, 64)),
        steps=st.sampled_from((1, 10, 1000)),
    ),
)
def test_limits_cost_certainty_and_never_the_truth(seed: int, limits: Limits) -> None:
    Player(seed, limits).play(60)


def test_random_guests_are_worth_the_name() -> None:
    """The guests above meet every verdict often enough to mean something."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        player = Player(seed)
        player.play(60)
        seen += player.seen
    assert min(seen[verdict] for verdict in VERDICTS) > 100, seen
