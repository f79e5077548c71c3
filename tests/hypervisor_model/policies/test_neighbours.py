"""What distinguishes the neighbours of shadow and lazy shadow paging."""

from __future__ import annotations

import pytest

from hypervisor_model.events import FLAG_CONT, PteOp
from hypervisor_model.exits import Counter, Exit
from tests.hypervisor_model.guests import PAGE, V, leaf
from tests.hypervisor_model.policies.test_lsp import Host

VA = 0x4000_0000
REGION = 2 << 20


def host(spec: str, *, regions: int = 1) -> tuple[Host, list[int]]:
    """``regions`` leaf tables with one page each, touched; PAs of the entries."""
    one = Host(spec)
    where = [one.guest.map(one.root, VA + REGION * i, one.guest.page()) for i in range(regions)]
    for i in range(regions):
        one.access(VA + REGION * i)
    return one, where


# -- vtlb: a cache, wiped -------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "fills"), [("vtlb", 3), ("lsp", 1), ("shadow", 1)])
def test_vtlb_forgets_at_satp_writes(spec: str, fills: int) -> None:
    one, _ = host(spec)
    other = one.guest.page()
    for _ in range(2):
        one.guest.load(other, 2)
        one.guest.load(one.root, 1)
        one.guest.fence(VA + PAGE)
        one.access(VA)
    assert one.exits(Exit.SHADOW_FILL) == fills
    assert one.exits(Exit.SATP_WRITE) == 5


@pytest.mark.parametrize(("spec", "fills"), [("vtlb", 3), ("lsp", 2)])
def test_vtlb_wipes_at_fences_without_address_whatever_asid(spec: str, fills: int) -> None:
    one, _ = host(spec, regions=1)
    one.guest.fence(asid=7)
    one.access(VA)
    one.guest.fence(VA, asid=7)
    one.guest.fence(VA, asid=1)
    one.access(VA)
    assert one.exits(Exit.SHADOW_FILL) == fills


def test_vtlb_ignores_table_writes() -> None:
    one, where = host("vtlb")
    one.guest.store(where[0], leaf(one.guest.page()))
    assert one.result.total == 2, "one satp write, one fill"
    assert Exit.PT_WRITE not in one.result.exits


# -- unsync: leaf tables go out of sync -----------------------------------------------------------


@pytest.mark.parametrize(("spec", "writes"), [("shadow", 10), ("unsync", 1), ("oos", 1)])
def test_out_of_sync_leaf_tables_take_one_exit_between_fences(spec: str, writes: int) -> None:
    one, where = host(spec)
    before = one.exits(Exit.PT_WRITE)
    for _ in range(10):
        one.guest.store(where[0], leaf(one.guest.page()))
    assert one.exits(Exit.PT_WRITE) == before + writes
    frame = one.guest.page()
    one.guest.store(where[0], leaf(frame))
    one.guest.fence()
    assert one.access(VA) == frame
    assert one.exits(Exit.SHADOW_FILL) == 1


@pytest.mark.parametrize("spec", ["unsync", "oos"])
def test_a_global_fence_protects_again_one_by_address_does_not(spec: str) -> None:
    one, where = host(spec)
    before = one.exits(Exit.PT_WRITE)
    for fence, writes, resyncs in ((VA, 1, 0), (VA, 1, 0), (None, 1, 1), (VA, 2, 1)):
        frame = one.guest.page()
        one.guest.store(where[0], leaf(frame))
        one.guest.fence(fence)
        assert one.access(VA) == frame
        assert one.exits(Exit.PT_WRITE) == before + writes
        assert one.count(Counter.RESYNCS) == resyncs


@pytest.mark.parametrize("spec", ["unsync", "oos"])
def test_satp_writes_resynchronise(spec: str) -> None:
    one, where = host(spec)
    one.guest.store(where[0], leaf(one.guest.page()))
    one.guest.load(one.root, 1)
    assert one.count(Counter.RESYNCS) == 1


def test_unsync_resynchronises_below_the_loaded_root_only() -> None:
    one, where = host("unsync")
    one.guest.store(where[0], leaf(one.guest.page()))
    one.guest.load(one.guest.page(), 2)
    one.guest.fence()
    assert one.count(Counter.RESYNCS) == 0
    one.guest.load(one.root, 1)
    assert one.count(Counter.RESYNCS) == 1


