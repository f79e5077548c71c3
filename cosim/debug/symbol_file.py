"""An ELF file with nothing but symbols, for kernels whose own symbols gdb cannot read.

A stock Linux Image is no ELF file, but it holds kallsyms.  gdb takes symbols only from files
that it knows.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cosim.errors import StorageError
from cosim.kernel.symbols import Symbols

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_EXECUTABLE, _RISCV = 2, 243
_NOTHING, _SYMTAB, _STRTAB, _NOBITS = 0, 2, 3, 8
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_GLOBAL_FUNCTION, _GLOBAL_OBJECT = 0x12, 0x11
_ABSOLUTE = 0xFFF1


def write(path: Path, symbols: Symbols) -> None:
    """Write a file for gdb's ``file`` command.

    Symbols between ``_stext`` and ``_etext`` (of any address if there are none) become functions.

    :raises StorageError: when it cannot be written.
    """
    pairs = symbols.pairs()
    low, high = (_one(symbols, name) for name in ("_stext", "_etext"))
    first = pairs[0][0] if low is None else low
    end = pairs[-1][0] + 4096 if high is None else high
    names, table = bytearray(b"\0"), bytearray(_SYMBOL.size)
    for address, name in pairs:
        is_text = first <= address < end
        kind = _GLOBAL_FUNCTION if is_text else _GLOBAL_OBJECT
        table += _SYMBOL.pack(len(names), kind, 0, 1 if is_text else _ABSOLUTE, address, 0)
        names += name.encode() + b"\0"
    try:
        path.write_bytes(_elf(bytes(table), bytes(names), first, end))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def _one(symbols: Symbols, name: str) -> int | None:
    found = symbols.addresses(name)
    return found[0] if found else None


def _elf(table: bytes, names: bytes, first: int, end: int) -> bytes:
    titles = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    at = _HEADER.size
    places = {}
    for key, data in ((".symtab", table), (".strtab", names), (".shstrtab", titles)):
        places[key] = (at, len(data))
        at += len(data)

    def section(
        name: str, kind: int, *, flags: int = 0, address: int = 0, link: int = 0, entry: int = 0
    ) -> bytes:
        offset, size = places.get(name, (0, end - first))
        title = titles.index(b"\0" + name.encode() + b"\0") + 1
        # `link` + 1 is the first symbol that is not local: there are none.
        local = 1 if kind == _SYMTAB else 0
        return _SECTION.pack(title, kind, flags, address, offset, size, link, local, 1, entry)

    sections = (
        bytes(_SECTION.size)
        + section(".text", _NOBITS, flags=_ALLOC | _EXEC, address=first)
        + section(".symtab", _SYMTAB, link=3, entry=_SYMBOL.size)
        + section(".strtab", _STRTAB)
        + section(".shstrtab", _STRTAB)
    )
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = _HEADER.pack(
        *(ident, _EXECUTABLE, _RISCV, 1, 0, 0, at, 0),
        *(_HEADER.size, 0, 0, _SECTION.size, 5, 4),
    )
    return header + table + names + titles + sections
