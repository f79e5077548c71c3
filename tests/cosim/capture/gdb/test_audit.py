"""The audit over tables and text that a test plays."""

from __future__ import annotations

from cosim.capture.gdb.audit import Auditor
from hypervisor_model.events import PteOp
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed

BY_MMU = pte.V | pte.R, pte.V | pte.R | pte.A


class PlayedTables:
    """Tables with a list of differences, which go away when they are taken in."""

    def __init__(self) -> None:
        self.satp = signed(8 << 60)
        self.wrong: dict[int, tuple[int, int]] = {}
        self.taken: list[tuple[int, PteOp]] = []
        self.written: list[tuple[int, int]] = []

    def differences(self) -> list[tuple[int, int, int]]:
        return [(pa, *entries) for pa, entries in self.wrong.items()]

    def is_by_mmu(self, old: int, new: int) -> bool:
        return (old, new) == BY_MMU

    def found(self, pa: int, op: PteOp = PteOp.OTHER) -> None:
        del self.wrong[pa]
        self.taken.append((pa, op))

    def write_satp(self, old: int, new: int) -> None:
        self.written.append((old, new))
        self.satp = signed(new)


class PlayedText:
    def __init__(self) -> None:
        self.looks = 0

    def find_late(self) -> set[int]:
        self.looks += 1
        return {0x1000 * self.looks}


def test_text_is_looked_at_in_doubling_distances() -> None:
    text = PlayedText()
    auditor = Auditor(PlayedTables(), text)
    looked = []
    for check in range(1, 18):
        before = text.looks
        auditor.check_tables()
        if text.looks > before:
            looked.append(check)
    assert looked == [1, 2, 4, 8, 16]
    assert auditor.audit.late_sites == {0x1000, 0x2000, 0x3000, 0x4000, 0x5000}


def test_what_the_mmu_may_have_done_is_not_missed() -> None:
    tables = PlayedTables()
    auditor = Auditor(tables, PlayedText())
    tables.wrong = {
        0x8000_0000: BY_MMU,
        0x8000_0008: (pte.V, pte.V | pte.D | pte.W),
        0x8000_0FF8: (signed(1 << 63), 0),
    }
    auditor.check_tables()
    audit = auditor.audit
    assert tables.taken == [
        (0x8000_0000, PteOp.HARDWARE_AD),
        (0x8000_0008, PteOp.OTHER),
        (0x8000_0FF8, PteOp.OTHER),
    ]
    assert audit.hardware_ad == 1
    assert [(missed.page, missed.index) for missed in audit.missed] == [
        (0x8000_0000, 1),
        (0x8000_0000, 511),
    ]
    assert audit.missed[1].to_json()["expected"] == "0x8000000000000000"


def test_a_satp_that_nobody_wrote_is_taken_in_once() -> None:
    tables = PlayedTables()
    auditor = Auditor(tables, PlayedText())
    assert not auditor.check_satp(8 << 60, 0)
    assert auditor.check_satp(9 << 60, 0x100)
    assert not auditor.check_satp(9 << 60, 0x104)
    assert tables.written == [(8 << 60, 9 << 60)]
    assert auditor.audit.missed_satp_writes == 1
    tables.wrong = {0x8000_0000: (0, 1)}
    auditor.check_tables()
    assert auditor.audit.missed[0].last_events == (f"satp found to be {9 << 60:#x} at 0x100",)


def test_what_a_device_wrote_is_told_apart_from_what_was_missed() -> None:
    tables = PlayedTables()
    tables.wrong = {0x1000: (0, 1), 0x1008: (0, 3), 0x2000: BY_MMU}
    auditor = Auditor(tables, PlayedText(), lambda pa: pa in (0x1008, 0x2000))
    auditor.check_tables()
    shown = auditor.audit.to_json()
    assert (shown["missed_writes"], shown["dma_writes"], shown["hardware_ad_updates"]) == (1, 1, 1)
    assert [(one.page, one.index) for one in auditor.audit.dma] == [(0x1000, 1)]
    assert [(one.page, one.index) for one in auditor.audit.missed] == [(0x1000, 0)]
    # The models go on from what is in RAM, whoever wrote it.
    assert (0x1000, PteOp.OTHER) in tables.taken and (0x1008, PteOp.OTHER) in tables.taken
