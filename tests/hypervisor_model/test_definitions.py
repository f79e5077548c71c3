"""What docs/paging-models.md defines, and someone who recounts needs, one test a definition.

Every number is worked out by hand from the sentence in the document.  Definitions that other files
test are not here: comparing translations (section 6) in ``test_legality.py``, references of a walk
in ``test_nested.py``, ``dirty_fill`` in ``test_shadow.py``, changed links and marked
spaces in ``test_lsp.py``.
"""

from __future__ import annotations

import pytest

from hypervisor_model import policies
from hypervisor_model import tlb as tlbs
from hypervisor_model.events import Access, fault_pa
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa import pte
from hypervisor_model.policies import MachineModel, PolicyResult
from hypervisor_model.tlb import TlbConfig
from tests.hypervisor_model.guests import KERNEL, PAGE, G, Guest, V, leaf
from tests.hypervisor_model.policies.test_lsp import VA, Host
from tests.hypervisor_model.test_tlb import ALL, W, look, translation

X = int(Access.FETCH)


def misses_and_refs(result: PolicyResult) -> tuple[int, int, int]:
    """TLB misses, and references to tables of the first stage and of the G-stage."""
    assert result.tlb_misses is not None
    assert result.walk_refs is not None
    return result.tlb_misses, result.walk_refs["vs"], result.walk_refs["g"]


# -- An access starts over after its exit ---------------------------------------------------------


@pytest.mark.parametrize("spec", ["shadow", "lsp"])
def test_the_second_miss_and_the_cut_short_walk_of_a_fill_count(spec: str) -> None:
    host = Host(spec)
    host.guest.map(host.root, VA, host.guest.page())
    host.access(VA)
    # The first walk ends at the empty root of the shadow table, the second reads three levels.
    assert misses_and_refs(host.result) == (2, 1 + 3, 0)
    assert host.exits(Exit.SHADOW_FILL) == 1


def test_each_page_that_the_g_stage_lacks_starts_the_access_over() -> None:
    host = Host("nested")
    host.guest.map(host.root, VA, host.guest.page())
    host.access(VA)
    # Four exits: three tables and the page.  The first walk ends at the first reference.  Then the
    # G-stage has tables for all of them, so each further walk ends at the third level of one.
    cut_short = (0 + 1 + 2 + 3, 1 + (3 + 3) + 3 * 3 + 4 * 3)
    assert host.exits(Exit.GSTAGE_FAULT) == 4
    assert misses_and_refs(host.result) == (5, cut_short[0] + 3, cut_short[1] + 4 * 3)


@pytest.mark.parametrize("spec", ["shadow", "lsp"])
def test_an_access_that_ends_in_the_guests_fault_does_not_start_over(spec: str) -> None:
    host = Host(spec)
    assert host.access(VA) == fault_pa(13)
    assert misses_and_refs(host.result) == (1, 1, 0)
    assert host.exits(Exit.GUEST_FAULT) == 1


def test_nor_does_one_that_the_hypervisor_makes() -> None:
    host = Host("lsp:links=fence")
    guest = host.guest
    guest.map(host.root, VA, guest.page())
    host.access(VA)
    table = guest.page()
    guest.store(table, leaf(guest.page()))
    guest.store(guest.entry(host.root, VA, level=1), leaf(table, V))
    guest.fence(VA)
    before = misses_and_refs(host.result)
    host.access(VA)
    assert misses_and_refs(host.result)[0] == before[0] + 1
    assert host.exits(Exit.SHADOW_FILL) == 2


# -- guest_fault at a PAGE_FAULT ------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["shadow", "lsp"])
def test_a_told_fault_counts_even_if_the_policys_own_translation_is_older(spec: str) -> None:
    host = Host(spec)
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    pa = host.access(VA)
    guest.store(where, 0)
    guest.page_fault(VA, 13)
    assert host.exits(Exit.GUEST_FAULT) == 1
    assert host.access(VA) == pa, "it may still be used: no fence was made"


# -- shadow ---------------------------------------------------------------------------------------


def test_an_emulated_store_fills_an_entry_that_was_empty() -> None:
    host = Host("shadow")
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    host.access(VA)
    frame = guest.page()
    writes = host.exits(Exit.PT_WRITE)
    guest.store(where + 8, leaf(frame))
    assert host.access(VA + PAGE) == frame
    assert host.exits(Exit.PT_WRITE) == writes + 1
    assert host.exits(Exit.SHADOW_FILL) == 1


def test_an_emulated_store_takes_a_link_only_to_what_has_a_shadow() -> None:
    host = Host("shadow")
    guest = host.guest
    guest.map(host.root, VA, guest.page())
    host.access(VA)
    link = guest.entry(host.root, VA, level=1)
    shadowed = guest.words[link]
    new, frame = guest.page(), guest.page()
    guest.store(new, leaf(frame))
    guest.store(link + 8, leaf(new, V))
    guest.store(link + 16, shadowed)
    host.access(VA + (2 << 21))
    assert host.exits(Exit.SHADOW_FILL) == 1, "its table has a shadow"
    assert host.access(VA + (1 << 21)) == frame
    assert host.exits(Exit.SHADOW_FILL) == 2, "its table had none"


