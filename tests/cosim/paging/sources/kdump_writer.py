"""Writes kdump files, plain or flattened, from what their public description says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import zstandard

PAGE = 4096
FLAGS = {"none": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 32}


def kdump(
    pages: Mapping[int, bytes], compression: str = "zlib", *, machine: str = "riscv64"
) -> bytes:
    """Return a dump that holds ``pages``, by physical address."""
    frames = sorted(address // PAGE for address in pages)
    most = frames[-1] + 2
    half = -(-most // (8 * PAGE)) * PAGE
    bitmap = bytearray(half)
    for frame in frames:
        bitmap[frame // 8] |= 1 << frame % 8
    header = b"KDUMP   " + struct.pack("<i", 6)
    names = ("Linux", "guest", "6.1", "#1", machine, "")
    header += b"".join(name.encode().ljust(65, b"\0") for name in names)
    header = header.ljust(424, b"\0")
    header += struct.pack("<iiiIIII", 1, PAGE, 1, 2 * half // PAGE, most, 0, 0)
    sub = bytearray(104)
    struct.pack_into("<QQQ", sub, 80, 0, most, most)
    table = PAGE * 2 + 2 * half
    data_at = table + 24 * len(frames)
    descriptors, data = b"", b""
    for frame in frames:
        flags, packed = _packed(pages[frame * PAGE], compression)
        descriptors += struct.pack("<qIIQ", data_at + len(data), len(packed), flags, 0)
        data += packed
    blocks = header.ljust(PAGE, b"\0") + bytes(sub).ljust(PAGE, b"\0")
    return blocks + bytes(bitmap) * 2 + descriptors + data


def _packed(page: bytes, compression: str) -> tuple[int, bytes]:
    packed = page
    if compression == "zlib":
        packed = zlib.compress(page)
    elif compression == "zstd":
        packed = zstandard.ZstdCompressor().compress(page)
    elif compression != "none":
        return FLAGS[compression], page
    # A page that does not become smaller is stored as it is.
    return (FLAGS[compression], packed) if len(packed) < PAGE else (0, page)


def flattened(dump: bytes, piece: int = 1000) -> bytes:
    """Return the same dump as makedumpfile writes it to a pipe; the header is written twice."""
    out = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = out.ljust(PAGE, b"\0")
    records = [(0, b"\xff" * 100)]
    records += [(at, dump[at : at + piece]) for at in range(0, len(dump), piece)]
    for at, data in records:
        out += struct.pack(">qq", at, len(data)) + data
    return out + struct.pack(">qq", -1, -1)
