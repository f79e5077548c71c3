"""Tiny guests written by hand: what a guest does, in Python, as a stream of events.

A :class:`Guest` has RAM, allocates pages, stores to tables, fences, loads ``satp`` and accesses
memory.  It emits the events that docs/architecture.md ("Which pages are live tables") asks of a
source, and answers every access as a machine without any TLB would (:meth:`Guest.walk`, written
from the specification apart from the walker).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hypervisor_model.events import (
    FLAG_SUM,
    Access,
    EventBatch,
    Fence,
    Kind,
    Order,
    Priv,
    PteOp,
    empty,
    fault_pa,
)
from hypervisor_model.isa.atp import Mode
from hypervisor_model.jit import signed

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
KERNEL = V | R | W | A | D
USER = KERNEL | U
PAGE = 4096
FAULTS = {Access.READ: 13, Access.WRITE: 15, Access.FETCH: 12}


def leaf(pa: int, perm: int = KERNEL) -> int:
    return pa >> 12 << 10 | perm


class Guest:
    def __init__(
        self,
        *,
        mode: Mode = Mode.SV39,
        base: int = 0x8000_0000,
        size: int = 64 << 20,
        svadu: bool = False,
        harts: int = 1,
    ) -> None:
        self.mode = mode
        self.base = base
        self.size = size
        self.svadu = svadu
        self.levels = mode.levels
        self.words: dict[int, int] = defaultdict(int)
        self.links: dict[int, dict[int, int]] = {}
        self.roots: set[int] = set()
        self.satp = [0] * harts
        self.root = 0
        self.where = 0
        self.events: list[tuple[int, ...]] = []
        self._next = base + PAGE

    # -- what a guest does ------------------------------------------------------------------------

    def page(self) -> int:
        """A fresh page of zeroes."""
        self._next += PAGE
        assert self._next < self.base + self.size
        return self._next - PAGE

    def load(self, root: int, asid: int = 0, *, hart: int = 0, flags: int = 0) -> None:
        """Write ``satp``; a root of 0 is Bare."""
        value = signed(self.mode << 60 | asid << 44 | root >> 12) if root else 0
        self._emit(Kind.SATP_WRITE, self.satp[hart], value, hart=hart, flags=flags)
        self.satp[hart] = value
        if root and root not in self.roots:
            self.roots.add(root)
            self._add(root, self.levels - 1)

    def retire(self, root: int) -> None:
        """The root's table is used for something else from now on."""
        self.roots.remove(root)
        self._remove(root, self.levels - 1)

    def store(
        self, pa: int, value: int, op: PteOp = PteOp.STORE, *, flags: int = 0, hart: int = 0
    ) -> None:
        """Store one entry."""
        value = signed(value)
        old = self.words[pa]
        self.words[pa] = value
        page = pa & ~(PAGE - 1)
        if page not in self.links:
            return
        self._emit(Kind.PTE_WRITE, pa, old, value, sub=op, size=8, flags=flags, hart=hart)
        for level in sorted(self.links[page]):
            if level and old != value:
                if self._is_link(value):
                    self._add(self._target(value), level - 1)
                if self._is_link(old):
                    self._remove(self._target(old), level - 1)

    def entry(self, root: int, va: int, level: int = 0) -> int:
        """PA of the entry for ``va`` at ``level``, with the tables above it made as needed."""
        table = root
        for at in range(self.levels - 1, level, -1):
            where = table + self._index(va, at) * 8
            if not self._is_link(self.words[where]):
                self.store(where, leaf(self.page(), V))
            table = self._target(self.words[where])
        return table + self._index(va, level) * 8

    def map(self, root: int, va: int, pa: int, perm: int = KERNEL, level: int = 0) -> int:
        """Map a page; PA of the entry."""
        where = self.entry(root, va, level)
        self.store(where, leaf(pa, perm))
        return where

    def fence(
        self,
        va: int | None = None,
        asid: int | None = None,
        *,
        instruction: Fence = Fence.SFENCE_VMA,
        hart: int = 0,
    ) -> None:
        form = (Fence.VA if va is not None else 0) | (Fence.ASID if asid is not None else 0)
        self._emit(Kind.FENCE, signed(va or 0), asid or 0, sub=form | instruction, hart=hart)

    def remote_fence(
        self,
        harts: Iterable[int],
        va: int | None = None,
        size: int = PAGE,
        asid: int | None = None,
        *,
        hart: int = 0,
    ) -> None:
        """Let ``hart`` call for a fence on ``harts``."""
        form = (Fence.VA if va is not None else 0) | (Fence.ASID if asid is not None else 0)
        named = sum(1 << one for one in harts)
        a, c = (0, 0) if va is None else (signed(va), signed(size))
        self._emit(Kind.REMOTE_FENCE, a, asid or 0, c, sub=form, hart=hart, harts=named)

    def order(self, order: Order, *, hart: int = 0) -> None:
        """Order the fences of Svinval."""
        self._emit(Kind.FENCE_ORDER, 0, sub=order, hart=hart)

    def access(
        self,
        va: int,
        kind: Access = Access.READ,
        *,
        priv: Priv = Priv.S,
        flags: int = 0,
        hart: int = 0,
    ) -> int:
        """Access memory; the PA, or ``fault_pa(cause)``."""
        pa = self.walk(va, kind, priv, flags, hart)
        fields = {"sub": kind, "priv": priv, "flags": flags, "hart": hart, "size": 8}
        self._emit(Kind.ACCESS, signed(va), pa, **fields)
        return pa

    def envcfg(self, value: int, switches: int, *, hart: int = 0) -> None:
        """Let ``menvcfg`` of a hart hold ``value``; the walk of :meth:`access` is the same."""
        self._emit(Kind.ENVCFG_WRITE, 0, signed(value), signed(switches), hart=hart)

    def page_fault(self, tval: int, cause: int, *, hart: int = 0) -> None:
        self._emit(Kind.PAGE_FAULT, signed(tval), cause, hart=hart)

    # -- what comes of it -------------------------------------------------------------------------

    def batch(self) -> EventBatch:
        """The events so far; they are kept."""
        batch = empty(len(self.events))
        names = ("kind", "a", "b", "c", "sub", "hart", "priv", "flags", "size", "harts")
        for name, values in zip(names, zip(*self.events, strict=True), strict=False):
            batch[name] = values
        return batch

    def take(self) -> EventBatch:
        """The events since the last call."""
        batch = self.batch()
        self.events.clear()
        return batch

    def walk(self, va: int, kind: Access, priv: Priv, flags: int = 0, hart: int = 0) -> int:
        """The translation by the tables as they are now; with Svadu sets A and D."""
        satp = self.satp[hart]
        if satp == 0 or priv == Priv.M:
            return va
        fault = fault_pa(FAULTS[kind])
        top = 12 + 9 * self.levels - 1
        if signed(va) >> top not in (0, -1):
            return fault
        table = (satp & (1 << 44) - 1) << 12
        for level in range(self.levels - 1, -1, -1):
            where = table + self._index(va, level) * 8
            entry = self.words.get(where, 0)
            if self._is_link(entry) and level:
                table = self._target(entry)
                continue
            offset = (1 << 12 + 9 * level) - 1
            if not self._allows(entry, kind, priv, flags) or self._target(entry) & offset:
                return fault
            need = A | D if kind == Access.WRITE else A
            if entry & need != need:
                if not self.svadu:
                    return fault
                self.words[where] = entry | need
            return self._target(entry) | va & offset
        raise AssertionError

    @staticmethod
    def _allows(entry: int, kind: Access, priv: Priv, flags: int) -> bool:
        if not entry & V or not entry & (R | X) or entry & (R | W) == W:
            return False
        if entry & U:
            if priv == Priv.S and (kind == Access.FETCH or not flags & FLAG_SUM):
                return False
        elif priv == Priv.U:
            return False
        return bool(entry & {Access.READ: R, Access.WRITE: W, Access.FETCH: X}[kind])

    # -- live tables ------------------------------------------------------------------------------

    def _add(self, page: int, level: int) -> None:
        known = self.links.setdefault(page, {})
        if not known:
            self._emit(Kind.TABLE_ADD, page, level, sub=int(page in self.roots))
            for pa in range(page, page + PAGE, 8):
                if self.words.get(pa):
                    self._emit(Kind.TABLE_ENTRY, pa, 0, self.words[pa])
        known[level] = known.get(level, 0) + 1
        if known[level] == 1 and level:
            for target in self._targets(page):
                self._add(target, level - 1)

    def _remove(self, page: int, level: int) -> None:
        known = self.links[page]
        known[level] -= 1
        if known[level]:
            return
        del known[level]
        if level:
            for target in self._targets(page):
                self._remove(target, level - 1)
        if not known and page not in self.roots:
            del self.links[page]
            self._emit(Kind.TABLE_DROP, page)

    def _targets(self, page: int) -> list[int]:
        entries = (self.words.get(pa, 0) for pa in range(page, page + PAGE, 8))
        return [self._target(entry) for entry in entries if self._is_link(entry)]

    def _is_link(self, entry: int) -> bool:
        inside = self.base <= self._target(entry) < self.base + self.size
        return entry & (V | R | W | X) == V and inside

    @staticmethod
    def _target(entry: int) -> int:
        return (entry >> 10 & (1 << 44) - 1) << 12

    @staticmethod
    def _index(va: int, level: int) -> int:
        return va >> 12 + 9 * level & 511

    def _emit(
        self,
        kind: Kind,
        a: int,
        b: int = 0,
        c: int = 0,
        *,
        sub: int = 0,
        hart: int = 0,
        priv: int = Priv.S,
        flags: int = 0,
        size: int = 0,
        harts: int = 0,
    ) -> None:
        self.events.append((kind, a, b, c, sub, hart, priv, flags, size, harts))
