"""Decoding against GNU as and LLVM's code generator; capstone has a module of its own."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from itertools import combinations
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from elftools.elf.elffile import ELFFile

from cosim.capture.decode import decode
from cosim.capture.encodings import HGATP, PATTERNS, SATP, VSATP
from cosim.capture.encodings import InstructionKind as K
from hypervisor_model.events import Fence, Order

A0, A1, A2, SP = 10, 11, 12, 2
REGS = [0] + [0x1111_0000_0000_0000 * (i % 15) + 0x9_0000 + 0x108 * i for i in range(1, 32)]

# Assembly, its encoding, and the fields that matter.
MEMORY: list[tuple[str, str, K, int, int, int, int | None]] = [
    ("lb a0, -1(a1)", "0385f5ff", K.LOAD, A1, -1, 1, None),
    ("lhu a0, 2047(a1)", "03d5f57f", K.LOAD, A1, 2047, 2, None),
    ("lwu a0, -2048(a1)", "03e50580", K.LOAD, A1, -2048, 4, None),
    ("ld a0, 8(sp)", "03358100", K.LOAD, SP, 8, 8, None),
    ("sb zero, -1(a1)", "a38f05fe", K.STORE, A1, -1, 1, 0),
    ("sh a0, 2047(a1)", "a39fa57e", K.STORE, A1, 2047, 2, A0),
    ("sw a0, -2048(a1)", "23a0a580", K.STORE, A1, -2048, 4, A0),
    ("sd t6, 0(s11)", "23b0fd01", K.STORE, 27, 0, 8, 31),
    ("flw fa0, 4(a1)", "07a54500", K.LOAD, A1, 4, 4, None),
    ("fsd fa0, -8(a1)", "27bca5fe", K.STORE, A1, -8, 8, None),
    ("fsw fa0, 12(a1)", "27a6a500", K.STORE, A1, 12, 4, None),
    ("flh fa0, 2(a1)", "07952500", K.LOAD, A1, 2, 2, None),
    ("lr.w a0, (a1)", "2fa50510", K.LR, A1, 0, 4, None),
    ("lr.d.aq a0, (a1)", "2fb50514", K.LR, A1, 0, 8, None),
    ("sc.d.rl a0, a2, (a1)", "2fb5c51a", K.SC, A1, 0, 8, A2),
    ("amoswap.d a0, a2, (a1)", "2fb5c508", K.AMO, A1, 0, 8, A2),
    ("amoadd.w zero, a2, (a1)", "2fa0c500", K.AMO, A1, 0, 4, A2),
    ("amoand.d.aqrl a0, a2, (a1)", "2fb5c566", K.AMO, A1, 0, 8, A2),
    ("amoor.d a0, a2, (a1)", "2fb5c540", K.AMO, A1, 0, 8, A2),
    ("amomaxu.w a0, a2, (a1)", "2fa5c5e0", K.AMO, A1, 0, 4, A2),
    ("amocas.w a0, a2, (a1)", "2fa5c528", K.AMO, A1, 0, 4, A2),
    ("amocas.d.aqrl a0, a2, (a1)", "2fb5c52e", K.AMO, A1, 0, 8, A2),
    ("amocas.q a0, a2, (a1)", "2fc5c528", K.AMO, A1, 0, 16, A2),
    ("amocas.b a0, a2, (a1)", "2f85c528", K.AMO, A1, 0, 1, A2),
    ("amoadd.h a0, a2, (a1)", "2f95c500", K.AMO, A1, 0, 2, A2),
    ("ssamoswap.d a0, a2, (a1)", "2fb5c548", K.AMO, A1, 0, 8, A2),
    ("cbo.zero (a1)", "0fa04500", K.CBO_ZERO, A1, 0, 64, None),
    ("cbo.clean (a1)", "0fa01500", K.CBO, A1, 0, 64, None),
    ("cbo.flush (a1)", "0fa02500", K.CBO, A1, 0, 64, None),
    ("cbo.inval (a1)", "0fa00500", K.CBO, A1, 0, 64, None),
    ("hlv.b a0, (a1)", "73c50560", K.LOAD, A1, 0, 1, None),
    ("hlv.hu a0, (a1)", "73c51564", K.LOAD, A1, 0, 2, None),
    ("hlv.d a0, (a1)", "73c5056c", K.LOAD, A1, 0, 8, None),
    ("hlvx.hu a0, (a1)", "73c53564", K.LOAD, A1, 0, 2, None),
    ("hlvx.wu a0, (a1)", "73c53568", K.LOAD, A1, 0, 4, None),
    ("hsv.b a0, (a1)", "73c0a562", K.STORE, A1, 0, 1, A0),
    ("hsv.w a0, (a1)", "73c0a56a", K.STORE, A1, 0, 4, A0),
    ("hsv.d a0, (a1)", "73c0a56e", K.STORE, A1, 0, 8, A0),
    ("vle8.v v1, (a1)", "87800502", K.VECTOR_LOAD, A1, 0, 0, None),
    ("vl8re64.v v8, (a1)", "07f485e2", K.VECTOR_LOAD, A1, 0, 0, None),
    ("vse64.v v1, (a1)", "a7f00502", K.VECTOR_STORE, A1, 0, 0, None),
    ("vsse32.v v1, (a1), a2", "a7e0c50a", K.VECTOR_STORE, A1, 0, 0, None),
    ("vsuxei16.v v1, (a1), v2", "a7d02506", K.VECTOR_STORE, A1, 0, 0, None),
    ("vs8r.v v8, (a1)", "278485e2", K.VECTOR_STORE, A1, 0, 0, None),
    ("vsm.v v1, (a1)", "a780b502", K.VECTOR_STORE, A1, 0, 0, None),
    ("c.lw a0, 124(a1)", "e85d", K.LOAD, A1, 124, 4, None),
    ("c.ld a0, 248(a1)", "e87d", K.LOAD, A1, 248, 8, None),
    ("c.fld fa0, 8(a1)", "8825", K.LOAD, A1, 8, 8, None),
    ("c.sw s0, 68(a5)", "e0c3", K.STORE, 15, 68, 4, 8),
    ("c.sd a0, 200(a1)", "e8e5", K.STORE, A1, 200, 8, A0),
    ("c.fsd fa0, 16(a1)", "88a9", K.STORE, A1, 16, 8, None),
    ("c.lwsp a0, 252(sp)", "7e55", K.LOAD, SP, 252, 4, None),
    ("c.ldsp ra, 504(sp)", "fe70", K.LOAD, SP, 504, 8, None),
    ("c.fldsp fa0, 64(sp)", "0625", K.LOAD, SP, 64, 8, None),
    ("c.swsp a0, 132(sp)", "2ac3", K.STORE, SP, 132, 4, A0),
    ("c.sdsp ra, 328(sp)", "86e6", K.STORE, SP, 328, 8, 1),
    ("c.fsdsp fa0, 8(sp)", "2aa4", K.STORE, SP, 8, 8, None),
    ("c.lbu a0, 2(a1)", "a881", K.LOAD, A1, 2, 1, None),
    ("c.lhu a0, 2(a1)", "a885", K.LOAD, A1, 2, 2, None),
    ("c.lh a0, 2(a1)", "e885", K.LOAD, A1, 2, 2, None),
    ("c.sb a0, 3(a1)", "e889", K.STORE, A1, 3, 1, A0),
    ("c.sh a0, 2(a1)", "a88d", K.STORE, A1, 2, 2, A0),
]
FENCES: list[tuple[str, str, int, int, int]] = [
    ("sfence.vma zero, zero", "73000012", Fence.SFENCE_VMA | Fence.ALL, 0, 0),
    ("sfence.vma a0, zero", "73000512", Fence.SFENCE_VMA | Fence.VA, A0, 0),
    ("sfence.vma zero, a1", "7300b012", Fence.SFENCE_VMA | Fence.ASID, 0, A1),
    ("sfence.vma a0, a1", "7300b512", Fence.SFENCE_VMA | Fence.VA_ASID, A0, A1),
    ("sinval.vma a0, a1", "7300b516", Fence.SINVAL_VMA | Fence.VA_ASID, A0, A1),
    ("hfence.vvma a0, zero", "73000522", Fence.HFENCE_VVMA | Fence.VA, A0, 0),
    ("hfence.gvma a0, a1", "7300b562", Fence.HFENCE_GVMA | Fence.VA_ASID, A0, A1),
    ("hinval.vvma zero, a1", "7300b026", Fence.HINVAL_VVMA | Fence.ASID, 0, A1),
    ("hinval.gvma a0, a1", "7300b566", Fence.HINVAL_GVMA | Fence.VA_ASID, A0, A1),
]
ATP_WRITES: list[tuple[str, str, int, int, int]] = [
    # csr, value before, value after; a0 = REGS[10]
    ("csrw satp, a0", "73100518", SATP, 0x1234, REGS[A0]),
    ("csrrw a1, satp, zero", "f3150018", SATP, 0x1234, 0),
    ("csrrs a1, satp, a0", "f3250518", SATP, 0xF, REGS[A0] | 0xF),
    ("csrc satp, a0", "73300518", SATP, (1 << 64) - 1, ~REGS[A0] & ((1 << 64) - 1)),
    ("csrwi satp, 5", "73d00218", SATP, 0xFF, 5),
    ("csrsi satp, 16", "73600818", SATP, 0xF, 0x1F),
    ("csrci satp, 3", "73f00118", SATP, 0xF, 0xC),
    ("csrw vsatp, a0", "73100528", VSATP, 1, REGS[A0]),
    ("csrw hgatp, a0", "73100568", HGATP, 1, REGS[A0]),
]
ORDERS = [
    ("sfence.w.inval", "73000018", Order.SFENCE_W_INVAL),
    ("sfence.inval.ir", "73001018", Order.SFENCE_INVAL_IR),
]
OTHERS = [
    ("csrr a0, satp", "73250018"),
    ("csrrsi a0, satp, 0", "73650018"),
    ("csrw sscratch, a0", "73100514"),
    ("wrs.nto", "7300d000"),
    ("fence rw, rw", "0f003003"),
    ("fence.i", "0f100000"),
    ("prefetch.r 0(a0)", "13601500"),
    ("sret", "73002010"),
    ("ecall", "73000000"),
    ("c.nop", "0100"),
    ("c.addi4spn a0, sp, 8", "2800"),
    ("jalr zero, 0(ra)", "67800000"),
]
ALL_CASES = [
    (row[0], row[1]) for table in (MEMORY, FENCES, ORDERS, ATP_WRITES, OTHERS) for row in table
]


def _text_section(elf: bytes) -> bytes:
    return bytes(ELFFile(BytesIO(elf)).get_section_by_name(".text").data())


def llvm_compile(body: str) -> bytes:
    """Code of the LLVM function ``f`` with that signature and body."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("riscv64").create_target_machine(
        features="+m,+a,+f,+d,+c,+zcb,+zabha,+zacas"
    )
    return _text_section(
        machine.emit_object(llvm.parse_assembly(f'target triple = "riscv64"\ndefine {body}'))
    )


