"""``satp``, ``vsatp`` and ``hgatp``: modes, fields and what a write leaves in them (WARL).

Source: privileged specification, "Supervisor Address Translation and Protection (satp)
Register", "Virtual Supervisor Address Translation and Protection (vsatp) Register" and
"Hypervisor Guest Address Translation and Protection (hgatp) Register".  ``satp`` and ``vsatp``
share a layout; ``hgatp`` has a VMID of 14 bits instead of their ASID of 16, and a root table of
16 KiB, so the two lowest bits of its PPN are zero.
"""

from __future__ import annotations

from enum import IntEnum

from hypervisor_model.errors import ModelError
from hypervisor_model.events import Fence
from hypervisor_model.jit import kernel, signed

MODE_SHIFT = 60
ID_SHIFT = 44
ASID_MASK = 0xFFFF
VMID_MASK = 0x3FFF
PPN_MASK = (1 << 44) - 1
GPA_EXTRA_BITS = 2
"""Bits by which the root of a G-stage translates more than the root of the first stage."""

_FORM = int(Fence.FORM)
_HFENCE_GVMA = int(Fence.HFENCE_GVMA)
_HINVAL_GVMA = int(Fence.HINVAL_GVMA)


class Mode(IntEnum):
    """The MODE field; in ``hgatp`` 8, 9 and 10 mean Sv39x4, Sv48x4 and Sv57x4."""

    BARE = 0
    SV39 = 8
    SV48 = 9
    SV57 = 10

    @property
    def levels(self) -> int:
        """Levels of tables: 0 for Bare, then 3, 4, 5."""
        return levels(int(self))


@kernel
def mode(atp: int) -> int:
    """Return the MODE field of any of the three registers."""
    return (atp >> MODE_SHIFT) & 15


@kernel
def levels(mode_field: int) -> int:
    """Levels of tables for a MODE: 0 for Bare, 3, 4, 5; -1 for a reserved encoding."""
    if mode_field == 0:
        return 0
    if 8 <= mode_field <= 10:
        return mode_field - 5
    return -1


@kernel
def root(atp: int) -> int:
    """PA of the root table."""
    return (atp & PPN_MASK) << 12


@kernel
def asid(atp: int) -> int:
    """Return the ASID of ``satp`` or ``vsatp``."""
    return (atp >> ID_SHIFT) & ASID_MASK


@kernel
def vmid(hgatp: int) -> int:
    """Return the VMID of ``hgatp``."""
    return (hgatp >> ID_SHIFT) & VMID_MASK


@kernel
def fence_identifier(instruction: int, operand: int) -> int:
    """Return the ASID that the operand of a fence names; for the ``gvma`` instructions, the VMID.

    Bits of the operand above those of the register's field "are ignored by current
    implementations" ("SFENCE.VMA", "HFENCE.GVMA").
    """
    kind = instruction & ~_FORM
    return operand & (VMID_MASK if kind in (_HFENCE_GVMA, _HINVAL_GVMA) else ASID_MASK)


def make(mode_field: Mode, root_pa: int, identifier: int = 0) -> int:
    """Compose a register value (an int64) from its fields; ``identifier`` is the ASID or VMID.

    Of ``hgatp``, whose root and VMID have fewer bits, it is the value written
    (:func:`legalise_hgatp`).

    :raises ModelError: when the root is not aligned to a page, or a field does not fit.
    """
    if root_pa & 0xFFF or not 0 <= root_pa >> 12 <= PPN_MASK:
        raise ModelError(f"root table {root_pa:#x} is no page of a 56-bit physical address space")
    if not 0 <= identifier <= ASID_MASK:
        raise ModelError(f"ASID or VMID {identifier} does not fit 16 bits")
    return signed(int(mode_field) << MODE_SHIFT | identifier << ID_SHIFT | root_pa >> 12)


def legalise_hgatp(old: int, new: int) -> int:
    """Return what ``hgatp`` holds after ``new`` is written over ``old``, as an int64.

    Unlike in ``satp``, an unsupported MODE does not make the write void: the fields are plain
    WARL.  Ours: MODE keeps its old value, the other fields take the new one.  Bits 58 and 59 and
    the two lowest bits of the PPN are zero.
    """
    mode_field = (new >> MODE_SHIFT) & 15
    if levels(mode_field) < 0:
        mode_field = (old >> MODE_SHIFT) & 15
    keep = VMID_MASK << ID_SHIFT | (PPN_MASK & ~3)
    return signed(mode_field << MODE_SHIFT | (new & keep))
