"""Options of ``cosim walk``, ``maps`` and ``find``: where the tables are, and which space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from cosim.commands.trace_place import TracePlace
from cosim.errors import UsageError
from cosim.output import note
from cosim.paging.physical import PhysicalMemory
from cosim.paging.sources import dumps
from cosim.paging.space import Space
from hypervisor_model.events import Priv
from hypervisor_model.mmu import Status

if TYPE_CHECKING:
    from cosim.trace.location import Location

F = TypeVar("F", bound=Callable[..., Any])

SOURCES = """The tables come from a raw image of RAM (--ram, --base), an ELF core or a kdump file
    (--core), or a trace (--trace, --at).  Give the root with --satp, or with --vsatp and --hgatp.
    A trace knows its satp, and in a dump of Linux the kernel's own is found."""
"""For the help of a command, whose lines have this indentation."""


def number(text: str) -> int:
    """Return the unsigned 64-bit number ``text``, decimal or with ``0x``.

    :raises BadParameter: when it is no such number.
    """
    try:
        value = int(text, 0)
    except ValueError:
        message = f"{text!r} is not a number; write for example 0x80200000"
        raise click.BadParameter(message) from None
    if not 0 <= value < 1 << 64:
        raise click.BadParameter(f"{text} does not fit 64 bits")
    return value


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--ram",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Raw image of RAM, or the RAM of a running session; it is only read.",
    ),
    click.option(
        "--base", type=number, metavar="ADDR", help="Physical address of the image's first byte."
    ),
    click.option(
        "--core",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="ELF core or kdump file (dump-guest-memory, /proc/vmcore, makedumpfile).",
    ),
    click.option(
        "--trace",
        metavar="TRACE",
        type=TracePlace(),
        help="Trace that `cosim capture` wrote.",
    ),
    click.option(
        "--at",
        type=click.IntRange(0),
        metavar="EVENT",
        help="Number of the event just before which to look; the end of the trace if not given.",
    ),
    click.option("--hart", type=click.IntRange(0), metavar="N", help="Hart of the trace.  [0]"),
    click.option("--satp", type=number, metavar="X", help="satp for one stage."),
    click.option("--vsatp", type=number, metavar="X", help="vsatp for two stages; needs --hgatp."),
    click.option("--hgatp", type=number, metavar="Y", help="hgatp for two stages; needs --vsatp."),
    click.option("--svpbmt", is_flag=True, help="Enable Svpbmt."),
]


def memory_options(function: F) -> F:
    """Add the options of :class:`Asked` to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class Asked(NamedTuple):
    """The values of :func:`memory_options`."""

    ram: Path | None
    base: int | None
    core: Path | None
    trace: Path | Location | None
    at: int | None
    hart: int | None
    satp: int | None
    vsatp: int | None
    hgatp: int | None
    svpbmt: bool

    def open(self) -> Opened:
        """Return the memory and the address space that were asked for.

        :raises UsageError: when options are missing or do not fit, or a file cannot be read.
        """
        given = [name for name in ("ram", "core", "trace") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError("give one of --ram (with --base), --core and --trace")
        if (self.base is not None) != (self.ram is not None):
            raise UsageError("--ram and --base go together")
        if self.trace is None and (self.at is not None or self.hart is not None):
            raise UsageError("--at and --hart are for --trace")
        if self.trace is not None:
            return self.of_trace(self.at)
        if self.core is not None:
            memory = dumps.open_core(self.core)
        else:
            assert self.ram is not None and self.base is not None
            memory = dumps.open_image(self.ram, self.base)
        satp = self.satp
        if (satp, self.vsatp, self.hgatp) == (None, None, None):
            satp = dumps.linux_satp(memory)
            if satp is None:
                raise UsageError(
                    "the file does not say which tables to use: give either --satp, "
                    "or --vsatp and --hgatp"
                )
            note(f"satp {satp:#018x}: the kernel's own, from Linux's notes for crash dumps")
        return Opened(memory, self._space(satp, Status()))

    def of_trace(self, event: int | None) -> Opened:
        """Return the tables of the trace just before an event.

        :raises UsageError: when the trace cannot be read, or has no such event or hart.
        """
        assert self.trace is not None
        # pyarrow takes long to load, and only traces need it.
        from cosim.paging.sources import trace_point
        from cosim.trace.reader import TraceReader

        if self.vsatp is not None or self.hgatp is not None:
            raise UsageError("a trace has no tables of virtual machines; give --satp or nothing")
        trace = TraceReader(self.trace)
        point = trace_point.at_event(trace, event)
        space = point.registers(self.hart or 0).space(satp=self.satp)
        machine = trace.origin.machine
        status = replace(
            space.status,
            adue=space.status.adue or machine.svadu,
            pbmte=space.status.pbmte or machine.svpbmt,
            svnapot=machine.svnapot,
        )
        return Opened(point, self._space(space.satp, status))

    def _space(self, satp: int | None, status: Status) -> Space:
        on = status.pbmte or self.svpbmt
        status = replace(status, pbmte=on, g_pbmte=on, priv=Priv.S)
        return Space(satp=satp, vsatp=self.vsatp, hgatp=self.hgatp, status=status)


class Opened(NamedTuple):
    """A memory, and the address space in it."""

    memory: PhysicalMemory
    space: Space
