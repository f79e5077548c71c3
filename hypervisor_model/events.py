"""The events a guest produces: the only thing that a source and a model share.

Events travel in batches: one-dimensional NumPy arrays of :data:`EVENT`, in program order.  This
module describes them once.  :data:`FIELDS` lists the fields of a record, :data:`KINDS` says what
they mean in each kind of event, and :data:`VOCABULARY` holds the enumerations.  The record itself,
the plugin's ``event.h``, the columns of a trace, the views of ``cosim query``, the text of
``cosim trace head`` and the tables in ``docs/trace.md`` are made from these descriptions.  To add a
field, add one line to :data:`FIELDS`; ``scripts/trace_tables.py`` then updates the document.

A TABLE_ADD says that a page became part of the live tables (paging-models section 3).  Its 512
entries are zero unless TABLE_ENTRY events, which follow at once, say otherwise.  These two kinds
describe state.  They are no action of the guest, and no policy takes an exit for them.

A PTE_WRITE is one 8-byte entry changed by one store.  ``size`` is the size of the store in bytes,
``a`` the exact address of its first byte within the entry.  A store that covers several entries
(``cbo.zero``, a misaligned store) yields one event for each entry, all but the first with
:data:`FLAG_CONT`: real hardware takes one trap, and several entries change.

An ACCESS lies in one page.  One that crosses the end of a page yields one event for each page, each
with its own bytes as ``size``.  An access that faults has ``size`` 0 and comes before its
PAGE_FAULT.  An AMO is a write.  An ``sc`` that fails is no ACCESS, and neither is an access that
ends in an access fault.

The models ignore bits 16 and up of the ASID (14 and up of the VMID) that a FENCE names, as hardware
does.

An ENVCFG_WRITE says that ``menvcfg`` (or ``henvcfg``, for the guest's virtual machines) has another
ADUE or PBMTE than before.  Other writes of these registers are no events.  ``c`` has the bits that
are switches on this machine; ``MachineModel`` says what the others are.  Each hart begins with what
the machine has after reset.

A FENCE_ORDER is ``sfence.w.inval`` or ``sfence.inval.ir``.  It drops nothing.  It orders the fences
``sinval.vma`` and ``hinval`` of its hart (``hypervisor_model.fences``).  No hypervisor traps it.
A policy carries out ``sinval.vma`` at once, as if it were ``sfence.vma``, which the specification
allows.  Traces before version 3 do not have it.

A REMOTE_FENCE is a call of the guest to its firmware (SBI, extension RFENCE and its legacy forms):
a fence on the harts in ``harts``, which may name the caller, too.  ``sub``, ``a`` and ``b`` are
those of a FENCE; with an address the fence covers each page that has one of the ``c`` bytes from
``a`` on.  A call for everything (start and size 0, or size -1) is a form without an address.  The
event stands where the call returns, with the pc of the ``ecall``: by then each hart has done what
the call asks for.  What firmware executes on each hart is no event, and neither is a call that it
refuses.  Machines of one hart do not have it, and neither do traces before version 4.

The ``c`` of a SATP_WRITE is a number from 1 on for the address space that is loaded, if a process
of Linux is known to own it, else 0.  It only names what the models call by its root: no model reads
it.  A root that another process uses later has another number.  The source says which process each
number means.

A PTE_WRITE with ``PteOp.HARDWARE_AD`` is no store: the guest's MMU has set A or D in the entry.  It
is found by looking, before the next FENCE or ENVCFG_WRITE or at the end of the region, and comes in
front of that event.  An entry that was stored to in the meantime is not found.

Integers are int64 holding the 64-bit pattern, so a high-half address is negative (see
:mod:`hypervisor_model.jit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum, auto
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
    ENVCFG_WRITE = 10
    FENCE_ORDER = 11
    REMOTE_FENCE = 12


class PteOp(IntEnum):
    """The instruction that changed an entry: ``sub`` of a PTE_WRITE."""

    STORE = 0
    AMO = 1
    SC = 2
    CBO_ZERO = 3
    OTHER = 4
    """Seen in memory without an instruction (DMA).  In traces of version 1 also HARDWARE_AD."""
    HARDWARE_AD = 5
    """No instruction: the guest's MMU set A or D."""
    VECTOR = 6
    """A vector store: one event for each entry that it changed.  Their ``size`` is 0."""


class Fence(IntEnum):
    """``sub`` of FENCE and REMOTE_FENCE: the form in the low two bits, then the instruction."""

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


