"""Lazy shadow paging on tiny guests."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hypervisor_model import policies
from hypervisor_model.events import Access, Priv, fault_pa
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import MachineModel, Policy, PolicyResult
from tests.hypervisor_model.guests import KERNEL, PAGE, G, Guest, R, V, leaf

VA = 0x4000_0000
REGION = 2 << 20


class Host:
    """A guest and the policy that it runs on, fed as it goes."""

    def __init__(self, spec: str = "lsp", *, harts: int = 1, **machine: object) -> None:
        self.guest = Guest(harts=harts)
        fields = {"ram_size": self.guest.size, "harts": harts, **machine}
        self.policy: Policy = policies.make(spec, MachineModel.from_json(fields))
        self.root = self.guest.page()
        self.guest.load(self.root, 1)

    def access(self, va: int, kind: Access = Access.READ, *, hart: int = 0) -> int:
        """The policy's answer; stale or not."""
        self.run()
        self.guest.access(va, kind, hart=hart)
        return int(self.run()[-1])

    def run(self) -> NDArray[np.int64]:
        return self.policy.feed(self.guest.take())

    @property
    def result(self) -> PolicyResult:
        self.run()
        return self.policy.result()

    def exits(self, kind: Exit) -> int:
        count = self.result.exits[kind]
        assert count is not None
        return count

    def count(self, counter: Counter) -> int:
        count = self.result.counters[counter]
        assert count is not None
        return count


def test_any_number_of_stores_between_two_accesses_is_one_fill() -> None:
    host = Host()
    guest = host.guest
    frames = [guest.page() for _ in range(10)]
    where = guest.map(host.root, VA, frames[0])
    host.access(VA)
    for frame in frames[1:]:
        guest.store(where, leaf(frame))
        guest.fence(VA)
    assert host.access(VA) == frames[-1]
    assert host.exits(Exit.FENCE_FAST) == 9
    assert host.exits(Exit.SHADOW_FILL) == 2
    assert host.result.total == 9 + 2 + 1


def test_stores_are_not_seen_until_their_fence() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    assert host.access(VA) == old
    guest.store(where, leaf(new))
    assert host.access(VA) == old
    guest.fence(VA + PAGE)
    assert host.access(VA) == old
    guest.fence(VA)
    assert host.access(VA) == new


def test_what_becomes_valid_needs_no_fence() -> None:
    host = Host()
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    host.access(VA)
    assert host.access(VA + PAGE) == fault_pa(13)
    frame = guest.page()
    guest.store(where + 8, leaf(frame))
    assert host.access(VA + PAGE) == frame
    assert host.exits(Exit.SHADOW_FILL) == 2
    assert host.exits(Exit.GUEST_FAULT) == 1


def test_more_rights_need_no_fence_and_are_no_dirty_fill() -> None:
    host = Host()
    guest = host.guest
    frame = guest.page()
    where = guest.map(host.root, VA, frame, KERNEL & ~4)
    assert host.access(VA) == frame
    guest.store(where, leaf(frame))
    assert host.access(VA, Access.WRITE) == frame
    assert host.exits(Exit.SHADOW_FILL) == 2
    assert host.exits(Exit.DIRTY_FILL) == 0


@pytest.mark.parametrize("fast", ["on", "off"])
def test_fast_path_spares_the_tlb(fast: str) -> None:
    host = Host(f"lsp:fast_path={fast}", tlb={"data": [2, 4], "fetch": None, "second": None})
    guest = host.guest
    guest.map(host.root, VA, guest.page())
    host.access(VA)
    before = host.result
    for i in range(5):
        guest.fence(VA + PAGE * (1 + i))
    host.access(VA)
    result = host.result
    assert (host.exits(Exit.FENCE_FAST), host.exits(Exit.FENCE)) == (
        (5, 0) if fast == "on" else (0, 5)
    )
    assert before.tlb_misses is not None
    assert result.tlb_misses == before.tlb_misses + (0 if fast == "on" else 1)


