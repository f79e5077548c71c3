"""The fence checker against the definition, on random small guests that forget fences."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervisor_model.events import Access, EventBatch, Fence, Kind, Order, Priv
from hypervisor_model.fences import CheckerLimits, FenceChecker
from hypervisor_model.hazards import Hazard
from hypervisor_model.policies.machine import MachineModel
from tests.hypervisor_model.brute_fences import HartCache
from tests.hypervisor_model.brute_legality import BASE, PAGE, SIZE, Ask, R, W, X, event
from tests.hypervisor_model.test_legality_brute import LEVELS, Player

TYPES = (Hazard.MEMORY_TYPE_CHANGED, Hazard.MEMORY_ORDER_CHANGED)


class Checked(Player):
    """Plays a random guest (:class:`Player`) and asks the checker instead of the tracker."""

    def __init__(self, seed: int, limits: CheckerLimits | None = None) -> None:
        super().__init__(seed)
        guest = self.guest
        guest.svpbmt = self.rng.random() < 0.5
        machine = MachineModel(
            ram_base=BASE,
            ram_size=SIZE,
            harts=guest.harts,
            svadu=guest.svadu,
            svvptc=guest.svvptc,
            svnapot=False,
            svpbmt=guest.svpbmt,
        )
        self.checker = FenceChecker(machine, limits=limits)
        self.limited = limits is not None
        addresses = {self.va() & ~0xFFF for _ in range(6)}
        self.watched = sorted(addresses)
        self.caches = [HartCache(guest, hart, self.watched) for hart in range(guest.harts)]
        self.asked: Counter[tuple[bool, bool]] = Counter()
        self.acts = [[0] * guest.harts for _ in range(guest.harts)]
        """How much each cache had seen when a hart did something last."""
        self.actor: int | None = None
        self.svinval = self.rng.random() < 0.5
        self.switches = self.rng.random() < 0.4

    def va(self) -> int:
        if hasattr(self, "watched") and self.rng.random() < 0.9:
            return self.rng.choice(self.watched) | 8 * self.rng.randrange(4)
        return super().va()

    def feed(self, events: list[EventBatch]) -> None:
        if events:
            # The hart that stored runs a program again at once, so that its fences are due.
            back = event(Kind.MARK, hart=0)
            self.checker.feed(np.concatenate([*events, back]))
            self.done()
        for cache in self.caches:
            cache.read_all()

    def done(self) -> None:
        """What the actor called for later came after this."""
        if self.actor is not None:
            self.acts[self.actor] = [cache.moment() for cache in self.caches]
        self.actor = None

    def load_space(self, hart: int) -> None:
        self.actor = hart
        super().load_space(hart)

    def entry(self, level: int) -> int:
        while True:
            value = super().entry(level)
            # Other tests look at NAPOT.
            if not value >> 63:
                break
        if self.guest.svpbmt and value & (R | W | X):
            value |= self.rng.choice((0, 0, 1, 1, 2, 3)) << 61
        return value

    def store(self) -> None:
        pages = [page for page in LEVELS if page in self.guest.live]
        if not pages:
            return
        page = self.rng.choice(pages)
        level = LEVELS[page]
        places = {0: self.pages, 1: self.places, 2: self.top, 3: self.places}[level]
        self.actor = 0
        self.feed(self.guest.store(page, self.rng.choice(places), self.entry(level)))

    def fence(self, hart: int) -> None:
        if self.switches and self.rng.random() < 0.2:
            adue = self.rng.random() < 0.5
            self.caches[hart].switch(adue)
            self.feed(self.guest.switch(hart, adue))
            return
        form = self.rng.choice((Fence.VA, Fence.VA_ASID, Fence.VA_ASID, Fence.ASID, Fence.ALL))
        va, asid = self.va(), self.rng.choice((1, 2))
        if self.guest.harts > 1 and self.rng.random() < 0.3:
            self.remote_fence(hart, form)
            return
        self.actor = hart
        if not self.svinval or self.rng.random() < 0.3:
            self.caches[hart].fence(form, va, asid)
            self.feed(self.guest.fence(hart, form, va, asid))
            return
        match self.rng.choice(("order", "fence", "fence", "done")):
            case "order":
                self.actor = None
                self.caches[hart].w_inval()
                self.feed(self.guest.order(hart, Order.SFENCE_W_INVAL))
            case "fence":
                self.caches[hart].sinval(form, va, asid)
                self.feed(self.guest.fence(hart, form, va, asid, Fence.SINVAL_VMA))
            case "done":
                self.actor = None
                self.caches[hart].inval_ir()
                self.feed(self.guest.order(hart, Order.SFENCE_INVAL_IR))

    def remote_fence(self, hart: int, form: Fence) -> None:
        named = [one for one in range(self.guest.harts) if self.rng.random() < 0.7]
        va, asid = self.va(), self.rng.choice((1, 2))
        size = self.rng.choice((1, PAGE, 3 * PAGE, 2 << 20))
        events = self.guest.remote_fence(hart, named, form, va, size, asid)
        for one in named:
            moment = self.acts[hart][one]
            self.caches[one].fenced_since(moment, form, va, va + size - 1, asid)
            for act in self.acts:
                act[one] += act[one] > moment
        self.feed(events)

    def ask(self, hart: int) -> None:
        rng = self.rng
        ask = Ask(
            hart=hart,
            va=rng.choice(self.watched) | 8 * rng.randrange(4),
            access=rng.choice(list(Access)),
            priv=rng.choice((Priv.S, Priv.S, Priv.U)),
            sum=rng.random() < 0.3,
            mxr=rng.random() < 0.2,
        )
        self.guest.svadu = self.caches[hart].adue
        today = self.guest.today(ask)
        before, doubts = self.checker.hazards, self.checker.undecided
        self.checker.feed(self.guest.access(ask))
        self.actor = hart
        self.done()
        for cache in self.caches:
            cache.read_all()
        found = self.checker.hazards > before
        expected = False
        if self.guest.satp[hart] >> 60:
            expected = bool(self.caches[hart].answers(ask) - {today})
        if self.limited and self.checker.undecided > doubts:
            assert expected or not found, (ask, self.checker.findings)
        else:
            assert found == expected, (ask, today, self.checker.findings)
        self.asked[expected, today[0] < 0] += 1


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1))
@example(62916039)  # sinval.vma comes into force behind a fence of the ASID
@example(1000470)  # a space is fenced while it is not loaded, and loaded again
@example(10048)  # sinval.vma covers a switch of ADUE, but not the one after it
@example(1003466)  # sinval.vma covers nothing, and ADUE was switched
def test_checker_finds_what_the_definition_finds(seed: int) -> None:
    Checked(seed).play(60)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.builds(
        CheckerLimits,
        records=st.integers(1, 40),
        fences=st.integers(1, 12),
        loads=st.integers(1, 8),
    ),
)
@example(2495603, CheckerLimits(8, 1, 1))  # the fence of an ASID is not kept
def test_limits_cost_certainty_and_never_the_truth(seed: int, limits: CheckerLimits) -> None:
    Checked(seed, limits).play(60)


def test_random_guests_are_worth_the_name() -> None:
    """The guests above have accesses of all four sorts often enough to mean something."""
    asked: Counter[tuple[bool, bool]] = Counter()
    types = 0
    for seed in range(60):
        player = Checked(seed)
        player.play(60)
        asked += player.asked
        types += any(one.kind in TYPES for one in player.checker.findings)
    assert types > 0
    for hazard in (True, False):
        for fault in (True, False):
            assert asked[hazard, fault] > 30, asked
