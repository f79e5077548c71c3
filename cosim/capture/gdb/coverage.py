"""Where stop points are needed, so that no fence, ``satp`` write or table store is missed.

Points are virtual, so each physical thing of interest needs one point for each virtual address
that reaches it.  Text needs breakpoints at its executable kernel mappings.  Live tables need
watchpoints at their writable mappings, those of user memory included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from cosim.capture.gdb import pmp
from cosim.capture.gdb.aliases import Aliases
from cosim.capture.gdb.guest_text import GuestText
from cosim.capture.gdb.layout import GuestLayout, Range
from cosim.capture.gdb.stop_points import StopPoints
from cosim.capture.tables import LiveTables
from hypervisor_model.events import Priv
from hypervisor_model.isa import atp, pte

_MANY = 8
"""If so many ranges are mapped in another way, all tables are looked at."""


class Coverage:
    """Keeps the stop points where the guest needs them.

    :param layout: where the guest's code lies.
    :param tables: the live tables; :meth:`update` follows their changes.
    :param points: the points to keep.
    :param told: virtual addresses at which another source has seen a fence or a ``satp`` write.
    """

    def __init__(
        self,
        layout: GuestLayout,
        tables: LiveTables,
        points: StopPoints,
        told: Collection[int] = (),
    ) -> None:
        self._layout = layout
        self._tables = tables
        self._points = points
        self._text = GuestText(layout)
        self._writable = Aliases(pte.W)
        self._sites: set[int] = set()
        self._firmware_sites: set[int] = set()
        self._kernel_sites: set[int] = set()
        """Physical addresses, which count while there is no paging."""
        self._suspects: set[int] = set()
        self._told = frozenset(told)
        self._late: dict[int, int] = {}
        """The physical addresses of what :meth:`find_late` has found, by the virtual ones."""
        self._watched: dict[int, set[int]] = {}
        self._at: Counter[int] | None = None
        """How many tables are watched at each page; None until it is needed."""
        self._satp: int | None = None
        self._bare: bool | None = None
        self._returns: set[int] = set()
        self._place: set[int] = set()
        self._fixed = {layout.mark_at} if layout.loop is None else {layout.mark_at, layout.loop.at}
        points.breaks.add(self._fixed)
        points.sync()

    # -- the region -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Find the code that is there when the region begins, and cover it and the tables."""
        for first, size in self._layout.firmware:
            self._firmware_sites.update(self._text.scan(first, size))
        for first, size in self._layout.kernel:
            self._kernel_sites.update(self._text.scan(first, size))
        if self._without_paging():
            # Any of RAM can be executed until there is paging.
            self._kernel_sites |= self._text.everywhere()
        self._points.breaks.add(self._told)
        self.update()

    def end(self) -> None:
        """Remove all points, the mark included."""
        self._points.breaks.become(set())
        self._points.watches.become(set())

    def update(self) -> None:
        """Follow what has changed in the live tables and in ``satp``."""
        tables = self._tables
        if not (tables.added or tables.dropped or tables.leaves or tables.satp != self._satp):
            return
        self._satp = tables.satp
        moved: list[Range] = []
        for leaf, entry in tables.leaves:
            moved += self._writable.learn(leaf, entry)
            self._add_sites(self._text.learn(leaf, entry))
        tables.leaves.clear()
        bare = self._without_paging()
        pages = {page for page in tables.added if page in tables}
        pages |= self._tables_in(moved)
        for page in tables.dropped:
            self._watched.pop(page, None)
        for page in pages:
            self._watched[page] = set(self._writable.of(page))
        if pages or tables.dropped or bare != self._bare:
            # M-mode stores to physical addresses, whatever satp holds.
            physical = set(tables) if bare or self._layout.machine_mode else set()
            self._points.watches.become(physical.union(*self._watched.values()))
            self._at = None
        if bare != self._bare:
            self._bare = bare
            self._points.breaks.become(self._lasting() | self._returns)
        tables.added.clear()
        tables.dropped.clear()

    def _tables_in(self, ranges: list[Range]) -> set[int]:
        if len(ranges) > _MANY:
            return set(self._tables)
        return {
            page
            for first, size in ranges
            for page in ((first,) if size == pte.PAGE else self._tables)
            if first <= page < first + size and page in self._tables
        }

    @property
    def steady(self) -> bool:
        """True if a fence, or an entry that reaches neither tables nor text, moves no point."""
        return not (self._bare or self._layout.machine_mode or self._text.is_rewritten)

    def watched_at(self, table: int) -> int | None:
        """Return the virtual page where ``table`` is watched; None if there is not just one.

        There is none either if another table may be there, too.
        """
        addresses = self._watched.get(table, ())
        if len(addresses) != 1:
            return None
        (va,) = addresses
        if self._at is None:
            self._at = Counter(va for known in self._watched.values() for va in known)
        return va if self._at[va] == 1 else None

    def is_break(self, pc: int) -> bool:
        """Return True if a breakpoint is at ``pc``."""
        return pc in self._points.breaks

    def _without_paging(self) -> bool:
        return bool(atp.mode(self._tables.satp) == 0)

    def _lasting(self) -> set[int]:
        """Return the addresses of all breakpoints but those on the way out of the firmware."""
        sites = self._sites | self._firmware_sites | (self._kernel_sites if self._bare else set())
        return sites | self._place | self._fixed | self._told

    def _add_sites(self, found: set[int]) -> None:
        self._sites |= found
        self._points.breaks.add(found)

    def break_at_place(self, pc: int) -> None:
        """Break at ``pc``, too, until :meth:`leave_place`."""
        self._place = {pc}
        self._points.breaks.add(self._place)

    def leave_place(self) -> None:
        """Break no more at the place of :meth:`break_at_place`."""
        place, self._place = self._place, set()
        self._points.breaks.remove(place - self._lasting() - self._returns)

    # -- text that changes ----------------------------------------------------------------------

    def scan_again(self) -> None:
        """Find what the kernel has patched into its text; it fences before it executes that."""
        self._add_sites(self._text.again())

    def find_late(self) -> set[int]:
        """Find and cover sites in text that came without a change of a table.

        :return: their virtual addresses.
        """
        late = self._text.late()
        self._late |= late
        self._add_sites(set(late))
        if self._bare or self._layout.machine_mode:
            # Most of RAM is data, such as the device tree that firmware writes.  What looks like
            # a site becomes one when it is executed.
            suspects = self._text.everywhere().union(late.values())
            self._suspects |= suspects
            sites = self._firmware_sites if self._layout.machine_mode else self._kernel_sites
            sites |= suspects
            self._points.breaks.add(suspects)
        return set(late)

    def closed(self, known: Sequence[pmp.Region]) -> set[int]:
        """Return the virtual addresses of the late sites that S-mode cannot execute.

        :param known: the hart's PMP entries.
        """
        return {va for va, pa in self._late.items() if pmp.is_closed(known, pa)}

    def is_suspect(self, pc: int, priv: int) -> bool:
        """Return True if ``pc`` is code only because it is executed: it looked like data, or was
        not there yet."""
        if pc in self._told and not self._is_found(pc):
            return True
        return (bool(self._bare) or priv == Priv.M) and pc in self._suspects

    def _is_found(self, pc: int) -> bool:
        return any(pc in known for known in (self._sites, self._firmware_sites, self._kernel_sites))

    # -- one step -------------------------------------------------------------------------------

    def hide(self, pages: frozenset[int] | None) -> set[int]:
        """Take watchpoints out for a step, which would stop at them again.

        :param pages: the pages that the instruction touches; None if that is unknown.
        :return: what :meth:`reveal` is to put back.
        """
        watches = self._points.watches
        hidden = set(watches) if pages is None else {page for page in pages if page in watches}
        if hidden:
            watches.remove(hidden)
            self._points.sync()
        return hidden

    def reveal(self, hidden: set[int]) -> None:
        """Put the watchpoints back that :meth:`hide` took out."""
        self._points.watches.add(hidden)

    def skip_firmware(self, returns: set[int]) -> None:
        """Break at ``returns``, where the firmware may return to, until :meth:`firmware_left`."""
        self._returns = returns
        self._points.breaks.add(returns)
        self._points.sync()

    @property
    def skips_firmware(self) -> bool:
        """True while the firmware runs without being stepped."""
        return bool(self._returns)

    def firmware_left(self) -> None:
        """Keep the stop points of a guest that stands outside the firmware again."""
        self._points.breaks.remove(self._returns - self._lasting())
        self._returns.clear()
