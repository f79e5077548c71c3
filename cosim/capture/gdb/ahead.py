"""Stops that were foretold (:mod:`cosim.capture.gdb.foretold`) and are *plain*.

A plain stop is at a fence, or at a store of 8 bytes to one entry of a table, and moves no stop
point.  Only x0..x31, pc and the privilege are asked then.  They must be those of a guest that is
about to execute what was foretold.

A fence is stepped, and pc shows that it was executed.  A store is not: its entry is left out of the
watched page, and the guest goes on with the store.  The registers say what it writes, and RAM shows
that it was executed.  That spares QEMU a stop, at which it would throw away all code that it has
translated.  The whole page is watched again from the next stop on; so a store that comes before a
second one to the same entry is stepped.

What is compared with the guest's answers is prepared while the guest runs, and events are written
then, too: it stands still for as few instructions of ours as possible.  If the guest shows anything
else, the stop is not plain.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

from cosim.capture.decode import Instruction
from cosim.capture.encodings import InstructionKind
from cosim.capture.gdb.foretold import Next
from cosim.capture.gdb.stopped_guest import PlainState
from cosim.capture.tables import PlainEntry
from cosim.debugger.registers import parse_value
from hypervisor_model.events import Kind, Priv, PteOp
from hypervisor_model.isa import pte

SAMPLED_EVERY = 16
"""One foretold stop in so many is asked for satp and for translations, too."""
_MASK = (1 << 64) - 1
_ENTRY = 8


class Plain(NamedTuple):
    """A plain stop that is to come.  It is exactly this, or it is not plain."""

    pc: int
    priv: int
    instruction: Instruction
    code_at: int
    """The physical address of the instruction."""
    pc_sent: bytes
    """pc as the stub sends it."""
    watch: int | None = None
    """The page whose watchpoint stops the guest; None for a fence."""
    pa: int = 0
    """Where a store writes."""
    base_at: slice = slice(0)
    """Where the answer to ``g`` has the register with the address of a store."""
    base_sent: bytes = b""
    """That register as the stub sends it."""
    entry: PlainEntry | None = None
    """The entry that a store writes."""
    value_at: slice = slice(0)
    """Where the answer to ``g`` has the register that is stored."""

    @property
    def behind(self) -> int:
        """The address behind the instruction."""
        return self.pc + self.instruction.length

    @property
    def op(self) -> PteOp:
        """What kind of store it is."""
        return PteOp.AMO if self.instruction.kind is InstructionKind.AMO else PteOp.STORE

    def stands(self, state: PlainState) -> bool:
        """Return True if ``state`` is that of a guest which is about to execute this."""
        general = state.general
        return (
            general[_PC_AT] == self.pc_sent
            and general[self.base_at] == self.base_sent
            and state.priv == self.priv
        )

    def leaves(self, state: PlainState, old: int) -> int | None:
        """Return what a store leaves in the entry, unsigned; None if that is not known.

        :param state: the guest before the store.
        :param old: what the entry held then, unsigned.
        """
        return self.instruction.leaves(old, parse_value(state.general[self.value_at]))

    def __str__(self) -> str:
        place = "" if self.watch is None else f" to {self.pa:#x}"
        return f"{self.instruction.text}{place} at {self.pc:#x}"


class Stepped(NamedTuple):
    """A plain fence whose step is done."""

    plain: Plain
    state: PlainState
    """The guest before the step."""


class Due(NamedTuple):
    """A plain store that the guest executes as soon as it runs."""

    plain: Plain
    va: int
    """The virtual address to which it stores."""
    entry: PlainEntry
    new: int
    """What it leaves in the entry, an int64."""


class SeenCode(Protocol):
    """The instructions seen so far."""

    def place(self, pc: int, priv: int) -> tuple[Instruction, int] | None:
        """Return the instruction seen at ``pc``, and its physical address."""


class Points(Protocol):
    """What is known of the stop points."""

    def watched_at(self, table: int) -> int | None:
        """Return the virtual page where ``table`` is watched; None if there is not just one."""

    def is_break(self, pc: int) -> bool:
        """Return True if a breakpoint is at ``pc``."""

    @property
    def steady(self) -> bool:
        """True if a fence, or an entry that reaches neither tables nor text, moves no point."""


class Stores(Protocol):
    """The live tables, as far as plain stores need them."""

    def plain_entry(self, pa: int) -> PlainEntry | None:
        """Return the entry at ``pa`` if a store to it may be plain."""


def prepare(event: Next, code: SeenCode, points: Points, tables: Stores) -> Plain | None:
    """Return the plain stop that ``event`` foretells; None if it may be none."""
    seen = code.place(event.pc, event.priv)
    if seen is None or event.priv != Priv.S or not points.steady:
        return None
    instruction, code_at = seen
    kind = instruction.kind
    pc_sent = _sent(event.pc)
    if kind is InstructionKind.FENCE and event.kind == Kind.FENCE:
        fence = Plain(event.pc, event.priv, instruction, code_at, pc_sent)
        return fence if points.is_break(event.pc) else None
    if event.kind != Kind.PTE_WRITE or event.again:
        return None
    if instruction.base is None or instruction.value is None:
        return None
    pa = event.a
    watch = points.watched_at(pa & -pte.PAGE)
    entry = tables.plain_entry(pa)
    if watch is None or entry is None or pa % _ENTRY:
        return None
    base = (watch + pa % pte.PAGE - instruction.immediate) & _MASK
    return Plain(
        event.pc,
        event.priv,
        instruction,
        code_at,
        pc_sent,
        watch,
        pa,
        _at(instruction.base),
        _sent(base),
        entry,
        _at(instruction.value),
    )


def _at(register: int) -> slice:
    return slice(16 * register, 16 * register + 16)


_PC_AT = _at(32)


@lru_cache(maxsize=4096)
def _sent(value: int) -> bytes:
    return value.to_bytes(8, "little").hex().encode()
