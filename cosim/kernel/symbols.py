"""Names of a guest's addresses, from an ELF symbol table or the tables inside a Linux Image.

A guest may have none.  Then :func:`load` returns an empty table, and addresses print as numbers.
The instruction at an address comes from the same file.
"""

from __future__ import annotations

import difflib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section
from numpy.typing import NDArray

from cosim.errors import UsageError
from cosim.kernel import bootable, kallsyms
from cosim.kernel.disassembly import Disassembly
from cosim.kernel.images import open_regular

_ENTRY = np.dtype("<u4,u1,u1,<u2,<u8,<u8")
_ENTRY.names = ("name", "info", "other", "section", "value", "size")
_CODE_OR_DATA = (0, 1, 2)  # NOTYPE, OBJECT, FUNC
_ABSOLUTE = 0xFFF1
_SLACK = 1 << 16
"""How many bytes behind the last symbol still belong to it."""


class Symbols:
    """Virtual addresses and their names, both ways.

    :param addresses: of the symbols, in rising order.
    :param names: one for each address.
    :param kernel: the kernel's file; None if it is not known.
    """

    def __init__(
        self, addresses: NDArray[np.uint64], names: Sequence[str], kernel: Path | None = None
    ) -> None:
        self._addresses = addresses
        self._names = names
        self.instruction = Disassembly(kernel).at
        """Returns the instruction at an address as text (:meth:`Disassembly.at`)."""

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def addresses(self, name: str) -> tuple[int, ...]:
        """Return all addresses with this name, the lowest first; static functions may share one."""
        # A command asks for a few names.  A dictionary of all would take longer to make.
        places = [place for place, known in enumerate(self._names) if known == name]
        return tuple(self._addresses[places].tolist())

    def address(self, name: str) -> int:
        """Return the one address of ``name``.

        :raises UsageError: when there is none, or more than one.
        """
        found = sorted(set(self.addresses(name)))
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(f"0x{address:016x}" for address in found[:3])
            more = ", ..." if len(found) > 3 else ""
            raise UsageError(
                f"symbol {name} has {len(found)} addresses ({places}{more}); give one of them"
            )
        if not self._names:
            raise UsageError(f"the guest has no symbols, so {name} is unknown; give an address")
        close = difflib.get_close_matches(name, set(self._names), n=3, cutoff=0.75)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; give an address"
        raise UsageError(f"the guest has no symbol {name}{hint}")

    def lookup(self, address: int) -> str | None:
        """Return ``name+0x12`` for an unsigned virtual address.

        None for an address below the first symbol or far behind the last, and without symbols.
        """
        index = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1
        if index < 0:
            return None
        start = int(self._addresses[index])
        offset = address - start
        if index == len(self._names) - 1 and offset >= _SLACK:
            return None
        # If several names share an address, take the one that came first in the file.
        index = int(np.searchsorted(self._addresses, self._addresses[index], side="left"))
        return f"{self._names[index]}+0x{offset:x}" if offset else self._names[index]

    def pairs(self) -> list[tuple[int, str]]:
        """Return each address and its name, the lowest address first."""
        return list(zip(self._addresses.tolist(), self._names, strict=True))

    def describe(self, address: int) -> str:
        """Return ``0xffffffff80002000 (name+0x12: ld a5, 0(a4))``, as far as it is known."""
        known = ": ".join(filter(None, (self.lookup(address), self.instruction(address))))
        return f"0x{address:016x} ({known})" if known else f"0x{address:016x}"


def load(path: Path | str) -> Symbols:
    """Return the symbols of the kernel file ``path``; an empty table if it has none.

    A compressed kernel is unpacked first (:mod:`cosim.kernel.bootable`).

    :raises GuestImageError: when the file cannot be read or unpacked.
    :raises StorageError: when the cache folder cannot be written.
    """
    path = Path(path)
    with open_regular(path, "kernel") as file:
        packed = file.read(4) != b"\x7fELF"
    with open_regular(bootable.kernel(path) if packed else path, "kernel") as file:
        if file.read(4) == b"\x7fELF":
            try:
                return Symbols(*_from_elf(ELFFile(file)), path)
            except (ELFError, ValueError):
                return Symbols(*_NONE, path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            found = kallsyms.find(bytes(image))
    return Symbols(*((found.addresses, found.names) if found else _NONE), path)


def none() -> Symbols:
    """Return an empty table."""
    return Symbols(*_NONE)


def what_stands_at(
    address: int, privilege: str, symbols: Symbols | None
) -> tuple[str | None, str | None]:
    """Return the symbol and the instruction at ``address``; None for what is not known.

    Only the kernel has them.  What runs in U-mode or in a virtual machine has its own addresses.

    :param privilege: ``U``, ``S``, ``M``, ``VU`` or ``VS``.
    """
    if symbols is None or privilege not in ("S", "M"):
        return None, None
    return symbols.lookup(address), symbols.instruction(address)


_Table = tuple[NDArray[np.uint64], Sequence[str]]
_NONE: _Table = (np.empty(0, dtype=np.uint64), ())


def _from_elf(elf: ELFFile) -> _Table:
    section = cast(Section | None, elf.get_section_by_name(".symtab"))
    if section is None:
        return _NONE
    strings = elf.get_section(section["sh_link"]).data()
    # As an array, because a kernel has some 200,000 symbols.
    table = np.frombuffer(section.data(), dtype=_ENTRY)
    kind = table["info"] & 15
    keep = (table["section"] != 0) & (table["section"] != _ABSOLUTE) & (table["name"] != 0)
    table = table[keep & np.isin(kind, _CODE_OR_DATA)]
    # Of the names of one address, global ones first.
    table = table[np.lexsort((table["info"] >> 4 == 0, table["value"]))]
    names = [strings[at : strings.index(b"\0", at)].decode("latin-1") for at in table["name"]]
    # Names with $ or .L are the compiler's: marks for code and data, and local labels.
    real = [i for i, name in enumerate(names) if name and not name.startswith(("$", ".L"))]
    return np.ascontiguousarray(table["value"][real]), [names[i] for i in real]
