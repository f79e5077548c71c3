"""Snapshots: a guest at one moment, in one file, from which runs can start.

A file has a line that says what it is, a line of JSON (:class:`Head`), and one zstd frame.  In the
frame are the state of QEMU's devices, as QEMU itself writes it to migrate a machine, and then those
parts of guest RAM that hold anything.  RAM is not part of QEMU's stream, because it is a file that
we share with QEMU (``x-ignore-shared``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from cosim import files
from cosim.errors import StorageError, UsageError
from cosim.machine import guest_timers

_MAGIC = b"lsp-cosim snapshot 1\n"
_MOST_HEAD = 1 << 20
_CHUNK = 1 << 20
_Put = Callable[[bytes], object]


@dataclass(frozen=True)
class Head:
    """What a snapshot says of itself."""

    machine: Mapping[str, str]
    """What the machine was made from, by names that a user knows.  A run from the snapshot must
    have the same."""
    at: str
    """Where the guest was, as the user wrote it."""
    pc: int
    """The instruction that executes next."""
    said: str
    """The last line on the guest's console, which may be a prompt."""
    timers: tuple[str, ...]
    """Commands for QEMU's gdb stub that set the guest's timers again, before it starts
    (:mod:`cosim.machine.guest_timers`)."""
    state_bytes: int
    """Bytes of the devices' state."""
    ram: tuple[tuple[int, int], ...]
    """The parts of guest RAM in the file, as (first byte counted from RAM's beginning, bytes)."""


class Ram(Protocol):
    """Guest RAM that can be read and written."""

    def __getitem__(self, part: slice, /) -> bytes | bytearray:
        """Return the bytes ``part``."""

    def __setitem__(self, part: slice, data: bytes, /) -> None:
        """Write the bytes ``part``."""


def write(path: Path, head: Head, state: BinaryIO, ram: Ram) -> None:
    """Write a snapshot.  ``path`` is there whole, or stays as it was.

    :param state: the devices' state, from where it is read on.
    :raises StorageError: when the file cannot be written.
    """
    line = json.dumps(asdict(head), sort_keys=True).encode() + b"\n"
    with files.writing(path) as file:
        file.write(_MAGIC + line)
        packer = zstandard.ZstdCompressor(level=1, write_checksum=True)
        with packer.stream_writer(file, closefd=False) as packed:
            while data := state.read(_CHUNK):
                packed.write(data)
            for first, size in head.ram:
                for at in range(first, first + size, _CHUNK):
                    packed.write(ram[at : min(at + _CHUNK, first + size)])


def read_head(path: Path) -> Head:
    """Return what the snapshot ``path`` says of itself.

    :raises UsageError: when it is not a snapshot of this version of the format.
    :raises StorageError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _head(file, path)
    except OSError as error:
        raise StorageError(f"cannot read the snapshot {path}: {error.strerror}") from None


def restore(path: Path, state: BinaryIO, ram: Ram, size: int) -> Head:
    """Unpack a snapshot; return what it says of itself.

    :param state: receives the devices' state.
    :param ram: guest RAM of ``size`` bytes, in which nothing is yet.
    :raises UsageError: when the file is not a snapshot, or damaged.
    :raises StorageError: when it cannot be read, or there is no space for the state.
    """
    try:
        with path.open("rb") as file:
            head = _head(file, path)
            if any(first < 0 or part < 0 or first + part > size for first, part in head.ram):
                raise _damaged(path)
            with zstandard.ZstdDecompressor().stream_reader(file) as unpacked:
                _copy(unpacked, head.state_bytes, state.write, path)
                for first, part in head.ram:
                    _copy(unpacked, part, _Writer(ram, first).put, path)
                # The checksum stands behind the last byte.
                if unpacked.read(1):
                    raise _damaged(path)
                return head
    except zstandard.ZstdError:
        raise _damaged(path) from None
    except OSError as error:
        raise StorageError(f"cannot unpack the snapshot {path}: {error.strerror}") from None


def checksum(path: Path) -> str:
    """Return the SHA-256 of the file, in hexadecimal digits.

    :raises StorageError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read the snapshot {path}: {error.strerror}") from None


class _Writer:
    """Writes pieces to RAM one behind the other."""

    def __init__(self, ram: Ram, first: int) -> None:
        self._ram = ram
        self._at = first

    def put(self, data: bytes) -> None:
        self._ram[self._at : self._at + len(data)] = data
        self._at += len(data)


def _copy(source: zstandard.ZstdDecompressionReader, size: int, put: _Put, path: Path) -> None:
    while size:
        data = source.read(min(size, _CHUNK))
        if not data:
            raise _damaged(path)
        put(data)
        size -= len(data)


def _head(file: BinaryIO, path: Path) -> Head:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise UsageError(f"{path} is not a snapshot that `cosim snapshot` of this version has made")
    line = file.readline(_MOST_HEAD)
    try:
        found = json.loads(line)
        head = Head(
            machine={str(key): str(value) for key, value in found["machine"].items()},
            at=str(found["at"]),
            pc=int(found["pc"]),
            said=str(found["said"]),
            timers=tuple(str(command) for command in found["timers"]),
            state_bytes=int(found["state_bytes"]),
            ram=tuple((int(first), int(size)) for first, size in found["ram"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _damaged(path) from None
    if head.state_bytes < 0 or not all(map(guest_timers.is_command, head.timers)):
        raise _damaged(path)
    return head


def _damaged(path: Path) -> UsageError:
    return UsageError(f"the snapshot {path} is damaged; make it again with `cosim snapshot`")
