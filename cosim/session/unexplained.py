"""Changes of page tables that no instruction explains: written by a device, or missed."""

from __future__ import annotations

import numpy as np

from cosim.machine.dma import DmaWrites
from hypervisor_model.events import EventBatch, Kind, PteOp


class UnexplainedWrites:
    """Collects the entries that the plugin found changed without a store."""

    def __init__(self) -> None:
        self._addresses: list[int] = []

    def take(self, batch: EventBatch) -> None:
        """Take in a part of the plugin's stream."""
        written = batch["kind"] == Kind.PTE_WRITE
        if written.any():
            found = batch["a"][written & (batch["sub"] == PteOp.OTHER)]
            self._addresses += np.asarray(found).tolist()

    def told_apart(self, devices: DmaWrites | None) -> tuple[int, int]:
        """Return how many of them were missed, and how many are the work of a device.

        :param devices: where devices have written; None if nobody knows.  Then all count as missed.
        """
        if devices is None:
            return len(self._addresses), 0
        by_device = sum(devices.covers(pa) for pa in self._addresses)
        return len(self._addresses) - by_device, by_device
