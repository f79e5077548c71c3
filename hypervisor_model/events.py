"""The events a guest produces: the only thing that a source and a model share.

Events travel in batches: one-dimensional NumPy arrays of :data:`EVENT`, in program order.  A
record has a fixed shape; what its fields ``a``..``c`` mean depends on ``kind``:

============ ===================== ======================= ===================== ================
kind         a                     b                       c                     sub
============ ===================== ======================= ===================== ================
TABLE_ADD    PA of the page        level it is linked at   --                    1 if a root
TABLE_ENTRY  PA of the entry       --                      value (never 0)       --
TABLE_DROP   PA of the page        --                      --                    --
PTE_WRITE    PA stored to          entry before            entry after           PteOp
FENCE        va                    asid (gpa form: vmid)   --                    Fence
SATP_WRITE   value before          value after             --                    Satp
ACCESS       va                    PA, or -1-cause         --                    Access
PAGE_FAULT   tval                  cause                   --                    --
MARK         label number          --                      --                    --
============ ===================== ======================= ===================== ================

``TABLE_ADD`` says that a page became part of the live tables (paging-models section 3): its 512
entries are zero unless ``TABLE_ENTRY`` events, which follow it at once, say otherwise.  These two
describe state and are no action of the guest; no policy takes an exit for them.

``PTE_WRITE`` is one 8-byte entry changed by one store; ``size`` is the size of the store in bytes
and ``a`` the exact address of its first byte within the entry.  A store that covers several
entries (``cbo.zero``, a misaligned store) yields one event an entry, all but the first with
:data:`FLAG_CONT`: one trap on real hardware, several entries changed.

An ACCESS lies in one page: one that crosses its end is an event a page, each with its own bytes as
``size``.  One that faults has ``size`` 0 and stands before its PAGE_FAULT.  An AMO is a write; an
``sc`` that fails, and what ends in an access fault, is no ACCESS.

Of the ASID (VMID) that a FENCE names, the models ignore bits above 15 (13), as hardware does.

Integers are int64: the 64-bit pattern, so a high-half address is negative (see
:mod:`hypervisor_model.jit`).  ``icount`` is the number of guest instructions retired before the
event, or -1 where a source cannot know it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

EVENT = np.dtype(
    [
        ("icount", np.int64),
        ("pc", np.int64),
        ("a", np.int64),
        ("b", np.int64),
        ("c", np.int64),
        ("kind", np.uint8),
        ("sub", np.uint8),
        ("hart", np.uint8),
        ("priv", np.uint8),
        ("flags", np.uint8),
        ("size", np.uint8),
        ("reserved", np.uint16),
    ],
    align=True,
)
"""One event, 48 bytes."""

EventBatch = NDArray[np.void]
"""A one-dimensional array of :data:`EVENT`."""


class Kind(IntEnum):
    """What happened."""

    TABLE_ADD = 1
    TABLE_ENTRY = 2
    TABLE_DROP = 3
    PTE_WRITE = 4
    FENCE = 5
    SATP_WRITE = 6
    ACCESS = 7
    PAGE_FAULT = 8
    MARK = 9


class PteOp(IntEnum):
    """The instruction that changed an entry."""

    STORE = 0
    AMO = 1
    SC = 2
    CBO_ZERO = 3
    OTHER = 4
    """Seen in memory without an instruction (DMA, an A/D update by hardware)."""


class Fence(IntEnum):
    """``sub`` of a FENCE: the low two bits are the form, the rest the instruction."""

    ALL = 0
    VA = 1
    ASID = 2
    VA_ASID = 3
    FORM = 3
    """Mask of the form; bit 0 = an address is named, bit 1 = an ASID (VMID) is named."""
    SFENCE_VMA = 0 << 2
    SINVAL_VMA = 1 << 2
    HFENCE_VVMA = 2 << 2
    HFENCE_GVMA = 3 << 2
    HINVAL_VVMA = 4 << 2
    HINVAL_GVMA = 5 << 2


class Satp(IntEnum):
    """Which register a SATP_WRITE wrote."""

    SATP = 0
    VSATP = 1
    HGATP = 2


class Access(IntEnum):
    """The kind of an access."""

    READ = 0
    WRITE = 1
    FETCH = 2


class Priv(IntEnum):
    """Effective privilege; ``VIRT`` is added in VS- and VU-mode."""

    U = 0
    S = 1
    M = 3
    VIRT = 4


FLAG_CONT = 1
"""PTE_WRITE: a further entry of the store that the event before began."""
FLAG_SUM = 2
"""ACCESS in S-mode: ``sstatus.SUM`` was set."""
FLAG_MXR = 4
"""ACCESS: ``sstatus.MXR`` was set."""
FLAG_STOP = 8
"""Found at a stop, no action of the guest.  ACCESS: sampled, not executed by a stepped instruction.
SATP_WRITE: what the register holds where the region begins; follows the first tables."""


SIZE_MORE = 255
"""``size``: so many bytes, or more (``cbo.zero`` of a CPU with large blocks)."""


def fault_pa(cause: int) -> int:
    """The value that stands in a PA field for "this access faults with ``cause``"."""
    return -1 - cause


def of_virtual_machines(batch: EventBatch) -> NDArray[np.bool_]:
    """Which events belong to virtual machines that the guest runs itself, by the H extension.

    That is whatever happens with V=1, or as if (``hlv``, ``hsv``, MPRV with MPV), and what the
    guest does to their translation: ``vsatp``, ``hgatp``, ``hfence``, ``hinval``.  None of it goes
    through the guest's own tables, the only ones in a stream, so no model follows it.  A store to
    a live table is the guest's, whoever makes it.
    """
    kind, sub = batch["kind"], batch["sub"]
    fence, satp_write = kind == Kind.FENCE, kind == Kind.SATP_WRITE
    virtual = batch["priv"] & Priv.VIRT != 0
    if virtual.any():
        virtual &= fence | satp_write | (kind == Kind.ACCESS) | (kind == Kind.PAGE_FAULT)
    virtual |= fence & (sub >= Fence.HFENCE_VVMA)
    virtual |= satp_write & (sub != Satp.SATP)
    return virtual  # type: ignore[no-any-return]


def empty(count: int) -> EventBatch:
    """An all-zero batch of ``count`` events with unknown instruction counts."""
    batch: EventBatch = np.zeros(count, dtype=EVENT)
    batch["icount"] = -1
    return batch
