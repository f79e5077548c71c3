"""Kernel and firmware files: what they are, where QEMU loads them, what is wrong with them.

There are two kinds of kernel.  A RISC-V 64-bit ELF file is loaded where its program headers say.
A Linux ``Image`` (the flat format in the kernel's document "Boot image header in RISC-V Linux") is
copied to the first 2 MiB boundary behind the firmware.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from elftools.common.exceptions import ELFError
from elftools.construct.lib.container import Container
from elftools.elf.elffile import ELFFile

from cosim.errors import GuestImageError
from cosim.machine.configuration import RAM_BASE

IMAGE_BASE = RAM_BASE + (2 << 20)
"""Physical address where QEMU puts a flat kernel behind its own OpenSBI."""

_PHYSICAL_LIMIT = 1 << 56
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
    b"\x02\x21\x4c\x18": ("lz4", "unlz4"),
    b"\x5d\0\0": ("lzma", "unlzma"),
}
_MACHINES = {3: "x86", 8: "MIPS", 40: "Arm", 62: "x86-64", 183: "Arm 64-bit", 258: "LoongArch"}
_RISCV = 243
_HINT = "give a RISC-V 64-bit ELF kernel or an uncompressed Linux Image"


@dataclass(frozen=True)
class LoadRange:
    """A piece of the kernel in guest-physical memory."""

    start: int
    """First physical address."""
    size: int
    """Bytes in memory; those beyond ``file_size`` are zero."""
    file_offset: int
    file_size: int
    executable: bool
    virtual: int | None
    """The address it is linked at; None for a flat Image, which does not say."""


@dataclass(frozen=True)
class KernelImage:
    """What :func:`inspect_kernel` found."""

    path: Path
    kind: Literal["elf", "image"]
    entry: int
    """Physical address of the first instruction."""
    ranges: tuple[LoadRange, ...]
    """In address order, not overlapping."""


def _unreadable(what: str, path: Path, error: OSError) -> GuestImageError:
    return GuestImageError(
        f"cannot read {what} {path}: {error.strerror}; check the path and its permissions"
    )


def open_regular(path: Path, what: str) -> BinaryIO:
    """Open the non-empty regular file ``path``; ``what`` names its role in messages.

    :raises GuestImageError: when it is missing, empty, unreadable or not a regular file.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise GuestImageError(f"{what} {path} is a folder; name the file in it")
        if not stat.S_ISREG(mode):
            raise GuestImageError(f"{what} {path} is not a regular file; copy it to one")
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(what, path, error) from None
    try:
        if os.fstat(file.fileno()).st_size == 0 or not file.read(1):
            raise GuestImageError(f"{what} {path} is empty; fetch or build it again")
        file.seek(0)
    except OSError as error:
        file.close()
        raise _unreadable(what, path, error) from None
    except GuestImageError:
        file.close()
        raise
    return file


def inspect_kernel(path: Path | str, *, image_base: int = IMAGE_BASE) -> KernelImage:
    """Examine the kernel file ``path``.

    :param image_base: where a flat Image is loaded; RAM's base if there is no firmware.
    :raises GuestImageError: when a riscv64 ``virt`` board cannot start it.
    """
    path = Path(path)
    with open_regular(path, "kernel") as file:
        head = file.read(64)
        if head.startswith(b"\x7fELF"):
            return _elf_kernel(path, file, head)
        if head[48:53] == b"RISCV" and head[56:60] == b"RSC\x05":
            return _flat_kernel(path, file, head, image_base)
        raise GuestImageError(f"kernel {path} {_what_else(file, head)}")


def inspect_firmware(path: Path | str) -> None:
    """Check that ``path`` can be firmware: an ELF file for RISC-V, or flat code.

    :raises GuestImageError: when it cannot be the firmware of a riscv64 board.
    """
    path = Path(path)
    with open_regular(path, "firmware") as file:
        head = file.read(64)
        if head.startswith(b"\x7fELF"):
            _check_elf_head(path, "firmware", head)
            return
        for magic, (name, tool) in _COMPRESSED.items():
            if head.startswith(magic):
                raise GuestImageError(
                    f"firmware {path} is compressed by {name}; unpack it first ({tool})"
                )


def _what_else(file: BinaryIO, head: bytes) -> str:
    """Say what the file is, since it is not a RISC-V kernel, and what to do."""
    for magic, (name, tool) in _COMPRESSED.items():
        if head.startswith(magic):
            return f"is compressed by {name}; unpack it first ({tool}) and give the result"
    if head.startswith(b"MZ"):
        if head[4:8] == b"zimg":
            return "is a compressed EFI kernel (zboot); unpack the Linux Image inside it first"
        if head[56:60] == b"ARM\x64":
            return f"is a Linux Image for Arm 64-bit; {_HINT}"
        return f"is an EFI program without the RISC-V Linux header; {_HINT}"
    if head.startswith(b"\x27\x05\x19\x56"):
        return "is a U-Boot image; give the ELF file or Linux Image it was made from"
    file.seek(0x202)
    if file.read(4) == b"HdrS":
        return f"is an x86 bzImage; {_HINT}"
    return f"is neither an ELF file nor a Linux Image; {_HINT}"


