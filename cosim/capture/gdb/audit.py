"""What was missed: changes of tables and of ``satp`` that no event explains, and late text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hypervisor_model.events import PteOp
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed, unsigned

_SHOWN = 20
"""The document lists this many findings of each kind."""
_LAST_EVENTS = 5


@dataclass(frozen=True)
class Missed:
    """An entry of a live table that changed without an event."""

    page: int
    index: int
    expected: int
    found: int
    last_events: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the difference as the result document shows it."""
        return {
            "page": f"0x{self.page:x}",
            "index": self.index,
            "expected": f"0x{unsigned(self.expected):016x}",
            "found": f"0x{unsigned(self.found):016x}",
            "last_events": list(self.last_events),
        }


@dataclass
class Audit:
    """How often the live tables were compared with the tool's copy, and what that found."""

    checks: int = 0
    missed: list[Missed] = field(default_factory=list)
    dma: list[Missed] = field(default_factory=list)
    """Entries that changed without an event where a device has written to RAM."""
    hardware_ad: int = 0
    """Entries in which QEMU's MMU has set A or D; each is an event."""
    missed_satp_writes: int = 0
    """How often ``satp`` differed from the last write that was seen."""
    late_sites: set[int] = field(default_factory=set)
    """Fences and ``satp`` writes in text that appeared unseen: some may have been executed."""

    def to_json(self) -> dict[str, object]:
        """Return the audit as the result document shows it."""
        return {
            "checks": self.checks,
            "missed_writes": len(self.missed),
            "dma_writes": len(self.dma),
            "hardware_ad_updates": self.hardware_ad,
            "missed": [missed.to_json() for missed in self.missed[:_SHOWN]],
            "dma": [written.to_json() for written in self.dma[:_SHOWN]],
            "missed_satp_writes": self.missed_satp_writes,
            "late_sites": len(self.late_sites),
            "late_site_addresses": [f"0x{va:x}" for va in sorted(self.late_sites)[:_SHOWN]],
        }


class AuditedTables(Protocol):
    """The live tables, as far as the audit needs them."""

    satp: int
    """The last value seen, as an int64."""

    def differences(self) -> list[tuple[int, int, int]]:
        """Return (PA, copy, RAM) of each entry that differs from its copy."""

    def is_by_mmu(self, old: int, new: int) -> bool:
        """Return True if the MMU may have made a change."""

    def found(self, pa: int, op: PteOp = PteOp.OTHER) -> None:
        """Take in an entry that differs, as an event."""

    def write_satp(self, old: int, new: int) -> None:
        """Take in a write of ``satp``, as events."""


class LateText(Protocol):
    """The search for intercepted instructions that appeared unseen."""

    def find_late(self) -> set[int]:
        """Return the virtual addresses of those that were not known before."""


def nothing(pa: int) -> bool:
    """Return False: no device has written to ``pa``."""
    return False


class Auditor:
    """Looks for what was missed, and takes it in, so that the models go on from the truth.

    :param by_device: returns True if a device has written to an entry, given its address.
    """

    def __init__(
        self,
        tables: AuditedTables,
        text: LateText,
        by_device: Callable[[int], bool] = nothing,
    ) -> None:
        self.audit = Audit()
        self._tables = tables
        self._text = text
        self._by_device = by_device
        # Written out only if something was missed: it takes a disassembler.
        self._recent: deque[object] = deque(maxlen=_LAST_EVENTS)

    def note(self, executed: object) -> None:
        """Remember what happened last, for the report of what is found next; ``str`` says it."""
        self._recent.append(executed)

    def check_tables(self) -> None:
        """Compare the live tables in RAM with the copy."""
        audit = self.audit
        audit.checks += 1
        for pa, copy, ram in self._tables.differences():
            if self._tables.is_by_mmu(copy, ram):
                audit.hardware_ad += 1
                self._tables.found(pa, PteOp.HARDWARE_AD)
            else:
                page, index = pa & -pte.PAGE, (pa & (pte.PAGE - 1)) >> 3
                last_events = tuple(map(str, self._recent))
                changes = audit.dma if self._by_device(pa) else audit.missed
                changes.append(Missed(page, index, copy, ram, last_events))
                self._tables.found(pa)
        if audit.checks & (audit.checks - 1) == 0:
            # A scan costs too much for every fence.  The distance between two scans doubles, so
            # that it depends on the guest alone and not on time.
            self.check_text()

    def check_satp(self, satp: int, pc: int) -> bool:
        """Compare ``satp`` with the last write seen; return True if a write was missed."""
        if signed(satp) == self._tables.satp:
            return False
        self.audit.missed_satp_writes += 1
        self._tables.write_satp(unsigned(self._tables.satp), satp)
        self._recent.append(f"satp found to be {satp:#x} at {pc:#x}")
        return True

    def check_text(self) -> None:
        """Look for fences and ``satp`` writes in text that appeared unseen."""
        self.audit.late_sites |= self._text.find_late()
