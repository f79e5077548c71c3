"""What is made of kernels that QEMU does not take as they are."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from cosim.errors import GuestImageError
from cosim.kernel import bootable, images, symbols
from cosim.kernel.images import LoadRange, inspect_firmware, inspect_kernel
from cosim.machine.configuration import RAM_BASE
from tests.cosim.kernel.test_images import elf, image
from tests.cosim.kernel.test_symbols import table

HIGH = 0xFFFF_FFFF_8000_0000
LOW = RAM_BASE + 0x20_0000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "kernel"
    path.write_bytes(content)
    return path


def zboot(payload: bytes, kind: bytes, *, size: int | None = None) -> bytes:
    """An EFI kernel that unpacks itself, as zboot-header.S lays it out."""
    head = bytearray(0x200)
    head[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", head, 8, len(head), len(payload) if size is None else size)
    head[24 : 24 + len(kind)] = kind
    head[56:60] = b"\xcd\x23\x82\x81"
    # Most formats have the unpacked size behind the payload, and the header does not count it.
    return bytes(head) + payload + struct.pack("<I", len(image()))


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "Image.gz": gzip.compress,
    "Image.zst": zstandard.compress,
    "Image.xz": lzma.compress,
    "Image.lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "vmlinuz.efi of gzip": lambda data: zboot(gzip.compress(data), b"gzip"),
    "vmlinuz.efi of zstd": lambda data: zboot(zstandard.compress(data), b"zstd22"),
    "vmlinuz.efi of xz": lambda data: zboot(lzma.compress(data), b"xzkern"),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_kernel_is_unpacked(name: str, tmp_path: Path, cache: Path) -> None:
    path = _file(tmp_path, COMPRESSED[name](image()))
    made = bootable.kernel(path)
    assert made.parent == cache and made.read_bytes() == image()
    assert inspect_kernel(made, given=path).kind == "image"
    written = made.stat().st_ino
    assert bootable.kernel(path) == made and made.stat().st_ino == written  # not made again


def test_a_kernel_that_qemu_takes_is_left_alone(tmp_path: Path, cache: Path) -> None:
    for content in (image(), elf()):
        path = _file(tmp_path, content)
        assert bootable.kernel(path) == path
    assert not cache.exists()


def test_symbols_are_found_inside_a_compressed_image(tmp_path: Path) -> None:
    entries = [(0x1000 + 16 * number, f"tfunction_{number}") for number in range(600)]
    content = image() + table(entries, "6.12")
    path = _file(tmp_path, zboot(gzip.compress(content), b"gzip"))
    assert symbols.load(path).address("function_7") == HIGH + 0x1000 + 16 * 7


def _vmlinux(*, dynamic: bytes = b"", kind: int = 2) -> bytes:
    """A kernel as Linux links it: physical addresses from 0 on, and a hole between segments."""
    content = image()
    segments = [
        (1, 5, HIGH, 0, content[:0x2000], 0x2000),
        (1, 6, HIGH + 0x3000, 0x3000, content[0x3000:], 0x2000),
    ]
    if dynamic:
        segments.append((2, 6, HIGH + 0x3000, 0x3000, dynamic, len(dynamic)))
    return elf(segments=segments, entry=HIGH, kind=kind)


def test_vmlinux_becomes_the_image(tmp_path: Path) -> None:
    path = _file(tmp_path, _vmlinux())
    made = bootable.kernel(path)
    assert made.read_bytes() == image()[:0x2000] + bytes(0x1000) + image()[0x3000:]
    found = inspect_kernel(made, given=path)
    assert (found.kind, found.entry, found.elf) == ("image", images.IMAGE_BASE, path)


def test_a_compressed_vmlinux_becomes_the_image(tmp_path: Path) -> None:
    made = bootable.kernel(_file(tmp_path, gzip.compress(_vmlinux())))
    assert inspect_kernel(made).kind == "image"


def test_vmlinux_without_its_relocations_is_refused(tmp_path: Path) -> None:
    # The table is said to be at HIGH + 0x3100, where the file has zeros.
    dynamic = struct.pack("<QQQQQQ", 7, HIGH + 0x3100, 8, 48, 0, 0)
    with pytest.raises(GuestImageError, match=r"without its relocations.*boot/Image"):
        bootable.kernel(_file(tmp_path, _vmlinux(dynamic=dynamic, kind=3)))


def _jump_target(code: bytes, at: int) -> int:
    """Where ``auipc t0`` and ``jalr x0, t0`` at ``at`` lead, by the instructions' definition."""
    upper, lower = (int.from_bytes(code[i : i + 4], "little") for i in (0, 4))
    assert (upper & 0xFFF, lower & 0xF_FFFF) == (0x297, 0x2_8067)
    offset = (lower >> 20) - ((lower >> 31) << 12)
    return at + (upper & 0xFFFF_F000) + offset


