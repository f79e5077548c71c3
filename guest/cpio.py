"""A writer of ``newc`` cpio archives, the format of a Linux initramfs.

The same entries always give the same bytes: entries keep their order, every time stamp is 0, owner
and group are root, and inode numbers count from 1.  The format is described in the kernel's
``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file of the archive.

    ``path`` is relative to the root, without a leading slash.  ``mode`` holds type and permission
    bits as in ``st_mode``; ``data`` is the content, or the target of a symbolic link; ``rdev`` is
    major and minor of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Entry:
    """Return the entry of a directory."""
    return Entry(path, stat.S_IFDIR | mode)


def regular(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """Return the entry of a regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    """Return the entry of a symbolic link to ``target``."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode(errors="surrogateescape"))


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """Return the entry of a character device node."""
    return Entry(path, stat.S_IFCHR | mode, rdev=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the uncompressed archive of ``entries``; a directory must precede its files."""
    parts: list[bytes] = []
    for inode, entry in enumerate(entries, start=1):
        parts.append(_record(entry, inode))
    parts.append(_record(Entry(_TRAILER, 0), 0))
    return b"".join(parts)


def compressed(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries``, gzip-compressed without a time stamp."""
    return gzip.compress(archive(entries), compresslevel=9, mtime=0)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        0,  # uid
        0,  # gid
        links,
        0,  # mtime
        len(entry.data),
        0,  # major and minor of the device that holds the file
        0,
        *entry.rdev,
        len(name),
        0,  # check sum, which this variant does not use
    )
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