class Order(IntEnum):
    """The instruction of Svinval: ``sub`` of a FENCE_ORDER."""

    SFENCE_W_INVAL = 0
    SFENCE_INVAL_IR = 1


class Satp(IntEnum):
    """The register that a SATP_WRITE wrote: its ``sub``."""

    SATP = 0
    VSATP = 1
    HGATP = 2


class Envcfg(IntEnum):
    """The register that an ENVCFG_WRITE wrote: its ``sub``."""

    MENVCFG = 0
    HENVCFG = 1


class Access(IntEnum):
    """``sub`` of an ACCESS."""

    READ = 0
    WRITE = 1
    FETCH = 2


class Priv(IntEnum):
    """Effective privilege; ``VIRT`` is added in VS- and VU-mode."""

    U = 0
    S = 1
    M = 3
    VIRT = 4


class Flag(IntEnum):
    """Bits of ``flags``; :data:`KINDS` says what they mean in each kind of event."""

    CONT = 1
    SUM = 2
    MXR = 4
    STOP = 8


VOCABULARY: tuple[type[IntEnum], ...] = (
    *(Kind, PteOp, Fence, Order, Satp, Envcfg, Access, Priv, Flag),
)
"""Every enumeration whose numbers are in events."""

FLAG_CONT = int(Flag.CONT)
"""PTE_WRITE: a further entry of the store that the event before began."""
FLAG_SUM = int(Flag.SUM)
"""ACCESS in S-mode: ``sstatus.SUM`` was set."""
FLAG_MXR = int(Flag.MXR)
"""ACCESS: ``sstatus.MXR`` was set."""
FLAG_STOP = int(Flag.STOP)
"""Found at a stop, no action of the guest.  ACCESS: sampled, not executed by a stepped instruction.
SATP_WRITE: what the register holds where the region begins; follows the first tables.
ENVCFG_WRITE: what the register holds where the region begins; only if it is not what the machine
has after reset."""

ENVCFG_ADUE = 1 << 61
"""``menvcfg`` and ``henvcfg``: the MMU sets A and D."""
ENVCFG_PBMTE = 1 << 62
"""``menvcfg`` and ``henvcfg``: Svpbmt is on."""

SIZE_MORE = 255
"""``size``: this many bytes, or more (``cbo.zero`` of a CPU with large blocks)."""


# -- the record ------------------------------------------------------------------------------------


class Content(Enum):
    """What kind of number a field holds."""

    COUNT = auto()
    """A count; -1 means unknown."""
    WORD = auto()
    """A 64-bit pattern: an address, an entry, the value of a register."""
    NUMBER = auto()
    """A small number, never negative."""
    KIND = auto()
    """A :class:`Kind`."""


class Field(NamedTuple):
    """One field of an event."""

    name: str
    type: str
    """NumPy's name of its type."""
    content: Content
    meaning: str
    unit: str = ""
    column: int | None = None
    """Its place among the columns of a trace; None if a trace does not store it."""
    since: int = 1
    """The first version of traces that has it.  In older traces it is unknown (0, or -1 for a
    count)."""


FIELDS: tuple[Field, ...] = (
    Field(
        "icount",
        "int64",
        Content.COUNT,
        "guest instructions retired before the event",
        unit="instructions",
        column=0,
    ),
    Field("pc", "int64", Content.WORD, "program counter", column=7),
    Field("a", "int64", Content.WORD, "depends on `kind`", column=8),
    Field("b", "int64", Content.WORD, "depends on `kind`", column=9),
    Field("c", "int64", Content.WORD, "depends on `kind`", column=10),
    Field("kind", "uint8", Content.KIND, "what happened", column=3),
    Field("sub", "uint8", Content.NUMBER, "depends on `kind`", column=4),
    Field("hart", "uint8", Content.NUMBER, "number of the hart", column=1),
    Field(
        "priv",
        "uint8",
        Content.NUMBER,
        "effective privilege: 0 U, 1 S, 3 M; 4 is added in VS- and VU-mode",
        column=2,
    ),
    Field("flags", "uint8", Content.NUMBER, "bits that depend on `kind`", column=5),
    Field(
        "size",
        "uint8",
        Content.NUMBER,
        f"size of the store or access; {SIZE_MORE} means {SIZE_MORE} or more",
        unit="bytes",
        column=6,
    ),
    Field(
        "harts",
        "uint16",
        Content.NUMBER,
        "the harts that a remote fence names: bit n for hart n; else 0",
        column=11,
        since=4,
    ),
)
"""The fields of a record, in the order in which they lie in memory."""


