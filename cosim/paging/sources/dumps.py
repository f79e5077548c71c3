"""Opens a dump of memory by what it holds, and finds Linux's own root in it."""

from __future__ import annotations

import re
from pathlib import Path

from cosim.errors import DumpError, UnreadableMemory
from cosim.paging.physical import PhysicalMemory, RamWords
from cosim.paging.sources import elf_core, kdump
from cosim.paging.sources.mapped_file import MappedFile
from hypervisor_model.errors import ModelError
from hypervisor_model.isa import atp
from hypervisor_model.isa.atp import Mode
from hypervisor_model.isa.pte import PAGE
from hypervisor_model.jit import unsigned
from hypervisor_model.memory import GuestMemory

_BEGIN = b"OSRELEASE="
_NOTE = re.compile(rb"^(?:NUMBER|SYMBOL)\((\w+)\)=(?:0x)?([0-9a-f]{1,16})$", re.MULTILINE)
_MODES = {39: Mode.SV39, 48: Mode.SV48, 57: Mode.SV57}


def open_core(path: Path) -> PhysicalMemory:
    """Return the memory in an ELF core or a kdump file.

    :raises DumpError: when it cannot be read, or is neither.
    """
    file = MappedFile(path)
    magic = file.data[:16]
    if magic.startswith(elf_core.MAGIC):
        return elf_core.ElfCore(file)
    if magic.startswith((kdump.MAGIC, kdump.FLATTENED_MAGIC)):
        return kdump.Kdump(file)
    raise DumpError(
        f"{path} is neither an ELF core nor a kdump file; give a raw image with --ram and --base"
    )


def open_image(path: Path, base: int) -> PhysicalMemory:
    """Return the memory in a raw image of RAM.

    :param base: physical address of its first byte.
    :raises ModelError: when the file cannot be mapped, or ``base`` is not an address of RAM.
    """
    return RamWords(GuestMemory.map_image(path, base).words, base)


def linux_satp(memory: PhysicalMemory) -> int | None:
    """Return ``satp`` for the own tables of the Linux in ``memory``; None if it is not found.

    Linux keeps notes for crash dumps (vmcoreinfo) in one page.  They say where ``swapper_pg_dir``
    is, how the kernel's addresses are mapped, and how wide they are.
    """
    for address, head in memory.heads(len(_BEGIN)):
        if head != _BEGIN:
            continue
        try:
            text = memory.read(address, PAGE)
        except UnreadableMemory:
            continue
        notes = {name.decode(): value for name, value in _NOTE.findall(text)}
        try:
            mode = _MODES[int(notes["VA_BITS"])]
            root = int(notes["swapper_pg_dir"], 16) - int(notes["va_kernel_pa_offset"], 16)
            return unsigned(atp.make(mode, root))
        except (KeyError, ValueError, ModelError):
            continue
    return None
