"""Kernel and firmware files, good and bad."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
from pathlib import Path

import pytest

from cosim.errors import GuestImageError
from cosim.kernel.images import IMAGE_BASE, LoadRange, inspect_firmware, inspect_kernel
from cosim.machine.configuration import RAM_BASE


def elf(
    *,
    machine: int = 243,
    bits: int = 2,
    endian: int = 1,
    kind: int = 2,
    segments: list[tuple[int, int, int, int, bytes, int]] | None = None,
    entry: int = RAM_BASE,
) -> bytes:
    """An ELF file; a segment is (type, flags, vaddr, paddr, contents, size in memory)."""
    if segments is None:
        segments = [(1, 5, RAM_BASE, RAM_BASE, b"\x13\0\0\0", 0x2000)]
    head = b"\x7fELF" + bytes([bits, endian, 1]) + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 64, 0, 0
    )
    offset = 64 + 56 * len(segments)
    table, body = b"", b""
    for what, flags, virtual, physical, contents, size in segments:
        place = offset + len(body)
        table += struct.pack(
            "<IIQQQQQQ", what, flags, place, virtual, physical, len(contents), size, 1
        )
        body += contents
    return head + table + body


def image(*, flags: int = 0, image_size: int = 0x5000, pe: bool = True) -> bytes:
    """A flat Linux Image of 0x4000 bytes: code up to 0x3000, data behind."""
    head = bytearray(0x4000)
    struct.pack_into("<QQQII", head, 8, 0x20_0000, image_size, flags, 2, 0)
    head[48:56] = b"RISCV\0\0\0"
    head[56:60] = b"RSC\x05"
    if pe:
        head[:2] = b"MZ"
        struct.pack_into("<I", head, 60, 64)
        head[64:68] = b"PE\0\0"
        struct.pack_into("<HH12xHH", head, 68, 0x5064, 2, 160, 0)
        table = 64 + 24 + 160
        for index, (start, size, raw, mode) in enumerate(
            [(0x1000, 0x2000, 0x2000, 0x6000_0020), (0x3000, 0x2000, 0x1000, 0xC000_0040)]
        ):
            struct.pack_into("<IIII", head, table + 40 * index + 8, size, start, raw, start)
            struct.pack_into("<I", head, table + 40 * index + 36, mode)
    return bytes(head)


def test_elf_kernel(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    high = 0xFFFF_FFC0_0000_0000
    path.write_bytes(
        elf(
            segments=[
                (1, 6, high + 0x2000, 0x8020_2000, b"data", 0x1000),
                (1, 5, high, 0x8020_0000, b"code", 4),
                (4, 4, 0, 0, b"note", 4),
            ],
            entry=high + 2,
        )
    )
    found = inspect_kernel(str(path))
    assert (found.kind, found.entry, found.path) == (
        "elf",
        0x8020_0000,
        path,
    )  # not e_entry: as QEMU
    data = 64 + 3 * 56
    assert found.ranges == (
        LoadRange(0x8020_0000, 4, data + 4, 4, True, high),
        LoadRange(0x8020_2000, 0x1000, data, 4, False, high + 0x2000),
    )


def test_flat_kernel(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(image())
    found = inspect_kernel(path)
    assert (found.kind, found.entry) == ("image", IMAGE_BASE)
    assert found.ranges == (
        LoadRange(IMAGE_BASE, 0x3000, 0, 0x3000, True, None),
        LoadRange(IMAGE_BASE + 0x3000, 0x2000, 0x3000, 0x1000, False, None),
    )
    assert inspect_kernel(path, image_base=RAM_BASE).entry == RAM_BASE


def test_flat_kernel_without_efi_header_is_all_code(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(image(pe=False))
    (only,) = inspect_kernel(path).ranges
    assert only == LoadRange(IMAGE_BASE, 0x5000, 0, 0x4000, True, None)


_ARM = bytearray(image())
_ARM[48:64] = bytes(8) + b"ARM\x64" + bytes(4)
_X86_BZIMAGE = b"MZ" + bytes(0x200) + b"HdrS" + bytes(64)

BAD_KERNELS = {
    "x86": (elf(machine=62), "built for x86-64, not for RISC-V"),
    "aarch64": (elf(machine=183), "built for Arm 64-bit"),
    "unknown machine": (elf(machine=4711), "machine 4711"),
    "rv32": (elf(bits=1), "32-bit RISC-V"),
    "big-endian": (elf(endian=2), "big-endian"),
    "object": (elf(kind=1), "not linked"),
    "short ELF": (elf()[:40], "truncated"),
    "ELF without its segment": (elf()[:-2], "truncated"),
    "ELF without its program headers": (elf()[:70], "damaged ELF|truncated"),
    "nothing to load": (elf(segments=[(4, 4, 0, 0, b"note", 4)]), "nothing to load"),
    "user program": (
        elf(segments=[(3, 4, 0, 0, b"/lib/ld.so\0", 11), (1, 5, 0, 0, b"code", 4)], kind=3),
        "program for an operating system",
    ),
    "vmlinux": (
        elf(segments=[(1, 5, 0xFFFF_FFFF_8000_0000, 0, b"code", 4)]),
        r"load at 0x0, outside RAM .*boot/Image",
    ),
    "short Image": (image()[:0x3800], "truncated"),
    "very short Image": (image()[:0x120], "truncated"),
    "big-endian Image": (image(flags=1), "big-endian"),
    "text": (b"# just a text file\n" * 9, "neither an ELF file nor a Linux Image"),
    "one byte": (b"x", "neither an ELF file nor a Linux Image"),
    "empty": (b"", "is empty"),
    "arm64 Image": (b"MZ" + bytes(_ARM[2:]), "Linux Image for Arm 64-bit"),
    "x86 bzImage": (_X86_BZIMAGE, "EFI program without the RISC-V Linux header"),
    "old x86 bzImage": (b"\xea" + _X86_BZIMAGE[1:], "x86 bzImage"),
    "uImage": (b"\x27\x05\x19\x56" + bytes(64), "U-Boot image"),
}


@pytest.mark.parametrize("name", BAD_KERNELS)
def test_bad_kernel_gets_one_clear_line(name: str, tmp_path: Path) -> None:
    contents, says = BAD_KERNELS[name]
    path = tmp_path / "kernel"
    path.write_bytes(contents)
    with pytest.raises(GuestImageError, match=says) as caught:
        inspect_kernel(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_status == 2


def test_missing_folder_and_device_are_refused(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "nothing", "cannot read kernel .*No such file"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "not a regular file"),
        (Path("/proc/self/clear_refs"), "cannot read kernel|is empty"),
    ):
        with pytest.raises(GuestImageError, match=says):
            inspect_kernel(path)


def test_a_fifo_does_not_hang_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GuestImageError, match="not a regular file"):
        inspect_kernel(tmp_path / "fifo")


def test_firmware(tmp_path: Path) -> None:
    path = tmp_path / "fw"
    for contents in (elf(), b"\x13\0\0\0" * 30):
        path.write_bytes(contents)
        inspect_firmware(path)
    for contents, says in (
        (elf(machine=62), "firmware .* built for x86-64"),
        (b"", "firmware .* is empty"),
        (gzip.compress(b"x"), "compressed by gzip"),
    ):
        path.write_bytes(contents)
        with pytest.raises(GuestImageError, match=says):
            inspect_firmware(path)


@pytest.mark.system
def test_what_the_cross_linker_makes(tmp_path: Path) -> None:
    source = tmp_path / "k.s"
    source.write_text(".globl _start\nnop\n_start: nop\n.data\n.quad 1\n.bss\n.skip 256\n")
    command = ["riscv64-linux-gnu-gcc", "-nostdlib", "-static", str(source)]
    link = ["-Wl,-Ttext=0xffffffff80000000", "-Wl,--build-id=none", "-o", str(tmp_path / "high")]
    subprocess.run([*command, *link], check=True, timeout=60)
    with pytest.raises(GuestImageError, match=r"load at 0xffffffff[78]\w+, outside RAM"):
        inspect_kernel(tmp_path / "high")
    link = ["-Wl,-Ttext=0x80200000", "-Wl,--build-id=none", "-o", str(tmp_path / "low")]
    subprocess.run([*command, *link], check=True, timeout=60)
    with pytest.raises(GuestImageError, match="loads its own ELF header first"):
        inspect_kernel(tmp_path / "low")
    subprocess.run([*command, "-Wl,-N", *link], check=True, timeout=60)
    found = inspect_kernel(tmp_path / "low")
    assert found.entry == 0x8020_0000
    assert any(piece.executable for piece in found.ranges)
    assert sum(piece.size for piece in found.ranges) >= 4 + 8 + 256
    assert found.ranges[-1].size >= found.ranges[-1].file_size + 256
    subprocess.run([*command, "-c", "-o", str(tmp_path / "k.o")], check=True, timeout=60)
    with pytest.raises(GuestImageError, match="not linked"):
        inspect_kernel(tmp_path / "k.o")
