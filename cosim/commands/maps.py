"""``cosim maps``: the ranges that page tables in a file map."""

from __future__ import annotations

from typing import Any

import click

from cosim.commands.memory_options import SOURCES, Asked, memory_options, number
from cosim.errors import UsageError
from cosim.output import print_json, print_line
from cosim.paging.changes import changes
from cosim.paging.filter_options import filter_options
from cosim.paging.maps import Filter, maps
from cosim.paging.rendering import (
    changes_document,
    changes_lines,
    maps_document,
    maps_lines,
    tables_document,
    tables_lines,
)
from cosim.paging.scan import scan
from cosim.paging.table_pages import table_pages


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not dash:
        raise click.BadParameter(f"{text!r} is not a range; write for example 0x1000-0x1fff")
    ends = number(low), number(high)
    if ends[0] > ends[1]:
        raise click.BadParameter(f"{text!r} ends before it begins")
    return ends


@click.command(
    help=f"""Show the ranges that page tables in a file map.

    {SOURCES}

    A line has the addresses, the physical address of the first byte, the size, the size of a page,
    the permissions (DAGUXWRV, as `cosim walk` prints them), and the memory type if it is not PMA.
    Neighbours that are mapped alike, to frames next to each other, are one range.  Entries that can
    be neither followed nor used are listed, too.

    Example: cosim maps --core vmcore --kernel --has WX
    """
)
@memory_options
@filter_options
@click.option(
    "--range", "range_", metavar="LOW-HIGH", type=_range, help="Only addresses from LOW to HIGH."
)
@click.option(
    "--since",
    type=click.IntRange(0),
    metavar="EVENT",
    help="With --trace: show what has changed since just before this event.",
)
@click.option("--tables", is_flag=True, help="Show the tables, not what they map.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    user: bool,
    kernel: bool,
    has: str,
    lacks: str,
    range_: tuple[int, int] | None,
    size: str | None,
    pbmt: str | None,
    coarse: bool,
    since: int | None,
    tables: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Answer for one address space."""
    options = Asked(**asked)
    if since is not None and options.trace is None:
        raise UsageError("--since is for --trace")
    low, high = range_ or (0, (1 << 64) - 1)
    wanted = Filter.named(
        has=has,
        lacks=lacks,
        user=user,
        kernel=kernel,
        low=low,
        high=high,
        size=size,
        pbmt=pbmt,
    )
    memory, space = options.open()
    answer = scan(memory, space)
    if tables:
        pages = table_pages(answer)
        _print(as_json, tables_document(answer, pages), tables_lines(answer, pages))
    elif since is not None:
        old = scan(*options.of_trace(since))
        found = changes(old, answer, wanted, coarse=coarse)
        _print(as_json, changes_document(answer, found), changes_lines(old, answer, found))
    else:
        ranges = maps(answer, wanted, coarse=coarse)
        _print(as_json, maps_document(answer, ranges), maps_lines(answer, ranges))


def _print(as_json: bool, document: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        print_json(document)
        return
    for line in lines:
        print_line(line)
