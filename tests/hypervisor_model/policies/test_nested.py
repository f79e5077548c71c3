"""Two-stage paging: references, and faults of the G-stage."""

from __future__ import annotations

import pytest

from hypervisor_model import policies
from hypervisor_model.events import Access, Fence
from hypervisor_model.exits import Exit
from hypervisor_model.isa.atp import Mode
from hypervisor_model.policies import MachineModel
from tests.hypervisor_model.guests import PAGE, Guest

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


def test_a_g_stage_of_many_tables_grows() -> None:
    guest = Guest(size=1 << 30)
    addresses = [guest.base + (i << 21) for i in range(512)]
    for address in addresses:
        guest.access(address)
    policy = policies.make("nested", MachineModel(ram_size=guest.size))
    assert list(policy.feed(guest.batch())) == addresses
    assert policy.result().total == len(addresses)
