"""Random page tables of every kind, sound and broken, for the differential tests.

One :class:`Tables` lays out tables of all modes in a *pool* of physical pages, for addresses whose
low bits fall into a *data* range, so that superpages of any size lead there, too.  What it makes
depends on the ``random.Random`` alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.hypervisor_model.reference_mmu import Hart, Memory, translate

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
BREAKAGE = (0.0, 0.005, 0.02, 0.06)
SOUND = (V | R, V | R | W, V | X, V | R | X, V | R | W | X)


@dataclass
class Layout:
    """Where things lie in physical memory; all are multiples of 2 MiB but the pool's."""

    pool: int
    pool_pages: int
    data: int
    data_size: int
    outside: int
    """An address behind which there is neither RAM nor a device."""


@dataclass
class Space:
    """Register values (unsigned) and the addresses that were laid out under them."""

    satp: int
    hgatp: int | None
    addresses: list[int]
    modes: tuple[int, int | None]


@dataclass
class _Frozen(Memory):
    def write(self, address: int, value: int) -> None:
        """Ignored: a look at the tables must not set A or D."""


class Tables:
    """Makes tables in the reference's memory."""

    def __init__(
        self,
        rng: random.Random,
        layout: Layout,
        memory: Memory,
    ) -> None:
        self.rng = rng
        self.layout = layout
        self.memory = memory
        self.breakage = 0.0
        """Probability of each way in which an entry may be spoilt; drawn for each space, since
        a two-stage walk of uniformly bad tables never gets anywhere."""
        self._next = 0

    def page(self, pages: int = 1) -> int:
        """Take ``pages`` contiguous pages, aligned to their size, from the pool."""
        self._next = -(-self._next // pages) * pages
        if self._next + pages > self.layout.pool_pages:
            raise IndexError("pool exhausted")
        page = self.layout.pool + 4096 * self._next
        self._next += pages
        return page

    def room(self) -> int:
        """Pages left in the pool."""
        return self.layout.pool_pages - self._next

    def address(self, levels: int, extra_bits: int = 0) -> int:
        """An address to map: mostly one whose low bits lie in the data range."""
        rng = self.rng
        width = 12 + 9 * levels + extra_bits
        # Superpages of 1 GiB and more start at a multiple of their size: to reach RAM the bits
        # below must be those of the data itself.
        low = self.layout.data + rng.randrange(self.layout.data_size)
        if rng.random() < 0.7:
            # Few different indices, so that paths meet and share tables.
            for level in range(levels):
                if rng.random() < 0.25:
                    index = rng.choice((0, 1, 2, 16, 17, 31, 255, 256, 511))
                    low = low & ~(511 << (12 + 9 * level)) | index << (12 + 9 * level)
        low |= rng.choice((0, 0, 1, 5, 511)) << max(width - 9, 39 if levels > 3 else 32)
        low &= (1 << width) - 1
        if extra_bits:
            return low & ~7
        if low >> (width - 1):
            low |= ~((1 << width) - 1) & ((1 << 64) - 1)
        if rng.random() < 0.04:
            low ^= 1 << rng.randrange(width - 1, 64)
        return low & ~7

    def pointer(self, page: int) -> int:
        """A non-leaf entry, rarely spoilt."""
        entry = page >> 2 | V
        if self.rng.random() < 0.2:
            entry |= G
        if self.rng.random() < self.breakage:
            entry ^= 1 << self.rng.choice((0, 2, 4, 6, 7, 54, 60, 61, 62, 63))
        if self.rng.random() < self.breakage / 3:
            entry = self.layout.outside >> 2 | V
        return entry

    def leaf(self, level: int, user: float = 0.5) -> int:
        """A leaf for ``level``, now and then spoilt in one of the many possible ways."""
        rng = self.rng
        rare = self.breakage
        harsh = rare / 0.06
        entry = V | R | W | X if rng.random() > 0.3 + harsh / 2 else rng.choice(SOUND)
        if rng.random() < rare:
            entry = rng.choice((0, W, W | X, R, V | W, V | W | X))
        entry |= U if rng.random() < user else 0
        entry |= rng.choice((0, G))
        entry |= 0 if rng.random() < 0.05 + 0.15 * harsh else A
        entry |= 0 if rng.random() < 0.1 + 0.25 * harsh else D
        size = 1 << (12 + 9 * level)
        if size <= self.layout.data_size:
            target = self.layout.data + rng.randrange(self.layout.data_size // size) * size
        else:
            target = self.layout.data // size * size
        if level and rng.random() < rare:
            target += 4096 << rng.randrange(9 * level)
        if rng.random() < rare:
            target = self.layout.outside + rng.randrange(1 << 20) * 4096
        entry |= target >> 2
        if level == 0 and rng.random() < 0.15:
            # Svnapot: ppn[3:0] = 1000, sometimes another value.
            low = 8 if rng.random() > 0.5 * harsh else rng.choice((0, 4, 12, 9))
            entry = entry & ~(15 << 10) | low << 10 | 1 << 63
        elif rng.random() < rare:
            entry |= 1 << 63
        if rng.random() < 0.02 + 0.1 * harsh:
            entry |= rng.randrange(4) << 61
        if rng.random() < rare:
            entry |= 1 << rng.randrange(54, 61)
        return entry

    def path(
        self,
        root: int,
        levels: int,
        address: int,
        *,
        extra_bits: int = 0,
        leaf: int | None = None,
        user: float = 0.5,
        table: Callable[[], int] | None = None,
        pages: dict[int, int] | None = None,
    ) -> bool:
        """Make entries for ``address`` as far down as needed; entries that exist stay.

        ``leaf`` forces this level-0 entry and pointers above; ``table`` gives a page for a table
        at its guest-physical address, ``pages`` where such pages really are.  Returns whether
        anything was made.
        """
        table = table or self.page
        made = False
        at = root
        for level in range(levels - 1, -1, -1):
            bits = 9 + (extra_bits if level == levels - 1 else 0)
            where = at + 8 * (address >> (12 + 9 * level) & ((1 << bits) - 1))
            if pages is not None:
                if where & ~4095 not in pages:
                    return made
                where = pages[where & ~4095] + where % 4096
            if not 0 <= where - self.memory.base < self.memory.size:
                return made
            entry = self.memory.words.get(where, 0)
            if entry == 0:
                rng = self.rng
                if leaf is not None:
                    entry = self.pointer(table()) if level else leaf
                elif level == 0:
                    broken = rng.random() < self.breakage / 3
                    entry = self.pointer(self.layout.pool) if broken else self.leaf(0, user)
                elif rng.random() < 0.25:
                    entry = self.leaf(level, user)
                else:
                    entry = self.pointer(table())
                self.memory.words[where] = entry
                made = True
            if entry & (V | R | W | X) != V:
                return made
            at = (entry >> 10 & ((1 << 44) - 1)) << 12
        return made

    def one_stage(self, mode: int, count: int) -> Space:
        """A root with ``count`` addresses for ``satp`` in ``mode`` (0 = Bare)."""
        self.breakage = self.rng.choice(BREAKAGE)
        if mode == 0:
            return Space(0, None, [self._bare_address() for _ in range(count)], (0, None))
        root = self.page()
        addresses = [self.address(mode - 5) for _ in range(count)]
        for address in addresses:
            self.path(root, mode - 5, address)
        asid = self.rng.randrange(1 << 16)
        return Space(mode << 60 | asid << 44 | root >> 12, None, addresses, (mode, None))

    def two_stage(self, mode: int, g_mode: int, count: int) -> Space:
        """Roots with ``count`` addresses for ``vsatp`` in ``mode`` over ``hgatp`` in ``g_mode``."""
        rng = self.rng
        self.breakage = rng.choice(BREAKAGE)
        g_root = self.page(4) if g_mode else 0
        hgatp = (g_mode << 60 | rng.randrange(1 << 14) << 44 | g_root >> 12) if g_mode else 0
        pages: dict[int, int] = {}

        def table() -> int:
            real = self.page()
            if not g_mode:
                pages[real] = real
                return real
            gpa = rng.randrange(1 << 20, 1 << 25) << 12
            if rng.random() < self.breakage / 3:
                gpa |= 1 << 41
            entry = real >> 2 | V | R | W | U | A | D
            if rng.random() < 0.02 + 2 * self.breakage:
                entry ^= rng.choice((R, W, W, U, A, D, D, G))
            self.path(g_root, g_mode - 5, gpa, extra_bits=2, leaf=entry)
            pages[gpa] = real
            return gpa

        satp = 0
        if mode:
            satp = mode << 60 | rng.randrange(1 << 16) << 44 | table() >> 12
        root = (satp & ((1 << 44) - 1)) << 12
        addresses = []
        for _ in range(count):
            if mode:
                address = self.address(mode - 5)
                self.path(root, mode - 5, address, table=table, pages=pages)
            elif g_mode:
                address = self.address(g_mode - 5, 2)
                if rng.random() < 0.04:
                    address |= 1 << rng.randrange(g_mode * 9 - 31, 64)
            else:
                address = self._bare_address()
            addresses.append(address)
            self._map_guest(satp, hgatp, address)
        return Space(satp, hgatp, addresses, (mode, g_mode))

    def _map_guest(self, satp: int, hgatp: int, address: int) -> None:
        """Give the guest-physical addresses that a translation needs G-stage entries."""
        seen = _Frozen(self.memory.base, self.memory.size, self.memory.words)
        hart = Hart(
            seen,
            satp,
            hgatp,
            sum=True,
            mxr_both=True,
            adue=True,
            g_adue=True,
            pbmte=True,
            g_pbmte=True,
        )
        root = (hgatp & ((1 << 44) - 1)) << 12
        while True:
            out = translate(hart, address, "load")
            if out.cause is None or out.cause < 20 or out.gpa is None:
                return
            levels = (hgatp >> 60) - 5
            if out.gpa >> (14 + 9 * levels):
                return
            if not self.path(root, levels, out.gpa, extra_bits=2, user=1 - self.breakage):
                return

    def _bare_address(self) -> int:
        if self.rng.random() < 0.1:
            return self.layout.outside + self.rng.randrange(1 << 20) * 8
        if self.rng.random() < 0.1:
            # A valid physical address but for one bit above the physical address space.
            return self.layout.data | 1 << self.rng.randrange(56, 64)
        return (self.layout.data + self.rng.randrange(self.layout.data_size)) & ~7