# -- ELF ------------------------------------------------------------------------------------------


def _check_elf_head(path: Path, what: str, head: bytes) -> None:
    if len(head) < 64:
        raise GuestImageError(f"{what} {path} is truncated; fetch or build it again")
    if head[5] != 1:
        raise GuestImageError(f"{what} {path} is a big-endian ELF file; {_HINT}")
    kind, machine = struct.unpack_from("<HH", head, 16)
    if machine != _RISCV:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise GuestImageError(f"{what} {path} is built for {name}, not for RISC-V; {_HINT}")
    if head[4] != 2:
        raise GuestImageError(f"{what} {path} is built for 32-bit RISC-V; build it for rv64")
    if kind not in (2, 3):
        raise GuestImageError(f"{what} {path} is an ELF file that is not linked; link it first")


def _elf_kernel(path: Path, file: BinaryIO, head: bytes) -> KernelImage:
    _check_elf_head(path, "kernel", head)
    size = os.fstat(file.fileno()).st_size
    try:
        elf = ELFFile(file)
        segments = [segment.header for segment in elf.iter_segments()]
    except (ELFError, ValueError, UnicodeDecodeError) as error:
        raise GuestImageError(f"kernel {path} is a damaged ELF file: {error}") from None
    if any(segment["p_type"] == "PT_INTERP" for segment in segments):
        raise GuestImageError(f"kernel {path} is a program for an operating system; {_HINT}")
    loads = [x for x in segments if x["p_type"] == "PT_LOAD" and x["p_memsz"] > 0]
    if not loads:
        raise GuestImageError(f"kernel {path} has nothing to load; {_HINT}")
    if any(segment["p_offset"] + segment["p_filesz"] > size for segment in loads):
        raise GuestImageError(f"kernel {path} is truncated; fetch or build it again")
    ranges = tuple(sorted((_elf_range(x) for x in loads), key=lambda x: x.start))
    if not any(RAM_BASE <= piece.start < _PHYSICAL_LIMIT for piece in ranges):
        raise GuestImageError(
            f"kernel {path} is linked to load at 0x{ranges[0].start:x}, outside RAM (from "
            f"0x{RAM_BASE:x}); for Linux give the file arch/riscv/boot/Image"
        )
    if ranges[0].file_offset == 0:
        raise GuestImageError(
            f"kernel {path} loads its own ELF header first, but QEMU starts a kernel at its first "
            "address; link it without headers (ld -N, or a linker script without SIZEOF_HEADERS)"
        )
    # QEMU starts at the lowest address and ignores e_entry (see its hw/riscv/boot.c).
    return KernelImage(path, "elf", ranges[0].start, ranges)


def _elf_range(segment: Container) -> LoadRange:
    return LoadRange(
        start=int(segment["p_paddr"]),
        size=int(segment["p_memsz"]),
        file_offset=int(segment["p_offset"]),
        file_size=int(segment["p_filesz"]),
        executable=bool(segment["p_flags"] & 1),
        virtual=int(segment["p_vaddr"]),
    )


# -- Linux Image ----------------------------------------------------------------------------------


def _flat_kernel(path: Path, file: BinaryIO, head: bytes, base: int) -> KernelImage:
    file_size = os.fstat(file.fileno()).st_size
    image_size, flags = struct.unpack_from("<QQ", head, 16)
    if flags & 1:
        raise GuestImageError(
            f"kernel {path} is a big-endian Linux Image; build a little-endian one"
        )
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        text_end, needed = _pe_extent(image)
    if file_size < needed or image_size < text_end:
        raise GuestImageError(f"kernel {path} is truncated; fetch or build it again")
    size = max(image_size, file_size)
    text_end = text_end or size
    ranges = [LoadRange(base, text_end, 0, min(text_end, file_size), True, None)]
    if text_end < size:
        rest = max(file_size - text_end, 0)
        ranges.append(LoadRange(base + text_end, size - text_end, text_end, rest, False, None))
    return KernelImage(path, "image", base, tuple(ranges))


def _pe_extent(image: mmap.mmap) -> tuple[int, int]:
    """Return where the code ends and how long the file must be, as the Image's EFI header says.

    (0, 0) if the kernel has no such header (built without the EFI stub): then all may be code.
    """
    offset = int.from_bytes(image[60:64], "little")
    if offset == 0 or image[offset : offset + 4] != b"PE\0\0":
        return 0, 0
    sections, optional = struct.unpack_from("<2xH12xH", image, offset + 4)
    text_end = needed = 0
    for index in range(sections):
        place = offset + 24 + optional + 40 * index
        if place + 40 > len(image):
            return 0, place + 40
        memory, start, raw, where = struct.unpack_from("<IIII", image, place + 8)
        (flags,) = struct.unpack_from("<I", image, place + 36)
        needed = max(needed, where + raw)
        if flags & 0x2000_0000:
            text_end = max(text_end, start + memory)
    return text_end, needed