@pytest.mark.parametrize(("flood", "writes"), [(1, 1), (3, 3), (9, 5)])
def test_unsync_gives_up_a_flooded_table(flood: int, writes: int) -> None:
    one, _ = host(f"unsync:flood={flood}")
    link = one.guest.entry(one.root, VA, 1)
    before = one.exits(Exit.PT_WRITE)
    given_up = one.count(Counter.UNSHADOWED)
    for i in range(1, 6):
        one.guest.store(link + 8 * i, 0)
    assert one.exits(Exit.PT_WRITE) == before + writes
    assert one.count(Counter.UNSHADOWED) == given_up + int(writes < 5)


def test_a_use_between_stores_is_no_flood() -> None:
    one, _ = host("unsync")
    link = one.guest.entry(one.root, VA, 1)
    for i in range(1, 6):
        one.guest.store(link + 8 * i, 0)
        one.guest.map(one.root, VA + PAGE * i * 8, one.guest.page())
        one.access(VA + PAGE * i * 8)
    assert one.count(Counter.UNSHADOWED) == 0


@pytest.mark.parametrize(("prefetch", "fills"), [(1, 8), (4, 2), (8, 1)])
def test_unsync_fills_a_window(prefetch: int, fills: int) -> None:
    one = Host(f"unsync:prefetch={prefetch}")
    for i in range(8):
        one.guest.map(one.root, VA + PAGE * i, one.guest.page())
    for i in range(8):
        one.access(VA + PAGE * i)
    assert one.exits(Exit.SHADOW_FILL) == fills
    assert one.count(Counter.PREFETCHED) == 8 - fills


@pytest.mark.parametrize("spec", ["unsync:flood=2", "oos:zero_writes=2"])
def test_one_store_of_many_zeroes_is_one(spec: str) -> None:
    one, _ = host(spec)
    link = one.guest.entry(one.root, VA, 1)
    one.access(VA)
    before, given_up = one.exits(Exit.PT_WRITE), one.count(Counter.UNSHADOWED)
    for stores in (1, 2):
        for i in range(8):
            flags = FLAG_CONT if i else 0
            one.guest.store(link + 64 * stores + 8 * i, 0, PteOp.CBO_ZERO, flags=flags)
        assert one.exits(Exit.PT_WRITE) == before + stores
        assert one.count(Counter.UNSHADOWED) == given_up + int(stores == 2)


@pytest.mark.parametrize("spec", ["shadow", "unsync", "oos"])
def test_what_no_instruction_stores_leaves_a_table_protected(spec: str) -> None:
    one, where = host(spec)
    before = one.exits(Exit.PT_WRITE)
    frame = one.guest.page()
    one.guest.store(where[0] + 8, leaf(frame), PteOp.OTHER)
    assert one.exits(Exit.PT_WRITE) == before
    assert one.access(VA + PAGE) == frame
    assert one.exits(Exit.SHADOW_FILL) == 1, "it was synchronised"
    one.guest.store(where[0] + 16, leaf(frame))
    assert one.exits(Exit.PT_WRITE) == before + 1


@pytest.mark.parametrize("by", ["fill", "store"])
@pytest.mark.parametrize("spec", ["unsync:prefetch=1", "oos"])
def test_a_table_out_of_sync_that_is_linked_elsewhere_is_resynchronised(spec: str, by: str) -> None:
    one, where = host(spec)
    guest = one.guest
    guest.store(where[0] + 8, leaf(guest.page()))
    one.access(VA + PAGE)
    guest.fence()
    # Another place for the same leaf table, whose middle table has a shadow already, or not yet.
    there = VA + (1 << 30)
    link = guest.entry(one.root, there, 1)
    if by == "store":
        guest.map(one.root, there + REGION, guest.page())
        one.access(there + REGION)
    new = [guest.page(), guest.page()]
    before = one.exits(Exit.PT_WRITE)
    for i in range(2):
        guest.store(where[0] + 8 * i, leaf(new[i]))
    assert one.exits(Exit.PT_WRITE) == before + 1, "out of sync"
    # What was in the table before cannot be cached for that place.
    guest.store(link, leaf(where[0] & -PAGE, V))
    assert [one.access(there + PAGE * i) for i in range(2)] == new


# -- oos: a few of them ---------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "writes"), [("unsync", 4), ("oos", 12), ("oos:tables=4", 4)])
def test_oos_lets_only_so_many_go(spec: str, writes: int) -> None:
    one, where = host(spec, regions=4)
    before = one.exits(Exit.PT_WRITE)
    for _ in range(3):
        for entry in where:
            one.guest.store(entry, leaf(one.guest.page()))
    assert one.exits(Exit.PT_WRITE) == before + writes
    resyncs = one.count(Counter.RESYNCS)
    assert resyncs == (9 if writes == 12 else 0)
    one.guest.fence()
    assert one.count(Counter.RESYNCS) == resyncs + (3 if writes == 12 else 4)


