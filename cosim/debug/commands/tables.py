"""``paging walk``, ``maps``, ``find`` and ``tables``: what the page tables hold at this moment."""

from __future__ import annotations

import contextlib

import click

from cosim.debug.commands.arguments import NUMBER, space_options
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Answer
from cosim.errors import UsageError
from cosim.paging import rendering
from cosim.paging.changes import changes
from cosim.paging.explain import explain
from cosim.paging.filter_options import filter_options
from cosim.paging.find import find as find_pa
from cosim.paging.maps import Filter
from cosim.paging.maps import maps as ranges_of
from cosim.paging.scan import Scan
from cosim.paging.table_pages import table_pages
from hypervisor_model.events import Access

_ACCESSES = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}


@click.command()
@click.argument("va", metavar="VA", type=NUMBER)
@space_options
@click.option(
    "--access",
    type=click.Choice(list(_ACCESSES)),
    default="read",
    show_default=True,
    help="Kind of access.",
)
@click.pass_obj
def walk(debuggee: Debuggee, va: int, mode: str | None, satp: int | None, access: str) -> Answer:
    """Translate VA, level by level, and say why it faults.

    Example: paging walk $sp
    """
    found = explain(debuggee.memory(), debuggee.space(mode, satp), va, _ACCESSES[access])
    return Answer("\n".join(rendering.walk_lines(found)), rendering.walk_document(found))


@click.command()
@click.argument("first", metavar="[FIRST", type=NUMBER, default="0")
@click.argument("last", metavar="LAST]", type=NUMBER, default="0xffffffffffffffff")
@space_options
@filter_options
@click.option("--diff", is_flag=True, help="Show what has changed since the last stop.")
@click.option("--since", metavar="NAME", help="Show what has changed since this snapshot.")
@click.pass_obj
def maps(
    debuggee: Debuggee,
    first: int,
    last: int,
    mode: str | None,
    satp: int | None,
    has: str,
    lacks: str,
    user: bool,
    kernel: bool,
    size: str | None,
    pbmt: str | None,
    coarse: bool,
    diff: bool,
    since: str | None,
) -> Answer:
    """List the mapped ranges; neighbours that are mapped alike are one.

    In a recorded Linux, the last line names the process that owns them.

    Example: paging maps --user --has w
    """
    if diff and since is not None:
        raise UsageError("--diff and --since cannot be used together; leave one out")
    if last < first:
        raise UsageError(f"the range ends at {last:#x}, before it begins at {first:#x}")
    wanted = Filter.named(
        has=has,
        lacks=lacks,
        user=user,
        kernel=kernel,
        low=first,
        high=last,
        size=size,
        pbmt=pbmt,
    )
    scan = debuggee.scan(mode, satp)
    if diff or since is not None:
        old = _earlier(debuggee, since)
        found = changes(old, scan, wanted, coarse=coarse)
        lines = rendering.changes_lines(old, scan, found)
        return Answer("\n".join(lines), rendering.changes_document(scan, found))
    ranges = ranges_of(scan, wanted, coarse=coarse)
    lines, document = rendering.maps_lines(scan, ranges), rendering.maps_document(scan, ranges)
    own = satp is None and not (mode or "").startswith("V")
    owner = debuggee.process() if own else None
    if owner is not None:
        lines.append(f"of the process {owner.name} (pid {owner.pid})")
        document |= {"process": owner.name, "pid": owner.pid}
    return Answer("\n".join(lines), document)


_THIS_STOP, _LAST_STOP = "this stop", "last stop"


def note_stop(debuggee: Debuggee) -> None:
    """Keep what the address space maps at this stop, for ``maps --diff`` at the next one."""
    if not debuggee.shares_ram:
        # Each table would be read through gdb, at every stop.
        return
    scans = debuggee.scans
    if _THIS_STOP in scans:
        scans[_LAST_STOP] = scans[_THIS_STOP]
    with contextlib.suppress(UsageError):
        scans[_THIS_STOP] = debuggee.scan()


def _earlier(debuggee: Debuggee, name: str | None) -> Scan:
    scans = debuggee.scans
    if name is not None:
        if name not in scans:
            raise UsageError(f"there is no snapshot {name!r}; make one with `paging snapshot NAME`")
        return scans[name]
    if _LAST_STOP not in scans:
        raise UsageError(
            "no earlier stop is known; make a snapshot with `paging snapshot NAME`, and give it "
            "with --since"
        )
    return scans[_LAST_STOP]


@click.command()
@click.argument("name", metavar="NAME")
@space_options
@click.pass_obj
def snapshot(debuggee: Debuggee, name: str, mode: str | None, satp: int | None) -> Answer:
    """Keep what is mapped now under a name, to compare with later (maps --since NAME).

    Example: paging snapshot before
    """
    scan = debuggee.scan(mode, satp)
    debuggee.scans[name] = scan
    size = len(scan.leaves)
    text = f"{name}: {size:,} {'mapping' if size == 1 else 'mappings'} of {scan.space.name}"
    return Answer(text, {"mappings": size})


@click.command()
@click.argument("pa", metavar="PA", type=NUMBER)
@space_options
@click.pass_obj
def find(debuggee: Debuggee, pa: int, mode: str | None, satp: int | None) -> Answer:
    """List every virtual address that is mapped to the physical address PA.

    Example: paging find 0x80200000
    """
    scan = debuggee.scan(mode, satp)
    places = find_pa(scan, pa)
    return Answer(
        "\n".join(rendering.find_lines(scan, pa, places)),
        rendering.find_document(scan, pa, places),
    )


@click.command()
@space_options
@click.pass_obj
def tables(debuggee: Debuggee, mode: str | None, satp: int | None) -> Answer:
    """List the pages that are page tables, with their level and what points to them.

    Example: paging tables
    """
    scan = debuggee.scan(mode, satp)
    pages = table_pages(scan)
    return Answer(
        "\n".join(rendering.tables_lines(scan, pages)), rendering.tables_document(scan, pages)
    )


COMMANDS: dict[str, click.Command] = {
    "walk": walk,
    "maps": maps,
    "find": find,
    "tables": tables,
    "snapshot": snapshot,
}
