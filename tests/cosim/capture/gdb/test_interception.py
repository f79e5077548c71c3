"""Interception on a scripted guest: the exact events and points of each kind of stop."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosim.capture.gdb.interception import Interception
from cosim.capture.gdb.interposer import Interposer
from cosim.capture.gdb.layout import GuestLayout, Range
from cosim.capture.gdb.stepping import Stepping
from cosim.capture.gdb.stopped_guest import GuestEnded
from cosim.debugger.rsp import Decoder, frame
from cosim.errors import GuestError
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_MXR,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    EventBatch,
    Fence,
    Kind,
    PteOp,
    Satp,
)
from hypervisor_model.isa import causes, pte
from hypervisor_model.jit import unsigned
from tests.cosim.capture.gdb.fake_stub import (
    BASE,
    INTERRUPT_CAUSE,
    MPRV,
    PAGES,
    TVM,
    Does,
    Ends,
    FakeStub,
    Traps,
)

LINEAR = 0x4000_0000
"""The virtual address of RAM: page n is mapped at LINEAR + 4096 * n."""
ROOT, MIDDLE, LEAF, CODE, DATA, SPARE, BOTH = (BASE + 0x1000 * n for n in range(1, 8))
"""Three tables; text; data; an empty page; a page that is writable and executable."""
SATP = 8 << 60 | ROOT >> 12
FENCE_AT, SATP_AT, STORE_AT, MARK_AT = (CODE + offset for offset in (0x100, 0x180, 0x200, 0xF00))
VECTOR = LINEAR + 0x4800
FIRMWARE_VECTOR = BASE + 0x8000
RWAD = pte.V | pte.R | pte.W | pte.A | pte.D
RXA = pte.V | pte.R | pte.X | pte.A

SFENCE_ALL, SFENCE_A0_A1 = 0x1200_0073, 0x12B5_0073
CSRW_SATP_A0 = 0x1805_1073
SD, SW, LD, NOP, ECALL = 0x00B5_3023, 0x00B5_2023, 0x0005_3583, 0x0000_0013, 0x0000_0073
SC_D, AMOSWAP_D, CBO_ZERO, VSE64 = 0x18B5_362F, 0x08B5_362F, 0x0045_200F, 0x0205_70A7
HLV_D = 0x6C05_45F3
PMP_NAPOT = 3 << 3
A0, A1, A2, SP, PC = 10, 11, 12, 2, 32

Row = tuple[Kind, int, int, int, int, int, int]
"""kind, a, b, c, sub, flags, size."""


def linear(pa: int) -> int:
    return pa - BASE + LINEAR


def link(pa: int) -> int:
    return pa >> 2 | pte.V


def leaf(pa: int, bits: int = RWAD) -> int:
    return pa >> 2 | bits


class Run:
    """A guest in its region, with what interception has told of it."""

    def __init__(
        self,
        stepping: Stepping | None = None,
        *,
        bare: bool = False,
        firmware: tuple[Range, ...] = (),
        machine_mode: bool = False,
        told: tuple[int, ...] = (),
    ) -> None:
        self.fake = fake = FakeStub()
        fake.entry(ROOT, LINEAR >> 30, link(MIDDLE))
        fake.entry(MIDDLE, 0, link(LEAF))
        for number in range(PAGES):
            page = BASE + 0x1000 * number
            bits = {CODE: RXA, BOTH: RWAD | pte.X}.get(page, RWAD)
            fake.entry(LEAF, number, leaf(page, bits))
        self.code(FENCE_AT, SFENCE_ALL)
        self.code(SATP_AT, CSRW_SATP_A0)
        self.code(MARK_AT, NOP)
        fake.csrs |= {"priv": 1, "satp": 0 if bare else SATP, "stvec": VECTOR}
        fake.csrs["mtvec"] = FIRMWARE_VECTOR
        fake.general[SP] = linear(DATA) + 0x800
        fake.general[PC] = linear(STORE_AT)
        self.batches: list[EventBatch] = []
        self.layout = GuestLayout(
            fake.ram,
            BASE,
            extents=lambda: [(BASE, fake.ram.nbytes)],
            mark_at=linear(MARK_AT),
            firmware=firmware,
            machine_mode=machine_mode,
        )
        self.stub = fake.connect()
        self.interception = Interception(
            self.stub, self.layout, self.batches.append, stepping=stepping, told=told
        )

    def begin(self) -> Run:
        self.interception.begin()
        self.batches.clear()
        return self

    def code(self, pa: int, word: int) -> None:
        self.fake.put(pa, word.to_bytes(4, "little"))

    def stop_at(self, pa: int, word: int | None = None, **registers: int) -> None:
        """Stand before the instruction at ``pa`` (a kernel's: at its linear address)."""
        if word is not None:
            self.code(pa, word)
        self.fake.general[PC] = linear(pa)
        for name, value in registers.items():
            self.fake.general[{"a0": A0, "a1": A1, "a2": A2}[name]] = value

    def execute(self, *script: Does | Traps | Ends) -> bool:
        """Handle one stop for each step of the script; True if each was executed."""
        self.fake.script.extend(script)
        return all(self.interception.execute(self.interception.state()) for _ in script)

    def rows(self) -> list[Row]:
        """The events since the last call, without pc and privilege."""
        return [row[1:] for row in self.stamped()]

    def stamped(self) -> list[tuple[tuple[int, int], Kind, int, int, int, int, int, int]]:
        self.interception.flush()
        found = [
            (
                (unsigned(int(event["pc"])), int(event["priv"])),
                Kind(event["kind"]),
                *(int(event[name]) for name in ("a", "b", "c", "sub", "flags", "size")),
            )
            for batch in self.batches
            for event in batch
        ]
        self.batches.clear()
        return found  # type: ignore[return-value]

    def inserted(self) -> tuple[set[int], set[int]]:
        """What QEMU holds, after the requests that wait for the next one."""
        self.interception.state()
        held = self.fake.breaks, self.fake.watches
        assert held == tuple(map(set, self.interception.points()))
        return held


@pytest.fixture
def run() -> Run:
    return Run().begin()


def fetch(pa: int, flags: int = FLAG_STOP, size: int = 4) -> Row:
    return Kind.ACCESS, linear(pa), pa, 0, Access.FETCH, flags, size


def stack(flags: int = FLAG_STOP) -> Row:
    return Kind.ACCESS, linear(DATA) + 0x800, DATA + 0x800, 0, Access.READ, flags, 8


def access(pa: int, kind: Access, size: int = 8, flags: int = FLAG_STOP) -> Row:
    return Kind.ACCESS, linear(pa), pa, 0, kind, flags, size


def write(pa: int, old: int, new: int, op: PteOp, size: int = 8, flags: int = 0) -> Row:
    return Kind.PTE_WRITE, pa, old, new, op, flags, size


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


WATCHES = {linear(ROOT), linear(MIDDLE), linear(LEAF)}
BREAKS = {linear(FENCE_AT), linear(SATP_AT), linear(MARK_AT)}


# -- the region -----------------------------------------------------------------------------------


def test_the_region_begins_with_its_tables_and_all_points() -> None:
    run = Run()
    assert run.inserted() == ({linear(MARK_AT)}, set())
    run.interception.begin()
    leaves = [(LEAF + 8 * n, int(run.fake.ram[(LEAF - BASE) // 8 + n])) for n in range(PAGES)]
    assert run.rows() == [
        (Kind.TABLE_ADD, ROOT, 2, 0, 1, 0, 0),
        (Kind.TABLE_ENTRY, ROOT + 8, 0, link(MIDDLE), 0, 0, 0),
        (Kind.TABLE_ADD, MIDDLE, 1, 0, 0, 0, 0),
        (Kind.TABLE_ENTRY, MIDDLE, 0, link(LEAF), 0, 0, 0),
        (Kind.TABLE_ADD, LEAF, 0, 0, 0, 0, 0),
        *((Kind.TABLE_ENTRY, pa, 0, entry, 0, 0, 0) for pa, entry in leaves),
        (Kind.SATP_WRITE, SATP - (1 << 64), SATP - (1 << 64), 0, Satp.SATP, FLAG_STOP, 0),
    ]
    assert run.inserted() == (BREAKS, WATCHES)


def test_the_region_ends_with_an_audit_and_without_points(run: Run) -> None:
    run.fake.entry(LEAF, 40, 0x100)
    run.interception.end(alive=True)
    assert run.rows() == [write(LEAF + 8 * 40, 0, 0x100, PteOp.OTHER)]
    assert run.interception.audit.checks == 1
    assert run.inserted() == (set(), set())
    assert not run.interception.active


def test_a_region_cannot_begin_in_a_virtual_machine() -> None:
    run = Run()
    run.fake.csrs["priv"] = 5
    with pytest.raises(GuestError, match="V=1"):
        run.interception.begin()


def test_outside_the_region_a_stop_is_stepped_over_without_events() -> None:
    run = Run()
    run.stop_at(MARK_AT)
    assert run.execute(Does())
    assert run.fake.general[PC] == linear(MARK_AT) + 4
    assert run.rows() == []


# -- instructions that complete -------------------------------------------------------------------


def test_a_fence_names_its_operands_and_audits(run: Run) -> None:
    run.stop_at(FENCE_AT, SFENCE_A0_A1, a0=linear(DATA), a1=7)
    run.fake.csrs["sstatus"] = 1 << 18 | 1 << 19
    flags = FLAG_STOP | FLAG_SUM | FLAG_MXR
    assert run.execute(Does())
    assert run.stamped() == [
        ((linear(FENCE_AT), 1), *row)
        for row in (
            fetch(FENCE_AT, flags),
            stack(flags),
            (Kind.FENCE, linear(DATA), 7, 0, Fence.SFENCE_VMA | Fence.VA_ASID, 0, 0),
        )
    ]
    assert run.interception.audit.to_json()["checks"] == 1
    assert run.inserted() == (BREAKS, WATCHES)


def test_a_store_to_a_leaf_table(run: Run) -> None:
    run.stop_at(STORE_AT, SD, a0=linear(LEAF) + 8 * 9, a1=leaf(SPARE, pte.V | pte.R | pte.A))
    old = leaf(BASE + 9 * 0x1000)
    new = leaf(SPARE, pte.V | pte.R | pte.A)
    assert run.execute(Does({linear(LEAF) + 8 * 9: word(new)}))
    assert run.rows() == [
        fetch(STORE_AT),
        stack(),
        access(LEAF + 8 * 9, Access.WRITE),
        write(LEAF + 8 * 9, old, new, PteOp.STORE),
    ]
    assert run.inserted() == (BREAKS, WATCHES)
    assert run.fake.general[PC] == linear(STORE_AT) + 4
    # A changed entry proves that the store ran: nobody asked for pc.
    assert b"p20" not in run.fake.answered


def test_a_store_of_the_same_value_is_an_event_too(run: Run) -> None:
    same = leaf(DATA)
    index = (DATA - BASE) >> 12
    run.stop_at(STORE_AT, SD, a0=linear(LEAF) + 8 * index, a1=same)
    run.execute(Does({linear(LEAF) + 8 * index: word(same)}))
    assert run.rows()[-1] == write(LEAF + 8 * index, same, same, PteOp.STORE)
    assert b"p20" in run.fake.answered


def test_a_table_that_is_linked_and_unlinked_is_watched_so_long(run: Run) -> None:
    at = linear(MIDDLE) + 8
    run.fake.entry(SPARE, 5, leaf(DATA))
    run.stop_at(STORE_AT, SD, a0=at, a1=link(SPARE))
    run.execute(Does({at: word(link(SPARE))}))
    assert run.rows()[3:] == [
        write(MIDDLE + 8, 0, link(SPARE), PteOp.STORE),
        (Kind.TABLE_ADD, SPARE, 0, 0, 0, 0, 0),
        (Kind.TABLE_ENTRY, SPARE + 8 * 5, 0, leaf(DATA), 0, 0, 0),
    ]
    assert run.inserted() == (BREAKS, WATCHES | {linear(SPARE)})
    run.stop_at(STORE_AT, SD, a0=at, a1=0)
    run.execute(Does({at: word(0)}))
    assert run.rows()[3:] == [
        write(MIDDLE + 8, link(SPARE), 0, PteOp.STORE),
        (Kind.TABLE_DROP, SPARE, 0, 0, 0, 0, 0),
    ]
    assert run.inserted() == (BREAKS, WATCHES)


def test_an_amo_is_a_write(run: Run) -> None:
    at = LEAF + 8 * 20
    run.stop_at(STORE_AT, AMOSWAP_D, a0=linear(at), a1=0x300)
    run.execute(Does({linear(at): word(0x300)}, general={A2: 0}))
    assert run.rows()[2:] == [access(at, Access.WRITE), write(at, 0, 0x300, PteOp.AMO)]


def test_an_sc_that_succeeds_and_one_that_fails(run: Run) -> None:
    at = LEAF + 8 * 21
    run.stop_at(STORE_AT, SC_D, a0=linear(at), a1=0x400)
    run.execute(Does(general={A2: 1}))
    assert run.rows() == [fetch(STORE_AT), stack()]
    run.stop_at(STORE_AT, a0=linear(at), a1=0x400)
    run.execute(Does({linear(at): word(0x400)}, general={A2: 0}))
    assert run.rows() == [
        fetch(STORE_AT),
        stack(),
        access(at, Access.WRITE),
        write(at, 0, 0x400, PteOp.SC),
    ]


def test_cbo_zero_clears_a_block_of_entries(run: Run) -> None:
    """The first half of the block holds entries, the other is zero already: all are written."""
    first = LEAF + 64
    old = [leaf(BASE + 0x1000 * n) for n in range(8, 16)]
    run.stop_at(STORE_AT, CBO_ZERO, a0=linear(first) + 24)
    run.execute(Does({linear(first): bytes(64)}))
    assert run.rows()[2:] == [
        access(first, Access.WRITE, 64),
        *(
            write(first + 8 * n, value, 0, PteOp.CBO_ZERO, 64, FLAG_CONT if n else 0)
            for n, value in enumerate(old)
        ),
    ]
    # The pages whose linear mappings are gone hold no table.
    assert run.inserted() == (BREAKS, WATCHES)


def test_a_vector_store_is_found_in_the_tables(run: Run) -> None:
    run.stop_at(STORE_AT, VSE64, a0=linear(LEAF) + 8 * 30)
    run.execute(Does({linear(LEAF) + 8 * 30: word(0x100) + word(0x200)}))
    assert run.rows()[2:] == [
        access(LEAF + 8 * 30, Access.WRITE, 1),
        write(LEAF + 8 * 30, 0, 0x100, PteOp.VECTOR, 0),
        write(LEAF + 8 * 31, 0, 0x200, PteOp.VECTOR, 0, FLAG_CONT),
    ]
    assert run.interception.audit.missed == []
    assert run.inserted() == (BREAKS, WATCHES)


def test_a_satp_write_brings_tables_and_bare_mode_watches_them_by_physical_address(
    run: Run,
) -> None:
    new = 8 << 60 | 3 << 44 | SPARE >> 12
    run.fake.entry(SPARE, LINEAR >> 30, link(MIDDLE))
    run.stop_at(SATP_AT, a0=new)
    run.execute(Does(csrs={"satp": new}))
    assert run.rows() == [
        fetch(SATP_AT),
        stack(),
        (Kind.SATP_WRITE, SATP - (1 << 64), new - (1 << 64), 0, Satp.SATP, 0, 0),
        (Kind.TABLE_ADD, SPARE, 2, 0, 1, 0, 0),
        (Kind.TABLE_ENTRY, SPARE + 8, 0, link(MIDDLE), 0, 0, 0),
    ]
    everything = WATCHES | {linear(SPARE)}
    assert run.inserted() == (BREAKS, everything)
    run.stop_at(SATP_AT, a0=0)
    run.execute(Does(csrs={"satp": 0}))
    assert run.rows()[2:] == [(Kind.SATP_WRITE, new - (1 << 64), 0, 0, Satp.SATP, 0, 0)]
    assert run.inserted() == (BREAKS, everything | {ROOT, MIDDLE, LEAF, SPARE})


def test_a_write_of_satp_by_a_virtual_machine_writes_vsatp(run: Run) -> None:
    run.stop_at(SATP_AT, a0=0x55)
    run.fake.csrs |= {"priv": 5, "satp": 0}
    run.fake.general[PC] = SATP_AT
    run.execute(Does(csrs={"satp": 0x55}))
    events = run.rows()
    assert events[-1] == (Kind.SATP_WRITE, 0, 0x55, 0, Satp.VSATP, 0, 0)
    assert run.interception.audit.missed_satp_writes == 0


def test_a_load_from_a_virtual_machines_memory_is_no_access_of_the_guest(run: Run) -> None:
    """The guest's own tables map the address, too; hlv does not use them."""
    run.stop_at(STORE_AT, HLV_D, a0=linear(DATA))
    run.execute(Does(general={11: 0}))
    assert run.rows() == [fetch(STORE_AT), stack()]


# -- stores beside what a watchpoint is for -------------------------------------------------------


def test_a_store_beside_the_entries_in_use(run: Run) -> None:
    at = LEAF + 8 * 511 + 4
    run.stop_at(STORE_AT, SW, a0=linear(at), a1=7)
    run.execute(Does({linear(at): (7).to_bytes(4, "little")}))
    assert run.rows()[2:] == [
        access(at, Access.WRITE, 4),
        write(at, 0, 7 << 32, PteOp.STORE, 4),
    ]


def test_a_store_that_crosses_from_data_into_a_table(run: Run) -> None:
    """The watchpoint of the second page stops it; only that page's part is an event."""
    before = ROOT - 4  # The page below the root is no table.
    run.stop_at(STORE_AT, SD, a0=linear(before), a1=5 << 32)
    run.execute(Does({linear(before): word(5 << 32)}))
    assert run.rows()[2:] == [
        access(before, Access.WRITE, 4),
        access(ROOT, Access.WRITE, 4),
        write(ROOT, 0, 5, PteOp.STORE, 8),
    ]
    assert run.inserted() == (BREAKS, WATCHES)


def test_a_misaligned_store_changes_two_entries(run: Run) -> None:
    at = LEAF + 8 * 32 + 4
    run.stop_at(STORE_AT, SD, a0=linear(at), a1=2 << 32 | 1)
    run.execute(Does({linear(at): word(2 << 32 | 1)}))
    assert run.rows()[3:] == [
        write(at, 0, 1 << 32, PteOp.STORE),
        write(at + 4, 0, 2, PteOp.STORE, flags=FLAG_CONT),
    ]


def test_a_watchpoint_that_leads_elsewhere_gives_no_event_of_a_table(run: Run) -> None:
    """A stop that is interception's, though the store reaches no live table."""
    run.stop_at(STORE_AT, SD, a0=linear(DATA), a1=1)
    run.execute(Does({linear(DATA): word(1)}))
    assert run.rows() == [fetch(STORE_AT), stack(), access(DATA, Access.WRITE)]


# -- steps that do not execute the instruction ----------------------------------------------------


@pytest.mark.parametrize("to", ["s", "m"])
@pytest.mark.parametrize("vectored", [0, 1])
def test_an_interrupt_taken_by_the_step_is_no_event(run: Run, to: str, vectored: int) -> None:
    run.fake.csrs["stvec"] |= vectored
    run.fake.csrs["mtvec"] |= vectored
    new = leaf(SPARE)
    run.stop_at(STORE_AT, SD, a0=linear(LEAF) + 8 * 40, a1=new)
    run.execute(Traps(INTERRUPT_CAUSE | 5, to=to))
    assert run.rows() == []
    assert run.inserted() == (BREAKS, WATCHES), "the watchpoint is there when it comes back"
    run.fake.csrs["priv"] = 1
    run.stop_at(STORE_AT)
    run.execute(Does({linear(LEAF) + 8 * 40: word(new)}))
    assert run.rows()[3:] == [write(LEAF + 8 * 40, 0, new, PteOp.STORE)]


@pytest.mark.parametrize("to", ["s", "m"])
@pytest.mark.parametrize(
    ("code", "cause", "kind"),
    [(LD, causes.LOAD_PAGE_FAULT, Access.READ), (SD, causes.STORE_PAGE_FAULT, Access.WRITE)],
)
def test_a_load_or_store_that_faults(
    run: Run, code: int, cause: int, kind: Access, to: str
) -> None:
    nowhere = LINEAR + 0x20_0000
    run.stop_at(STORE_AT, code, a0=nowhere)
    run.execute(Traps(cause, nowhere, to))
    assert run.stamped() == [
        ((linear(STORE_AT), 1), *row)
        for row in (
            fetch(STORE_AT),
            stack(),
            (Kind.ACCESS, nowhere, -1 - cause, 0, kind, FLAG_STOP, 0),
            (Kind.PAGE_FAULT, nowhere, cause, 0, 0, 0, 0),
        )
    ]


def test_a_store_to_a_table_that_faults_changes_nothing(run: Run) -> None:
    at = linear(LEAF) + 8
    run.stop_at(STORE_AT, SD, a0=at, a1=0)
    run.execute(Traps(causes.STORE_PAGE_FAULT, at))
    assert run.rows()[2:] == [
        (Kind.ACCESS, at, -1 - causes.STORE_PAGE_FAULT, 0, Access.WRITE, FLAG_STOP, 0),
        (Kind.PAGE_FAULT, at, causes.STORE_PAGE_FAULT, 0, 0, 0, 0),
    ]


def test_a_fetch_that_faults(run: Run) -> None:
    nowhere = LINEAR + 0x20_0000
    run.fake.general[PC] = nowhere
    run.execute(Traps(causes.FETCH_PAGE_FAULT, nowhere))
    assert run.rows() == [
        stack(),
        (Kind.ACCESS, nowhere, -1 - causes.FETCH_PAGE_FAULT, 0, Access.FETCH, FLAG_STOP, 0),
        (Kind.PAGE_FAULT, nowhere, causes.FETCH_PAGE_FAULT, 0, 0, 0, 0),
    ]


def test_a_fetch_that_faults_though_the_page_can_be_read(run: Run) -> None:
    """QEMU's walk for the debugger finds the page; the fetch failed all the same."""
    run.stop_at(DATA, NOP)
    run.execute(Traps(causes.FETCH_PAGE_FAULT, linear(DATA)))
    assert run.rows() == [
        stack(),
        (Kind.ACCESS, linear(DATA), -1 - causes.FETCH_PAGE_FAULT, 0, Access.FETCH, FLAG_STOP, 0),
        (Kind.PAGE_FAULT, linear(DATA), causes.FETCH_PAGE_FAULT, 0, 0, 0, 0),
    ]


def test_a_fault_of_a_virtual_machines_memory_is_the_virtual_machines(run: Run) -> None:
    run.stop_at(STORE_AT, HLV_D, a0=0x1234)
    run.fake.csrs |= {"hstatus": 1 << 8, "sstatus": 1 << 18}
    run.execute(Traps(causes.LOAD_PAGE_FAULT, 0x1234))
    assert [stamp[1] for stamp, *_ in run.stamped()] == [1, 1, 5, 5]


def test_an_ecall_is_fetched_and_no_more(run: Run) -> None:
    run.stop_at(STORE_AT, ECALL)
    run.execute(Traps(9, to="m"))
    assert run.rows() == [fetch(STORE_AT), stack()]


def test_a_fence_that_traps_is_no_fence(run: Run) -> None:
    """In U-mode, or with mstatus.TVM: the instruction is illegal."""
    run.stop_at(FENCE_AT)
    run.execute(Traps(2))
    assert run.rows() == [fetch(FENCE_AT), stack()]


def test_the_guest_ends_inside_a_step(run: Run) -> None:
    run.stop_at(STORE_AT, SD, a0=linear(LEAF), a1=1)
    with pytest.raises(GuestEnded):
        run.execute(Ends())
    assert run.rows() == []


def test_a_fence_in_the_firmware_is_not_translated() -> None:
    firmware = BASE + 0x9000
    run = Run(firmware=((firmware, 0x1000),))
    run.code(firmware + 0x20, SFENCE_ALL)
    run.begin()
    assert run.inserted() == (BREAKS | {firmware + 0x20}, WATCHES)
    run.fake.csrs["priv"] = 3
    run.fake.general[PC] = firmware + 0x20
    run.execute(Does())
    assert run.stamped() == [
        ((firmware + 0x20, 3), Kind.FENCE, 0, 0, 0, Fence.SFENCE_VMA, 0, 0),
    ]


def test_a_satp_that_traps_is_read_all_the_same(run: Run) -> None:
    run.fake.csrs["mstatus"] = TVM | 0x80
    run.stop_at(STORE_AT, SD, a0=linear(LEAF) + 8)
    run.execute(Does({linear(LEAF) + 8: bytes(8)}))
    assert [row[0] for row in run.rows()].count(Kind.PTE_WRITE) == 1
    assert run.interception.audit.missed_satp_writes == 0
    assert run.fake.csrs["mstatus"] == TVM | 0x80
    # The privilege is never written: that would lose the hart's reservation.
    assert not any(packet.startswith(b"P64=") for packet in run.fake.answered)


def test_machine_mode_stores_to_tables_by_their_physical_addresses() -> None:
    run = Run(firmware=((BASE, PAGES * 4096),), machine_mode=True).begin()
    assert {ROOT, MIDDLE, LEAF} <= run.inserted()[1]
    run.fake.csrs["priv"] = 3
    run.code(CODE + 0x300, SD)
    run.fake.general[PC], run.fake.general[A0] = CODE + 0x300, LEAF + 8
    run.execute(Does({LEAF + 8: bytes(8)}))
    (event,) = run.stamped()
    assert event[:3] == ((CODE + 0x300, 3), Kind.PTE_WRITE, LEAF + 8)


def test_machine_mode_stores_to_a_table_through_mprv() -> None:
    run = Run(machine_mode=True).begin()
    run.fake.csrs |= {"priv": 3, "mstatus": MPRV}
    run.code(CODE + 0x300, SD)
    # pc is physical; the operand is not.
    run.fake.general[PC], run.fake.general[A0] = CODE + 0x300, linear(LEAF) + 8
    run.execute(Does({linear(LEAF) + 8: bytes(8)}))
    (event,) = run.stamped()
    assert event[:3] == ((CODE + 0x300, 3), Kind.PTE_WRITE, LEAF + 8)


def test_a_store_that_is_not_understood_is_stepped_over(run: Run) -> None:
    """Its watchpoint is none of its operands': the guest must not stop there for ever."""
    run.stop_at(STORE_AT, NOP)
    run.execute(Does({linear(LEAF) + 0x60: bytes(8)}))
    assert run.fake.general[PC] == linear(STORE_AT) + 4
    (row,) = (row for row in run.rows() if row[0] == Kind.PTE_WRITE)
    assert (row[1], row[4]) == (LEAF + 0x60, PteOp.OTHER)
    assert run.inserted() == (BREAKS, WATCHES)


def test_one_address_of_two_processes_holds_two_instructions() -> None:
    run = Run(Stepping(all=True)).begin()
    run.fake.csrs["priv"] = 0
    run.stop_at(CODE + 0x400, LD, a0=linear(DATA))
    run.execute(Does())
    # Another page is at that address now; the old one still holds its code.
    run.fake.entry(LEAF, (CODE - BASE) >> 12, leaf(DATA, RXA))
    run.code(DATA + 0x400, SFENCE_ALL)
    run.stop_at(CODE + 0x400, a0=linear(DATA))
    run.execute(Traps(2))
    reads = [row for row in run.rows() if row[0] == Kind.ACCESS and row[4] == Access.READ]
    assert len([row for row in reads if not row[5] & FLAG_STOP]) == 1


# -- marks ----------------------------------------------------------------------------------------


def _name(run: Run, label: str) -> None:
    data = label.encode().ljust(32, b"\0")
    for n in range(4):
        run.fake.general[A0 + n] = int.from_bytes(data[8 * n : 8 * n + 8], "little")


def test_a_mark_is_an_event_and_executed(run: Run) -> None:
    for label in ("fork", "exec", "fork"):
        run.stop_at(MARK_AT)
        _name(run, label)
        assert run.execute(Does())
    assert run.interception.labels.names == ["fork", "exec"]
    assert [row[1] for row in run.rows() if row[0] is Kind.MARK] == [0, 1, 0]


def test_a_mark_is_one_event_if_an_interrupt_comes_before_it(run: Run) -> None:
    for step in (Traps(INTERRUPT_CAUSE | 5), Does()):
        run.stop_at(MARK_AT)
        _name(run, "fork")
        assert run.execute(step)
    assert [row[1] for row in run.rows() if row[0] is Kind.MARK] == [0]


def test_a_mark_for_gdb_is_neither_executed_nor_an_event(run: Run) -> None:
    run.interception.stop_at_marks = {"end"}
    run.stop_at(MARK_AT)
    _name(run, "end")
    assert not run.execute(Does())
    assert run.fake.general[PC] == linear(MARK_AT)
    assert run.rows() == []
    assert run.fake.script, "not stepped"


# -- the audit ------------------------------------------------------------------------------------


def test_a_missed_table_write_is_found_at_the_next_fence(run: Run) -> None:
    fresh = leaf(DATA, pte.V | pte.R | pte.W)
    run.stop_at(STORE_AT, SD, a0=linear(LEAF) + 8 * 40, a1=fresh)
    run.execute(Does({linear(LEAF) + 8 * 40: word(fresh)}))
    run.rows()
    # A device writes one entry, and the MMU sets A and D in another.
    run.fake.entry(LEAF, 41, 0x700)
    run.fake.entry(LEAF, 40, fresh | pte.A | pte.D)
    run.stop_at(FENCE_AT)
    run.execute(Does())
    audit = run.interception.audit.to_json()
    assert run.rows() == [
        write(LEAF + 8 * 40, fresh, fresh | pte.A | pte.D, PteOp.HARDWARE_AD),
        write(LEAF + 8 * 41, 0, 0x700, PteOp.OTHER),
        fetch(FENCE_AT),
        stack(),
        (Kind.FENCE, 0, 0, 0, Fence.SFENCE_VMA, 0, 0),
    ]
    assert audit["missed_writes"] == 1 and audit["hardware_ad_updates"] == 1
    assert audit["missed"] == [
        {
            "page": f"{LEAF:#x}",
            "index": 41,
            "expected": f"{0:#018x}",
            "found": f"{0x700:#018x}",
            "last_events": [
                f"sd a1, 0(a0) to {LEAF + 8 * 40:#x} at {linear(STORE_AT):#x}",
            ],
        }
    ]
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.interception.audit.to_json()["missed_writes"] == 1, "found once"


def test_a_missed_satp_write_is_taken_in_at_the_next_stop(run: Run) -> None:
    new = 8 << 60 | SPARE >> 12
    run.fake.entry(SPARE, LINEAR >> 30, link(MIDDLE))
    run.fake.csrs["satp"] = new
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.rows() == [
        (Kind.SATP_WRITE, SATP - (1 << 64), new - (1 << 64), 0, Satp.SATP, 0, 0),
        (Kind.TABLE_ADD, SPARE, 2, 0, 1, 0, 0),
        (Kind.TABLE_ENTRY, SPARE + 8, 0, link(MIDDLE), 0, 0, 0),
        fetch(FENCE_AT),
        stack(),
        (Kind.FENCE, 0, 0, 0, Fence.SFENCE_VMA, 0, 0),
    ]
    assert run.interception.audit.missed_satp_writes == 1
    assert run.inserted() == (BREAKS, WATCHES | {linear(SPARE)})


def test_the_tables_of_a_missed_satp_write_are_watched_though_the_step_is_interrupted(
    run: Run,
) -> None:
    new = 8 << 60 | SPARE >> 12
    run.fake.entry(SPARE, LINEAR >> 30, link(MIDDLE))
    run.fake.csrs["satp"] = new
    run.stop_at(FENCE_AT)
    run.execute(Traps(INTERRUPT_CAUSE | 5))
    assert [row[0] for row in run.rows()] == [Kind.SATP_WRITE, Kind.TABLE_ADD, Kind.TABLE_ENTRY]
    assert run.inserted() == (BREAKS, WATCHES | {linear(SPARE)})


def test_late_text_is_found_by_an_audit_and_gets_a_breakpoint(run: Run) -> None:
    run.code(BOTH + 0x10, CSRW_SATP_A0)
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.interception.audit.late_sites == {linear(BOTH) + 0x10}
    assert run.inserted() == (BREAKS | {linear(BOTH) + 0x10}, WATCHES)
    # It is looked for at the second and the fourth audit, but not at the third.
    for expected in (1, 1, 2):
        if run.interception.audit.checks == 2:
            run.code(BOTH + 0x20, SFENCE_ALL)
        run.stop_at(FENCE_AT)
        run.execute(Does())
        assert len(run.interception.audit.late_sites) == expected


def test_what_another_source_saw_executed_is_seen_without_a_search() -> None:
    loaded = linear(BOTH) + 0x10
    run = Run(told=(loaded, linear(FENCE_AT))).begin()
    assert run.inserted() == (BREAKS | {loaded}, WATCHES)
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.interception.audit.late_sites == set()
    run.code(BOTH + 0x10, SFENCE_ALL)
    run.stop_at(BOTH + 0x10)
    run.execute(Does())
    assert [row[0] for row in run.rows()].count(Kind.FENCE) == 2
    assert run.interception.audit.late_sites == {loaded}
    run.interception.end(alive=True)
    assert run.inserted() == (set(), set())


@pytest.mark.parametrize("setting", [0, PMP_NAPOT])
def test_data_that_s_mode_cannot_execute_is_not_late(run: Run, setting: int) -> None:
    run.code(BOTH + 0x10, SFENCE_ALL)
    run.fake.csrs["pmpaddr0"] = BOTH >> 2 | 0x1FF
    run.fake.csrs["pmpcfg0"] = setting
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.interception.audit.late_sites == {linear(BOTH) + 0x10}
    run.interception.end(alive=True)
    assert bool(run.interception.audit.late_sites) is not bool(setting)


def test_before_paging_data_that_looks_like_a_fence_is_late_once_it_is_executed() -> None:
    run = Run(bare=True)
    run.fake.general[PC] = STORE_AT
    run.begin()
    assert run.inserted() == ({FENCE_AT, SATP_AT, linear(MARK_AT)}, set())
    run.code(DATA + 0x40, SFENCE_ALL)
    run.fake.general[PC] = FENCE_AT
    run.execute(Does())
    assert run.interception.audit.late_sites == set()
    assert DATA + 0x40 in run.inserted()[0]
    run.fake.general[PC] = DATA + 0x40
    run.execute(Does())
    assert run.interception.audit.late_sites == {DATA + 0x40}


# -- stepping -------------------------------------------------------------------------------------


def test_instructions_behind_a_fence_are_stepped_for_their_accesses() -> None:
    run = Run(Stepping(after=2)).begin()
    run.stop_at(FENCE_AT)
    run.execute(Does())
    assert run.interception.stepping
    assert [row[5] for row in run.rows()] == [FLAG_STOP, FLAG_STOP, 0]
    run.code(FENCE_AT + 4, LD)
    run.fake.general[A0] = linear(DATA)
    run.execute(Does())
    assert run.rows() == [fetch(FENCE_AT + 4, 0), stack(), access(DATA, Access.READ, flags=0)]
    run.code(FENCE_AT + 8, NOP)
    run.execute(Does())
    assert not run.interception.stepping
    assert run.interception.stepped == 2


def test_the_firmware_is_run_through_and_not_stepped() -> None:
    run = Run(Stepping(all=True)).begin()
    run.stop_at(STORE_AT, ECALL)
    run.execute(Traps(9, to="m"))
    assert not run.interception.stepping
    returns = {linear(STORE_AT), linear(STORE_AT) + 4, VECTOR}
    assert run.inserted() == (BREAKS | returns, WATCHES)
    run.fake.csrs["priv"] = 1
    run.stop_at(STORE_AT + 4, NOP)
    run.execute(Does())
    assert run.inserted() == (BREAKS, WATCHES)
    assert run.interception.stepping


# -- through the interposer -----------------------------------------------------------------------


class Gdb:
    """The client side of a gdb, as far as it resumes and inspects."""

    def __init__(self, path: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(10)
        self._line.connect(str(path))
        self._decoder = Decoder()
        assert self.ask(b"QStartNoAckMode") == b"OK"

    def ask(self, payload: bytes) -> bytes:
        self._line.sendall(frame(payload))
        while True:
            for packet in self._decoder.feed(self._line.recv(4096)):
                return packet

    def close(self) -> None:
        self._line.close()


@contextlib.contextmanager
def attached(run: Run, folder: Path) -> Iterator[tuple[Gdb, Interposer]]:
    interposer = Interposer(run.stub, run.interception, folder / "socket")
    gdb = Gdb(interposer.path)
    try:
        yield gdb, interposer
    finally:
        gdb.close()
        interposer.close()


def test_gdb_sees_its_mark_and_none_of_the_stops_before(run: Run, tmp_path: Path) -> None:
    run.interception.stop_at_marks = {"end"}
    at = linear(LEAF) + 8 * 40
    run.stop_at(STORE_AT, NOP)
    run.code(STORE_AT + 4, SD)
    _name(run, "end")
    run.fake.script += [
        Does(general={A0: at}),
        Does({at: word(0x100)}, jump=linear(FENCE_AT)),
        Does(general={A0: int.from_bytes(b"end", "little"), A1: 0}, jump=linear(MARK_AT)),
        Does(),
    ]
    with attached(run, tmp_path) as (gdb, interposer):
        assert gdb.ask(b"vCont;c") == b"T05thread:01;"
        assert interposer.failure is None and not interposer.ended
    assert run.fake.general[PC] == linear(MARK_AT)
    assert [row[0] for row in run.rows() if row[0] is not Kind.ACCESS] == [
        Kind.PTE_WRITE,
        Kind.FENCE,
    ]


def test_gdb_sees_the_guests_end_inside_a_step(run: Run, tmp_path: Path) -> None:
    run.stop_at(FENCE_AT)
    run.fake.script.append(Ends())
    with attached(run, tmp_path) as (gdb, interposer):
        assert gdb.ask(b"vCont;c") == b"W00"
        assert interposer.failure is None
        assert interposer.ended and interposer.gone
        assert gdb.ask(b"?") == b"W00"
    assert run.rows() == []


def test_the_traffic_with_gdb_is_logged_apart(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.stop_at(FENCE_AT)
    run.fake.script.append(Ends())
    with caplog.at_level(logging.DEBUG, "cosim.rsp"), attached(run, tmp_path) as (gdb, _):
        gdb.ask(b"vCont;c")
    lines = [r.getMessage() for r in caplog.records if r.name == "cosim.rsp.gdb"]
    assert lines == ["<- QStartNoAckMode", "-> OK", "<- vCont;c", "-> W00"]
