"""Where in a kernel something happened: symbol, and source line if the ELF file has DWARF."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile

from cosim.errors import CosimError
from cosim.kernel import symbols
from cosim.kernel.symbols import Symbols


class Frame(NamedTuple):
    """A function that has not returned yet."""

    pc: int
    symbol: str | None
    """``name+0x12``."""
    source: str | None
    """``file.c:12``."""


class Places:
    """Names of the addresses of one kernel.

    :param kernel: its file; None if it is not known.
    """

    def __init__(self, kernel: Path | None) -> None:
        self._kernel = kernel

    @cached_property
    def _symbols(self) -> Symbols | None:
        if self._kernel is None:
            return None
        try:
            return symbols.load(self._kernel)
        except CosimError:
            return None

    @cached_property
    def _lines(self) -> tuple[list[int], list[str | None]]:
        """Addresses in rising order, and the line from each on; None where a sequence ends."""
        if self._kernel is None:
            return [], []
        try:
            with self._kernel.open("rb") as file:
                elf = ELFFile(file)
                if not elf.has_dwarf_info():
                    return [], []
                rows = _rows(elf.get_dwarf_info())
        except (ELFError, OSError, ValueError, KeyError, AttributeError):
            # A damaged or unknown table gives no lines; symbols do without it.
            return [], []
        rows.sort(key=lambda row: (row[0], row[1] is not None))
        return [row[0] for row in rows], [row[1] for row in rows]

    def symbol(self, pc: int) -> str | None:
        """Return ``name+0x12`` of an unsigned address, or None."""
        return None if self._symbols is None else self._symbols.lookup(pc)

    def instruction(self, pc: int) -> str | None:
        """Return the instruction at an unsigned address as text, or None."""
        return None if self._symbols is None else self._symbols.instruction(pc)

    def source(self, pc: int) -> str | None:
        """Return ``file.c:12`` of an unsigned address, or None."""
        addresses, lines = self._lines
        index = bisect_right(addresses, pc) - 1
        return lines[index] if index >= 0 else None


def _rows(dwarf: DWARFInfo) -> list[tuple[int, str | None]]:
    rows: list[tuple[int, str | None]] = []
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        first = 0 if program["version"] >= 5 else 1
        files = program["file_entry"]
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if state.end_sequence:
                rows.append((state.address, None))
                continue
            number = state.file - first
            if 0 <= number < len(files):
                name = files[number].name.decode("utf-8", "replace")
                rows.append((state.address, f"{Path(name).name}:{state.line}"))
    return rows