def test_a_global_fence_synchronises_what_is_there() -> None:
    host = Host()
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    frame = guest.page()
    guest.store(where + 8, leaf(frame))
    guest.store(where + 16, leaf(frame))
    for i in range(3):
        host.access(VA + PAGE * i)
    guest.store(where, leaf(frame, V | R))
    guest.store(where + 8, 0)
    guest.store(where + 24, leaf(frame))
    reads = host.count(Counter.SYNC_READS)
    guest.fence()
    # Three leaves and the two links to them; the entry that was never used is not read.
    assert host.count(Counter.SYNC_READS) == reads + 5
    assert host.count(Counter.SYNC_CHANGES) == 2
    assert host.exits(Exit.FENCE_GLOBAL) == 1
    fills = host.exits(Exit.SHADOW_FILL)
    assert host.access(VA) == guest.walk(VA, Access.READ, Priv.S)
    assert host.access(VA + PAGE) == fault_pa(13)
    assert host.exits(Exit.SHADOW_FILL) == fills


def test_dropping_instead_of_synchronising_costs_fills() -> None:
    host = Host("lsp:fence_global=drop")
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    guest.store(where + 8, leaf(guest.page()))
    host.access(VA)
    host.access(VA + PAGE)
    guest.fence()
    host.access(VA)
    host.access(VA + PAGE)
    assert host.exits(Exit.SHADOW_FILL) == 4
    assert host.exits(Exit.FENCE_GLOBAL) == 1


def test_a_changed_link_takes_effect_at_a_global_fence() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    guest.map(host.root, VA, old)
    guest.store(guest.entry(host.root, VA) + 8, leaf(old))
    guest.map(host.root, VA + REGION, new)
    host.access(VA)
    link = guest.entry(host.root, VA, 1)
    guest.store(link, guest.words[link + 8])
    # An address in the region, but a leaf only: the links above it stay what they were.
    guest.fence(VA + 2 * PAGE)
    assert host.access(VA) == old
    guest.fence()
    assert host.access(VA) == new


TINY = {"data": [1, 1], "fetch": None, "second": None}


@pytest.mark.parametrize(("links", "moved"), [("fill", True), ("fence", False)])
def test_a_changed_link_takes_effect_at_a_fill_only_by_choice(links: str, moved: bool) -> None:
    host = Host(f"lsp:links={links}", tlb=TINY)
    guest = host.guest
    old, new, fresh = guest.page(), guest.page(), guest.page()
    guest.map(host.root, VA, old)
    guest.map(host.root, VA + REGION, new)
    guest.map(host.root, VA + REGION + PAGE, fresh)
    assert host.access(VA) == old
    link = guest.entry(host.root, VA, 1)
    guest.store(link, guest.words[link + 8])
    fills = host.exits(Exit.SHADOW_FILL)
    # Only the new table maps the neighbour; with one TLB entry every access asks the shadow.
    for i in range(3):
        assert host.access(VA + PAGE) == fresh
        assert host.access(VA) == (new if moved else old)
        assert host.exits(Exit.SHADOW_FILL) == fills + (2 if moved else 1 + i)
    guest.fence()
    assert host.access(VA) == new
    fills = host.exits(Exit.SHADOW_FILL)
    assert [host.access(VA + PAGE) for _ in range(2)] == [fresh, fresh]
    assert host.exits(Exit.SHADOW_FILL) == fills + int(not moved)


@pytest.mark.parametrize(("links", "moved"), [("fill", True), ("fence", False)])
def test_so_does_a_superpage_in_the_place_of_a_table(links: str, moved: bool) -> None:
    host = Host(f"lsp:links={links}", tlb=TINY)
    guest = host.guest
    old = guest.page()
    guest.map(host.root, VA, old)
    assert host.access(VA) == old
    guest.store(guest.entry(host.root, VA, 1), leaf(guest.base))
    assert host.access(VA + PAGE) == guest.base + PAGE
    assert host.access(VA) == (guest.base if moved else old)
    guest.fence()
    assert host.access(VA) == guest.base


@pytest.mark.parametrize("links", ["fill", "fence"])
def test_a_link_that_becomes_valid_needs_no_fence(links: str) -> None:
    host = Host(f"lsp:links={links}")
    guest = host.guest
    frame = guest.page()
    guest.map(host.root, VA, frame)
    assert host.access(VA + REGION) == fault_pa(13)
    guest.map(host.root, VA + REGION, frame)
    for _ in range(2):
        assert host.access(VA + REGION) == frame
    assert host.exits(Exit.SHADOW_FILL) == 1


