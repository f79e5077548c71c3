"""The instructions of a kernel, as text, from its file.

Linux replaces some of its instructions while it boots (alternatives, static keys).  The text is
that of the file.
"""

from __future__ import annotations

from pathlib import Path

import capstone

from cosim.errors import GuestImageError, StorageError
from cosim.kernel import bootable
from cosim.kernel.images import LoadRange, inspect_kernel
from cosim.kernel.kallsyms import LINK_BASE

_LONGEST = 4
"""Bytes of an instruction."""


class Disassembly:
    """What a kernel executes at its virtual addresses.

    :param kernel: its file; None if it is not known.
    """

    def __init__(self, kernel: Path | None) -> None:
        self._kernel = kernel
        self._ranges: tuple[LoadRange, ...] | None = None

    def at(self, address: int) -> str | None:
        """Return the instruction at an unsigned virtual address, such as ``ld a5, 0(a4)``.

        None if the address is not in the kernel's file, or what stands there is not known.  Zeros
        are no instruction: what runs there was written by the guest.
        """
        try:
            code = self._read(address)
        except (OSError, GuestImageError, StorageError):
            return None
        if not any(code[:2]):
            return None
        # Not shared: an engine of capstone's is for one thread.
        mode = capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC
        found = next(capstone.Cs(capstone.CS_ARCH_RISCV, mode).disasm_lite(code, address, 1), None)
        return None if found is None else f"{found[2]} {found[3]}".strip()

    def _read(self, address: int) -> bytes:
        if self._kernel is None:
            return b""
        if self._ranges is None:
            self._kernel = bootable.kernel(self._kernel)
            self._ranges = inspect_kernel(self._kernel).ranges
        for piece in self._ranges:
            virtual = LINK_BASE + piece.file_offset if piece.virtual is None else piece.virtual
            offset = address - virtual
            if piece.executable and 0 <= offset < piece.file_size:
                with self._kernel.open("rb") as file:
                    file.seek(piece.file_offset + offset)
                    return file.read(min(_LONGEST, piece.file_size - offset))
        return b""
