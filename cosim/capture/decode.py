"""Decodes RISC-V instructions: fences, ``satp`` writes and memory operands.

:func:`decode` turns the bytes at a stop into an :class:`Instruction`.  Its methods then read the
operands from the integer registers at that stop.

Capstone 5 writes the text that users see.  It does not know Svinval, the hypervisor instructions,
``cbo.*``, Zabha, Zacas, Zcb and V, and reports neither access sizes nor the CSR of ``csrw``.  So
the operands come from the rows of :mod:`cosim.capture.encodings`.  The tests compare these with
GNU ``as``, LLVM, and capstone for all that it knows.

>>> store = decode(bytes.fromhex("23b0a500"))
>>> store.text, store.kind.value, store.base, store.size
('sd a0, 0(a1)', 'store', 11, 8)
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import capstone

from cosim.capture.encodings import CSR_NAMES, CSR_WRITES, PATTERNS, InstructionKind, Pattern
from hypervisor_model.events import Fence

CBO_BLOCK = 64
"""The bytes that one ``cbo`` instruction covers by default, as QEMU's CPUs have it."""

_MASK64 = (1 << 64) - 1
_DOUBLE = 8
_AMO_RESULTS: dict[str, Callable[[int, int], int]] = {
    "amoswap.d": lambda _old, value: value,
    "amoadd.d": operator.add,
    "amoxor.d": operator.xor,
    "amoor.d": operator.or_,
    "amoand.d": operator.and_,
}
_ABI_NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{i}" for i in range(8)),
    *(f"s{i}" for i in range(2, 12)),
    *(f"t{i}" for i in range(3, 7)),
)


_WRITING = {
    InstructionKind.STORE,
    InstructionKind.AMO,
    InstructionKind.SC,
    InstructionKind.CBO_ZERO,
    InstructionKind.VECTOR_STORE,
}
_READING = {
    InstructionKind.LOAD,
    InstructionKind.AMO,
    InstructionKind.LR,
    InstructionKind.VECTOR_LOAD,
}


def _index(word: int, length: int) -> int:
    # The bits that all rows of that length fix: the opcode, or quadrant and funct3.
    return word & 0x7F if length == 4 else 1 << 16 | word & 0xE003


_BY_OPCODE: dict[int, list[Pattern]] = {}
for _row in PATTERNS:
    _BY_OPCODE.setdefault(_index(_row.match, _row.length), []).append(_row)


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction.  Registers are numbers 0..31; None if it has no such operand."""

    code: bytes
    """Its bytes, and nothing after them."""
    name: str
    """The mnemonic; empty for ``OTHER`` (see :attr:`text`)."""
    kind: InstructionKind
    base: int | None = None
    """The register that holds the address."""
    immediate: int = 0
    """Added to the base."""
    size: int = 0
    """The bytes that it accesses; 0 if none, and for vectors: vl and vtype decide."""
    value: int | None = None
    """The integer register that it stores, or the operand of an AMO; None for floats, vectors."""
    guest: bool = False
    """True for ``hlv`` and ``hsv``: ``vsatp`` and ``hgatp`` translate the address."""
    rs1: int = 0
    """FENCE: the address register.  CSR_WRITES: the source register, or the 5-bit immediate."""
    rs2: int = 0
    """FENCE: the ASID or VMID register."""
    sub: int = 0
    """FENCE: form and instruction, as :class:`hypervisor_model.events.Fence` packs them.
    FENCE_ORDER: the :class:`hypervisor_model.events.Order`."""
    csr: int = 0
    """CSR_WRITES: the register written."""

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return len(self.code)

    @property
    def reads(self) -> bool:
        """True if it reads memory."""
        return self.kind in _READING

    @property
    def writes(self) -> bool:
        """True if it may write memory.  An ``sc`` that fails does not."""
        return self.kind in _WRITING

    @cached_property
    def text(self) -> str:
        """The instruction in assembler syntax, for users; branch targets are offsets."""
        with _capstone_lock:
            known = list(_capstone.disasm_lite(self.code, 0))
        if known:
            return f"{known[0][2]} {known[0][3]}".strip()
        if self.kind is InstructionKind.FENCE_ORDER:
            return self.name
        if self.name:
            return f"{self.name} {self._operands_text()}"
        return f".insn 0x{int.from_bytes(self.code, 'little'):0{2 * self.length}x}"

    def _operands_text(self) -> str:
        if self.kind is InstructionKind.FENCE:
            return f"{_ABI_NAMES[self.rs1]}, {_ABI_NAMES[self.rs2]}"
        if self.kind in CSR_WRITES:
            source = str(self.rs1) if self.name.endswith("i") else _ABI_NAMES[self.rs1]
            return f"{CSR_NAMES[self.csr]}, {source}"
        offset = str(self.immediate) if self.immediate else ""
        place = f"{offset}({_ABI_NAMES[self.base or 0]})"
        return place if self.value is None else f"{_ABI_NAMES[self.value]}, {place}"

    def address(self, regs: Sequence[int]) -> int | None:
        """Return the virtual address of the first byte accessed, unsigned; None if there is none.

        A ``cbo`` block starts at the multiple of its size below the register.  For vectors this is
        the base address.
        """
        if self.base is None:
            return None
        address = (regs[self.base] + self.immediate) & _MASK64
        if self.kind in (InstructionKind.CBO, InstructionKind.CBO_ZERO):
            address &= -self.size
        return address

    def leaves(self, old: int, value: int) -> int | None:
        """Return what an executed store or AMO of 8 bytes leaves in memory, unsigned.

        None stands for all other instructions, and for an AMO that compares.

        :param old: what memory held, unsigned.
        :param value: what the register :attr:`value` held, unsigned.
        """
        if self.size != _DOUBLE or self.value is None:
            return None
        if self.kind is InstructionKind.STORE:
            return value
        combine = _AMO_RESULTS.get(self.name)
        return None if combine is None else combine(old, value) & _MASK64

    def fence_operands(self, regs: Sequence[int]) -> tuple[int, int, int]:
        """Return ``(sub, address, asid)`` of a fence; an operand that the form lacks is 0.

        The G-stage instructions take the guest-physical address shifted right by two; it is
        returned unshifted.  An ASID has 16 bits and a VMID 14: the others are ignored, as the
        specification says.
        """
        gstage = self.sub & ~Fence.FORM in (Fence.HFENCE_GVMA, Fence.HINVAL_GVMA)
        address = regs[self.rs1] << 2 & _MASK64 if gstage else regs[self.rs1]
        asid = regs[self.rs2] & (0x3FFF if gstage else 0xFFFF)
        return self.sub, address if self.rs1 else 0, asid if self.rs2 else 0


_capstone = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)

_capstone_lock = threading.Lock()
"""A handle serves one call at a time, and ctypes releases the interpreter's lock during a call."""


