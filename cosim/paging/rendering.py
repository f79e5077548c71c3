"""The answers as text and as JSON.

Text is a list of lines, which a terminal, gdb or a file can show.  JSON documents are dictionaries;
addresses in them are unsigned numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cosim.paging.changes import MappingChange
from cosim.paging.explain import Explanation
from cosim.paging.find import Place
from cosim.paging.maps import MEMORY_TYPES, SIZES, Range
from cosim.paging.scan import Problem, Scan
from cosim.paging.space import Space
from cosim.paging.table_pages import TablePage
from hypervisor_model.inspection import ShadowWalk, TlbEntry
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import signed, unsigned
from hypervisor_model.mmu import Reference, letters

_SIZE_NAMES = {bits: name for name, bits in SIZES.items()}
_SHOWN_PROBLEMS = 10


def size_text(size: int) -> str:
    """Return a number of bytes with the largest unit that divides it."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift and not size & ((1 << shift) - 1):
            return f"{size >> shift} {unit}"
    return f"{size} B"


def aligned(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return one line for each row, with the columns below each other.

    :param right: numbers of the columns that are flush right.
    """
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    flush_right = set(right)
    return [
        "  ".join(
            cell.rjust(width) if i in flush_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# -- walk ------------------------------------------------------------------------------------------


def walk_document(answer: Explanation) -> dict[str, Any]:
    """Return the JSON of one walk."""
    result, two_stage = answer.translation, answer.space.two_stage
    document: dict[str, Any] = {"va": result.va}
    if result.cause is None:
        document["pa"] = result.pa
    else:
        document["cause"] = result.cause
        document["tval"] = result.tval
        document["why"] = answer.why
        document["unreadable"] = answer.unreadable
    if result.gpa is not None and result.cause is not None:
        document["gpa"] = result.gpa
        document["implicit"] = result.implicit
    document["level"] = result.level
    document["page_size"] = result.page_size
    document["perm"] = result.perm or None
    if two_stage:
        document["g_level"] = result.g_level
        document["g_perm"] = result.g_perm or None
    document["refs"] = {stage: result.count(stage) for stage in _stages(answer.space)}
    document["references"] = [
        {
            "stage": one.stage,
            "level": one.level,
            "address": one.address,
            "entry": one.entry,
            "update": one.update,
        }
        for one in result.references
    ]
    return document


def walk_lines(answer: Explanation) -> list[str]:
    """Return the lines of one walk: each reference, then what it came to."""
    result = answer.translation
    lines = [f"va {result.va:#018x}  {answer.space.name}"]
    rows = [("stage", "level", "entry at", "entry", "bits", "")]
    rows += [
        (
            one.stage,
            str(one.level),
            f"{one.address:#016x}",
            f"{one.entry:#018x}",
            letters(one.entry),
            _meaning(one),
        )
        for one in result.references
    ]
    if result.references:
        lines += [f" {line}" for line in aligned(rows, right=(1,))]
    counts = ", ".join(
        f"{result.count(stage)} {stage}-stage"
        if answer.space.two_stage
        else f"{result.count(stage)}"
        for stage in _stages(answer.space)
    )
    lines.append(f"{_outcome(answer)}; references: {counts}")
    if answer.why is not None:
        lines.append(f"why: {answer.why}")
    return lines


def _stages(space: Space) -> tuple[str, ...]:
    return ("VS", "G") if space.two_stage else ("S",)


def _meaning(reference: Reference) -> str:
    entry = signed(reference.entry)
    if reference.update:
        return "A/D updated"
    if pte.is_leaf(entry):
        return f"page at {pte.target(entry):#x}"
    if pte.is_link(entry) and reference.level > 0:
        return f"table at {pte.target(entry):#x}"
    return "not valid"


def _outcome(answer: Explanation) -> str:
    result = answer.translation
    if result.cause is None:
        size = "no limit" if result.page_size is None else size_text(result.page_size)
        through = "" if result.gpa is None else f" (gpa {result.gpa:#x})"
        perm = result.perm or "no first stage"
        if answer.space.two_stage:
            perm += f" on {result.g_perm or 'no G-stage'}"
        return f"pa {result.pa:#016x}{through}, page {size}, {perm}"
    text = f"cause {result.cause}, {result.cause_name}, tval {result.tval:#x}"
    if result.gpa is not None:
        text += f", gpa {result.gpa:#x}"
    if result.implicit is not None:
        text += f" (implicit {result.implicit} of a VS-stage table)"
    return text


# -- maps ------------------------------------------------------------------------------------------


def range_document(one: Range) -> dict[str, Any]:
    """Return the JSON of one range."""
    document: dict[str, Any] = {
        "va": one.va,
        "size": one.size,
        "pa": one.pa,
        "perm": letters(one.perm),
        "page_size": None if one.page_bits is None else 1 << one.page_bits,
        "pbmt": _memory_type(one.pbmt),
    }
    if one.g_perm is not None:
        document["gpa"] = one.gpa
        document["g_perm"] = letters(one.g_perm)
        document["g_pbmt"] = _memory_type(one.g_pbmt)
    return document


def range_rows(space: Space, ranges: Sequence[Range]) -> list[tuple[str, ...]]:
    """Return the cells of each range, for :func:`aligned`."""
    rows: list[tuple[str, ...]] = []
    for one in ranges:
        cells = [f"{one.va:#018x}-{one.last:#018x}"]
        if space.two_stage:
            cells.append("gpa scattered" if one.gpa is None else f"gpa {one.gpa:#x}")
        cells.append("pa scattered" if one.pa is None else f"pa {one.pa:#x}")
        cells.append(size_text(one.size))
        cells.append(_page_text(one.page_bits))
        cells.append(_permissions(space, one.perm, one.g_perm))
        types = [_memory_type(n).upper() for n in (one.pbmt, one.g_pbmt) if n]
        cells.append(" ".join(types))
        rows.append(tuple(cells))
    return rows


def maps_document(scan: Scan, ranges: Sequence[Range]) -> dict[str, Any]:
    """Return the JSON of a whole `maps`."""
    return {
        **scan_document(scan),
        "bytes": sum(one.size for one in ranges),
        "ranges": [range_document(one) for one in ranges],
    }


def maps_lines(scan: Scan, ranges: Sequence[Range]) -> list[str]:
    """Return the lines of a whole `maps`: a line for each range, then a summary and notes."""
    rows = range_rows(scan.space, ranges)
    lines = aligned(rows, right=(len(rows[0]) - 4, len(rows[0]) - 3)) if rows else []
    total = sum(one.size for one in ranges)
    lines.append(
        f"{scan.space.name}, {scan.space.registers_text()}: "
        f"{_count(len(ranges), 'range')}, {size_text(total)}"
    )
    return lines + scan_notes(scan)


def changes_document(scan: Scan, found: Sequence[MappingChange]) -> dict[str, Any]:
    """Return the JSON of what changed; ``scan`` is the newer one."""
    return {
        **scan_document(scan),
        "changes": [
            {
                "before": None if one.before is None else range_document(one.before),
                "after": None if one.after is None else range_document(one.after),
            }
            for one in found
        ],
    }


def changes_lines(old: Scan, scan: Scan, found: Sequence[MappingChange]) -> list[str]:
    """Return the lines of what changed from ``old`` to ``scan``: ``-`` how it was, ``+`` how it
    is."""
    marks, both = [], []
    for one in found:
        for mark, part in (("-", one.before), ("+", one.after)):
            if part is not None:
                marks.append(mark)
                both.append(part)
    rows = [(mark, *row) for mark, row in zip(marks, range_rows(scan.space, both), strict=True)]
    lines = aligned(rows, right=(len(rows[0]) - 4, len(rows[0]) - 3)) if rows else []
    lines.append(
        f"{scan.space.name}, {scan.space.registers_text()}: {_count(len(found), 'change')}"
    )
    if (old.space.first, old.space.second) != (scan.space.first, scan.space.second):
        lines.append(f"before, it was another address space: {old.space.registers_text()}")
    return lines + scan_notes(scan)


def scan_document(scan: Scan) -> dict[str, Any]:
    """Return what a scan says of itself, for the JSON of every answer that needs one."""
    space = scan.space
    names = ("vsatp", "hgatp") if space.two_stage else ("satp",)
    return {
        "mode": space.name,
        **{name: getattr(space, name) for name in names},
        "complete": scan.cut is None,
        "incomplete_because": scan.cut,
        "problem_count": scan.problem_count,
        "problems": [
            {
                "stage": one.stage,
                "level": one.level,
                "va": unsigned(one.va),
                "entry_pa": None if one.entry_pa < 0 else one.entry_pa,
                "entry": unsigned(one.entry),
                "reason": one.reason,
            }
            for one in scan.problems
        ],
        "unbacked_bytes": scan.unbacked,
    }


def scan_notes(scan: Scan) -> list[str]:
    """Return the lines about what a scan could not follow."""
    lines = []
    if scan.cut is not None:
        lines.append(f"incomplete: {scan.cut}")
    if scan.unbacked:
        lines.append(
            f"{size_text(scan.unbacked)} that the VS-stage maps are not mapped by the G-stage"
        )
    lines += [_problem_text(one) for one in scan.problems[:_SHOWN_PROBLEMS]]
    more = scan.problem_count - _SHOWN_PROBLEMS
    if more > 0:
        lines.append(f"... and {_count(more, 'further entry', 'further entries')} of this sort")
    return lines


def _problem_text(one: Problem) -> str:
    where = "the root register"
    if one.entry_pa >= 0:
        where = (
            f"entry {unsigned(one.entry):#x} at {one.entry_pa:#x} ({one.stage}, level {one.level})"
        )
    return f"not followed, for {unsigned(one.va):#x}: {where}: {one.reason}"


# -- find and tables -------------------------------------------------------------------------------


def find_document(scan: Scan, pa: int, places: Sequence[Place]) -> dict[str, Any]:
    """Return the JSON of `find`."""
    found = []
    for one in places:
        document: dict[str, Any] = {
            "va": one.va,
            "perm": letters(one.perm),
            "page_size": 1 << one.page_bits,
            "entry_pa": one.entry_pa,
        }
        if one.g_perm is not None:
            document["gpa"] = one.gpa
            document["g_perm"] = letters(one.g_perm)
        found.append(document)
    return {**scan_document(scan), "pa": pa, "places": found}


def find_lines(scan: Scan, pa: int, places: Sequence[Place]) -> list[str]:
    """Return the lines of `find`."""
    rows = []
    for one in places:
        cells = [f"va {one.va:#018x}"]
        if one.g_perm is not None:
            cells.append(f"gpa {one.gpa:#x}")
        perm = _permissions(scan.space, one.perm, one.g_perm)
        entry = "no entry" if one.entry_pa is None else f"entry at {one.entry_pa:#x}"
        rows.append((*cells, _page_text(one.page_bits), perm, entry))
    lines = aligned(rows)
    lines.append(
        f"pa {pa:#x} is mapped {_count(len(places), 'time')} "
        f"in {scan.space.name}, {scan.space.registers_text()}"
    )
    return lines + scan_notes(scan)


def tables_document(scan: Scan, pages: Sequence[TablePage]) -> dict[str, Any]:
    """Return the JSON of `tables`."""
    return {**scan_document(scan), "tables": [page._asdict() for page in pages]}


def tables_lines(scan: Scan, pages: Sequence[TablePage]) -> list[str]:
    """Return the lines of `tables`."""
    rows = [("pa", "stage", "level", "from", "links", "leaves", "parent entries")]
    for page in pages:
        parents = ", ".join(f"{parent:#x}" for parent in page.parents[:2]) or "root"
        if page.parent_count > 2:
            parents += f", ... {page.parent_count} in all"
        rows.append(
            (
                f"{page.pa:#x}",
                page.stage,
                str(page.level),
                f"{page.va:#018x}",
                str(page.links),
                str(page.leaves),
                parents,
            )
        )
    lines = aligned(rows, right=(2, 4, 5)) if pages else []
    lines.append(
        f"{scan.space.name}, {scan.space.registers_text()}: {_count(len(pages), 'table page')}"
    )
    return lines + scan_notes(scan)


# -- what a policy holds ---------------------------------------------------------------------------


def tlb_rows(entries: Sequence[TlbEntry], stale: Sequence[bool]) -> list[tuple[str, ...]]:
    """Return the cells of TLB entries, for :func:`aligned`.

    :param stale: for each, True if the guest's tables say something else now.
    """
    rows: list[tuple[str, ...]] = []
    for one, is_stale in zip(entries, stale, strict=True):
        perm = letters(one.perm)
        if one.g_perm is not None:
            perm += f" on {letters(one.g_perm)}"
        rows.append(
            (
                one.buffer,
                f"va {one.va:#018x}",
                "" if one.gpa is None else f"gpa {one.gpa:#x}",
                f"pa {one.pa:#x}",
                "no table" if one.size is None else size_text(one.size),
                "" if one.asid is None else f"asid {one.asid}",
                perm,
                one.view,
                "stale" if is_stale else "",
            )
        )
    return rows


def tlb_document(entries: Sequence[TlbEntry], stale: Sequence[bool]) -> list[dict[str, Any]]:
    """Return the JSON of TLB entries; the arguments are those of :func:`tlb_rows`."""
    return [
        {
            "buffer": one.buffer,
            "va": one.va,
            "gpa": one.gpa,
            "pa": one.pa,
            "page_size": one.size,
            "asid": one.asid,
            "perm": letters(one.perm),
            "g_perm": None if one.g_perm is None else letters(one.g_perm),
            "view": one.view or None,
            "stale": is_stale,
        }
        for one, is_stale in zip(entries, stale, strict=True)
    ]


def shadow_lines(walk: ShadowWalk) -> list[str]:
    """Return the lines of the shadow of one view: each entry beside the guest's."""
    title = [f"view {walk.view}"] if walk.view else []
    if not walk.steps:
        return [*title, "no shadow table"]
    rows = [("level", "shadow entry at", "shadow entry", "bits", "guest entry", "bits", "")]
    for step in walk.steps:
        state = "empty" if not step.entry else "stale" if step.is_stale else "in step"
        rows.append(
            (
                str(step.level),
                f"{step.address:#x}",
                f"{step.entry:#018x}",
                letters(step.entry),
                f"{step.guest_entry:#018x} at {step.guest_address:#x}",
                letters(step.guest_entry),
                state,
            )
        )
    return [*title, *aligned(rows, right=(0,))]


def shadow_document(walk: ShadowWalk) -> dict[str, Any]:
    """Return the JSON of the shadow of one view."""
    return {
        "view": walk.view or None,
        "stale": walk.is_stale,
        "steps": [
            {
                "level": step.level,
                "address": step.address,
                "entry": step.entry,
                "guest_address": step.guest_address,
                "guest_entry": step.guest_entry,
                "stale": step.is_stale,
            }
            for step in walk.steps
        ],
    }


def _permissions(space: Space, perm: int, g_perm: int | None) -> str:
    text = letters(perm) if space.levels else "no first stage"
    if g_perm is not None:
        text += f" on {letters(g_perm) if atp.mode(space.second) else 'no G-stage'}"
    return text


def _memory_type(number: int) -> str:
    return MEMORY_TYPES[number]


def _page_text(bits: int | None) -> str:
    if bits is None:
        return "mixed"
    return _SIZE_NAMES.get(bits, "no table")


def _count(number: int, name: str, plural: str | None = None) -> str:
    return f"{number:,} {name if number == 1 else plural or f'{name}s'}"