def record(fields: Sequence[Field] = FIELDS) -> np.dtype[np.void]:
    """Return the record type that has ``fields`` in this order, aligned as C aligns a struct."""
    return np.dtype([(field.name, field.type) for field in fields], align=True)


EVENT = record()
"""One event, 48 bytes."""

_SMALL = record([field for field in FIELDS if np.dtype(field.type).itemsize < 8])
_SMALL_AT = EVENT.itemsize - _SMALL.itemsize

NAMED_HARTS = 16
"""Harts that a REMOTE_FENCE can name."""

EventBatch = NDArray[np.void]
"""A one-dimensional array of :data:`EVENT`."""


# -- what the fields mean in each kind of event ----------------------------------------------------


class Form(Enum):
    """How a value is to be read and shown."""

    WORD = auto()
    """A 64-bit pattern, shown in hexadecimal."""
    NUMBER = auto()
    """A number, shown in decimal."""
    TRUTH = auto()
    """Yes or no: true if a bit of the mask is set."""
    NAME = auto()
    """One of the given names."""
    LABEL = auto()
    """The text of a mark, by its number."""
    PROCESS = auto()
    """The name of a process, by its number; absent if it is 0."""
    PID = auto()
    """The process id of a process, by its number; absent if it is 0."""
    PA = auto()
    """A physical address; absent if the access faults."""
    CAUSE = auto()
    """The cause of the fault; absent if the access does not fault."""


class Value(NamedTuple):
    """What a field, or some of its bits, means in one kind of event."""

    name: str
    """Its name in the views of ``cosim query``."""
    field: str
    form: Form
    meaning: str
    names: Mapping[int, str] = {}
    """The name of each number, for ``Form.NAME``."""
    mask: int | None = None
    """The bits of the field that hold it; None for all."""
    needs: int = 0
    """Bits of ``sub`` without which the value is absent; 0 if it is always there."""
    text: str | None = None
    """How people read it, with ``{}`` for the value; None: its name and the value.  An empty text
    is not shown."""


class KindDescription(NamedTuple):
    """What the events of one kind say."""

    plural: str
    """The view of ``cosim query`` that has them."""
    meaning: str
    values: tuple[Value, ...]
    since: int = 1
    """The first version of traces that has the kind."""


def _names(enumeration: type[IntEnum]) -> dict[int, str]:
    return {int(member): member.name.lower() for member in enumeration}


FENCE_NAMES: dict[int, str] = {
    int(Fence[name]): name.lower().replace("_", ".")
    for name in (
        "SFENCE_VMA",
        "SINVAL_VMA",
        "HFENCE_VVMA",
        "HFENCE_GVMA",
        "HINVAL_VVMA",
        "HINVAL_GVMA",
    )
}
"""The instruction of a FENCE, by its ``sub`` without the form."""


ORDER_NAMES: dict[int, str] = {
    int(Order.SFENCE_W_INVAL): "sfence.w.inval",
    int(Order.SFENCE_INVAL_IR): "sfence.inval.ir",
}
"""The instruction of a FENCE_ORDER, by its ``sub``."""


def _flag(name: str, flag: Flag, meaning: str, text: str | None = None) -> Value:
    return Value(name, "flags", Form.TRUTH, meaning, mask=int(flag), text=text)


