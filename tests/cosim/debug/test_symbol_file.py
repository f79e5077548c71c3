"""The ELF file of symbols, read back with another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from cosim.debug import symbol_file
from cosim.errors import StorageError
from cosim.kernel import symbols
from cosim.kernel.symbols import Symbols

NAMES = {
    0xFFFF_FFFF_8000_0000: "_text",
    0xFFFF_FFFF_8000_1000: "_stext",
    0xFFFF_FFFF_8000_2000: "handle_mm_fault",
    0xFFFF_FFFF_8000_3000: "_etext",
    0xFFFF_FFFF_8100_0000: "init_mm",
}


def table(names: dict[int, str]) -> Symbols:
    return Symbols(np.array(list(names), np.uint64), list(names.values()))


def test_every_symbol_is_there_and_functions_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "symbols.elf"
    symbol_file.write(path, table(NAMES))
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == "EM_RISCV"
        text = elf.get_section_by_name(".text")
        assert (text["sh_addr"], text["sh_size"]) == (0xFFFF_FFFF_8000_1000, 0x2000)
        found = {one.name: one for one in elf.get_section_by_name(".symtab").iter_symbols()}
    assert {found[name]["st_value"]: name for name in NAMES.values()} == NAMES
    kinds = {name: found[name]["st_info"]["type"] for name in NAMES.values()}
    assert kinds["handle_mm_fault"] == "STT_FUNC"
    assert kinds["init_mm"] == kinds["_text"] == "STT_OBJECT"


def test_our_own_reader_finds_the_symbols_of_text(tmp_path: Path) -> None:
    path = tmp_path / "symbols.elf"
    symbol_file.write(path, table({0x8020_0000: "a", 0x8020_0010: "b"}))
    assert symbols.load(path).lookup(0x8020_0014) == "b+0x4"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        symbol_file.write(tmp_path / "none" / "x", table(NAMES))
