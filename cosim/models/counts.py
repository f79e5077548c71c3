"""Counting the events of a run by kind."""

from __future__ import annotations

import numpy as np

from cosim.models.result import EventCounts, FenceCounts, VirtualCounts
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_STOP,
    EventBatch,
    Fence,
    Kind,
    PteOp,
    of_virtual_machines,
    small_fields,
)

_FORMS = 4
_COUNTERS = max(Kind) + 1


class EventCounter:
    """Counts the events of every batch it is given.

    :param harts: of the guest; with one there are no remote fences, and they are not mentioned.
    """

    def __init__(self, harts: int = 1) -> None:
        self._several = harts > 1
        self._kinds = np.zeros(_COUNTERS, dtype=np.int64)
        self._virtual = np.zeros(_COUNTERS, dtype=np.int64)
        self._forms = np.zeros(_FORMS, dtype=np.int64)
        self._continued = 0
        self._hardware_ad = 0
        self._samples = {Kind.ACCESS: 0, Kind.SATP_WRITE: 0, Kind.ENVCFG_WRITE: 0}

    def feed(self, batch: EventBatch) -> None:
        """Count ``batch``."""
        # The counts need no other fields, and those of all events lie close together then.
        batch = small_fields(batch)
        virtual = of_virtual_machines(batch)
        if virtual.any():
            self._virtual += np.bincount(batch["kind"][virtual], minlength=_COUNTERS)
            batch = batch[~virtual]
        kinds = np.bincount(batch["kind"], minlength=_COUNTERS)
        self._kinds += kinds
        if kinds[Kind.PTE_WRITE]:
            stores = batch[batch["kind"] == Kind.PTE_WRITE]
            self._continued += int(np.count_nonzero(stores["flags"] & FLAG_CONT))
            self._hardware_ad += int(np.count_nonzero(stores["sub"] == PteOp.HARDWARE_AD))
        if kinds[Kind.FENCE]:
            forms = batch["sub"][batch["kind"] == Kind.FENCE] & Fence.FORM
            self._forms += np.bincount(forms, minlength=_FORMS)
        if np.bitwise_or.reduce(batch["flags"]) & FLAG_STOP:
            stopped = batch["kind"][batch["flags"] & FLAG_STOP != 0]
            samples = np.bincount(stopped, minlength=_COUNTERS)
            for sampled in self._samples:
                self._samples[sampled] += int(samples[sampled])

    def counts(self) -> EventCounts:
        """Return the counts so far."""
        kinds = {kind: int(self._kinds[kind]) for kind in Kind}
        virtual = {kind: int(self._virtual[kind]) for kind in Kind}
        counts = EventCounts(
            total=sum(kinds.values()) + sum(virtual.values()),
            table_add=kinds[Kind.TABLE_ADD],
            table_entry=kinds[Kind.TABLE_ENTRY],
            table_drop=kinds[Kind.TABLE_DROP],
            pte_write=kinds[Kind.PTE_WRITE] - self._hardware_ad,
            hardware_ad_updates=self._hardware_ad,
            pte_write_continued=self._continued,
            fence=FenceCounts(
                va=int(self._forms[Fence.VA]),
                va_asid=int(self._forms[Fence.VA_ASID]),
                asid=int(self._forms[Fence.ASID]),
                all=int(self._forms[Fence.ALL]),
            ),
            fence_order=kinds[Kind.FENCE_ORDER],
            satp_write=kinds[Kind.SATP_WRITE] - self._samples[Kind.SATP_WRITE],
            envcfg_write=kinds[Kind.ENVCFG_WRITE] - self._samples[Kind.ENVCFG_WRITE],
            access=kinds[Kind.ACCESS] - self._samples[Kind.ACCESS],
            sample=sum(self._samples.values()),
            page_fault=kinds[Kind.PAGE_FAULT],
            mark=kinds[Kind.MARK],
            virtual=VirtualCounts(
                fence=virtual[Kind.FENCE],
                satp_write=virtual[Kind.SATP_WRITE],
                access=virtual[Kind.ACCESS],
                page_fault=virtual[Kind.PAGE_FAULT],
            ),
        )
        if self._several or kinds[Kind.REMOTE_FENCE]:
            counts["remote_fence"] = kinds[Kind.REMOTE_FENCE]
        return counts
