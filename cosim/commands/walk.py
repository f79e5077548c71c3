"""``cosim walk``: translate addresses by the page tables in a RAM image, level by level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cosim.output import print_json, print_line, print_table
from hypervisor_model.events import Access, Priv
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, mode
from hypervisor_model.jit import signed
from hypervisor_model.memory import GuestMemory
from hypervisor_model.mmu import Mmu, Reference, Status, Translation, letters


def _number(text: str) -> int:
    """Return the unsigned 64-bit number ``text``, decimal or with ``0x``."""
    try:
        number = int(text, 0)
    except ValueError:
        message = f"{text!r} is not a number; write for example 0x80200000"
        raise click.BadParameter(message) from None
    if not 0 <= number < 1 << 64:
        raise click.BadParameter(f"{text} does not fit 64 bits")
    return number


_ACCESSES = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}


@click.command()
@click.argument("vas", metavar="VA...", nargs=-1, required=True, type=_number)
@click.option(
    "--ram", required=True, type=click.Path(path_type=Path), help="RAM image; it is only read."
)
@click.option(
    "--base",
    required=True,
    type=_number,
    metavar="ADDR",
    help="Physical address of the image's first byte.",
)
@click.option("--satp", type=_number, metavar="X", help="satp for a one-stage walk.")
@click.option(
    "--vsatp", type=_number, metavar="X", help="vsatp for a two-stage walk; needs --hgatp."
)
@click.option(
    "--hgatp", type=_number, metavar="Y", help="hgatp for a two-stage walk; needs --vsatp."
)
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
@click.option(
    "--svadu", is_flag=True, help="Update A and D (in a copy of the image) instead of faulting."
)
@click.option("--svpbmt", is_flag=True, help="Enable Svpbmt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    vas: tuple[int, ...],
    ram: Path,
    base: int,
    satp: int | None,
    vsatp: int | None,
    hgatp: int | None,
    priv: str,
    access: str,
    sum_: bool,
    mxr: bool,
    svadu: bool,
    svpbmt: bool,
    as_json: bool,
) -> None:
    """Translate each VA by the page tables in a raw image of RAM and show every reference.

    Give --satp, or both --vsatp and --hgatp.  The image may be the RAM of a running session:
    `cosim run` with --live or --gdb prints its path on stderr.

    With --json each VA has pa, or cause and tval.  A guest-page fault also has gpa and implicit:
    read or update if an access to a VS-stage table caused it, otherwise null.  level and perm are
    those of the first stage's leaf; with two stages g_level and g_perm are those of the G-stage's
    leaf.  They are null if there is no such leaf.  page_size is in bytes, and refs counts the
    references of each stage.

    Example: cosim walk --ram ram.bin --base 0x80000000 --satp 0x8000000000080001 0x40000123
    """
    status = Status(
        priv=Priv[priv],
        sum=sum_,
        mxr=mxr,
        adue=svadu,
        g_adue=svadu,
        pbmte=svpbmt,
        g_pbmte=svpbmt,
    )
    memory = GuestMemory.map_image(ram, base)
    mmu = Mmu(memory, satp=satp, vsatp=vsatp, hgatp=hgatp, status=status)
    results = [mmu.translate(va, _ACCESSES[access]) for va in vas]
    if as_json:
        print_json([_document(result, mmu) for result in results])
        return
    for number, result in enumerate(results):
        if number:
            print_line()
        _show(result, mmu)


def _document(result: Translation, mmu: Mmu) -> dict[str, Any]:
    stages = ("VS", "G") if mmu.two_stage else ("S",)
    document: dict[str, Any] = {"va": result.va}
    if result.cause is None:
        document["pa"] = result.pa
    else:
        document["cause"] = result.cause
        document["tval"] = result.tval
        if result.gpa is not None:
            document["gpa"] = result.gpa
            document["implicit"] = result.implicit
    document["level"] = result.level
    document["page_size"] = result.page_size
    document["perm"] = result.perm or None
    if mmu.two_stage:
        document["g_level"] = result.g_level
        document["g_perm"] = result.g_perm or None
    document["refs"] = {stage: result.count(stage) for stage in stages}
    return document


def _show(result: Translation, mmu: Mmu) -> None:
    table = Table(box=None)
    table.add_column("stage")
    table.add_column("level", justify="right")
    for title in ("entry at", "entry", "bits", ""):
        table.add_column(title, no_wrap=True)
    for reference in result.references:
        table.add_row(
            reference.stage,
            str(reference.level),
            f"{reference.address:#016x}",
            f"{reference.entry:#018x}",
            letters(reference.entry),
            _meaning(reference),
        )
    modes = mode(mmu.satp), mode(mmu.hgatp)
    names = [Mode(modes[0]).name.capitalize()]
    if mmu.two_stage:
        names.append(Mode(modes[1]).name.capitalize() + ("x4" if modes[1] else ""))
    print_line(f"va {result.va:#018x}  {' on '.join(names)}")
    if result.references:
        print_table(table)
    counts = ", ".join(
        f"{result.count(stage)} {stage}-stage" if mmu.two_stage else f"{result.count(stage)}"
        for stage in (("VS", "G") if mmu.two_stage else ("S",))
    )
    print_line(f"{_outcome(result, mmu)}; references: {counts}")


def _meaning(reference: Reference) -> str:
    entry = signed(reference.entry)
    if reference.update:
        return "A/D updated"
    if pte.is_leaf(entry):
        return f"page at {pte.target(entry):#x}"
    if pte.is_link(entry) and reference.level > 0:
        return f"table at {pte.target(entry):#x}"
    return "not valid"


def _outcome(result: Translation, mmu: Mmu) -> str:
    if result.cause is None:
        size = "no limit" if result.page_size is None else _size(result.page_size)
        through = "" if result.gpa is None else f" (gpa {result.gpa:#x})"
        perm = result.perm or "no first stage"
        if mmu.two_stage:
            perm += f" on {result.g_perm or 'no G-stage'}"
        return f"pa {result.pa:#016x}{through}, page {size}, {perm}"
    text = f"cause {result.cause}, {result.cause_name}, tval {result.tval:#x}"
    if result.gpa is not None:
        text += f", gpa {result.gpa:#x}"
    if result.implicit is not None:
        text += f" (implicit {result.implicit} of a VS-stage table)"
    return text


def _size(size: int) -> str:
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return f"{size >> 10} KiB"
