"""The decoder against capstone, over every encoding that both know.

Compared are the length, the kind, the base register, the displacement, the size, the register
stored, the operands of a fence, and the register that a CSR instruction writes.  Capstone says
most of it in operands, the rest in the mnemonic.

Where the two differ:

- Capstone 5 does not know the instructions of :data:`UNKNOWN`.  It must refuse all of their words;
  when a newer one does not, the test says so, and they are to be compared.
- ``c.lwsp`` and ``c.ldsp`` with rd = x0 are reserved.  Capstone refuses them; we call them loads.
  They trap when they are executed, so no event comes of it.

There is no other difference: a word that is no access, fence or write of a root register to one of
them is none to the other.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import capstone
import pytest
from capstone import riscv

from cosim.capture.decode import Instruction, decode
from cosim.capture.encodings import ATP_NAMES, CSR_NAMES, CSR_WRITES, PATTERNS, Pattern
from cosim.capture.encodings import InstructionKind as K
from hypervisor_model.events import Fence

UNKNOWN = {
    **dict.fromkeys(("flh", "fsh"), "Zfhmin"),
    **dict.fromkeys(("flq", "fsq"), "Q"),
    **dict.fromkeys(("vload", "vstore"), "V"),
    **dict.fromkeys((f"amocas.{width}" for width in "bhwdq"), "Zacas"),
    **dict.fromkeys(
        (
            f"amo{operation}.{width}"
            for operation in ("add", "swap", "xor", "or", "and", "min", "max", "minu", "maxu")
            for width in "bh"
        ),
        "Zabha",
    ),
    **dict.fromkeys(("ssamoswap.w", "ssamoswap.d"), "Zicfiss"),
    **dict.fromkeys(("cbo.inval", "cbo.clean", "cbo.flush", "cbo.zero"), "Zicbom, Zicboz"),
    **dict.fromkeys(
        (row.name for row in PATTERNS if row.name.startswith(("hlv", "hsv", "hfence"))), "H"
    ),
    **dict.fromkeys(
        ("sinval.vma", "hinval.vvma", "hinval.gvma", "sfence.w.inval", "sfence.inval.ir"), "Svinval"
    ),
    **dict.fromkeys(("c.lbu", "c.lhu", "c.lh", "c.sb", "c.sh"), "Zcb"),
}
"""Instructions that capstone 5 does not know, and their extensions."""

_SAMPLES = 200
_RANDOM_WORDS = 1000
_WIDTH = {"b": 1, "h": 2, "w": 4, "d": 8}
_CSR_NUMBER = {name: number for number, name in CSR_NAMES.items()}


class Seen(NamedTuple):
    """An instruction as one of the two decoders sees it."""

    length: int
    kind: K
    base: int | None = None
    displacement: int = 0
    size: int = 0
    value: int | None = None
    """The integer register stored."""
    fence: tuple[int, int] | None = None
    """rs1 and rs2."""
    csr: tuple[int, int] | None = None
    """The CSR, and the source: a register or an immediate."""


@pytest.fixture(scope="module")
def engine() -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)
    engine.detail = True
    return engine


def ours(insn: Instruction) -> Seen:
    if insn.kind is K.FENCE:
        return Seen(insn.length, insn.kind, fence=(insn.rs1, insn.rs2))
    if insn.kind in CSR_WRITES:
        return Seen(insn.length, insn.kind, csr=(insn.csr, insn.rs1))
    if insn.base is None:
        return Seen(insn.length, insn.kind)
    return Seen(insn.length, insn.kind, insn.base, insn.immediate, insn.size, insn.value)


def theirs(code: bytes, engine: capstone.Cs) -> tuple[str, Seen] | None:
    """The mnemonic and what capstone says of the instruction; None if it does not know it."""
    for insn in engine.disasm(code, 0):
        name = str(insn.mnemonic)
        return name, _read(name, insn)
    return None


def _read(name: str, insn: capstone.CsInsn) -> Seen:
    length, operands = insn.size, insn.operands
    plain = name.removeprefix("c.")
    memory = re.fullmatch(r"(f?)([ls])([bhwd])(u?)(sp)?", plain)
    if memory:
        float_register, direction, width = memory[1], memory[2], memory[3]
        if name.startswith("c."):
            base, displacement = operands[2].reg, operands[1].imm
        else:
            base, displacement = operands[1].mem.base, operands[1].mem.disp
        kind = K.LOAD if direction == "l" else K.STORE
        stored = None if kind is K.LOAD or float_register else _number(operands[0].reg)
        return Seen(length, kind, _number(base), displacement, _WIDTH[width], stored)
    atomic = re.fullmatch(r"(lr|sc|amo[a-z]+)\.([wd])(\.aq|\.rl|\.aqrl)?", name)
    if atomic:
        kind = {"lr": K.LR, "sc": K.SC}.get(atomic[1], K.AMO)
        value = None if kind is K.LR else _number(operands[1].reg)
        return Seen(length, kind, _number(operands[-1].reg), 0, _WIDTH[atomic[2]], value)
    if name == "sfence.vma":
        registers = [_number(operand.reg) for operand in operands]
        rs1, rs2 = [*registers, 0, 0][:2]
        return Seen(length, K.FENCE, fence=(rs1, rs2))
    if re.fullmatch(r"csrr?[wsc]i?", name):
        return _read_csr(name, insn)
    return Seen(length, K.OTHER)


def _read_csr(name: str, insn: capstone.CsInsn) -> Seen:
    """Capstone has the CSR in the text only; the last operand is the source."""
    text = [part.strip() for part in insn.op_str.split(",")]
    csr = text[1] if name.startswith("csrr") else text[0]
    number = _CSR_NUMBER.get(csr, int(csr, 0) if csr[0].isdigit() else -1)
    last = insn.operands[-1]
    source = last.imm if name.endswith("i") else _number(last.reg)
    only_reads = source == 0 and "w" not in name
    if number not in CSR_NAMES or only_reads:
        return Seen(insn.size, K.OTHER)
    kind = K.ATP_WRITE if number in ATP_NAMES else K.ENVCFG_WRITE
    return Seen(insn.size, kind, csr=(number, source))


def _number(register: int) -> int:
    return int(register) - int(riscv.RISCV_REG_X0)


def _words(row: Pattern, seed: str) -> list[bytes]:
    """Words of a row with random operands, and with all of their bits clear and set."""
    generator = random.Random(seed)
    free = ~row.mask & ((1 << 8 * row.length) - 1)
    operands = [0, free, *(generator.getrandbits(32) & free for _ in range(_SAMPLES))]
    return [(row.match | bits).to_bytes(row.length, "little") for bits in operands]


def _reserved(insn: Instruction) -> bool:
    word = int.from_bytes(insn.code, "little")
    return insn.name in ("c.lwsp", "c.ldsp") and word >> 7 & 31 == 0


@pytest.mark.parametrize("row", PATTERNS, ids=[f"{row.name}-{row.match:x}" for row in PATTERNS])
def test_every_row_with_random_operands(row: Pattern, engine: capstone.Cs) -> None:
    compared = 0
    for code in _words(row, row.name):
        insn, seen = decode(code), theirs(code, engine)
        if row.name in UNKNOWN:
            assert seen is None, f"capstone knows {row.name} now: {seen}"
            continue
        if _reserved(insn):
            assert seen is None
            continue
        assert seen is not None, code.hex()
        assert ours(insn) == seen[1], f"{code.hex()} {seen[0]}"
        compared += 1
    assert compared > 0.8 * _SAMPLES or row.name in UNKNOWN


def test_every_compressed_word(engine: capstone.Cs) -> None:
    compared, refused = 0, dict.fromkeys(("reserved", "Zcb"), 0)
    for word in range(1 << 16):
        if word & 3 == 3:
            continue
        code = word.to_bytes(2, "little")
        insn, seen = decode(code), theirs(code, engine)
        if seen is not None:
            assert ours(insn) == seen[1], f"{word:#06x} {seen[0]}"
            compared += seen[1].kind is not K.OTHER
        elif insn.kind is not K.OTHER:
            refused["reserved" if _reserved(insn) else UNKNOWN[insn.name]] += 1
    assert compared == 12 * 2048 - 2 * 64, "12 instructions with 11 bits of operands, less x0"
    assert refused == {"reserved": 2 * 64, "Zcb": 2 * 256 + 3 * 128}


@pytest.mark.parametrize("opcode", range(0x03, 0x80, 4), ids=hex)
def test_random_words_of_every_opcode(opcode: int, engine: capstone.Cs) -> None:
    """Also what is no instruction of ours must be none to capstone, or no access of memory."""
    generator = random.Random(opcode)
    for _ in range(_RANDOM_WORDS):
        word = generator.getrandbits(32) & ~0x7F | opcode
        code = word.to_bytes(4, "little")
        if opcode & 0x1F == 0x1F:
            # Longer than 4 bytes.
            continue
        insn, seen = decode(code), theirs(code, engine)
        if seen is None:
            assert insn.kind is K.OTHER or insn.name in UNKNOWN, code.hex()
        else:
            assert ours(insn) == seen[1], f"{code.hex()} {seen[0]}"


def test_every_csr_instruction(engine: capstone.Cs) -> None:
    """All CSRs: only satp, vsatp and hgatp count, whatever name capstone has for the others."""
    generator = random.Random(0)
    for csr in range(1 << 12):
        for funct3 in (1, 2, 3, 5, 6, 7):
            operands = generator.getrandbits(5) << 15 | generator.getrandbits(5) << 7
            word = csr << 20 | funct3 << 12 | operands | 0x73
            seen = theirs(word.to_bytes(4, "little"), engine)
            if seen is not None:
                insn = decode(word.to_bytes(4, "little"))
                assert ours(insn) == seen[1], f"{word:#x} {seen[0]}"


def test_the_forms_of_a_fence() -> None:
    """What capstone has no word for: which operands count."""
    for rs1 in range(32):
        for rs2 in range(32):
            word = 0x1200_0073 | rs1 << 15 | rs2 << 20
            form = (Fence.VA if rs1 else 0) | (Fence.ASID if rs2 else 0)
            assert decode(word.to_bytes(4, "little")).sub == Fence.SFENCE_VMA | form
