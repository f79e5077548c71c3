"""Entries that changed without a store: what a device did is told apart from what was missed."""

from __future__ import annotations

from typing import cast

from cosim.machine.dma import DmaWrites
from cosim.session.unexplained import UnexplainedWrites
from hypervisor_model.events import EventBatch, Kind, PteOp, empty


class _Device:
    def covers(self, pa: int) -> bool:
        return pa == 0x1000


def _batch(*written: tuple[int, PteOp]) -> EventBatch:
    batch = empty(len(written) + 1)
    batch["kind"] = Kind.PTE_WRITE
    batch["kind"][-1] = Kind.MARK
    batch["sub"][-1] = PteOp.OTHER
    for event, (pa, op) in zip(batch, written, strict=False):
        event["a"], event["sub"] = pa, op
    return batch


def test_only_changes_without_an_instruction_count() -> None:
    writes = UnexplainedWrites()
    writes.take(_batch((0x1000, PteOp.STORE), (0x1000, PteOp.OTHER)))
    writes.take(_batch((0x2000, PteOp.OTHER), (0x1000, PteOp.HARDWARE_AD)))
    assert writes.told_apart(cast("DmaWrites", _Device())) == (1, 1)
    assert writes.told_apart(None) == (2, 0)


def test_nothing_is_found_in_nothing() -> None:
    writes = UnexplainedWrites()
    writes.take(empty(0))
    assert writes.told_apart(None) == (0, 0)
