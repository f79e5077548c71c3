"""Marks: how a program in the guest names a point of its run (docs/architecture.md, "Marks")."""

from __future__ import annotations

from collections.abc import Sequence

USER_MARK = 0x3C_0514_0000
"""Virtual address of the mark instruction in programs under Linux, which execute it in U-mode."""

SYMBOL = "cosim_mark"
"""Symbol of the mark instruction in the ELF file of a bare guest."""

_A0 = 10


def label(regs: Sequence[int]) -> str:
    """Return the label in a0..a3 of the registers ``regs``, which are unsigned."""
    data = b"".join(regs[_A0 + i].to_bytes(8, "little") for i in range(4))
    return data.split(b"\0")[0].decode("ascii", "replace")


class Labels:
    """The labels of one run.  MARK events carry their numbers, in order of first use."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def number(self, name: str) -> int:
        """Return the number of ``name``; its first use gives it the next one."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)
