"""The RISC-V encodings that touch memory or translation: one row for each instruction.

Source: the unprivileged specification (chapters "RV32/64G Instruction Set Listings", C, Zcb,
Zabha, Zacas, CMO, V, Zicfiss) and the privileged one (``sfence.vma``, Svinval, the hypervisor
instructions).  Zcmp and Zcmt share code points with ``c.fsdsp``.  They are read as ``c.fsdsp``, as
on every RV64 machine that runs Linux.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from hypervisor_model.events import Fence, Order

SATP, VSATP, HGATP = 0x180, 0x280, 0x680
"""CSR numbers of the registers that hold the root of a page table."""

ATP_NAMES = {SATP: "satp", VSATP: "vsatp", HGATP: "hgatp"}
"""Their names."""

MENVCFG, HENVCFG = 0x30A, 0x60A
"""CSR numbers of the registers that switch paging features."""

ENVCFG_NAMES = {MENVCFG: "menvcfg", HENVCFG: "henvcfg"}
"""Their names."""

CSR_NAMES = {**ATP_NAMES, **ENVCFG_NAMES}
"""Every register whose writes are intercepted."""


class InstructionKind(Enum):
    """What an instruction can do to translation or memory."""

    FENCE = "fence"
    """``sfence.vma``, ``sinval.vma``, ``hfence.*``, ``hinval.*``."""
    FENCE_ORDER = "fence_order"
    """``sfence.w.inval``, ``sfence.inval.ir``."""
    ATP_WRITE = "atp_write"
    """A CSR instruction that writes ``satp``, ``vsatp`` or ``hgatp``."""
    ENVCFG_WRITE = "envcfg_write"
    """A CSR instruction that writes ``menvcfg`` or ``henvcfg``."""
    LOAD = "load"
    STORE = "store"
    AMO = "amo"
    LR = "lr"
    SC = "sc"
    CBO_ZERO = "cbo.zero"
    CBO = "cbo"
    """``cbo.clean``, ``cbo.flush``, ``cbo.inval``: translated, but no byte changes."""
    VECTOR_LOAD = "vector load"
    VECTOR_STORE = "vector store"
    OTHER = "other"


CSR_WRITES = (InstructionKind.ATP_WRITE, InstructionKind.ENVCFG_WRITE)
"""The kinds that write a register of :data:`CSR_NAMES`."""

INTERCEPTED = (InstructionKind.FENCE, InstructionKind.FENCE_ORDER, *CSR_WRITES)
"""The kinds that are events wherever they are executed."""


class Pattern(NamedTuple):
    """One row of the encodings: ``word & mask == match``.  The word has ``length`` bytes.

    ``size`` is the access size in bytes; 0 if there is no access, or if the size depends on the
    CPU's state.  ``layout`` says where the operands are in the word: see
    :mod:`cosim.capture.decode`.
    """

    name: str
    length: int
    mask: int
    match: int
    kind: InstructionKind
    size: int
    layout: str
    detail: int = 0
    """FENCE: the instruction bits of :class:`hypervisor_model.events.Fence`; FENCE_ORDER: the
    :class:`hypervisor_model.events.Order`; ATP_WRITE and ENVCFG_WRITE: the CSR."""


def _rows() -> list[Pattern]:
    kinds = InstructionKind
    rows: list[Pattern] = []

    def add(
        name: str, mask: int, match: int, kind: InstructionKind, size: int, layout: str
    ) -> None:
        rows.append(Pattern(name, 2 if layout[0] == "c" else 4, mask, match, kind, size, layout))

    # Loads and stores: opcode and funct3.
    for funct3, name in enumerate(("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu")):
        add(name, 0x707F, 0x03 | funct3 << 12, kinds.LOAD, 1 << (funct3 & 3), "load")
    for funct3, name in enumerate(("sb", "sh", "sw", "sd")):
        add(name, 0x707F, 0x23 | funct3 << 12, kinds.STORE, 1 << funct3, "store")
    for funct3, letter in enumerate("hwdq", start=1):
        add(f"fl{letter}", 0x707F, 0x07 | funct3 << 12, kinds.LOAD, 1 << funct3, "load")
        add(f"fs{letter}", 0x707F, 0x27 | funct3 << 12, kinds.STORE, 1 << funct3, "fstore")
    # Vector, with any addressing mode.  vl and vtype decide how far one reaches.
    for funct3 in (0, 5, 6, 7):
        add("vload", 0x707F, 0x07 | funct3 << 12, kinds.VECTOR_LOAD, 0, "base")
        add("vstore", 0x707F, 0x27 | funct3 << 12, kinds.VECTOR_STORE, 0, "base")
    # Atomics: funct5 and width; aq and rl are free.
    widths = {"b": 0, "h": 1, "w": 2, "d": 3, "q": 4}
    atomics: list[tuple[str, int, str, InstructionKind]] = [
        ("lr", 0b00010, "wd", kinds.LR),
        ("sc", 0b00011, "wd", kinds.SC),
        ("amocas", 0b00101, "bhwdq", kinds.AMO),
        ("ssamoswap", 0b01001, "wd", kinds.AMO),
    ]
    names = ("add", "swap", "xor", "or", "and", "min", "max", "minu", "maxu")
    codes = (0b00000, 0b00001, 0b00100, 0b01000, 0b01100, 0b10000, 0b10100, 0b11000, 0b11100)
    atomics += [(f"amo{x}", code, "bhwd", kinds.AMO) for x, code in zip(names, codes, strict=True)]
    for name, funct5, letters, kind in atomics:
        for letter in letters:
            match = 0x2F | widths[letter] << 12 | funct5 << 27
            mask = 0xF9F0_707F if kind is kinds.LR else 0xF800_707F
            layout = "base" if kind is kinds.LR else "amo"
            add(f"{name}.{letter}", mask, match, kind, 1 << widths[letter], layout)
    # Cache blocks.
    for code, name in enumerate(("cbo.inval", "cbo.clean", "cbo.flush")):
        add(name, 0xFFF0_7FFF, 0x200F | code << 20, kinds.CBO, 0, "base")
    add("cbo.zero", 0xFFF0_7FFF, 0x0040_200F, kinds.CBO_ZERO, 0, "base")
    # Hypervisor loads and stores.
    for i, letter in enumerate("bhwd"):
        top = 0b0110000 + 2 * i
        for code, suffix in ((0, ""), (1, "u"), (3, "xu")):
            if (letter, suffix) in {("d", "u"), ("d", "xu"), ("b", "xu")}:
                continue
            name = f"hlvx.{letter}u" if suffix == "xu" else f"hlv.{letter}{suffix}"
            match = 0x4073 | code << 20 | top << 25
            add(name, 0xFFF0_707F, match, kinds.LOAD, 1 << i, "guest_load")
        add(
            f"hsv.{letter}",
            0xFE00_7FFF,
            0x4073 | (top | 1) << 25,
            kinds.STORE,
            1 << i,
            "guest_store",
        )
    # Fences.
    for name, funct7, detail in (
        ("sfence.vma", 0b0001001, Fence.SFENCE_VMA),
        ("sinval.vma", 0b0001011, Fence.SINVAL_VMA),
        ("hfence.vvma", 0b0010001, Fence.HFENCE_VVMA),
        ("hfence.gvma", 0b0110001, Fence.HFENCE_GVMA),
        ("hinval.vvma", 0b0010011, Fence.HINVAL_VVMA),
        ("hinval.gvma", 0b0110011, Fence.HINVAL_GVMA),
    ):
        match = 0x73 | funct7 << 25
        rows.append(Pattern(name, 4, 0xFE00_7FFF, match, kinds.FENCE, 0, "fence", int(detail)))
    for order in Order:
        name = order.name.lower().replace("_", ".")
        match = 0x1800_0073 | order << 20
        rows.append(Pattern(name, 4, 0xFFFF_FFFF, match, kinds.FENCE_ORDER, 0, "order", int(order)))
    # Writes of a root register, and of one with paging features.  csrrs and csrrc with x0 or 0
    # only read: see `decode`.
    for csr in CSR_NAMES:
        for funct3, name in ((1, "csrrw"), (2, "csrrs"), (3, "csrrc")):
            for immediate in (False, True):
                code = funct3 | 4 * immediate
                rows.append(
                    Pattern(
                        name + "i" * immediate,
                        4,
                        0xFFF0_707F,
                        0x73 | code << 12 | csr << 20,
                        kinds.ATP_WRITE if csr in ATP_NAMES else kinds.ENVCFG_WRITE,
                        0,
                        "csr",
                        csr,
                    )
                )
    # Compressed.
    for name, match, kind, size, layout in (
        ("c.fld", 0x2000, kinds.LOAD, 8, "c_load"),
        ("c.lw", 0x4000, kinds.LOAD, 4, "c_load"),
        ("c.ld", 0x6000, kinds.LOAD, 8, "c_load"),
        ("c.fsd", 0xA000, kinds.STORE, 8, "c_fstore"),
        ("c.sw", 0xC000, kinds.STORE, 4, "c_store"),
        ("c.sd", 0xE000, kinds.STORE, 8, "c_store"),
        ("c.fldsp", 0x2002, kinds.LOAD, 8, "c_load_sp"),
        ("c.lwsp", 0x4002, kinds.LOAD, 4, "c_load_sp"),
        ("c.ldsp", 0x6002, kinds.LOAD, 8, "c_load_sp"),
        ("c.fsdsp", 0xA002, kinds.STORE, 8, "c_fstore_sp"),
        ("c.swsp", 0xC002, kinds.STORE, 4, "c_store_sp"),
        ("c.sdsp", 0xE002, kinds.STORE, 8, "c_store_sp"),
    ):
        add(name, 0xE003, match, kind, size, layout)
    for name, mask, match, kind, size, layout in (
        ("c.lbu", 0xFC03, 0x8000, kinds.LOAD, 1, "c_load"),
        ("c.lhu", 0xFC43, 0x8400, kinds.LOAD, 2, "c_load"),
        ("c.lh", 0xFC43, 0x8440, kinds.LOAD, 2, "c_load"),
        ("c.sb", 0xFC03, 0x8800, kinds.STORE, 1, "c_store"),
        ("c.sh", 0xFC43, 0x8C00, kinds.STORE, 2, "c_store"),
    ):
        add(name, mask, match, kind, size, layout)
    return rows


PATTERNS: tuple[Pattern, ...] = tuple(_rows())
"""Every instruction that is not ``OTHER``.  No word matches two rows."""
