"""Makes what QEMU can start of a kernel or firmware file as users have it.

QEMU copies an ELF file to the physical addresses in its program headers and starts it at the lowest
of them.  A Linux ``Image`` it copies behind the firmware.  Other files need a step before:

- a compressed kernel (``Image.gz``, ``vmlinux.zst``) and an EFI kernel that unpacks itself
  (``vmlinuz.efi``, made by Linux's ``drivers/firmware/efi/libstub/Makefile.zboot``) are unpacked;
- an ELF file of Linux (``vmlinux``) has physical addresses that count from 0.  Its segments, put
  side by side, are the ``Image``, as ``objcopy -O binary`` makes it;
- an ELF file that loads its own ELF header has that at its lowest address.  There the copy has a
  jump to the entry point;
- a flat binary becomes an ELF file that says where to load it;
- position-independent firmware is linked at 0.  As a flat file QEMU loads it where RAM begins.

What is made is kept in the cache folder, under a name that depends on the content of the file.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cosim import paths
from cosim.errors import GuestImageError, StorageError
from cosim.files import write_atomically
from cosim.kernel import unpacking
from cosim.kernel.images import PHYSICAL_LIMIT, RISCV_ELF, is_image, open_regular
from cosim.machine.configuration import RAM_BASE

MOST_BYTES = 1 << 30
"""The largest kernel that is unpacked or put together (ours)."""
_PAGE = 4096

_RECIPE = 2
"""Part of the names in the cache; raise it when this module makes other files."""
_CHUNK = 1 << 20
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_LOAD, _DYNAMIC = 1, 2
_RELA, _RELA_SIZE = 7, 8

Data = bytes | mmap.mmap


class _Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    virtual: int
    physical: int
    file_size: int
    size: int
    align: int


def kernel(path: Path, load_address: int | None = None) -> Path:
    """Return the file to give to QEMU for the kernel ``path``: it, or what was made of it.

    A file that no riscv64 board can start is returned as it is, for
    :func:`cosim.kernel.images.inspect_kernel` to say what is wrong with it.

    :param load_address: physical address of the first byte, if the file is a flat binary.
    :raises GuestImageError: when it cannot be read, or what is compressed in it is damaged or no
        kernel.
    :raises StorageError: when the cache folder cannot be written.
    """
    return _made(path, "kernel", load_address, lambda data: _kernel(path, data, load_address))


def firmware(path: Path) -> Path:
    """Return the file to give to QEMU for the firmware ``path``: it, or what was made of it.

    :raises GuestImageError: when it cannot be read.
    :raises StorageError: when the cache folder cannot be written.
    """
    return _made(path, "firmware", None, lambda data: _firmware(path, data))


def _made(
    path: Path, role: str, load_address: int | None, make: Callable[[Data], bytes | None]
) -> Path:
    with (
        open_regular(path, role) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if load_address is None and _fits(data):
            return path
        if load_address is not None and len(data) > MOST_BYTES:
            raise GuestImageError(
                f"kernel {path} has more than {MOST_BYTES >> 20} MiB, which is no flat binary"
            )
        digest = hashlib.sha256(data).hexdigest()[:32]
        place = "" if load_address is None else f"-{load_address:x}"
        made = paths.cache() / "kernels" / f"{digest}{place}-{role}-{_RECIPE}"
        if made.is_file():
            return made
        content = make(data)
    if content is None:
        return path
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {made.parent}: {error.strerror}") from None
    write_atomically(made, content)
    return made


def _fits(data: Data) -> bool:
    """Return True if QEMU takes the file as it is: the common case, found without reading it."""
    if is_image(data):
        return True
    loads = _loads(data)
    return bool(loads) and _in_ram(loads) and min(loads, key=_physical).offset != 0


def _kernel(path: Path, data: Data, load_address: int | None) -> bytes | None:
    if load_address is not None:
        return _as_elf(bytes(data), load_address)
    packed = _unpacked(path, data)
    content = data if packed is None else packed
    if content[:4] == b"\x7fELF":
        return _bootable_elf(path, content) or packed
    if packed is not None and not is_image(packed):
        raise GuestImageError(f"kernel {path} does not unpack to an ELF file or a Linux Image")
    return packed


def _firmware(path: Path, data: Data) -> bytes | None:
    loads = _loads(data)
    if not loads or _in_ram(loads) or min(loads, key=_physical).physical != 0:
        return None
    first = min(loads, key=_physical)
    if _entry(data, loads) != first.physical:
        raise GuestImageError(
            f"firmware {path} is linked at 0 and does not start at its first address, where QEMU "
            "starts it; link it at 0x80000000"
        )
    return _flattened(data, loads, _physical)


# -- unpacking ------------------------------------------------------------------------------------


def _unpacked(path: Path, data: Data) -> bytes | None:
    """Return what is compressed in a kernel file; None if nothing is."""
    where = f"kernel {path}"
    if data[:2] == b"MZ" and data[4:8] == b"zimg":
        start, size = struct.unpack_from("<II", data, 8)
        inner = data[start : start + size]
        if len(inner) < max(size, 1):
            raise GuestImageError(f"{where} is truncated; fetch or build it again")
        form = unpacking.format_of(inner)
        if form is None:
            name = bytes(data[24:56]).split(b"\0")[0].decode("ascii", "replace")
            raise GuestImageError(
                f"{where} is an EFI kernel (zboot) compressed by {name!r}, which is not known; "
                "give the Linux Image in it"
            )
        source = io.BytesIO(inner)
    else:
        form = unpacking.format_of(data)
        if form is None:
            return None
        source = io.BytesIO(data)
    if form.reader is None:
        raise GuestImageError(
            f"{where} is compressed by {form.name}; unpack it first ({form.tool}) and give the "
            "result"
        )
    try:
        return _read(where, form.reader(source))
    except (unpacking.EndsEarly, EOFError):
        raise GuestImageError(f"{where} is truncated; fetch or build it again") from None
    except unpacking.FAULTS as error:
        raise GuestImageError(
            f"{where} cannot be unpacked ({form.name}: {error}); fetch or build it again"
        ) from None


def _read(where: str, reader: unpacking.Readable) -> bytes:
    content = bytearray()
    while piece := reader.read(_CHUNK):
        content += piece
        if len(content) > MOST_BYTES:
            raise GuestImageError(
                f"{where} unpacks to more than {MOST_BYTES >> 20} MiB; unpack it yourself, and "
                "give the result"
            )
    return bytes(content)


# -- ELF ------------------------------------------------------------------------------------------


def _segments(data: Data) -> list[_Segment]:
    """Return the program headers of a RISC-V 64-bit ELF file; empty if it is none, or damaged."""
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < _EHDR.size:
        return []
    _, kind, machine, _, _, table, *_, size, count, _, _, _ = _EHDR.unpack_from(data)
    if machine != RISCV_ELF or kind not in (2, 3) or size != _PHDR.size:
        return []
    if table + count * size > len(data):
        return []
    found = [_Segment(*_PHDR.unpack_from(data, table + size * i)) for i in range(count)]
    whole = all(each.offset + each.file_size <= len(data) for each in found)
    return found if whole else []


def _loads(data: Data) -> list[_Segment]:
    return [each for each in _segments(data) if each.kind == _LOAD and each.size > 0]


def _physical(segment: _Segment) -> int:
    return segment.physical


def _virtual(segment: _Segment) -> int:
    return segment.virtual


def _in_ram(loads: list[_Segment]) -> bool:
    return any(RAM_BASE <= each.physical < PHYSICAL_LIMIT for each in loads)


def _entry(data: Data, loads: list[_Segment]) -> int | None:
    """Return the physical address of the entry point; None if it is in no segment."""
    (entry,) = struct.unpack_from("<Q", data, 24)
    for each in loads:
        for start in (each.virtual, each.physical):
            if start <= entry < start + each.file_size:
                return int(entry - start + each.physical)
    return None


def _bootable_elf(path: Path, data: Data) -> bytes | None:
    """Return what QEMU takes instead of the ELF file ``data``; None if nothing better is known."""
    loads = _loads(data)
    if not loads:
        return None
    if _in_ram(loads):
        return _with_jump(data, loads)
    flat = _flattened(data, loads, _virtual)
    if flat is None or not is_image(flat):
        return None
    if _lost_relocations(data, flat, min(map(_virtual, loads))):
        raise GuestImageError(
            f"kernel {path} is a relocatable vmlinux without its relocations, so it cannot start; "
            "give the file arch/riscv/boot/Image of the same build"
        )
    return flat


def _flattened(
    data: Data, loads: list[_Segment], address: Callable[[_Segment], int]
) -> bytes | None:
    """Return the segments side by side; None if they are too far apart."""
    base = min(map(address, loads))
    size = max(address(each) + each.file_size for each in loads) - base
    if size > MOST_BYTES:
        return None
    flat = bytearray(size)
    for each in loads:
        place = address(each) - base
        flat[place : place + each.file_size] = data[each.offset : each.offset + each.file_size]
    return bytes(flat)


def _lost_relocations(data: Data, flat: bytes, base: int) -> bool:
    """Return True if the kernel has a relocation table that holds only zeros.

    Linux's ``arch/riscv/Makefile.postlink`` takes the relocations out of ``vmlinux``, after the
    Image was made.
    """
    for each in _segments(data):
        if each.kind == _DYNAMIC:
            words = struct.iter_unpack(
                "<QQ", data[each.offset : each.offset + each.file_size // 16 * 16]
            )
            tags = dict(words)
            start, size = tags.get(_RELA, base) - base, tags.get(_RELA_SIZE, 0)
            if size > 0 and start >= 0 and not any(flat[start : start + size]):
                return True
    return False


def _with_jump(data: Data, loads: list[_Segment]) -> bytes | None:
    """Return the file with a jump to its entry point at its lowest address.

    None if the lowest address does not hold the ELF header, or the entry point is not known.  What
    is loaded differs only in the first eight bytes, which identify an ELF file.
    """
    first = min(loads, key=_physical)
    entry = _entry(data, loads)
    if first.offset != 0 or first.file_size < 8 or entry in (None, first.physical):
        return None
    assert entry is not None
    distance = entry - first.physical
    if distance >= 1 << 31:
        return None
    # auipc t0, upper; jalr x0, lower(t0).  A kernel finds nothing in t0 when it starts.
    upper, lower = (distance + 0x800) >> 12, distance & 0xFFF
    jump = struct.pack("<II", upper << 12 | 5 << 7 | 0x17, lower << 20 | 5 << 15 | 0x67)
    copy = bytearray(data)
    # QEMU needs no alignment.  A damaged file may ask for more than there is memory.
    copy += bytes(-len(copy) % _PAGE)
    moved = first._replace(offset=len(copy))
    copy += jump + data[8 : first.file_size]
    (table,) = struct.unpack_from("<Q", data, 32)
    index = _segments(data).index(first)
    _PHDR.pack_into(copy, table + _PHDR.size * index, *moved)
    return bytes(copy)


def _as_elf(content: bytes, address: int) -> bytes:
    """Return an ELF file that loads ``content`` at ``address`` and starts there."""
    start = _EHDR.size + _PHDR.size
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (_EHDR.size, _PHDR.size, 1, 64, 0, 0)
    head = _EHDR.pack(ident, 2, RISCV_ELF, 1, address, _EHDR.size, 0, 0, *sizes)
    size = len(content)
    return head + _PHDR.pack(_LOAD, 7, start, address, address, size, size, 1) + content