def instruction_length(code: bytes) -> int:
    """Return the length in bytes (2, 4, 6 or 8) of the instruction that ``code`` starts with."""
    low = code[0]
    if low & 3 != 3:
        return 2
    if low & 0x1C != 0x1C:
        return 4
    return 6 if low & 0x20 == 0 else 8


def decode(code: bytes, *, cbo_block: int = CBO_BLOCK) -> Instruction:
    """Decode the instruction that ``code`` starts with; further bytes are ignored.

    The result does not depend on the address: RISC-V has no pc-relative access.

    :param cbo_block: the bytes that ``cbo.zero`` of this CPU clears.
    :raises ValueError: when ``code`` holds less than the whole instruction.
    """
    if len(code) < 2 or len(code) < instruction_length(code):
        raise ValueError(f"{code.hex() or 'nothing'} is not a whole RISC-V instruction")
    return _decode(bytes(code[: instruction_length(code)]), cbo_block)


@lru_cache(maxsize=1 << 16)
def _decode(code: bytes, cbo_block: int) -> Instruction:
    word = int.from_bytes(code, "little")
    for row in _BY_OPCODE.get(_index(word, len(code)), ()):
        if word & row.mask == row.match:
            break
    else:
        return Instruction(code, "", InstructionKind.OTHER)
    rs1, rs2 = word >> 15 & 31, word >> 20 & 31
    if row.kind is InstructionKind.FENCE:
        form = (Fence.VA if rs1 else 0) | (Fence.ASID if rs2 else 0)
        return Instruction(code, row.name, row.kind, rs1=rs1, rs2=rs2, sub=row.detail | form)
    if row.kind is InstructionKind.FENCE_ORDER:
        return Instruction(code, row.name, row.kind, sub=row.detail)
    if row.kind in CSR_WRITES:
        if rs1 == 0 and not row.name.startswith("csrrw"):
            return Instruction(code, "", InstructionKind.OTHER)
        return Instruction(code, row.name, row.kind, rs1=rs1, csr=row.detail)
    size = row.size
    if row.kind in (InstructionKind.CBO, InstructionKind.CBO_ZERO):
        size = cbo_block
    base, immediate, value = _memory_operand(word, row)
    return Instruction(
        code,
        row.name,
        row.kind,
        base=base,
        immediate=immediate,
        size=size,
        value=value,
        guest=row.layout.startswith("guest"),
    )


def _memory_operand(word: int, row: Pattern) -> tuple[int, int, int | None]:
    """Return the base register, the immediate, and the integer register stored."""
    layout = row.layout
    if layout.startswith("c_"):
        return _compressed_operand(word, row)
    rs1, rs2 = word >> 15 & 31, word >> 20 & 31
    if layout == "load":
        return rs1, _signed12(word >> 20), None
    if layout in ("store", "fstore"):
        immediate = _signed12(word >> 20 & 0xFE0 | word >> 7 & 0x1F)
        return rs1, immediate, rs2 if layout == "store" else None
    return rs1, 0, rs2 if layout in ("amo", "guest_store") else None


def _compressed_operand(word: int, row: Pattern) -> tuple[int, int, int | None]:
    size = row.size
    if row.layout.endswith("_sp"):
        # Bits of the offset below the access size are 0; their places hold its highest bits.
        if "load" in row.layout:
            raw = word >> 2 & 0x1F | (word >> 12 & 1) << 5
        else:
            raw = word >> 7 & 0x3F
        keep = raw & (0x3F & -size)
        immediate = keep | (raw & (size - 1)) << 6
        return 2, immediate, word >> 2 & 31 if row.layout == "c_store_sp" else None
    base, value = 8 + (word >> 7 & 7), 8 + (word >> 2 & 7)
    b5, b6 = word >> 5 & 1, word >> 6 & 1
    middle = word >> 10 & 7
    if size == 1:
        immediate = b5 << 1 | b6
    elif size == 2:
        immediate = b5 << 1
    elif size == 4:
        immediate = middle << 3 | b6 << 2 | b5 << 6
    else:
        immediate = middle << 3 | (word >> 5 & 3) << 6
    return base, immediate, value if row.layout == "c_store" else None


def _signed12(value: int) -> int:
    return (value & 0xFFF ^ 0x800) - 0x800
