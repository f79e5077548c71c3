"""The plugin's C code without QEMU: its tables and decoder against the Python ones."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture.decode import decode
from cosim.capture.encodings import CSR_WRITES, PATTERNS, InstructionKind
from cosim.capture.log import EventLog
from cosim.capture.tables import LiveTables
from hypervisor_model import events
from hypervisor_model.events import EVENT, EventBatch, Fence, Kind, PteOp
from hypervisor_model.jit import signed
from tests.cosim.capture.plugin.harness import compiled

BASE = 0x8000_0000
PAGES = 24
OPS = (
    *("plain", "other", "load", "store", "amo", "sc", "cbo.zero", "vstore"),
    *("fence", "atp", "vector", "status", "return", "guest", "envcfg", "order", "call", "wait"),
)


class Part(ctypes.Structure):
    _fields_ = (("pa", ctypes.c_uint64), ("length", ctypes.c_uint))


class Audit(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("pages", "entries", "differ", "hardware_ad")
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    loaded = compiled(tmp_path_factory.mktemp("harness"))
    loaded.harness_take.restype = ctypes.c_size_t
    yield loaded


# -- the decoder ---------------------------------------------------------------------------------

EXPECTED = {
    InstructionKind.FENCE: "fence",
    InstructionKind.FENCE_ORDER: "order",
    InstructionKind.ATP_WRITE: "atp",
    InstructionKind.ENVCFG_WRITE: "envcfg",
    InstructionKind.LOAD: "load",
    InstructionKind.LR: "load",
    InstructionKind.STORE: "store",
    InstructionKind.AMO: "amo",
    InstructionKind.SC: "sc",
    InstructionKind.CBO_ZERO: "cbo.zero",
    InstructionKind.VECTOR_STORE: "vstore",
    InstructionKind.VECTOR_LOAD: "load",
}
OTHERWISE = {"plain", "other", "vector", "status", "return", "guest", "call", "wait"}


def check_word(library: ctypes.CDLL, word: int) -> None:
    code = word.to_bytes(4, "little")
    op = OPS[library.harness_decode(word) & 0xFF]
    known = decode(code)
    if known.guest:
        assert op == "guest", (hex(word), known.text)
    elif known.kind in EXPECTED:
        assert op == EXPECTED[known.kind], (hex(word), known.text)
    else:
        # What the Python side does not name (or no hart has) must be nothing that it names; extra
        # callbacks on memory instructions do no harm, a memory instruction called plain does.
        spare = {"load", "store", "amo", "sc", "vstore"}
        assert op in OTHERWISE | spare, (hex(word), known.text)
    if known.kind is InstructionKind.FENCE:
        assert library.harness_decode(word) >> 8 == known.sub & ~Fence.FORM
    if known.kind is InstructionKind.FENCE_ORDER:
        assert library.harness_decode(word) >> 8 == known.sub
    if known.kind in CSR_WRITES:
        assert library.harness_decode(word) >> 8 == known.csr


def test_every_compressed_word_is_decoded_as_in_python(library: ctypes.CDLL) -> None:
    for word in range(1 << 16):
        if word & 3 != 3:
            check_word(library, word)


@settings(max_examples=500)
@given(data=st.data())
def test_every_row_of_the_encodings_is_decoded_as_in_python(
    library: ctypes.CDLL, data: st.DataObject
) -> None:
    row = data.draw(st.sampled_from([x for x in PATTERNS if x.length == 4]))
    free = data.draw(st.integers(0, (1 << 32) - 1))
    check_word(library, row.match | (free & ~row.mask))


@settings(max_examples=500)
@given(word=st.integers(0, (1 << 30) - 1))
def test_any_word_is_decoded_as_in_python(library: ctypes.CDLL, word: int) -> None:
    word = word << 2 | 3
    if word & 0x1C != 0x1C:
        check_word(library, word)


@pytest.mark.parametrize(
    ("word", "op"),
    [
        (0x10200073, "return"),  # sret
        (0x30200073, "return"),  # mret
        (0x10559073, "vector"),  # csrw stvec, a1
        (0x30559073, "vector"),  # csrw mtvec, a1
        (0x105025F3, "other"),  # csrr a1, stvec
        (0x1005A073, "status"),  # csrs sstatus, a1
        (0x100025F3, "other"),  # csrr a1, sstatus
        (0x180025F3, "other"),  # csrr a1, satp
        (0x00000073, "call"),  # ecall
        (0x10500073, "wait"),  # wfi
        (0x00C58533, "plain"),  # add a0, a1, a2
        (0x00000063, "plain"),  # beq
        (0x1805A5F3, "atp"),  # csrrs a1, satp, a1
        (0x30A5A073, "envcfg"),  # csrs menvcfg, a1
        (0x60A59073, "envcfg"),  # csrw henvcfg, a1
        (0x30A025F3, "other"),  # csrr a1, menvcfg
        (0x6C0545F3, "guest"),  # hlv.d a1, (a0)
        (0x81C0C0F3, "other"),  # mop.r.0: the same funct3
    ],
)
def test_system_instructions(library: ctypes.CDLL, word: int, op: str) -> None:
    assert OPS[library.harness_decode(word) & 0xFF] == op


# -- the tables ----------------------------------------------------------------------------------


class Both:
    """One guest RAM, watched by the Python tables and by the C ones."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.ram = np.zeros(PAGES * 512, dtype=np.int64)
        self.log = EventLog()
        self.tables = LiveTables(self.ram, BASE, self.log)
        library.harness_open(
            self.ram.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint64(BASE),
            ctypes.c_uint64(self.ram.nbytes),
        )

    def load(self, satp: int, pc: int) -> None:
        self.log.pc = pc
        self.tables.write_satp(0, satp)
        self.library.harness_load(ctypes.c_uint64(satp), ctypes.c_uint64(pc))

    def store(self, parts: list[tuple[int, bytes]], op: PteOp, pc: int) -> None:
        for pa, data in parts:
            at = pa - BASE
            self.ram.view(np.uint8)[at : at + len(data)] = np.frombuffer(data, np.uint8)
        size = sum(len(data) for _, data in parts)
        self.log.pc = pc
        self.tables.store([(pa, len(data)) for pa, data in parts], size, op)
        array = (Part * len(parts))(*[Part(pa, len(data)) for pa, data in parts])
        self.library.harness_store(array, len(parts), size, int(op), ctypes.c_uint64(pc))

    def vector_store(self, entries: list[tuple[int, int]], pc: int) -> None:
        for pa, value in entries:
            self.ram[(pa - BASE) // 8] = signed(value)
        self.log.pc = pc
        self.tables.vector_store()
        self.library.harness_vector_store(ctypes.c_uint64(pc))

    def set_ad(self, pa: int, bits: int) -> None:
        """The MMU, or a store that nobody saw, sets bits in an entry."""
        self.ram[(pa - BASE) // 8] |= bits

    def hardware_updates(self, pc: int) -> None:
        self.log.pc = pc
        for pa, old, new in self.tables.differences():
            if self.tables.is_by_mmu(old, new):
                self.tables.found(pa, PteOp.HARDWARE_AD)
        self.library.harness_hardware_updates(ctypes.c_uint64(pc))

    def take_c(self) -> EventBatch:
        pointer = ctypes.c_void_p()
        count = self.library.harness_take(ctypes.byref(pointer))
        if count == 0:
            return events.empty(0)
        raw = ctypes.string_at(pointer.value or 0, count * EVENT.itemsize)
        batch: EventBatch = np.frombuffer(raw, dtype=EVENT)
        return batch

    def compare(self) -> None:
        python = self.log.take()
        # write_satp's own event comes from another part of the plugin.
        python = python[python["kind"] != Kind.SATP_WRITE]
        ours = self.take_c()
        assert len(ours) == len(python)
        for mine, theirs in zip(ours, python, strict=True):
            assert mine == theirs
        audit = Audit()
        self.library.harness_audit(ctypes.byref(audit))
        assert audit.pages == len(self.tables)
        assert audit.differ == len(self.tables.differences())


def page(number: int) -> int:
    return BASE + number * 4096


TABLES = 6
"""Pages 1..TABLES are linked to each other over and over; the others are leaves' targets."""

LINKS = st.builds(lambda number: page(number) >> 2 | 1, st.integers(1, TABLES))
LEAVES = st.builds(
    lambda number, flags: page(number) >> 2 | flags,
    st.integers(0, PAGES + 1),
    st.sampled_from([0xC7, 0xD7, 0xCF, 0x11, 0x41, 0x03]),
)
STRANGE = st.sampled_from(
    [
        page(3) >> 2 | 1 << 57 | 1,  # a reserved bit
        1 << 63 | 1,
        0x1000_0000 >> 2 | 0xC7,  # a device
        0x12_3456_7000 >> 2 | 0xC7,  # nowhere
        BASE >> 2 | 1 << 10,  # not valid
    ]
)
ENTRY = st.one_of(st.just(0), LINKS, LINKS, LINKS, LEAVES, STRANGE)
INDEX = st.sampled_from([0, 1, 2, 511])
PC = st.sampled_from([BASE, 2 << 39, 2 << 48, 0xFFFF_FFFF_8000_0000])
"""Translated by entry 2 of a root in one of the modes, or by the last one."""


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[tuple[int, bytes]], PteOp]:
    where = page(draw(st.integers(1, TABLES + 1))) + 8 * draw(INDEX)
    kind = draw(st.sampled_from(["sd", "sd", "sd", "sd", "sw", "sb", "zero", "split", "cross"]))
    value = draw(ENTRY).to_bytes(8, "little")
    if kind == "sw":
        return [(where + draw(st.sampled_from([0, 4])), value[:4])], PteOp.STORE
    if kind == "sb":
        return [(where + draw(st.integers(0, 7)), value[:1])], PteOp.AMO
    if kind == "zero":
        return [(where & -64, bytes(64))], PteOp.CBO_ZERO
    if kind == "split" and where & 4095 < 4088:
        return [(where + 4, value)], PteOp.STORE
    if kind == "cross":
        other = page(draw(st.integers(1, TABLES + 1)))
        return [((where & -4096) + 4092, value[:4]), (other, value[4:])], PteOp.STORE
    return [(where & -8, value)], draw(st.sampled_from([PteOp.STORE, PteOp.AMO, PteOp.SC]))


@settings(max_examples=100)
@given(data=st.data())
def test_tables_in_c_and_in_python_write_the_same_events(
    library: ctypes.CDLL, data: st.DataObject
) -> None:
    both = Both(library)
    for number in range(1, TABLES + 1):
        for index in (0, 1, 2, 511):
            both.ram[(page(number) - BASE) // 8 + index] = signed(data.draw(ENTRY))
    mode = data.draw(st.sampled_from([8, 9, 10]))
    both.load(mode << 60 | page(1) >> 12, BASE)
    both.compare()
    for _ in range(data.draw(st.integers(1, 40))):
        if data.draw(st.integers(0, 5)) == 0:
            root = page(data.draw(st.integers(1, TABLES)))
            satp = data.draw(st.sampled_from([0, mode << 60, mode << 60])) | root >> 12
            both.load(satp, data.draw(PC))
        elif data.draw(st.integers(0, 4)) == 0:
            where = st.builds(lambda n, i: page(n) + 8 * i, st.integers(1, TABLES + 1), INDEX)
            written = data.draw(st.lists(st.tuples(where, ENTRY), max_size=6))
            both.vector_store(written, data.draw(PC))
            for pa in data.draw(st.lists(where, max_size=4)):
                both.set_ad(pa, data.draw(st.sampled_from([0x40, 0x80, 0xC0, 0x44])))
            both.hardware_updates(data.draw(PC))
        else:
            parts, op = data.draw(stores())
            both.store(parts, op, data.draw(PC))
        both.compare()


def test_a_root_that_unmaps_its_writer_is_retired_in_c_too(library: ctypes.CDLL) -> None:
    both = Both(library)
    for number in (1, 4):
        both.ram[(page(number) - BASE) // 8 + 2] = BASE >> 2 | 0xCF
        both.load(8 << 60 | page(number) >> 12, BASE)
    both.compare()
    # Rule 5 (d): entry 2 translates the pc of the store, which clears it in the root not loaded.
    both.store([(page(1) + 16, bytes(8))], PteOp.STORE, BASE + 0x100)
    assert page(1) not in both.tables and page(4) in both.tables
    both.compare()