def _as_lines(cases: list[tuple[str, str]]) -> list[str]:
    return [
        line
        for text, _ in cases
        for line in ((".option rvc", text, ".option norvc") if text[:2] == "c." else (text,))
    ]


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize(
    ("name", "bits", "extend", "step"),
    [
        ("c.lbu", 8, "zeroext", 1),
        ("c.lhu", 16, "zeroext", 2),
        ("c.lh", 16, "signext", 2),
        ("c.sb", 8, "", 1),
        ("c.sh", 16, "", 2),
    ],
)
def test_zcb_against_llvm(name: str, bits: int, extend: str, step: int, offset: int) -> None:
    offset -= offset % step
    place = f"%q = getelementptr i8, ptr %p, i64 {offset}"
    if extend:
        load = f"%v = load i{bits}, ptr %q\n ret i{bits} %v"
        code = llvm_compile(f"{extend} i{bits} @f(ptr %p) {{ {place}\n {load} }}")
    else:
        store = f"store i{bits} %v, ptr %q\n ret void"
        code = llvm_compile(f"void @f(ptr %p, i{bits} %v) {{ {place}\n {store} }}")
    insn = decode(code)
    kind, value = (K.LOAD, None) if extend else (K.STORE, A1)
    assert (insn.name, insn.kind, insn.length) == (name, kind, 2)
    assert (insn.base, insn.immediate, insn.size, insn.value) == (A0, offset, bits // 8, value)


@pytest.mark.parametrize(("letter", "bits"), [("b", 8), ("h", 16), ("w", 32), ("d", 64)])
def test_new_atomics_against_llvm(letter: str, bits: int) -> None:
    add = f"%o = atomicrmw add ptr %p, i{bits} %v monotonic\n ret i{bits} %o"
    insn = decode(llvm_compile(f"i{bits} @f(ptr %p, i{bits} %v) {{ {add} }}"))
    assert (insn.name, insn.kind, insn.base, insn.value) == (f"amoadd.{letter}", K.AMO, A0, A1)
    swap = f"%r = cmpxchg ptr %p, i{bits} %x, i{bits} %v monotonic monotonic\n ret void"
    code = llvm_compile(f"void @f(ptr %p, i{bits} signext %x, i{bits} %v) {{ {swap} }}")
    insn = decode(code)
    assert (insn.name, insn.kind, insn.size) == (f"amocas.{letter}", K.AMO, bits // 8)
    assert (insn.base, insn.value) == (A0, A2)


@pytest.mark.system
def test_gnu_as_agrees_with_the_encodings_it_knows(tmp_path: Path) -> None:
    new = ("amocas", "ssamoswap", "c.lbu", "c.lh", "c.sb", "c.sh", "amoadd.h")
    cases = [case for case in ALL_CASES if not case[0].startswith(new)]
    lines = [
        ".option arch, +h, +svinval, +zicbom, +zicboz, +zicbop, +v, +zawrs, +zfh",
        ".option norvc",
        *_as_lines(cases),
    ]
    output = tmp_path / "cases.o"
    subprocess.run(
        ["riscv64-linux-gnu-as", "-march=rv64gc", "-o", output],
        input="\n".join(lines) + "\n",
        text=True,
        check=True,
        timeout=30,
    )
    assert _text_section(output.read_bytes()).hex() == "".join(code for _, code in cases)


@pytest.mark.parametrize(
    ("text", "code", "kind", "base", "immediate", "size", "value"),
    MEMORY,
    ids=[row[0] for row in MEMORY],
)
def test_memory_operands(
    text: str, code: str, kind: K, base: int, immediate: int, size: int, value: int | None
) -> None:
    insn = decode(bytes.fromhex(code) + b"\xff\xff")
    assert (insn.kind, insn.base, insn.immediate, insn.size, insn.value, insn.length) == (
        kind,
        base,
        immediate,
        size,
        value,
        len(code) // 2,
    )
    address = (REGS[base] + immediate) % (1 << 64)
    assert insn.address(REGS) == (address - address % 64 if text.startswith("cbo") else address)
    assert insn.guest == text.startswith(("hlv", "hsv"))
    assert insn.writes == (kind in (K.STORE, K.AMO, K.SC, K.CBO_ZERO, K.VECTOR_STORE))
    assert insn.reads == (kind in (K.LOAD, K.AMO, K.LR, K.VECTOR_LOAD))
    if kind not in (K.VECTOR_LOAD, K.VECTOR_STORE):
        mnemonic = re.sub(r"\.(aq|rl|aqrl)$", "", text.split()[0])
        assert insn.name == mnemonic
        assert insn.text.startswith(mnemonic)


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("23b0a500", 0xFFFF_0000_FFFF_00F1),  # sd a0, 0(a1)
        ("88e1", 0xFFFF_0000_FFFF_00F1),  # c.sd a0, 0(a1)
        ("23a0a500", None),  # sw a0, 0(a1)
        ("2fb5c508", 0xFFFF_0000_FFFF_00F1),  # amoswap.d
        ("2fb5c566", 0x8000_0000_0000_0010),  # amoand.d.aqrl
        ("2fb5c540", 0xFFFF_0000_FFFF_00F9),  # amoor.d
        ("2fb5c520", 0x7FFF_0000_FFFF_00E9),  # amoxor.d
        ("2fb5c500", 0x7FFF_0000_FFFF_0109),  # amoadd.d
        ("2fb5c5e0", None),  # amomaxu.d
        ("2fb5c52e", None),  # amocas.d.aqrl
        ("2fa5c508", None),  # amoswap.w
        ("73000012", None),  # sfence.vma
    ],
)
def test_what_stores_leave(code: str, left: int | None) -> None:
    """Where memory holds 0x8000000000000018, by the definitions of the unprivileged ISA."""
    instruction = decode(bytes.fromhex(code))
    assert instruction.leaves(0x8000_0000_0000_0018, 0xFFFF_0000_FFFF_00F1) == left


