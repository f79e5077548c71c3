"""Two-stage paging: references, and faults of the G-stage."""

from __future__ import annotations

import pytest

from hypervisor_model import policies
from hypervisor_model.events import Access, Fence, Kind, Priv, fault_pa
from hypervisor_model.exits import Exit
from hypervisor_model.isa.atp import Mode
from hypervisor_model.policies import MachineModel
from tests.hypervisor_model.guests import KERNEL, PAGE, A, Guest

VA = 0x4000_0000


@pytest.mark.parametrize(
    ("mode", "g_mode", "references"),
    [
        (Mode.SV39, Mode.SV39, 15),
        (Mode.SV39, Mode.SV48, 19),
        (Mode.SV39, Mode.SV57, 23),
        (Mode.SV48, Mode.SV48, 24),
        (Mode.SV57, Mode.SV57, 35),
    ],
)
def test_references_of_a_miss(mode: Mode, g_mode: Mode, references: int) -> None:
    guest = Guest(mode=mode)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page())
    guest.access(VA)
    warm = guest.take()
    guest.fence()
    guest.access(VA)
    machine = MachineModel(ram_size=guest.size, gstage_mode=g_mode)
    again = guest.take()
    for spec, expected in (("nested", references), ("shadow", mode.levels), ("lsp", mode.levels)):
        policy = policies.make(spec, machine)
        policy.feed(warm)
        before = policy.result()
        policy.feed(again)
        after = policy.result()
        assert before.walk_refs and after.walk_refs
        made = {stage: after.walk_refs[stage] - before.walk_refs[stage] for stage in ("vs", "g")}
        assert sum(made.values()) == expected, spec
        assert made["vs"] == mode.levels
        assert before.tlb_misses is not None
        assert after.tlb_misses == before.tlb_misses + 1


def test_every_page_touched_is_one_fault() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root)
    frames = [guest.page() for _ in range(40)]
    for i, frame in enumerate(frames):
        guest.map(root, VA + PAGE * i, frame)
    for _ in range(3):
        for i in range(len(frames)):
            guest.access(VA + PAGE * i, Access.WRITE if i % 2 else Access.READ)
        guest.fence()
    tables = 3
    small = policies.make("nested", MachineModel(ram_size=guest.size))
    small.feed(guest.batch())
    assert small.result().total == len(frames) + tables
    large = policies.make("nested", MachineModel(ram_size=guest.size, gstage_page=2 << 20))
    large.feed(guest.batch())
    assert large.result().exits[Exit.GSTAGE_FAULT] == 1


def test_tables_fences_and_satp_are_no_exits_and_keep_their_effect() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root, 1)
    old, new = guest.page(), guest.page()
    where = guest.map(root, VA, old)
    policy = policies.make("nested", MachineModel(ram_size=guest.size))
    guest.access(VA)
    assert policy.feed(guest.take())[-1] == old
    guest.store(where, new >> 2 | guest.words[where] & 0x3FF)
    guest.access(VA)
    assert policy.feed(guest.take())[-1] == old, "the TLB still has it"
    guest.fence(VA, instruction=Fence.SINVAL_VMA)
    guest.access(VA)
    assert policy.feed(guest.take())[-1] == new
    faults = policy.result().total
    guest.load(guest.page(), 2)
    guest.fence()
    policy.feed(guest.take())
    assert policy.result().total == faults


def test_bare_and_devices_take_the_second_stage_only() -> None:
    guest = Guest()
    frame, device = guest.page(), 0x1000_0000
    for address in (frame, frame + 8, device, device):
        guest.access(address)
    policy = policies.make("nested", MachineModel(ram_size=guest.size))
    assert list(policy.feed(guest.batch())) == [frame, frame + 8, device, device]
    result = policy.result()
    assert result.exits[Exit.GSTAGE_FAULT] == 1
    assert result.walk_refs and result.walk_refs["vs"] == 0


@pytest.mark.parametrize("svadu", [False, True])
@pytest.mark.parametrize("g_mode", [Mode.SV39, Mode.SV57])
def test_device_pages_are_mapped_from_the_start(g_mode: Mode, svadu: bool) -> None:
    """The first touch costs what every miss costs: one miss, one whole walk, no exit."""
    guest = Guest(svadu=svadu)
    root = guest.page()
    guest.load(root)
    device = 0x1000_0000
    guest.map(root, VA, guest.page())
    for i in range(3):
        guest.map(root, VA + PAGE * (1 + i), device + PAGE * i, KERNEL & ~(A if svadu else 0))
    guest.access(VA)
    machine = MachineModel(ram_size=guest.size, gstage_mode=g_mode, svadu=svadu)
    policy = policies.make("nested", machine)
    policy.feed(guest.take())
    whole = 4 * (g_mode.levels + 1) - 1 + (g_mode.levels + 1 if svadu else 0)
    for i in range(3):
        before = policy.result()
        assert guest.access(VA + PAGE * (1 + i)) == device + PAGE * i
        guest.access(VA + PAGE * (1 + i) + 8)
        assert list(policy.feed(guest.take())) == [device + PAGE * i, device + PAGE * i + 8]
        after = policy.result()
        assert before.walk_refs and after.walk_refs and before.tlb_misses and after.tlb_hits
        assert after.tlb_misses == before.tlb_misses + 1
        assert sum(after.walk_refs.values()) - sum(before.walk_refs.values()) == whole
        assert (after.total, after.counters) == (before.total, before.counters)


def test_a_table_in_device_memory_costs_no_exit_either() -> None:
    """No entry can be read there, so that the guest has an access fault; the G-stage has none."""
    guest = Guest()
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page())
    guest.store(root + 8 * 3, 0x1000_0000 >> 2 | 1)
    guest.access(VA)
    policy = policies.make("nested", MachineModel(ram_size=guest.size))
    policy.feed(guest.take())
    before = policy.result()
    guest.events.append((Kind.ACCESS, 3 << 30, 0, 0, Access.READ, 0, Priv.S, 0, 8))
    batch = guest.take()
    assert list(policy.feed(batch)) == [fault_pa(5)]
    after = policy.result()
    assert before.walk_refs and after.walk_refs and before.tlb_misses
    assert after.tlb_misses == before.tlb_misses + 1
    # The root's entry behind its G-stage, and the G-stage of the table that is not there.
    assert after.walk_refs["vs"] == before.walk_refs["vs"] + 1
    assert after.walk_refs["g"] == before.walk_refs["g"] + 6
    assert after.total == before.total


def test_a_g_stage_of_many_tables_grows() -> None:
    guest = Guest(size=1 << 30)
    addresses = [guest.base + (i << 21) for i in range(512)]
    for address in addresses:
        guest.access(address)
    policy = policies.make("nested", MachineModel(ram_size=guest.size))
    assert list(policy.feed(guest.batch())) == addresses
    assert policy.result().total == len(addresses)
