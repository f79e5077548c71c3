"""What a stop is: the instruction that executes next, and the memory that it will touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from cosim.capture.decode import Instruction, decode, instruction_length
from cosim.capture.gdb.layout import GuestLayout
from cosim.capture.gdb.stopped_guest import HartState
from hypervisor_model.events import Access, Priv
from hypervisor_model.isa import pte

_SP = 2
_MASK = (1 << 64) - 1

NOP = decode((0x13).to_bytes(4, "little"))
"""Stands for an instruction that cannot be read."""


class Code(Protocol):
    """The guest's code, as its own translation shows it."""

    def code(self, va: int, *, physical: bool = False) -> bytes:
        """Return the 4 bytes at ``va``, or 2 if no more are mapped, or none.

        :param physical: ``va`` is not translated.
        """


class Part(NamedTuple):
    """The part of an access that lies in one page."""

    va: int
    kind: Access
    size: int
    pa: int | None = None
    """Where QEMU's walk leads; None before it was asked for, and if the walk fails."""


def parts(va: int, kind: Access, size: int) -> list[Part]:
    """Split an access at the end of its page: each page has its own translation."""
    left = pte.PAGE - (va & (pte.PAGE - 1))
    if size <= left:
        return [Part(va, kind, size)]
    return [Part(va, kind, left), Part((va + left) & _MASK, kind, size - left)]


class Stop(NamedTuple):
    """A stop before an instruction: what will execute, and what it will touch."""

    state: HartState
    instruction: Instruction
    fetches: Sequence[Part]
    """Where its bytes are fetched from."""
    operands: Sequence[Part]
    """What it reads or writes.  None for ``hlv`` and ``hsv``: they use the tables of a virtual
    machine, which QEMU's monitor does not walk."""
    stack: Part
    """Where sp points: a sample, whatever the instruction is."""
    pages: frozenset[int]
    """The virtual pages that it reads or writes; ``hlv`` and ``hsv`` included."""

    @property
    def pc(self) -> int:
        """The address of the instruction."""
        return self.state.pc

    @property
    def priv(self) -> int:
        """The privilege that it executes with."""
        return self.state.priv

    @property
    def behind(self) -> int:
        """The address behind the instruction."""
        return self.pc + self.instruction.length

    @property
    def asked(self) -> list[Part]:
        """The parts whose translations are asked for.

        M-mode's fetches are not among them: with MPRV set QEMU would translate them, too.
        """
        fetches = self.fetches if self.state.priv != Priv.M else ()
        return [*fetches, *self.operands, self.stack]

    def translated(self, asked: Sequence[Part], answers: Sequence[int | None]) -> Stop:
        """Return this stop with the physical addresses of its parts.

        :param asked: :attr:`asked` of this stop.
        :param answers: their physical addresses, as far as there are any.
        """
        known = [
            Part(va, kind, size, pa) for (va, kind, size, _), pa in zip(asked, answers, strict=True)
        ]
        stack = known.pop()
        code = len(known) - len(self.operands)
        fetches = known[:code] if code else self.fetches
        return Stop(self.state, self.instruction, fetches, known[code:], stack, self.pages)


class Classifier:
    """Tells what each stop is.

    :param code: the guest's code.
    :param layout: the guest's RAM.
    """

    def __init__(self, code: Code, layout: GuestLayout) -> None:
        self._code = code
        self._layout = layout
        self._bytes = layout.ram.view(np.uint8).data
        self._known: dict[tuple[int, int], tuple[Instruction, int]] = {}
        """By pc and privilege; where the instruction is in RAM."""

    def classify(self, state: HartState) -> Stop:
        """Return what the stop in ``state`` is."""
        inst = self._instruction(state)
        operands = _operands(inst, state.general)
        fetches = parts(state.pc, Access.FETCH, inst.length)
        if state.priv == Priv.M:
            fetches = [part._replace(pa=part.va) for part in fetches]
        return Stop(
            state,
            inst,
            fetches,
            [] if inst.guest else operands,
            Part(state.general[_SP], Access.READ, 8),
            frozenset(operand.va & -pte.PAGE for operand in operands),
        )

    def known(self, pc: int, priv: int) -> Instruction | None:
        """Return the instruction at ``pc`` if RAM shows that it is still the one seen there."""
        seen = self._known.get((pc, priv))
        return seen[0] if seen is not None and self.holds(*seen) else None

    def place(self, pc: int, priv: int) -> tuple[Instruction, int] | None:
        """Return the instruction seen at ``pc``, and its physical address.

        :meth:`holds` tells if it is still there.
        """
        return self._known.get((pc, priv))

    def holds(self, instruction: Instruction, pa: int) -> bool:
        """Return True if RAM has ``instruction`` at ``pa``."""
        first, code = pa - self._layout.base, instruction.code
        return self._bytes[first : first + len(code)] == code

    def remember(self, stop: Stop) -> None:
        """Keep the instruction of a translated stop, so that it is read from RAM the next time."""
        first, priv = stop.fetches[0].pa, stop.state.priv
        if len(stop.fetches) > 1 or first is None or not self._layout.holds(first):
            return
        # At one address each process has other code.
        if priv & Priv.S:
            self._known[stop.pc, priv] = (stop.instruction, first)

    def _instruction(self, state: HartState) -> Instruction:
        known = self.known(state.pc, state.priv)
        if known is not None:
            return known
        word = self._code.code(state.pc, physical=state.priv == Priv.M)
        if not word or len(word) < instruction_length(word):
            # It is not mapped, or not all of it: the step will be the fetch, which faults.
            return NOP
        return decode(word, cbo_block=self._layout.cbo_block)


def _operands(inst: Instruction, general: Sequence[int]) -> list[Part]:
    va = inst.address(general)
    if va is None or not (inst.reads or inst.writes):
        return []
    return parts(va, Access.WRITE if inst.writes else Access.READ, max(inst.size, 1))
