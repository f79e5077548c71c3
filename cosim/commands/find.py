"""``cosim find``: the virtual addresses of a physical one."""

from __future__ import annotations

from typing import Any

import click

from cosim.commands.memory_options import SOURCES, Asked, memory_options, number
from cosim.errors import UsageError
from cosim.output import print_json, print_line
from cosim.paging.find import find, find_guest_physical
from cosim.paging.rendering import find_document, find_lines
from cosim.paging.scan import scan


@click.command(
    help=f"""Show every virtual address that page tables in a file map to each PA.

    {SOURCES}

    A line has the address, the guest-physical address between two stages, the size of the page, its
    permissions, and where the leaf entry is.  An address that is mapped nowhere is no error.

    Example: cosim find --core vmcore --satp 0x8000000000080001 0x80200000
    """
)
@click.argument("pas", metavar="PA...", nargs=-1, required=True, type=number)
@memory_options
@click.option("--gpa", is_flag=True, help="The addresses are guest-physical (two stages).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(pas: tuple[int, ...], gpa: bool, as_json: bool, **asked: Any) -> None:
    """Answer for each physical address."""
    memory, space = Asked(**asked).open()
    if gpa and not space.two_stage:
        raise UsageError("--gpa is for two stages; give --vsatp and --hgatp")
    answer = scan(memory, space)
    found = [(pa, (find_guest_physical if gpa else find)(answer, pa)) for pa in pas]
    if as_json:
        print_json([find_document(answer, pa, places) for pa, places in found])
        return
    for number_, (pa, places) in enumerate(found):
        if number_:
            print_line()
        for line in find_lines(answer, pa, places):
            print_line(line)
