"""Instructions from a kernel's file, at the addresses where the kernel runs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cosim.kernel import symbols
from cosim.kernel.disassembly import Disassembly
from cosim.kernel.kallsyms import LINK_BASE
from tests.cosim.kernel.test_images import elf, image

NOP = b"\x01\x00"
CODE = NOP + struct.pack("<II", 0x0007_3783, 0x1200_0073) + NOP
HIGH = 0xFFFF_FFC0_0000_0000

AT = {
    0: "c.nop",
    2: "ld a5, 0(a4)",
    6: "sfence.vma",
    10: "c.nop",
    # Not in the file.
    11: None,
    12: None,
    -1: None,
}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    segments = [(1, 5, HIGH, 0x8020_0000, CODE, 0x100), (1, 6, HIGH + 4096, 0x8020_1000, CODE, 16)]
    path = tmp_path / "kernel"
    path.write_bytes(elf(segments=segments))
    return path


@pytest.mark.parametrize("offset", AT)
def test_an_elf_kernel(kernel: Path, offset: int) -> None:
    at = Disassembly(kernel).at
    assert at(HIGH + offset) == AT[offset]
    # Data is no code.
    assert at(HIGH + 4096 + offset) is None


def test_an_image(tmp_path: Path) -> None:
    data = bytearray(image())
    data[0x1000 : 0x1000 + len(CODE)] = CODE
    data[0x3000 : 0x3000 + len(CODE)] = CODE
    path = tmp_path / "Image"
    path.write_bytes(data)
    at = Disassembly(path).at
    assert at(LINK_BASE + 0x1002) == "ld a5, 0(a4)"
    assert at(LINK_BASE + 0x3002) is None
    assert at(0x1002) is None
    assert at((1 << 64) - 1) is None


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    assert Disassembly(None).at(HIGH) is None
    assert Disassembly(tmp_path / "gone").at(HIGH) is None
    path = tmp_path / "text"
    path.write_text("no kernel")
    assert Disassembly(path).at(HIGH) is None
    # No instruction of any extension.
    path.write_bytes(elf(segments=[(1, 5, HIGH, 0x8020_0000, b"\xff\xff\xff\xff", 4)]))
    assert Disassembly(path).at(HIGH) is None


def test_zeros_are_room_for_code_that_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(elf(segments=[(1, 7, HIGH, 0x8020_0000, CODE + bytes(64), 0x100)]))
    at = Disassembly(path).at
    assert at(HIGH + len(CODE) - 2) == "c.nop"
    for offset in (0, 2, 32, 62):
        assert at(HIGH + len(CODE) + offset) is None


def test_only_the_kernel_has_instructions(kernel: Path) -> None:
    known = symbols.load(kernel)
    load = HIGH + 2
    assert known.describe(load) == f"{load:#x} (ld a5, 0(a4))"
    for privilege in ("S", "M"):
        assert symbols.what_stands_at(load, privilege, known) == (None, "ld a5, 0(a4)")
    for privilege in ("U", "VU", "VS"):
        assert symbols.what_stands_at(load, privilege, known) == (None, None)
    assert symbols.what_stands_at(load, "S", None) == (None, None)
