"""An ELF core of a whole machine: ``dump-guest-memory``, ``/proc/vmcore``, ``makedumpfile -E``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from cosim.errors import DumpError, UnreadableMemory
from cosim.paging.physical import PhysicalMemory
from cosim.paging.sources.mapped_file import MappedFile

MAGIC = b"\x7fELF"
_PAGE = 4096


class _Piece(NamedTuple):
    address: int
    size: int
    offset: int


class ElfCore(PhysicalMemory):
    """The physical memory in the LOAD segments of a core.

    :raises DumpError: when the file is no core of a 64-bit RISC-V machine with physical addresses.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        path = file.path
        try:
            # pyelftools takes the mapping as a file.
            elf = ELFFile(file.data)
            kind, machine, bits = elf["e_type"], elf["e_machine"], elf.elfclass
            loads = [
                _Piece(one["p_paddr"], one["p_filesz"], one["p_offset"])
                for one in elf.iter_segments("PT_LOAD")
            ]
        except (ELFError, ValueError, KeyError, OSError, UnicodeDecodeError) as error:
            raise DumpError(f"{path} is damaged: {error}") from None
        if kind != "ET_CORE":
            raise DumpError(f"{path} is an ELF file, but no core dump")
        if machine != "EM_RISCV" or bits != 64:
            raise DumpError(f"{path} is not a dump of a 64-bit RISC-V machine")
        loads = sorted(one for one in loads if one.size)
        if len(loads) > 1 and not any(one.address for one in loads):
            raise DumpError(
                f"{path} has no physical addresses; it is a dump of a process, not of a machine"
            )
        if not loads:
            raise DumpError(f"{path} holds no memory")
        for before, after in pairwise(loads):
            if before.address + before.size > after.address:
                raise DumpError(f"{path} is damaged: its segments overlap at {after.address:#x}")
        for one in loads:
            file.bytes_at(one.offset + one.size, 0)
        self._pieces = loads
        self._starts = [one.address for one in loads]

    @property
    def span(self) -> tuple[int, int]:
        """The first address, and the end."""
        last = self._pieces[-1]
        return self._starts[0], last.address + last.size

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises UnreadableMemory: when one of them is in no segment.
        """
        parts = []
        while length:
            at = bisect_right(self._starts, address) - 1
            inside = address - self._starts[at] if at >= 0 else -1
            if at < 0 or inside >= self._pieces[at].size:
                raise UnreadableMemory(f"{address:#x} is not in the dump")
            part = min(length, self._pieces[at].size - inside)
            parts.append(self._file.bytes_at(self._pieces[at].offset + inside, part))
            address += part
            length -= part
        return b"".join(parts)

    def heads(self, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield the address and the first bytes of each page."""
        for one in self._pieces:
            first = -one.address % _PAGE
            for offset in range(first, one.size - length + 1, _PAGE):
                at = one.offset + offset
                yield one.address + offset, self._file.data[at : at + length]