KINDS: dict[Kind, KindDescription] = {
    Kind.TABLE_ADD: KindDescription(
        "table_adds",
        "a page became a live page table; its entries are 0 unless `table_entry` events follow",
        (
            Value("pa", "a", Form.WORD, "PA of the page", text="{}"),
            Value("level", "b", Form.NUMBER, "the level at which it is linked; 0 for a leaf table"),
            Value("root", "sub", Form.TRUTH, "1 if it is a root", mask=1),
        ),
    ),
    Kind.TABLE_ENTRY: KindDescription(
        "table_entries",
        "an entry of the table just added",
        (
            Value("pa", "a", Form.WORD, "PA of the entry", text="{}"),
            Value("value", "c", Form.WORD, "its value, never 0", text="= {}"),
        ),
    ),
    Kind.TABLE_DROP: KindDescription(
        "table_drops",
        "a page is no longer a live page table",
        (Value("pa", "a", Form.WORD, "PA of the page", text="{}"),),
    ),
    Kind.PTE_WRITE: KindDescription(
        "pte_writes",
        "a store, or the MMU, changed an entry of a live table (one event for each entry)",
        (
            Value("pa", "a", Form.WORD, "PA stored to", text="{}:"),
            Value("old", "b", Form.WORD, "the entry before", text="{}"),
            Value("new", "c", Form.WORD, "the entry after", text="-> {}"),
            Value("op", "sub", Form.NAME, "what changed it", _names(PteOp), text="{}"),
            Value(
                "size", "size", Form.NUMBER, "bytes of the whole store; 0 for `vector`", text="{} B"
            ),
            _flag("continued", Flag.CONT, "a further entry of the store before"),
        ),
    ),
    Kind.FENCE: KindDescription(
        "fences",
        "a fence was executed",
        (
            Value(
                "instruction",
                "sub",
                Form.NAME,
                "the instruction",
                FENCE_NAMES,
                mask=0xFF & ~Fence.FORM,
                text="{}",
            ),
            Value("va", "a", Form.WORD, "the address that it names", needs=Fence.VA),
            Value(
                "asid",
                "b",
                Form.NUMBER,
                "the ASID that it names (for a gpa form, the VMID)",
                needs=Fence.ASID,
            ),
        ),
    ),
    Kind.FENCE_ORDER: KindDescription(
        "fence_orders",
        "an instruction was executed that orders the fences of Svinval",
        (
            Value(
                "instruction",
                "sub",
                Form.NAME,
                "the instruction",
                ORDER_NAMES,
                text="{}",
            ),
        ),
        since=3,
    ),
    Kind.REMOTE_FENCE: KindDescription(
        "remote_fences",
        "the guest called its firmware (SBI) for a fence on the harts that it names",
        (
            Value(
                "instruction",
                "sub",
                Form.NAME,
                "the instruction that each hart is to execute",
                FENCE_NAMES,
                mask=0xFF & ~Fence.FORM,
                text="{}",
            ),
            Value("harts", "harts", Form.WORD, "the harts: bit n for hart n", text="on harts {}"),
            Value("va", "a", Form.WORD, "the first address", needs=Fence.VA),
            Value("size", "c", Form.WORD, "bytes from there on", needs=Fence.VA, text="size {}"),
            Value(
                "asid",
                "b",
                Form.NUMBER,
                "the ASID that it names (for a gpa form, the VMID)",
                needs=Fence.ASID,
            ),
        ),
        since=4,
    ),
    Kind.SATP_WRITE: KindDescription(
        "satp_writes",
        "a register that holds a root was written",
        (
            Value("register", "sub", Form.NAME, "the register", _names(Satp), text="{}"),
            Value("old", "a", Form.WORD, "its value before", text="{}"),
            Value("new", "b", Form.WORD, "its value after", text="-> {}"),
            Value(
                "process",
                "c",
                Form.PROCESS,
                "the process that owns the new root; null if that is not known",
                text="process {}",
            ),
            Value("pid", "c", Form.PID, "its process id", text="(pid {})"),
            _flag("sample", Flag.STOP, "not executed: what `satp` holds at the start of a region"),
        ),
    ),
    Kind.ENVCFG_WRITE: KindDescription(
        "envcfg_writes",
        "a paging feature was switched on or off in `menvcfg` or `henvcfg`",
        (
            Value("register", "sub", Form.NAME, "the register", _names(Envcfg), text="{}"),
            Value("old", "a", Form.WORD, "its value before", text="{}"),
            Value("new", "b", Form.WORD, "its value after", text="-> {}"),
            Value(
                "switches",
                "c",
                Form.WORD,
                "which of ADUE (bit 61) and PBMTE (bit 62) this machine can switch",
                text="",
            ),
            _flag(
                "sample",
                Flag.STOP,
                "not executed: what the register holds at the start of a region",
            ),
        ),
        since=2,
    ),
    Kind.ACCESS: KindDescription(
        "accesses",
        "the guest accessed memory (one event for each page)",
        (
            Value("access", "sub", Form.NAME, "the kind of access", _names(Access), text="{}"),
            Value("va", "a", Form.WORD, "the address", text="{}"),
            Value("pa", "b", Form.PA, "PA that it went to; null if it faults", text="-> {}"),
            Value(
                "cause",
                "b",
                Form.CAUSE,
                "the cause if it faults, stored as 2^64-1-cause",
                text="-> fault {}",
            ),
            _flag("sum", Flag.SUM, "`sstatus.SUM` is set (in S-mode)", text="SUM"),
            _flag("mxr", Flag.MXR, "`sstatus.MXR` is set", text="MXR"),
            _flag("sample", Flag.STOP, "not executed: where a stop found the guest"),
            Value("size", "size", Form.NUMBER, "bytes in the page of `a`; 0 if it faults", text=""),
        ),
    ),
    Kind.PAGE_FAULT: KindDescription(
        "page_faults",
        "the guest took a page fault",
        (
            Value("tval", "a", Form.WORD, "`stval`"),
            Value("cause", "b", Form.NUMBER, "`scause`"),
        ),
    ),
    Kind.MARK: KindDescription(
        "marks",
        "the guest is about to execute the instruction of a mark",
        (
            Value("number", "a", Form.NUMBER, "number of the label in the manifest", text=""),
            Value("label", "a", Form.LABEL, "the text of the label", text="{}"),
        ),
    ),
}
"""What the fields mean in each kind of event."""