@pytest.mark.parametrize("distance", [0x40, 0x800, 0x1000, 0x1FFE])
def test_an_elf_header_in_the_first_page_becomes_a_jump(distance: int, tmp_path: Path) -> None:
    whole = bytearray(elf(segments=[(1, 5, HIGH, LOW, b"", 0x2000)], entry=HIGH + distance))
    whole += bytes(0x2000 - len(whole))
    struct.pack_into("<QQQQQ", whole, 64 + 8, 0, HIGH, LOW, 0x2000, 0x2000)
    path = _file(tmp_path, bytes(whole))
    made = bootable.kernel(path)
    found = inspect_kernel(made, given=path)
    (only,) = found.ranges
    loaded = made.read_bytes()[only.file_offset :][: only.file_size]
    assert found.entry == only.start == LOW
    assert _jump_target(loaded, LOW) == LOW + distance
    assert loaded[8:] == whole[8:]
    assert found.elf == path  # where the symbols are


def test_an_elf_header_without_another_entry_is_refused(tmp_path: Path) -> None:
    whole = bytearray(elf(segments=[(1, 5, LOW, LOW, b"", 0x2000)], entry=LOW))
    whole += bytes(0x2000)
    struct.pack_into("<QQQQQ", whole, 64 + 8, 0, LOW, LOW, 0x2000, 0x2000)
    path = _file(tmp_path, bytes(whole))
    assert bootable.kernel(path) == path
    with pytest.raises(GuestImageError, match="loads its own ELF header first"):
        inspect_kernel(path)


def test_an_alignment_that_no_memory_has_is_not_kept(tmp_path: Path) -> None:
    whole = bytearray(elf(segments=[(1, 5, LOW, LOW, b"", 0x2000)], entry=LOW + 0x100))
    whole += bytes(0x2000 - len(whole))
    struct.pack_into("<QQQQQQ", whole, 64 + 8, 0, LOW, LOW, 0x2000, 0x2000, 1 << 63)
    made = bootable.kernel(_file(tmp_path, bytes(whole)))
    assert made.stat().st_size == 0x4000


def test_a_flat_binary_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(bootable, "MOST_BYTES", 1 << 20)
    with pytest.raises(GuestImageError, match="has more than 1 MiB"):
        bootable.kernel(_file(tmp_path, bytes((1 << 20) + 1)), LOW)
    assert not cache.exists()


def test_a_flat_binary_is_loaded_where_the_user_says(tmp_path: Path) -> None:
    path = _file(tmp_path, b"\x6f\0\0\0" * 100)
    assert images.is_flat(path)
    made = bootable.kernel(path, 0x8400_0000)
    found = inspect_kernel(made)
    assert (found.kind, found.entry) == ("elf", 0x8400_0000)
    assert found.ranges == (LoadRange(0x8400_0000, 400, 120, 400, True, 0x8400_0000),)
    assert made.read_bytes()[120:] == path.read_bytes()
    assert bootable.kernel(path, 0x8500_0000) != made


def test_position_independent_firmware_becomes_flat(tmp_path: Path) -> None:
    segments = [(1, 5, 0, 0, b"code", 4), (1, 6, 0x1000, 0x1000, b"data", 0x100)]
    path = _file(tmp_path, elf(segments=segments, entry=0, kind=3))
    made = bootable.firmware(path)
    assert made.read_bytes() == b"code" + bytes(0xFFC) + b"data"
    found = inspect_firmware(made, given=path)
    assert (found.kind, found.entry, found.end) == ("flat", RAM_BASE, RAM_BASE + 0x1004)
    for content in (elf(), b"\x13\0\0\0"):
        assert bootable.firmware(_file(tmp_path, content)) == path
    with pytest.raises(GuestImageError, match="does not start at its first address"):
        bootable.firmware(_file(tmp_path, elf(segments=segments, entry=2, kind=3)))


BAD = {
    "cut off": (gzip.compress(image())[:-30], "truncated"),
    "damaged": (b"\x1f\x8b" + bytes(99), "cannot be unpacked .gzip"),
    "lz4": (b"\x02\x21\x4c\x18" + bytes(99), r"compressed by lz4; unpack it first \(unlz4\)"),
    "no kernel inside": (gzip.compress(b"# text\n" * 99), "does not unpack to an ELF file or"),
    "zboot cut off": (zboot(gzip.compress(image()), b"gzip", size=1 << 30), "truncated"),
    "zboot of what": (zboot(b"?" * 99, b"shrink"), "compressed by 'shrink', which is not known"),
    "zboot of lz4": (zboot(b"\x02\x21\x4c\x18" + bytes(99), b"lz4"), "compressed by lz4"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_clear_line(name: str, tmp_path: Path, cache: Path) -> None:
    content, says = BAD[name]
    path = _file(tmp_path, content)
    with pytest.raises(GuestImageError, match=says) as caught:
        bootable.kernel(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not cache.exists()


def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootable, "MOST_BYTES", 1 << 20)
    with pytest.raises(GuestImageError, match="unpacks to more than 1 MiB"):
        bootable.kernel(_file(tmp_path, zstandard.compress(bytes(64 << 20))))
