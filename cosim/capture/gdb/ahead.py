"""Stops that were foretold (:mod:`cosim.capture.gdb.foretold`) and are *plain*.

A plain stop is at a fence, or at a store to one entry of a table, and moves no stop point.  Only
x0..x31, pc and the privilege are asked then.  They must be those of a guest that is about to
execute what was foretold.  That it was executed is shown by RAM for a store, and by pc for a fence.
Then the guest goes on at once, and the event is written while it runs.

The event is made of what the guest shows.  If that is not what was foretold, the stop is not plain.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cosim.capture.decode import Instruction
from cosim.capture.encodings import InstructionKind
from cosim.capture.gdb.foretold import Next
from cosim.capture.gdb.stopped_guest import PlainState
from hypervisor_model.events import Priv, PteOp
from hypervisor_model.isa import pte

SAMPLED_EVERY = 16
"""One foretold stop in so many is asked for satp and for translations, too."""
_WORD = 8


class PlainStore(NamedTuple):
    """A store that has executed."""

    pc: int
    priv: int
    instruction: Instruction
    pa: int
    new: int
    """What the entry holds now, an int64."""

    @property
    def op(self) -> PteOp:
        """What kind of store it is."""
        return PteOp.AMO if self.instruction.kind is InstructionKind.AMO else PteOp.STORE

    def __str__(self) -> str:
        return f"{self.instruction.text} to {self.pa:#x} at {self.pc:#x}"


class PlainFence(NamedTuple):
    """A fence that was stepped.  If pc is behind it, it has executed."""

    pc: int
    priv: int
    instruction: Instruction
    state: PlainState

    @property
    def behind(self) -> int:
        """Where the guest goes on."""
        return self.pc + self.instruction.length

    def __str__(self) -> str:
        return f"{self.instruction.text} at {self.pc:#x}"


class Stores(Protocol):
    """The live tables, as far as plain stores need them."""

    def plain_store(self, pa: int) -> int | None:
        """Return what a plain store has left at ``pa``; None if none has written there."""


class Points(Protocol):
    """What is known of the stop points."""

    def table_at(self, page: int) -> int | None:
        """Return the table that is watched at the virtual page ``page``; None if in doubt."""

    @property
    def steady(self) -> bool:
        """True if a fence, or an entry that reaches neither tables nor text, moves no point."""


def may_be_plain(event: Next, known: Instruction, points: Points) -> bool:
    """Return True if the foretold ``event``, of the instruction ``known``, may be plain."""
    if event.priv != Priv.S or not points.steady:
        return False
    kind = known.kind
    return (
        kind is InstructionKind.FENCE
        or kind is InstructionKind.STORE
        or kind is InstructionKind.AMO
    )


def fence(event: Next, known: Instruction, state: PlainState) -> PlainFence | None:
    """Return the fence that was stepped; None if ``state`` is not that before the foretold one."""
    if state.pc != event.pc or state.priv != event.priv:
        return None
    return PlainFence(event.pc, event.priv, known, state)


def store(
    event: Next, known: Instruction, watch: int, state: PlainState, points: Points, tables: Stores
) -> PlainStore | None:
    """Return the store that was stepped; None if it is in doubt that it was the foretold one.

    :param watch: the virtual page whose watchpoint has stopped the guest.
    :param state: the guest before the step.
    """
    if state.pc != event.pc or state.priv != event.priv or known.base is None:
        return None
    va = state.register(known.base) + known.immediate
    table = points.table_at(watch)
    if va & -pte.PAGE != watch or table is None or va % _WORD + known.size > _WORD:
        return None
    pa = table | va & (pte.PAGE - 1)
    new = tables.plain_store(pa)
    return None if new is None else PlainStore(event.pc, event.priv, known, pa, new)