def priv_name(priv: int) -> str:
    """Return ``U``, ``S``, ``M``, ``VU`` or ``VS``."""
    base = priv & ~Priv.VIRT
    name = Priv(base).name if base in (Priv.U, Priv.S, Priv.M) else f"?{base}"
    return f"V{name}" if priv & Priv.VIRT else name


def fault_pa(cause: int) -> int:
    """Return the value that stands in a PA field for "this access faults with ``cause``"."""
    return -1 - cause


def _foreign() -> NDArray[np.bool_]:
    """Return for each ``kind | sub << 8 | V << 16`` if it is the guest's virtual machine's."""
    number = np.arange(1 << 17)
    kind, sub, virtual = number & 0xFF, number >> 8 & 0xFF, number >> 16 == 1
    own = (Kind.FENCE, Kind.REMOTE_FENCE, Kind.FENCE_ORDER, Kind.SATP_WRITE, Kind.ACCESS)
    fence = (kind == Kind.FENCE) | (kind == Kind.REMOTE_FENCE)
    found: NDArray[np.bool_] = (
        (virtual & np.isin(kind, (*own, Kind.PAGE_FAULT)))
        | (fence & (sub >= Fence.HFENCE_VVMA))
        | ((kind == Kind.SATP_WRITE) & (sub != Satp.SATP))
        | ((kind == Kind.ENVCFG_WRITE) & (sub != Envcfg.MENVCFG))
    )
    return found


_FOREIGN = _foreign()


def small_fields(batch: EventBatch) -> NDArray[np.void]:
    """Return a copy of the last fields of each event, ``kind`` to ``harts``: 8 bytes of its 48.

    What looks at several of them for every event goes through a sixth of the memory then.
    """
    return np.ascontiguousarray(batch.getfield(np.uint64, _SMALL_AT)).view(_SMALL)


def of_virtual_machines(batch: EventBatch) -> NDArray[np.bool_]:
    """Return a mask of the events of virtual machines that the guest runs itself (H extension).

    These are the events with V=1, or as if V=1 (``hlv``, ``hsv``, MPRV with MPV), and what the
    guest does to their translation: ``vsatp``, ``hgatp``, ``henvcfg``, ``hfence``, ``hinval``.
    None of them goes through the guest's own tables, the only ones in a stream, so no model follows
    them.  A store to a live table is the guest's, whoever makes it.

    :param batch: events, or their :func:`small_fields`.
    """
    words = (batch if batch.dtype == _SMALL else small_fields(batch)).view(np.uint64)
    return _FOREIGN[words & 0xFFFF | words >> 10 & 1 << 16]  # type: ignore[no-any-return]


def show_virtual_machine(batch: EventBatch) -> bool:
    """Return True if the events prove that the guest has a virtual machine.

    Something ran with V=1, or ``vsatp`` or ``hgatp`` was set.  Fences for virtual machines do not
    prove it: firmware executes ``hfence.gvma`` once at boot because the hart has the H extension.
    """
    entered = batch["priv"] & Priv.VIRT != 0
    loaded = (batch["kind"] == Kind.SATP_WRITE) & (batch["b"] != 0)
    return bool((of_virtual_machines(batch) & (entered | loaded)).any())


def empty(count: int) -> EventBatch:
    """Return an all-zero batch of ``count`` events with unknown instruction counts."""
    batch: EventBatch = np.zeros(count, dtype=EVENT)
    for field in FIELDS:
        if field.content is Content.COUNT:
            batch[field.name] = -1
    return batch
