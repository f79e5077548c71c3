"""``cosim walk``: translate addresses by page tables in a file, level by level."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from cosim.commands.memory_options import SOURCES, Asked, memory_options, number
from cosim.output import print_json, print_line
from cosim.paging.explain import explain
from cosim.paging.rendering import walk_document, walk_lines
from hypervisor_model.events import Access, Priv

_ACCESSES = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}


@click.command(
    help=f"""Translate each VA by the page tables in a file, and show every reference.

    {SOURCES}

    If an access faults, the line `why` says what in the tables, or in the access, is the reason.

    With --json each VA has pa, or cause, tval and why.  A guest-page fault also has gpa and
    implicit: read or update if an access to a VS-stage table caused it, otherwise null.  unreadable
    is the address of a table that the file does not hold.  level and perm are those of the first
    stage's leaf; with two stages g_level and g_perm are those of the G-stage's leaf.  They are null
    if there is no such leaf.  page_size is in bytes, refs counts the references of each stage, and
    references lists them.

    Example: cosim walk --ram ram.bin --base 0x80000000 --satp 0x8000000000080001 0x40000123
    """
)
@click.argument("vas", metavar="VA...", nargs=-1, required=True, type=number)
@memory_options
@click.option(
    "--priv",
    type=click.Choice(["U", "S"]),
    default="S",
    show_default=True,
    help="Privilege of the access.",
)
@click.option(
    "--access",
    type=click.Choice(list(_ACCESSES)),
    default="read",
    show_default=True,
    help="Kind of access.",
)
@click.option("--sum", "sum_", is_flag=True, help="Set sstatus.SUM (two stages: vsstatus.SUM).")
@click.option("--mxr", is_flag=True, help="Set sstatus.MXR, for both stages.")
@click.option("--svadu", is_flag=True, help="Update A and D (not in the file) instead of faulting.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    vas: tuple[int, ...],
    priv: str,
    access: str,
    sum_: bool,
    mxr: bool,
    svadu: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Answer for each address."""
    memory, space = Asked(**asked).open()
    status = replace(
        space.status,
        priv=Priv[priv],
        sum=sum_,
        mxr=mxr,
        adue=svadu or space.status.adue,
        g_adue=svadu,
    )
    answers = [explain(memory, replace(space, status=status), va, _ACCESSES[access]) for va in vas]
    if as_json:
        print_json([walk_document(answer) for answer in answers])
        return
    for number_, answer in enumerate(answers):
        if number_:
            print_line()
        for line in walk_lines(answer):
            print_line(line)
