"""Kernel and firmware files: what they are, where QEMU loads them, what is wrong with them.

There are two kinds of kernel.  A RISC-V 64-bit ELF file is loaded where its program headers say.
A Linux ``Image`` (the flat format in the kernel's document "Boot image header in RISC-V Linux") is
copied to the first 2 MiB boundary behind the firmware.  :mod:`cosim.kernel.bootable` makes one of
these two of other files.
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
from cosim.kernel import unpacking
from cosim.machine.configuration import RAM_BASE

IMAGE_BASE = RAM_BASE + (2 << 20)
"""Physical address where QEMU puts a flat kernel behind its own OpenSBI."""

PHYSICAL_LIMIT = 1 << 56
"""The first address beyond what RISC-V can address physically."""
RISCV_ELF = 243
"""The number of RISC-V in an ELF header."""
_MACHINES = {3: "x86", 8: "MIPS", 40: "Arm", 62: "x86-64", 183: "Arm 64-bit", 258: "LoongArch"}
_ELF = b"\x7fELF"
_HINT = "give a RISC-V 64-bit ELF kernel or a Linux Image"
_FLAT = "is neither an ELF file nor a Linux Image; for a flat binary give its load address"


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
    kind: Literal["elf", "image", "flat"]
    """``image`` is Linux's flat format, ``flat`` is code without any header (firmware)."""
    entry: int
    """Physical address of the first instruction."""
    ranges: tuple[LoadRange, ...]
    """In address order, not overlapping."""
    elf: Path | None = None
    """The ELF file that gdb takes symbols from; None if there is none."""

    @property
    def end(self) -> int:
        """The first address behind what is loaded."""
        return max(piece.start + piece.size for piece in self.ranges)


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


def inspect_kernel(
    path: Path | str, *, image_base: int = IMAGE_BASE, given: Path | None = None
) -> KernelImage:
    """Examine the kernel file ``path``, which QEMU is to load.

    :param image_base: where a flat Image is loaded; RAM's base if there is no firmware.
    :param given: the file that messages name, if ``path`` was made of it.
    :raises GuestImageError: when a riscv64 ``virt`` board cannot start it.
    """
    path = Path(path)
    named = given or path
    elf = next((one for one in (named, path) if _is_elf(one)), None)
    with open_regular(path, "kernel") as file:
        head = file.read(64)
        if head.startswith(_ELF):
            return KernelImage(path, "elf", *_elf_kernel(named, file, head), elf)
        if is_image(head):
            ranges = _flat_kernel(named, file, head, image_base)
            return KernelImage(path, "image", image_base, ranges, elf)
        what = _what_else(file, head) or _FLAT
        raise GuestImageError(f"kernel {named} {what}")


def is_flat(path: Path) -> bool:
    """Return True if ``path`` may be a flat binary: code without any header that we know.

    :raises GuestImageError: when it is missing, empty, unreadable or not a regular file.
    """
    with open_regular(path, "kernel") as file:
        head = file.read(64)
        known = head.startswith(_ELF) or is_image(head) or unpacking.format_of(head)
        return not known and _what_else(file, head) is None


def _is_elf(path: Path) -> bool:
    with open_regular(path, "kernel") as file:
        return file.read(len(_ELF)) == _ELF


def is_image(head: bytes | mmap.mmap) -> bool:
    """Return True if a file that begins with ``head`` is an uncompressed RISC-V Linux Image."""
    return head[48:53] == b"RISCV" and head[56:60] == b"RSC\x05"


def inspect_firmware(
    path: Path | str, *, base: int = RAM_BASE, given: Path | None = None
) -> KernelImage:
    """Examine the firmware file ``path``: an ELF file for RISC-V, or flat code.

    :param base: where flat code is loaded.
    :param given: the file that messages name, if ``path`` was made of it.
    :raises GuestImageError: when it cannot be the firmware of a riscv64 board.
    """
    path = Path(path)
    named = given or path
    with open_regular(path, "firmware") as file:
        head = file.read(64)
        if head.startswith(_ELF):
            _check_elf_head(named, "firmware", head)
            ranges = _elf_ranges(named, "firmware", file)
            # QEMU starts at e_entry, unlike for kernels.
            (entry,) = struct.unpack_from("<Q", head, 24)
            return KernelImage(path, "elf", entry, ranges, named)
        packed = unpacking.format_of(head)
        if packed is not None:
            raise GuestImageError(
                f"firmware {named} is compressed by {packed.name}; unpack it first ({packed.tool})"
            )
        size = os.fstat(file.fileno()).st_size
    whole = LoadRange(base, size, 0, size, True, base)
    return KernelImage(path, "flat", base, (whole,))