def test_the_block_size_of_cbo_zero_is_the_callers() -> None:
    insn = decode(bytes.fromhex("0fa04500"), cbo_block=128)
    assert insn.size == 128
    regs = list(REGS)
    regs[A1] = 0x1234_5678
    assert insn.address(regs) == 0x1234_5600


def test_addresses_wrap_at_64_bits() -> None:
    regs = [0] * 32
    regs[A1] = (1 << 64) - 8
    assert decode(bytes.fromhex("23bca500")).address(regs) == 16  # sd a0, 24(a1)
    regs[A1] = 4
    assert decode(bytes.fromhex("27bca5fe")).address(regs) == (1 << 64) - 4  # fsd fa0, -8(a1)


@pytest.mark.parametrize(
    ("text", "code", "sub", "rs1", "rs2"), FENCES, ids=[row[0] for row in FENCES]
)
def test_fences(text: str, code: str, sub: int, rs1: int, rs2: int) -> None:
    insn = decode(bytes.fromhex(code))
    regs = [0] * 32
    regs[A0], regs[A1] = 0xFFFF_FFC0_1234_5000, 0xABCD_0001_7FED
    assert (insn.kind, insn.rs1, insn.rs2, insn.sub) == (K.FENCE, rs1, rs2, sub)
    gstage = ".gvma" in text
    address = regs[rs1] * (4 if gstage else 1) % (1 << 64)
    asid = regs[rs2] % (1 << 14 if gstage else 1 << 16)
    assert insn.fence_operands(regs) == (sub, address, asid)
    assert insn.text.startswith(text.split()[0])
    assert insn.address(regs) is None