@pytest.mark.parametrize("name", policies.POLICIES)
def test_bits_above_an_asid_are_ignored(name: str) -> None:
    host = Host(name)
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    host.access(VA)
    for va in (VA, None):
        new = guest.page()
        guest.store(where, leaf(new))
        guest.fence(va, 0x7_0001)
        assert host.access(VA) == new


def test_the_tracker_ignores_them_too() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root, 1)
    where = guest.map(root, VA, guest.page())
    machine = MachineModel(ram_size=guest.size)
    stale = guest.access(VA)
    guest.store(where, leaf(guest.page()))
    guest.fence(VA, 0x7_0001)
    guest.access(VA)
    tracker = LegalityTracker(machine, ["fresh", "stale"])
    batch = guest.batch()
    tracker.feed(batch, np.stack([batch["b"], np.full(len(batch), stale)]))
    assert tracker.counts["fresh"].illegal == 0
    assert tracker.counts["stale"].illegal == 1


def test_a_fence_with_asid_reaches_a_space_that_is_not_loaded() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    host.access(VA)
    other = guest.page()
    guest.load(other, 2)
    guest.store(where, leaf(new))
    guest.fence(VA, asid=1)
    reads = host.count(Counter.SYNC_READS)
    guest.load(host.root, 1)
    assert host.access(VA) == new
    assert host.count(Counter.SYNC_READS) == reads
    assert host.exits(Exit.SHADOW_FILL) == 2


@pytest.mark.parametrize("form", ["va", "asid", "all"])
def test_other_fences_mark_a_space_and_loading_synchronises_it(form: str) -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    host.access(VA)
    guest.load(guest.page(), 2)
    guest.store(where, leaf(new))
    guest.fence(VA if form == "va" else None, 1 if form == "asid" else None)
    assert host.count(Counter.SYNC_CHANGES) == 0
    guest.load(host.root, 1)
    assert host.count(Counter.SYNC_CHANGES) == 1
    assert host.access(VA) == new
    assert host.exits(Exit.SHADOW_FILL) == 1


def test_a_fence_of_another_asid_changes_nothing() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    host.access(VA)
    guest.store(where, leaf(new))
    guest.fence(VA, asid=2)
    guest.fence(asid=2)
    assert host.access(VA) == old
    guest.fence(VA, asid=1)
    assert host.access(VA) == new


def test_a_new_asid_synchronises() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    host.access(VA)
    guest.store(where, leaf(new))
    guest.load(host.root, 2)
    assert host.access(VA) == new


def test_fences_with_asid_spare_global_mappings() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old, KERNEL | G)
    host.access(VA)
    guest.store(where, leaf(new, KERNEL | G))
    guest.fence(VA, asid=1)
    guest.fence(asid=1)
    assert host.access(VA) == old
    guest.fence(VA)
    assert host.access(VA) == new


def test_a_shared_table_linked_anew_is_up_to_date() -> None:
    host = Host()
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    host.access(VA)
    other = guest.page()
    guest.words[other + 8] = guest.words[host.root + 8]
    guest.load(other, 2)
    # Fenced before the other space's shadow leads to the table: no shadow leaf is there to clear.
    guest.store(where, leaf(new))
    guest.fence(VA, asid=2)
    assert host.access(VA) == new


def test_a_fence_is_of_its_hart_alone() -> None:
    host = Host(harts=2)
    guest = host.guest
    guest.load(host.root, 1, hart=1)
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    tlb = [host.access(VA, hart=hart) for hart in (0, 1)]
    guest.store(where, leaf(new))
    guest.fence(VA, hart=0)
    assert tlb == [old, old]
    assert host.access(VA, hart=0) == new
    assert host.access(VA, hart=1) == old, "still in its TLB"
    guest.fence(VA, hart=1)
    assert host.access(VA, hart=1) == new


def test_a_hart_that_never_ran_a_space_sees_its_tables_as_they_are() -> None:
    host = Host(harts=2)
    guest = host.guest
    old, new = guest.page(), guest.page()
    where = guest.map(host.root, VA, old)
    assert host.access(VA, hart=0) == old
    guest.store(where, leaf(new))
    guest.load(host.root, 1, hart=1)
    assert host.access(VA, hart=1) == new


def test_answers_are_zero_for_all_but_accesses() -> None:
    host = Host()
    guest = host.guest
    guest.map(host.root, VA, guest.page())
    guest.fence()
    guest.page_fault(VA, 13)
    assert not np.any(host.run())