def _what_else(file: BinaryIO, head: bytes) -> str | None:
    """Say what the file is, since it is not a RISC-V kernel, and what to do; None if unknown."""
    if head.startswith(b"MZ"):
        if head[56:60] == b"ARM\x64":
            return f"is a Linux Image for Arm 64-bit; {_HINT}"
        return f"is an EFI program without the RISC-V Linux header; {_HINT}"
    if head.startswith(b"\x27\x05\x19\x56"):
        return "is a U-Boot image; give the ELF file or Linux Image it was made from"
    file.seek(0x202)
    if file.read(4) == b"HdrS":
        return f"is an x86 bzImage; {_HINT}"
    return None


# -- ELF ------------------------------------------------------------------------------------------


def _check_elf_head(path: Path, what: str, head: bytes) -> None:
    if len(head) < 64:
        raise GuestImageError(f"{what} {path} is truncated; fetch or build it again")
    if head[5] != 1:
        raise GuestImageError(f"{what} {path} is a big-endian ELF file; {_HINT}")
    kind, machine = struct.unpack_from("<HH", head, 16)
    if machine != RISCV_ELF:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise GuestImageError(f"{what} {path} is built for {name}, not for RISC-V; {_HINT}")
    if head[4] != 2:
        raise GuestImageError(f"{what} {path} is built for 32-bit RISC-V; build it for rv64")
    if kind not in (2, 3):
        raise GuestImageError(f"{what} {path} is an ELF file that is not linked; link it first")


def _elf_kernel(path: Path, file: BinaryIO, head: bytes) -> tuple[int, tuple[LoadRange, ...]]:
    """Return where the kernel starts and what is loaded."""
    _check_elf_head(path, "kernel", head)
    ranges = _elf_ranges(path, "kernel", file)
    if not any(RAM_BASE <= piece.start < PHYSICAL_LIMIT for piece in ranges):
        raise GuestImageError(
            f"kernel {path} is linked to load at 0x{ranges[0].start:x}, outside RAM (from "
            f"0x{RAM_BASE:x}); for Linux give the file arch/riscv/boot/Image"
        )
    if ranges[0].file_offset == 0:
        raise GuestImageError(
            f"kernel {path} loads its own ELF header first and names no other place to start at; "
            "give it an entry point (ENTRY in a linker script), or link it without headers (ld -N)"
        )
    # QEMU starts at the lowest address and ignores e_entry (see its hw/riscv/boot.c).
    return ranges[0].start, ranges


def _elf_ranges(path: Path, what: str, file: BinaryIO) -> tuple[LoadRange, ...]:
    size = os.fstat(file.fileno()).st_size
    try:
        elf = ELFFile(file)
        segments = [segment.header for segment in elf.iter_segments()]
    except (ELFError, ValueError, UnicodeDecodeError) as error:
        raise GuestImageError(f"{what} {path} is a damaged ELF file: {error}") from None
    if any(segment["p_type"] == "PT_INTERP" for segment in segments):
        raise GuestImageError(f"{what} {path} is a program for an operating system; {_HINT}")
    loads = [x for x in segments if x["p_type"] == "PT_LOAD" and x["p_memsz"] > 0]
    if not loads:
        raise GuestImageError(f"{what} {path} has nothing to load; {_HINT}")
    if any(segment["p_offset"] + segment["p_filesz"] > size for segment in loads):
        raise GuestImageError(f"{what} {path} is truncated; fetch or build it again")
    return tuple(sorted((_elf_range(x) for x in loads), key=lambda x: x.start))


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


def _flat_kernel(path: Path, file: BinaryIO, head: bytes, base: int) -> tuple[LoadRange, ...]:
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
    return tuple(ranges)


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
