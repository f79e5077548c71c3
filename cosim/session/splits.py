"""Which pages with a ``wfi`` a recording runs instruction by instruction.

:mod:`cosim.machine.waits` says why.  It is slow, so it is done only where the re-execution
will stop: in pages with an instruction that is intercepted, or with the edge of a region.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cosim.capture.gdb import instruction_scan
from cosim.capture.gdb.aliases import Aliases
from cosim.capture.gdb.stopped_guest import StoppedGuest
from cosim.capture.log import EventLog
from cosim.capture.tables import LiveTables
from cosim.debugger.rsp import Stub
from cosim.machine import waits
from cosim.machine.configuration import RAM_BASE
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan
from hypervisor_model.isa import pte


class Splits:
    """The pages to split for one recording of a plan's guest.

    :param plan: what is recorded.
    :param everywhere: the re-execution may stop in any page.
    """

    def __init__(self, plan: Plan, *, everywhere: bool) -> None:
        self._plan = plan
        self._everywhere = everywhere

    def first(self, machine: Machine) -> frozenset[int]:
        """Return the odd addresses in the pages to split before the guest of ``machine`` starts."""
        return self._points(self._pages(machine))

    def fresh(self, machine: Machine, split: frozenset[int]) -> frozenset[int]:
        """Return odd addresses in further pages, which came to need it while the guest ran.

        Only those count that the guest can execute now; for the others QEMU makes no difference.

        :param machine: it is stopped for that.
        :param split: what was split from the start.
        """
        if not machine.alive():
            # QEMU 7.2 ends with its guest.
            return frozenset()
        fresh = {page for page in self._pages(machine) if page | waits.ODD not in split}
        if not fresh:
            return frozenset()
        machine.qmp("stop")
        stub = Stub(machine.stub)
        stub.start()
        state = StoppedGuest(stub).state()
        tables = LiveTables(machine.ram_words(), RAM_BASE, EventLog())
        executable = Aliases(pte.X, without=pte.U)
        if not state.virtual:
            tables.start(state.satp)
        for leaf, entry in tables.leaves:
            executable.learn(leaf, entry)
        pages = {va for page in fresh for va in executable.of(page)}
        if self._plan.machine_mode or state.satp == 0:
            # The guest may execute what is not mapped.
            pages |= fresh
        return frozenset(page | waits.ODD for page in pages) - split

    def at(self, pc: int, machine: Machine, split: frozenset[int]) -> frozenset[int]:
        """Return an odd address in the page of ``pc`` if that has to be split, too.

        :param pc: where the guest traps without end; the re-execution stops there.
        """
        waiting = waits.pages(machine.ram_words(), RAM_BASE, machine.ram_extents())
        return frozenset({pc | waits.ODD}) & self._points(waiting) - split

    def _points(self, pages: Iterable[int]) -> frozenset[int]:
        return frozenset(waits.points(pages, self._plan.machine.linked))

    def _pages(self, machine: Machine) -> set[int]:
        """Return the physical pages that hold a ``wfi``, and in which a re-execution stops."""
        ram = machine.ram_words()
        waiting = waits.pages(ram, RAM_BASE, machine.ram_extents())
        if self._everywhere:
            return waiting
        return {page for page in waiting if self._stops_in(page, ram)}

    def _stops_in(self, page: int, ram: NDArray[np.int64]) -> bool:
        plan = self._plan
        edges = {edge.address for edge in (plan.begin, plan.end) if edge.form == "address"}
        stops = {address | waits.ODD for address in edges | {plan.mark_at}}
        return bool(
            instruction_scan.scan(ram, RAM_BASE, page, pte.PAGE) or stops & self._points({page})
        )
