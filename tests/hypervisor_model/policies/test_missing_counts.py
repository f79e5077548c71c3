"""What cannot be counted where accesses are missing: these counts and no others are null."""

from __future__ import annotations

import numpy as np
import pytest

from hypervisor_model.events import EVENT, EventBatch, Fence, Kind
from hypervisor_model.exits import Exit
from hypervisor_model.isa import atp
from hypervisor_model.policies import MachineModel, Stream, make
from hypervisor_model.tlb import TlbConfig

RAM = 0x8000_0000
TABLE, ENTRY = RAM, RAM + 8


def _events() -> EventBatch:
    """A root, loaded; one entry of it stored to and fenced."""
    batch = np.zeros(4, EVENT)
    batch["kind"] = [Kind.TABLE_ADD, Kind.SATP_WRITE, Kind.PTE_WRITE, Kind.FENCE]
    batch["priv"] = 1
    batch["a"] = [TABLE, 0, ENTRY, 1 << 30]
    batch["b"][1] = atp.make(atp.Mode.SV39, RAM, 0)
    batch["size"][2] = 8
    batch["sub"][3] = Fence.VA | Fence.SFENCE_VMA
    return batch


@pytest.mark.parametrize(
    ("policy", "fence"), [("shadow", Exit.FENCE), ("lsp", Exit.FENCE_FAST), ("vtlb", Exit.FENCE)]
)
def test_fences_need_no_accesses(policy: str, fence: Exit) -> None:
    model = make(policy, MachineModel(), Stream(accesses="none", page_faults=False))
    model.feed(_events())
    result = model.result()
    assert result.exits[fence] == 1
    assert result.exits[Exit.SATP_WRITE] == 1
    assert result.total is None
    assert result.exits[Exit.GUEST_FAULT] is None
    nulls = {kind.key for kind, count in result.exits.items() if count is None}
    assert {f"exits.{key}" for key in nulls} <= set(result.reasons)


def test_only_fills_are_missing() -> None:
    result = make("lsp", MachineModel(), Stream(accesses="none")).result()
    missing = {kind for kind, count in result.exits.items() if count is None}
    assert missing == {Exit.SHADOW_FILL, Exit.DIRTY_FILL}


@pytest.mark.parametrize(("links", "slots"), [("fence", 0), ("fill", 64), ("fence", 64)])
def test_an_access_made_for_the_guest_is_not_counted_behind_a_filter(
    links: str, slots: int
) -> None:
    result = make(f"lsp:links={links}", MachineModel(), Stream(filter=slots)).result()
    null = (links, slots) == ("fence", 64)
    assert (result.exits[Exit.SHADOW_FILL] is None) is null
    assert ("access filter" in result.reasons.get("exits.shadow_fill", "")) is null
    assert (result.total is None) is null


@pytest.mark.parametrize(
    ("config", "slots", "advice"),
    [
        (TlbConfig(), 128, "this TLB takes 64 at most; run or capture with --filter 64"),
        (TlbConfig(data=(96, 2)), 64, "this TLB takes 32 at most; run or capture with --filter 32"),
        (
            TlbConfig(superpages=True),
            64,
            "this TLB takes 1 at most; run or capture with --filter 1",
        ),
        (TlbConfig(fetch=None), 1, "no filter suits a unified first level; model a separate one"),
        (TlbConfig(data=(64, 1)), 1, "no filter suits a first level whose sets exit_footprint"),
    ],
)
def test_the_reason_says_what_helps(config: TlbConfig, slots: int, advice: str) -> None:
    result = make("nested", MachineModel(tlb=config), Stream(filter=slots)).result()
    assert result.tlb_misses is None
    reason = result.reasons["tlb_misses"]
    assert reason.startswith(f"the accesses have passed a filter of {slots} slots; {advice}")


def test_partial_accesses_give_counts_of_that_part() -> None:
    """The same accesses, called partial: the same counts, but no total of all exits."""
    batch = np.zeros(1, EVENT)
    batch["kind"], batch["priv"], batch["a"], batch["b"] = Kind.ACCESS, 1, RAM, RAM
    results = []
    for accesses in ("all", "partial"):
        model = make("nested", MachineModel(), Stream(accesses=accesses))
        model.feed(batch)
        results.append(model.result())
    whole, part = results
    assert part.exits == whole.exits and part.exits[Exit.GSTAGE_FAULT] == 1
    assert part.tlb_misses == whole.tlb_misses and part.walk_refs == whole.walk_refs
    assert whole.total == 1 and part.total is None and part.at_least == 1
    assert "stepped" in part.reasons["exits.gstage_fault"]
    assert "stepped" in part.reasons["tlb_misses"]