def test_a_live_table_may_lose_its_shadow_and_its_protection() -> None:
    host = Host("shadow")
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    other = guest.page()
    guest.load(other, 2)
    top = 8 * (VA >> 30)
    # The table has no shadow yet, so the other root's shadow does not take this link.
    guest.store(other + top, guest.words[host.root + top])
    guest.load(host.root, 1)
    host.access(VA)
    assert host.count(Counter.SHADOW_PAGES) == 4
    # The only shadow link to the tables goes.  The guest still reaches them by the other root.
    guest.store(host.root + top, 0)
    assert host.count(Counter.SHADOW_PAGES) == 2
    writes = host.exits(Exit.PT_WRITE)
    guest.store(where + 8, leaf(guest.page()))
    assert host.exits(Exit.PT_WRITE) == writes
    guest.load(other, 2)
    host.access(VA)
    assert host.count(Counter.SHADOW_PAGES) == 4
    guest.store(where + 16, leaf(guest.page()))
    assert host.exits(Exit.PT_WRITE) == writes + 1


@pytest.mark.parametrize("gstage_page", [4096, 2 << 20])
@pytest.mark.parametrize("spec", ["shadow", "lsp"])
def test_shadows_keep_superpages(spec: str, gstage_page: int) -> None:
    host = Host(spec, gstage_page=gstage_page)
    start = host.guest.base + (4 << 20)
    host.guest.map(host.root, VA, start, level=1)
    for offset in (0, 5 * PAGE, 300 * PAGE):
        assert host.access(VA + offset) == start + offset
    assert host.exits(Exit.SHADOW_FILL) == 1


# -- nested ---------------------------------------------------------------------------------------


def test_device_pages_are_of_4_kib() -> None:
    def touch(first: int) -> tuple[int, int, int]:
        guest = Guest()
        for address in (first, first + PAGE):
            guest.access(address)
        policy = policies.make("nested", MachineModel(ram_size=guest.size, gstage_page=2 << 20))
        policy.feed(guest.batch())
        return misses_and_refs(policy.result())

    assert touch(0x1000_0000) == (2, 0, 3 + 3)
    # Of RAM the second level holds 2 MiB after the first touch: an exit at the first reference.
    assert touch(0x8020_0000) == (2, 0, 1 + 2)


# -- what a synchronisation of lsp reads ----------------------------------------------------------


def test_below_a_global_link_is_read_under_a_fence_with_an_asid() -> None:
    def reads(asid: int | None) -> int:
        host = Host()
        guest = host.guest
        where = guest.map(host.root, VA, guest.page(), KERNEL | G)
        guest.store(where + 8, leaf(guest.page()))
        link = guest.entry(host.root, VA, level=1)
        guest.store(link, guest.words[link] | G)
        for i in range(2):
            host.access(VA + PAGE * i)
        before = host.count(Counter.SYNC_READS)
        guest.fence(asid=asid)
        return host.count(Counter.SYNC_READS) - before

    # Two links and two leaves; of each kind one is global, and is not read under the ASID.
    assert reads(None) == 4
    assert reads(1) == 2


def test_a_changed_link_is_removed_and_not_followed() -> None:
    host = Host()
    guest = host.guest
    guest.map(host.root, VA, guest.page())
    host.access(VA)
    table, frame = guest.page(), guest.page()
    guest.store(table, leaf(frame))
    guest.store(guest.entry(host.root, VA, level=1), leaf(table, V))
    reads, changes = host.count(Counter.SYNC_READS), host.count(Counter.SYNC_CHANGES)
    guest.fence()
    assert host.count(Counter.SYNC_READS) == reads + 2, "two links, and no leaf"
    assert host.count(Counter.SYNC_CHANGES) == changes + 1
    assert host.count(Counter.SHADOW_PAGES) == 2
    assert host.access(VA) == frame
    assert host.exits(Exit.SHADOW_FILL) == 2


def test_a_run_that_reads_nothing_is_no_run() -> None:
    host = Host()
    host.guest.map(host.root, VA, host.guest.page())
    host.guest.fence()
    assert host.exits(Exit.FENCE_GLOBAL) == 1
    assert (host.count(Counter.SYNC_RUNS), host.count(Counter.SYNC_READS)) == (0, 0)
    host.access(VA)
    host.guest.fence()
    assert (host.count(Counter.SYNC_RUNS), host.count(Counter.SYNC_READS)) == (1, 3)