@pytest.mark.parametrize(("zeroes", "writes"), [(1, 1), (2, 2), (3, 3)])
def test_oos_unshadows_a_table_that_is_taken_apart(zeroes: int, writes: int) -> None:
    one, _ = host(f"oos:zero_writes={zeroes}")
    link = one.guest.entry(one.root, VA, 1)
    before = one.exits(Exit.PT_WRITE)
    for i in range(1, 6):
        one.guest.store(link + 8 * i, 0)
    assert one.exits(Exit.PT_WRITE) == before + writes
    assert one.count(Counter.UNSHADOWED) == 1


def test_oos_counts_zeroes_in_a_row() -> None:
    one, _ = host("oos")
    link = one.guest.entry(one.root, VA, 1)
    for i in range(1, 6):
        one.guest.store(link + 8 * i, 2 * (i % 2))
    assert one.count(Counter.UNSHADOWED) == 0


def test_tables_of_another_hart_are_synchronised_and_stay_writable() -> None:
    one = Host("oos", harts=2)
    guest = one.guest
    guest.load(one.root, 1, hart=1)
    where = guest.map(one.root, VA, guest.page())
    one.access(VA, hart=1)
    before = one.exits(Exit.PT_WRITE)
    for fences, (hart, writes) in enumerate(((0, 1), (1, 1), (1, 2))):
        frame = guest.page()
        guest.store(where, leaf(frame), hart=1)
        assert one.exits(Exit.PT_WRITE) == before + writes
        guest.fence(hart=hart)
        assert one.access(VA, hart=hart) == frame
        assert one.count(Counter.RESYNCS) == fences + 1


# -- ssp: at once, in M-mode ----------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "fills"), [("lsp", 2), ("ssp", 1)])
def test_ssp_synchronises_at_the_fence(spec: str, fills: int) -> None:
    one, where = host(spec)
    frame = one.guest.page()
    one.guest.store(where[0], leaf(frame))
    one.guest.fence(VA)
    reads = one.count(Counter.SYNC_READS)
    assert one.access(VA) == frame
    assert one.exits(Exit.SHADOW_FILL) == fills
    assert one.exits(Exit.FENCE_FAST) == 1
    assert reads == (1 if spec == "ssp" else 0)


def test_every_fence_of_ssp_is_fast() -> None:
    one, _ = host("ssp")
    one.guest.fence()
    one.guest.fence(asid=1)
    one.guest.fence(VA)
    assert one.exits(Exit.FENCE_FAST) == 3
    assert Exit.FENCE_GLOBAL not in one.result.exits


@pytest.mark.parametrize(("buffer", "exits", "hits"), [(1, 7, 2), (2, 6, 3), (3, 3, 6)])
def test_ssp_buffers_roots(buffer: int, exits: int, hits: int) -> None:
    one = Host(f"ssp:root_buffer={buffer}")
    roots = [one.root, one.guest.page(), one.guest.page()]
    # After root 0: with one place only loading the same again hits, with two also the last 1.
    for i in (1, 2, 0, 1, 2, 2, 2, 1):
        one.guest.load(roots[i], i + 1)
    assert one.exits(Exit.SATP_WRITE) == exits
    assert one.count(Counter.ROOT_HITS) == hits


def test_ssp_synchronises_at_a_load_with_an_exit_only() -> None:
    one, where = host("ssp")
    guest = one.guest
    other = guest.page()
    guest.load(other, 2)
    new = guest.page()
    guest.store(where[0], leaf(new))
    # Without an ASID: what is not loaded is marked.
    guest.fence(VA)
    exits, reads = one.exits(Exit.SATP_WRITE), one.count(Counter.SYNC_READS)
    guest.load(one.root, 1)
    assert one.exits(Exit.SATP_WRITE) == exits + 1
    assert one.count(Counter.ROOT_HITS) == 0
    assert one.count(Counter.SYNC_READS) > reads
    assert one.access(VA) == new
    guest.load(one.root, 1)
    assert one.count(Counter.ROOT_HITS) == 1
    guest.load(one.root, 3)
    assert one.exits(Exit.SATP_WRITE) == exits + 2, "another ASID than before"


def test_a_root_that_left_the_buffer_comes_back_by_a_load_only() -> None:
    one = Host("ssp:root_buffer=1")
    other = one.guest.page()
    one.guest.load(other, 2)
    one.guest.load(0)
    one.guest.retire(other)
    exits = one.exits(Exit.SATP_WRITE)
    one.guest.load(one.root, 1)
    assert one.exits(Exit.SATP_WRITE) == exits + 1
    one.guest.load(one.root, 1)
    assert one.exits(Exit.SATP_WRITE) == exits + 1