@pytest.mark.parametrize(
    ("text", "code", "csr", "old", "new"), ATP_WRITES, ids=[row[0] for row in ATP_WRITES]
)
def test_root_register_writes(text: str, code: str, csr: int, old: int, new: int) -> None:
    insn = decode(bytes.fromhex(code))
    assert (insn.kind, insn.csr) == (K.ATP_WRITE, csr)
    operand = insn.rs1 if insn.name.endswith("i") else REGS[insn.rs1]
    written = {"csrrw": operand, "csrrs": old | operand, "csrrc": old & ~operand % (1 << 64)}
    assert written[insn.name.removesuffix("i")] == new


@pytest.mark.parametrize(("text", "code", "order"), ORDERS)
def test_what_orders_fences(text: str, code: str, order: Order) -> None:
    insn = decode(bytes.fromhex(code))
    assert (insn.kind, insn.sub, insn.text) == (K.FENCE_ORDER, order, text)
    assert insn.address(REGS) is None
    # Another rd, rs1 or rs2 is another instruction.
    for bit in (7, 15, 21):
        other = int.from_bytes(insn.code, "little") | 1 << bit
        assert decode(other.to_bytes(4, "little")).kind is K.OTHER


@pytest.mark.parametrize(("text", "code"), OTHERS, ids=[row[0] for row in OTHERS])
def test_everything_else_is_other(text: str, code: str) -> None:
    insn = decode(bytes.fromhex(code))
    assert insn.kind is K.OTHER
    assert insn.address(REGS) is None
    assert not insn.reads
    assert not insn.writes


def test_text_of_what_nobody_knows() -> None:
    assert decode(bytes.fromhex("7300b516")).text == "sinval.vma a0, a1"
    assert decode(bytes.fromhex("73c0a56e")).text == "hsv.d a0, (a1)"
    assert decode(bytes.fromhex("ffffffff" + "ffffffff")).text == ".insn 0xffffffffffffffff"


@pytest.mark.parametrize("code", [b"", b"\x03", b"\x03\x35", b"\x03\x35\x81"])
def test_part_of_an_instruction_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="not a whole RISC-V instruction"):
        decode(code)


def test_patterns_are_disjoint() -> None:
    for one, other in combinations(PATTERNS, 2):
        common = one.mask & other.mask
        apart = one.length != other.length or (one.match ^ other.match) & common
        assert apart, f"{one.name} and {other.name} overlap"
    for row in PATTERNS:
        assert row.match & ~row.mask == 0, row.name