@pytest.mark.parametrize(("marked", "reads"), [(True, 4), (False, 0)])
def test_a_marked_space_ignores_fences_with_address_and_asid(marked: bool, reads: int) -> None:
    host = Host()
    guest = host.guest
    where = guest.map(host.root, VA, guest.page())
    guest.store(where + 8, leaf(guest.page()))
    for i in range(2):
        host.access(VA + PAGE * i)
    guest.load(guest.page(), 2)
    before = host.count(Counter.SYNC_READS)
    if marked:
        guest.fence(VA)
    guest.fence(VA, asid=1)
    guest.load(host.root, 1)
    # Marked: both leaves are still there, and the load reads them with their two links.  Not
    # marked: the fence has taken its leaf, and the load has nothing to do.
    assert host.count(Counter.SYNC_READS) == before + reads
    fills = host.exits(Exit.SHADOW_FILL)
    host.access(VA)
    assert host.exits(Exit.SHADOW_FILL) == fills + (not marked)


# -- TLB ------------------------------------------------------------------------------------------


def test_the_set_is_the_signed_page_number_modulo_the_sets() -> None:
    tlb = tlbs.make(TlbConfig((3, 1), None, None))
    for page in (-1, 0, 1):
        tlbs.fill(tlb, page * PAGE, 0, tlbs.NO_GUEST, 0, translation(page * PAGE, 0x1000))
    assert all(look(tlb, page * PAGE) is not None for page in (-1, 0, 1))
    # -1 modulo 3 is 2, so page 2 takes the place of page -1 (2**52 - 1 modulo 3 would be 0).
    tlbs.fill(tlb, 2 * PAGE, 0, tlbs.NO_GUEST, 0, translation(2 * PAGE, 0x1000))
    assert [look(tlb, page * PAGE) is not None for page in (-1, 0, 1, 2)] == [0, 1, 1, 1]


def test_a_first_level_entry_without_permission_does_not_ask_the_second_level() -> None:
    tlb = tlbs.make()
    read_only = ALL & ~pte.W
    tlbs.fill(tlb, VA, 0, tlbs.NO_GUEST, 0, translation(VA, 0x1000, perm=read_only))
    # The guest allows stores; a fetch brings that into the second level, not into that of data.
    tlbs.fill(tlb, VA, 0, tlbs.NO_GUEST, X, translation(VA, 0x1000))
    before = tlb.counts.copy()
    assert look(tlb, VA, access=W) is None
    assert tlb.counts[0].misses == before[0].misses + 1
    assert tlb.counts[0].hits_second == before[0].hits_second
    # Without that entry the second level serves the store.
    tlb = tlbs.make()
    tlbs.fill(tlb, VA, 0, tlbs.NO_GUEST, X, translation(VA, 0x1000))
    assert look(tlb, VA, access=W) == 0x1000
    assert tlb.counts[0].hits_second == 1


def test_of_two_entries_for_one_address_the_first_size_in_order_is_used() -> None:
    assert tlbs.PAGE_BITS == (12, 21, 16, 30, 39, 48)
    beyond = VA + (1 << 20)
    for bits, used in ((12, 12), (16, 21)):
        tlb = tlbs.make(TlbConfig((1, 4), None, None, superpages=True))
        frames = {bits: 1 << 32, 21: 1 << 40}
        tlbs.fill(tlb, VA, 0, tlbs.NO_GUEST, 0, translation(VA, frames[bits], bits))
        # The later fill is for another address, so it does not replace the entry before.
        walk = translation(beyond, frames[21] + (1 << 20), 21)
        tlbs.fill(tlb, beyond, 0, tlbs.NO_GUEST, 0, walk)
        assert look(tlb, VA) == frames[used]


def test_where_the_footprint_of_an_exit_goes() -> None:
    tlb = tlbs.make()
    tlbs.displace(tlb, 8, 4)
    used = [(row, entry) for row, entry in enumerate(tlb.entries) if entry.last_use]
    assert {int(entry.vmid) for _, entry in used} == {tlbs.HYPERVISOR}
    held = [(row, int(entry.va) // PAGE) for row, entry in used]
    fetch, unified = (tlb.buffers[buffer].first for buffer in (tlbs.FETCH, tlbs.SECOND))
    data = [page for row, page in held if row < fetch]
    code = [page for row, page in held if fetch <= row < unified]
    second = [page for row, page in held if row >= unified]
    assert (sorted(data), sorted(code)) == (list(range(8)), [8, 9, 10, 11])
    assert sorted(second) == list(range(12))


@pytest.mark.parametrize(
    ("spec", "second", "displaced"),
    [("shadow", None, 1), ("shadow", [1, 2], 2), ("lsp", None, 0), ("lsp:fast_path=off", None, 1)],
)
def test_at_a_fence_the_footprint_comes_before_the_flush(
    spec: str, second: list[int] | None, displaced: int
) -> None:
    tlb = {"data": [1, 2], "fetch": [1, 2], "second": second}
    host = Host(spec, footprint_data=1, footprint_code=0, tlb=tlb)
    guest = host.guest
    for i in range(2):
        guest.map(host.root, VA + PAGE * i, guest.page())
    # The hypervisor's page is the first to go: both places hold the guest's pages now.
    for i in range(2):
        host.access(VA + PAGE * i)
    before = host.result.tlb_displaced
    assert before == 0
    guest.fence(VA + PAGE)
    # After the flush there would be a free place.  The M-mode fast path displaces nothing.
    assert host.result.tlb_displaced == displaced
