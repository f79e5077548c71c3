"""Which pages of guest RAM are live page tables, and what they hold.

:class:`LiveTables` follows the rules of ``docs/architecture.md`` ("Which pages are live tables")
and writes the events that they name.  The tests compare the TCG plugin's C code with it, event by
event.  It also knows the virtual addresses that each table translates, so that a source knows
where a table can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.capture.log import EventLog
from cosim.capture.paging import ALWAYS_SETS_AD, Paging, PagingState
from cosim.capture.processes import Processes, ProcessLayout
from hypervisor_model.events import FLAG_CONT, FLAG_STOP, Envcfg, Kind, PteOp
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import kernel, plain, signed, unsigned

_PAGE = pte.PAGE
_DEVICES_END = 2 << 30

Leaf = tuple[int, int, int]
"""Which leaf: (its physical address, the virtual address that it maps, its level)."""

_USER_WRITABLE = pte.V | pte.R | pte.W | pte.U


@dataclass
class _Page:
    """One live page."""

    slot: int
    """Its row of copies."""
    links: list[int] = field(default_factory=lambda: [0] * 5)
    """How many links reach it, by level; a root counts as one."""
    root_level: int | None = None
    """The level at which it is a root."""
    bases: dict[int, set[int]] = field(default_factory=dict)
    """The virtual addresses that entry 0 stands for, by level."""


class PlainEntry(NamedTuple):
    """An entry to which a store may be plain (:meth:`LiveTables.plain_entry`)."""

    word: int
    """Where it is in RAM, in words."""
    old: int
    """What it holds, an int64."""
    live: _Page
    """The table that it is in."""


@kernel
def _first_difference(
    ram: NDArray[np.int64],
    pages: NDArray[np.int64],
    copies: NDArray[np.int64],
    slots: int,
    start: int,
) -> int:
    """Return slot * 512 + index of the first entry from slot ``start`` on that differs, or -1.

    ``pages[slot]`` is the number of the page in ``ram``, or -1 if the slot is free.
    """
    for slot in range(start, slots):
        page = pages[slot]
        if page < 0:
            continue
        first = page * 512
        differs = 0
        for i in range(512):
            differs |= ram[first + i] ^ copies[slot, i]
        if differs != 0:
            for i in range(512):
                if ram[first + i] != copies[slot, i]:
                    return slot * 512 + i
    return -1


@kernel
def _next_user_leaf(
    pages: NDArray[np.int64], copies: NDArray[np.int64], slots: int, start: int, page: int
) -> int:
    """Return the first entry from ``start`` on that may let user mode write to ``page``, or -1.

    It is a writable leaf with U, and maps ``page`` if its table is used at the right level.
    ``start`` and the result are slot * 512 + index.
    """
    for at in range(start, slots * pte.ENTRIES):
        slot = at // pte.ENTRIES
        entry = copies[slot, at - slot * pte.ENTRIES]
        if entry & _USER_WRITABLE != _USER_WRITABLE or pages[slot] < 0:
            continue
        first = pte.target(entry)
        for level in range(5):
            size = 1 << pte.level_bits(level)
            if first & (size - 1) == 0 and first == page & -size:
                return at
    return -1


_is_leaf, _is_link, _target = plain(pte.is_leaf), plain(pte.is_link), plain(pte.target)
_level_bits = plain(pte.level_bits)
_mode, _root = plain(atp.mode), plain(atp.root)


def _is_kernel_leaf(entry: int) -> bool:
    return not entry & pte.U and _is_leaf(entry)


class LiveTables:
    """The live tables of one guest.

    :param ram: guest RAM as int64 words, shared with the guest.
    :param base: physical address of ``ram[0]``.
    :param log: receives the events.
    :param paging: what the CPU has of the paging features that a guest can switch.
    :param processes: where the guest's kernel keeps which process owns an address space; None if
        that is not known.

    Three lists tell a source what has changed; the source empties them.  ``added`` and ``dropped``
    hold the pages that came and went.  ``leaves`` holds (which leaf, entry) for each leaf that came
    into sight or was replaced, if it has no U, or is writable and maps a live table.  Other leaves
    with U are many, and no source needs them.
    """

    def __init__(
        self,
        ram: NDArray[np.int64],
        base: int,
        log: EventLog,
        paging: Paging = ALWAYS_SETS_AD,
        processes: ProcessLayout | None = None,
    ) -> None:
        self._ram = ram
        self._base = base
        self._end = base + ram.nbytes
        self._log = log
        self._pages: dict[int, _Page] = {}
        self._slots = 0
        self._free: list[int] = []
        self._index = np.full(256, -1, dtype=np.int64)
        self._copies = np.zeros((256, pte.ENTRIES), dtype=np.int64)
        self._top = 0
        self.satp = 0
        self.paging = PagingState(paging)
        self.processes = Processes(ram, base, processes)
        self.added: list[int] = []
        self.dropped: list[int] = []
        self.leaves: list[tuple[Leaf, int]] = []

    def __contains__(self, page: int) -> bool:
        return page in self._pages

    def __iter__(self) -> Iterator[int]:
        return iter(self._pages)

    def __len__(self) -> int:
        return len(self._pages)

    def holds(self, pa: int) -> bool:
        """Return True if ``pa`` lies in guest RAM."""
        return self._base <= pa < self._end

    def ram_entry(self, pa: int) -> int:
        """Return the 8-byte word of RAM that ``pa`` lies in, as an int64."""
        return int(self._ram[(pa - self._base) >> 3])

    def copy(self, page: int) -> NDArray[np.int64]:
        """Return the 512 entries of a live page as the events have shown them."""
        row: NDArray[np.int64] = self._copies[self._pages[page].slot]
        return row

    def bases(self, page: int) -> dict[int, set[int]]:
        """Return the virtual addresses that entry 0 of a live page stands for, by level."""
        return self._pages[page].bases

    # -- what the guest does --------------------------------------------------------------------

    def start(self, satp: int) -> None:
        """Begin the region with ``satp`` loaded (rule 1)."""
        self.satp = signed(satp)
        self._load_root(self.satp)
        process = self.processes.loaded(satp)
        self._log.add(Kind.SATP_WRITE, satp, satp, process, flags=FLAG_STOP)

    def write_satp(self, old: int, new: int) -> None:
        """Take in a write of ``satp`` (rule 5)."""
        self.processes.leaves(self.satp)
        self._log.add(Kind.SATP_WRITE, old, new, self.processes.loaded(new))
        self.satp = signed(new)
        self._load_root(self.satp)

    def write_envcfg(self, register: Envcfg, old: int, new: int) -> None:
        """Take in a write of ``menvcfg`` or ``henvcfg``."""
        self.paging.written(register, old, new, self._log)

    def store(self, parts: Sequence[tuple[int, int]], size: int, op: PteOp) -> None:
        """Take in an executed store of ``size`` bytes; RAM has its result (rules 3 to 5).

        :param parts: (physical address, bytes) of what it wrote, in order of virtual address.
            There are two if a misaligned store crosses a page.  Parts outside live pages are
            ignored.
        """
        first, _ = parts[0]
        small = size < 8 or (first & 7) + size > 8
        written = [(pa, range(pa & ~7, pa + length, 8)) for pa, length in parts]
        for pa, entries in written:
            if pa & -_PAGE in self._pages:
                self._retire_for_store(pa & -_PAGE, entries, small)
        flags = 0
        for pa, entries in written:
            for entry in entries:
                if entry & -_PAGE in self._pages:
                    self._entry_written(entry, max(pa, entry), size, op, flags)
                    flags = FLAG_CONT

    def plain_entry(self, pa: int) -> PlainEntry | None:
        """Return the entry at ``pa`` if a store to it may be plain.

        A plain store changes one entry and nothing else: no table comes or goes, and neither
        tables nor text are reached in another way.
        """
        live = self._pages.get(pa & -_PAGE)
        if live is None or (live.root_level is not None and not self._loaded(pa & -_PAGE)):
            return None
        old = int(self._copies[live.slot, (pa & (_PAGE - 1)) >> 3])
        if not self._is_plain(live, old):
            return None
        return PlainEntry((pa - self._base) >> 3, old, live)

    def is_plain_store(self, entry: PlainEntry, new: int) -> bool:
        """Return True if a store of ``new``, an int64, to ``entry`` is plain.

        It must change more than A and D, because nothing else shows that it ran (:meth:`shows`).
        """
        changes = (entry.old ^ new) & ~(pte.A | pte.D)
        return bool(changes) and self._is_plain(entry.live, new)

    def in_ram(self, entry: PlainEntry) -> int:
        """Return what RAM has in ``entry``, an int64."""
        return int(self._ram[entry.word])

    def shows(self, entry: PlainEntry, value: int) -> bool:
        """Return True if RAM has ``value`` in ``entry``.  The MMU may have set A and D since."""
        return not (self.in_ram(entry) ^ value) & ~(pte.A | pte.D)

    def _is_plain(self, live: _Page, entry: int) -> bool:
        if not entry & pte.V:
            return True
        if not entry & (pte.R | pte.X) or entry & pte.N or entry & (pte.X | pte.U) == pte.X:
            return False
        if not entry & (pte.W | pte.U):
            return True
        return _target(entry) not in self._pages and not any(live.links[1:])

    def plain_store_done(self, pa: int, size: int, op: PteOp, new: int) -> None:
        """Take in a plain store of ``new`` to ``pa`` that has run."""
        self._entry_written(pa & ~7, pa, size, op, 0, new)

    def found(self, pa: int, op: PteOp = PteOp.OTHER) -> None:
        """Take in an entry that differs in RAM though no store explains it."""
        # What was found before it may have retired its table.
        if pa & -_PAGE in self._pages:
            self._entry_written(pa, pa, 8, op, 0)

    def vector_store(self) -> None:
        """Take in an executed vector store; its registers do not say what it wrote.

        Every entry that differs is its work, unless the MMU may have done it.  It counts as a store
        of more than one entry (rule 5 a).
        """
        changed = [pa for pa, old, new in self.differences() if not self.is_by_mmu(old, new)]
        for pa in changed:
            if pa & -_PAGE in self._pages:
                self._retire_for_store(pa & -_PAGE, range(pa, pa + 8, 8), small=True)
        flags = 0
        for pa in changed:
            if pa & -_PAGE in self._pages:
                self._entry_written(pa, pa, 0, PteOp.VECTOR, flags)
                flags = FLAG_CONT

    def is_by_mmu(self, old: int, new: int) -> bool:
        """Return True if the MMU may have made a change: it sets A, or A and D, in leaves."""
        added = new & ~old
        kept = old & ~new == 0 and added & ~(pte.A | pte.D) == 0
        return self.paging.sets_ad and _is_leaf(old) and kept

    def changed(self, pa: int, size: int) -> bool:
        """Return True if a store to an entry in ``size`` bytes at ``pa`` must have run.

        A change of A and D alone proves nothing: the MMU may have made it.  Nor does a page that
        is not live.
        """
        live = self._pages.get(pa & -_PAGE)
        if live is None:
            return False
        copy = self._copies[live.slot]
        return any(
            (self.ram_entry(entry) ^ int(copy[(entry & (_PAGE - 1)) >> 3])) & ~(pte.A | pte.D)
            for entry in range(pa & -8, pa + size, 8)
        )

    def differences(self) -> list[tuple[int, int, int]]:
        """Compare all live pages with RAM.

        :return: (PA of the entry, copy, RAM) of each difference, by PA.
        """
        found: list[tuple[int, int, int]] = []
        start = 0
        while True:
            at = int(_first_difference(self._ram, self._index, self._copies, self._slots, start))
            if at < 0:
                return sorted(found)
            start = at >> 9
            page = self._base + int(self._index[start]) * _PAGE
            row = self._copies[start]
            now = self._ram[(page - self._base) >> 3 :][: pte.ENTRIES]
            for i in map(int, np.flatnonzero(row != now)):
                found.append((page + 8 * i, int(row[i]), int(now[i])))
            start += 1

    # -- links ----------------------------------------------------------------------------------

    def _load_root(self, satp: int) -> None:
        level = int(atp.levels(atp.mode(satp))) - 1
        page = int(atp.root(satp))
        if level < 0 or not self.holds(page):
            return
        self._top = level
        live = self._pages.get(page)
        if live is not None and live.root_level is not None:
            return
        self._add(page, level, 0, root=True)
        self._pages[page].root_level = level

    def _add(self, page: int, level: int, base: int, root: bool = False) -> None:
        """Count a link at ``level`` that reaches ``page`` (rule 2)."""
        live = self._pages.get(page)
        if live is None:
            live = self._read(page, level, root)
            self._note_user_leaves(page)
        live.links[level] += 1
        bases = live.bases.setdefault(level, set())
        fresh = base not in bases
        bases.add(base)
        if live.links[level] == 1:
            self._for_links(live, level, base, self._add)
            self._note_leaves(page, live, level)
        elif fresh:
            self._for_links(live, level, base, self._extend)
            self._note_leaves(page, live, level)

    def _extend(self, page: int, level: int, base: int) -> None:
        """Note that a live table is reached under one more virtual address."""
        bases = self._pages[page].bases.setdefault(level, set())
        if base not in bases:
            bases.add(base)
            self._for_links(self._pages[page], level, base, self._extend)
            self._note_leaves(page, self._pages[page], level)

    def _for_links(
        self, live: _Page, level: int, base: int, do: Callable[[int, int, int], None]
    ) -> None:
        if level == 0:
            return
        row = self._copies[live.slot]
        for index in np.flatnonzero(row & pte.V):
            entry = int(row[index])
            if self._links(entry):
                do(_target(entry), level - 1, self._virtual(base, int(index), level))

    def _remove(self, page: int, level: int, base: int = 0) -> None:
        """Discount a link at ``level`` that reaches ``page`` no more (rule 4)."""
        live = self._pages[page]
        live.links[level] -= 1
        if live.links[level]:
            return
        live.bases.pop(level, None)
        self._for_links(live, level, 0, self._remove)
        # A table that links to itself may have been dropped by one of its own links.
        if not any(live.links) and self._pages.get(page) is live:
            self._log.add(Kind.TABLE_DROP, page)
            self._index[live.slot] = -1
            self._free.append(live.slot)
            del self._pages[page]
            self.dropped.append(page)

    def _links(self, entry: int) -> bool:
        return _is_link(entry) and self.holds(_target(entry))

    def _read(self, page: int, level: int, root: bool) -> _Page:
        """Make a page live: copy it and write its events."""
        slot = self._free.pop() if self._free else self._slots
        if slot == self._slots:
            self._slots += 1
            if slot == len(self._index):
                self._index = np.concatenate([self._index, np.full(slot, -1, dtype=np.int64)])
                self._copies = np.concatenate([self._copies, np.zeros_like(self._copies)])
        row = self._copies[slot]
        first = (page - self._base) >> 3
        row[:] = self._ram[first : first + pte.ENTRIES]
        self._index[slot] = (page - self._base) >> pte.PAGE_BITS
        live = self._pages[page] = _Page(slot)
        self._log.add(Kind.TABLE_ADD, page, level, sub=int(root))
        for index in np.flatnonzero(row):
            self._log.add(Kind.TABLE_ENTRY, page + 8 * int(index), 0, int(row[index]))
        self.added.append(page)
        return live

    # -- stores ---------------------------------------------------------------------------------

    def _entry_written(
        self, entry: int, at: int, size: int, op: int, flags: int, value: int | None = None
    ) -> None:
        """One entry was written (rule 3).

        :param value: what was written; None: what is in RAM.
        """
        page = entry & -_PAGE
        live = self._pages[page]
        index = (entry & (_PAGE - 1)) >> 3
        old = int(self._copies[live.slot, index])
        new = self.ram_entry(entry) if value is None else value
        self._copies[live.slot, index] = new
        self._log.add(Kind.PTE_WRITE, at, old, new, sub=op, flags=flags, size=size)
        if new == old:
            return
        for level in range(len(live.links)):
            if not live.links[level] or self._pages.get(page) is not live:
                continue
            if level:
                bases = {self._virtual(b, index, level) for b in live.bases.get(level, ())}
                if self._links(new):
                    self._link(_target(new), level - 1, bases)
                if self._links(old):
                    self._remove(_target(old), level - 1)
            if _is_leaf(new):
                self._leaf_written(new, level)
            if self._is_followed(old, level) or self._is_followed(new, level):
                self._note_leaf(page, live, level, index)

    def _link(self, page: int, level: int, bases: set[int]) -> None:
        first, *rest = sorted(bases) or [0]
        self._add(page, level, first)
        for base in rest:
            self._extend(page, level, base)

    def _note_leaves(self, page: int, live: _Page, level: int) -> None:
        row = self._copies[live.slot]
        kernel_leaf = ((row & (pte.V | pte.U)) == pte.V) & ((row & (pte.R | pte.X)) != 0)
        user_leaf = (row & _USER_WRITABLE) == _USER_WRITABLE
        for index in np.flatnonzero(kernel_leaf | user_leaf):
            entry = int(row[index])
            if kernel_leaf[index] or self._opens_table(entry, level):
                self._note_leaf(page, live, level, int(index))

    def _note_leaf(self, page: int, live: _Page, level: int, index: int) -> None:
        for base in live.bases.get(level, ()):
            leaf = page + 8 * index, self._virtual(base, index, level), level
            self.leaves.append((leaf, int(self._copies[live.slot, index])))

    def _note_user_leaves(self, page: int) -> None:
        """Note the leaves that mapped ``page`` as user memory before it became live."""
        at = -1
        while True:
            start = at + 1
            at = int(_next_user_leaf(self._index, self._copies, self._slots, start, page))
            if at < 0:
                return
            slot, index = divmod(at, pte.ENTRIES)
            table = self._base + int(self._index[slot]) * _PAGE
            live = self._pages[table]
            for level in live.bases:
                if self._opens_table(int(self._copies[slot, index]), level):
                    self._note_leaf(table, live, level, index)

    def _opens_table(self, entry: int, level: int) -> bool:
        """Return True if a leaf lets user mode, or S-mode with SUM, write to a live table."""
        if entry & _USER_WRITABLE != _USER_WRITABLE:
            return False
        return bool(self._mapped_pages(entry, level))

    def _is_followed(self, entry: int, level: int) -> bool:
        """Return True if a source needs to know of a leaf."""
        return _is_kernel_leaf(entry) or self._opens_table(entry, level)

    def _mapped_pages(self, entry: int, level: int) -> list[int]:
        """Return the live pages that a leaf maps."""
        size = 1 << _level_bits(level)
        first = _target(entry) & -size
        if size == _PAGE:
            return [first] if first in self._pages else []
        return [page for page in self._pages if first <= page < first + size]

    def _retire_for_store(self, page: int, entries: range, small: bool) -> None:
        """Retire a root that the store shows to be none (rule 5 a, b, d); before its event."""
        live = self._pages[page]
        if live.root_level is None or self._loaded(page):
            return
        unmapped = page + 8 * ((self._log.pc >> _level_bits(live.root_level)) & 511)
        if (
            small
            or any(self._malformed(self.ram_entry(entry)) for entry in entries)
            or (unmapped in entries and not self.ram_entry(unmapped) & pte.V)
        ):
            self._retire(page)

    def _malformed(self, entry: int) -> bool:
        if entry & pte.RESERVED:
            return True
        target = _target(entry)
        return bool(entry & pte.V) and not self.holds(target) and target >= _DEVICES_END

    def _leaf_written(self, entry: int, level: int) -> None:
        """Retire the roots that a user leaf maps now (rule 5 c)."""
        if not entry & pte.U:
            return
        pages = self._mapped_pages(entry, level)
        roots = [page for page in pages if self._pages[page].root_level is not None]
        for page in sorted(roots):
            if not self._loaded(page):
                self._retire(page)

    def _loaded(self, page: int) -> bool:
        return _mode(self.satp) != 0 and _root(self.satp) == page

    def _retire(self, page: int) -> None:
        live = self._pages[page]
        level, live.root_level = live.root_level, None
        if level is not None:
            self._remove(page, level)

    def _virtual(self, base: int, index: int, level: int) -> int:
        """Return the virtual address, unsigned, of entry ``index`` of a table at ``level``."""
        offset = index << _level_bits(level)
        if level == self._top and index & 256:
            # The upper half: canonical addresses extend the sign from the root's top bit.
            offset -= pte.ENTRIES << _level_bits(level)
        return unsigned(signed(base) + offset)
