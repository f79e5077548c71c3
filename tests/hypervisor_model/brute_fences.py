"""What a hart may hold, by the words of the privileged specification, kept as a set.

A :class:`HartCache` holds everything that a hart may have read, for a few addresses.  After each
action of the guest it reads all that the specification allows it to read; a fence drops what the
specification says it drops.  So a translation is possible if, and only if, it can be made of what
is in the set.  ``sinval.vma`` orders the stores before the last ``sfence.w.inval`` before what is
read after the next ``sfence.inval.ir``.  So the latter makes the set anew, as if it had dropped at
the former what it names.  A switch of ADUE leaves the setting before usable until a fence without
operands.  Nothing here is taken from ``hypervisor_model`` but the layout of events.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

from hypervisor_model.events import Fence, Priv
from tests.hypervisor_model.brute_legality import (
    BASE,
    LEVELS,
    NAMES,
    SIZE,
    Ask,
    G,
    Guest,
    V,
    is_link,
    link,
    target,
)
from tests.hypervisor_model.reference_mmu import Hart, Memory, Outcome, translate


class Pointer(NamedTuple):
    """The address of a table, as read from an entry above it."""

    asid: int
    is_global: bool
    level: int
    """Of the table."""
    prefix: int
    """The bits of the address above what the table translates."""
    table: int


class Leaf(NamedTuple):
    asid: int
    is_global: bool
    level: int
    prefix: int
    value: int


class _Read(NamedTuple):
    """All that may be read at a moment: by this ``satp``, from these tables."""

    satp: int
    raw: dict[int, dict[int, int]]


class _Drop(NamedTuple):
    """A fence."""

    form: Fence
    first: int
    last: int
    asid: int


class _Switch(NamedTuple):
    """ADUE is written."""

    adue: bool


class HartCache:
    """Everything that a hart may hold for the addresses ``watched``."""

    def __init__(self, guest: Guest, hart: int, watched: list[int]) -> None:
        self._guest = guest
        self._hart = hart
        self._watched = watched
        self.pointers: set[Pointer] = set()
        self.leaves: set[Leaf] = set()
        self._satp = 0
        self._raw: dict[int, dict[int, int]] = {}
        self._first_adue = self.adue = guest.svadu
        self.features = {guest.svadu}
        """The settings of ADUE that the hart may go by."""
        self._past: list[_Read | _Drop | _Switch] = []
        """All that was read, dropped and switched."""
        self._ordered = 0
        """How much of it was before the last ``sfence.w.inval``."""
        self._waiting: list[tuple[int, _Drop]] = []
        """Each ``sinval.vma`` that waits, and how much was before its ``sfence.w.inval``."""

    @property
    def _asid(self) -> int:
        return self._satp >> 44 & 0xFFFF

    def read_all(self) -> None:
        """Read whatever may be read now, for every watched address."""
        self._do(_Read(self._guest.satp[self._hart], copy.deepcopy(self._guest.raw)))

    def fence(self, form: Fence, va: int, asid: int) -> None:
        """``sfence.vma``."""
        self._do(_Drop(form, va, va, asid))

    def moment(self) -> int:
        """How much there is by now."""
        return len(self._past)

    def fenced_since(self, moment: int, form: Fence, first: int, last: int, asid: int) -> None:
        """A remote fence that came at some time since a moment."""
        self._past.insert(moment, _Drop(form, first, last, asid))
        self._ordered += self._ordered > moment
        self._waiting = [(at + (at > moment), drop) for at, drop in self._waiting]
        self._replay(self._past)

    def w_inval(self) -> None:
        """``sfence.w.inval``."""
        self._ordered = len(self._past)

    def sinval(self, form: Fence, va: int, asid: int) -> None:
        """``sinval.vma``."""
        self._waiting.append((self._ordered, _Drop(form, va, va, asid)))

    def inval_ir(self) -> None:
        """``sfence.inval.ir``."""
        past, ordered = self._past, self._ordered
        for at, drop in reversed(self._waiting):
            past.insert(at, drop)
        ordered += sum(at < ordered for at, _ in self._waiting)
        self._waiting.clear()
        self._replay(past)
        self._ordered = ordered

    def _replay(self, past: list[_Read | _Drop | _Switch]) -> None:
        self.pointers, self.leaves, self._past = set(), set(), []
        self.adue = self._first_adue
        self.features = {self.adue}
        for action in past:
            self._do(action)

    def switch(self, adue: bool) -> None:
        """Write ADUE."""
        self._do(_Switch(adue))

    def _do(self, action: _Read | _Drop | _Switch) -> None:
        self._past.append(action)
        if isinstance(action, _Drop):
            self._drop(*action)
        elif isinstance(action, _Switch):
            self.adue = action.adue
            self.features.add(action.adue)
        else:
            self._satp, self._raw = action
            self._read_watched()

    def _read_watched(self) -> None:
        if self._satp >> 60 == 0:
            return
        levels = LEVELS[self._satp >> 60]
        for va in self._watched:
            width = 12 + 9 * levels
            if va >> (width - 1) in (0, (1 << (65 - width)) - 1):
                self._read(va, levels - 1, (self._satp & (1 << 44) - 1) << 12, False)
            for pointer in list(self.pointers):
                if self._usable(pointer) and pointer.prefix == va >> 21 + 9 * pointer.level:
                    self._read(va, pointer.level, pointer.table, pointer.is_global)

    def _usable(self, item: Pointer | Leaf) -> bool:
        return item.is_global or item.asid == self._asid

    def _read(self, va: int, level: int, table: int, is_global: bool) -> None:
        if table not in self._raw:
            return
        index = va >> 12 + 9 * level & 511
        entry = self._raw[table].get(index, 0)
        below = is_global or bool(entry & G)
        if is_link(entry, level):
            pointer = Pointer(self._asid, below, level - 1, va >> 12 + 9 * level, target(entry))
            if pointer not in self.pointers:
                self.pointers.add(pointer)
                self._read(va, level - 1, target(entry), below)
        elif entry & V:
            self.leaves.add(Leaf(self._asid, below, level, va >> 12 + 9 * level, entry))

    def _drop(self, form: Fence, first: int, last: int, asid: int) -> None:
        def spared(item: Pointer | Leaf) -> bool:
            return bool(form & Fence.ASID) and (item.is_global or item.asid != asid)

        def elsewhere(leaf: Leaf) -> bool:
            bits = 12 + 9 * leaf.level
            return bool(form & Fence.VA) and not first >> bits <= leaf.prefix <= last >> bits

        self.leaves = {one for one in self.leaves if spared(one) or elsewhere(one)}
        if form == Fence.ALL:
            self.features = {self.adue}
        if not form & Fence.VA:
            self.pointers = {one for one in self.pointers if spared(one)}

    def answers(self, ask: Ask) -> set[tuple[int, int | None]]:
        """The physical addresses, with their memory types, that the access could go to by what
        the hart holds."""
        found = set()
        for one in self.leaves:
            if self._usable(one) and one.prefix == ask.va >> 12 + 9 * one.level:
                for adue in self.features:
                    out = self._outcome(ask, one, adue)
                    if out.pa is not None:
                        found.add((out.pa, out.leaf_type))
        return found

    def _outcome(self, ask: Ask, leaf: Leaf, adue: bool) -> Outcome:
        """What the access comes to if the last entry of its walk is this one."""
        words = {}
        wide = leaf.level > 2 or ask.va >> 38 not in (0, (1 << 26) - 1)
        top = LEVELS[9 if wide else 8] - 1
        for level in range(top, leaf.level - 1, -1):
            where = BASE + 4096 * level + 8 * (ask.va >> 12 + 9 * level & 511)
            words[where] = leaf.value if level == leaf.level else link(BASE + 4096 * (level - 1))
        hart = Hart(
            Memory(BASE, SIZE, words),
            satp=(top + 6) << 60 | (BASE + 4096 * top) >> 12,
            supervisor=ask.priv == Priv.S,
            sum=ask.sum,
            mxr_first=ask.mxr,
            adue=adue,
            pbmte=self._guest.svpbmt,
        )
        return translate(hart, ask.va, NAMES[ask.access])
