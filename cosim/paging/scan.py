"""All tables of an address space, read once, level by level.

Whole table pages are handled as arrays.  Tables that are reached several times (recursive or shared
ones) are followed each time, as hardware does, up to a limit; :attr:`Scan.cut` then says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.paging import entries as entry_kinds
from cosim.paging.physical import PhysicalMemory
from cosim.paging.space import Space
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import plain
from hypervisor_model.walk import BARE_BITS, BARE_PERM

MOST_LEAVES = 1 << 22
"""Mappings that a scan keeps; 16 GiB of 4 KiB pages."""
MOST_TABLES = 1 << 16
"""Tables that a scan follows; one that is reached twice counts twice."""
MOST_PROBLEMS = 100
"""Problems that are kept; all are counted."""
_levels, _mode, _root = plain(atp.levels), plain(atp.mode), plain(atp.root)
_level_bits = plain(pte.level_bits)
_CHUNK = 2048
WIDEST = 59
"""Bits of the widest guest-physical address (Sv57x4); a physical one has at most 56."""

LEAF = np.dtype(
    [
        ("va", np.int64),
        ("gpa", np.int64),
        ("pa", np.int64),
        ("size", np.int64),
        ("entry_pa", np.int64),
        ("level", np.int8),
        ("g_level", np.int8),
        ("page_bits", np.uint8),
        ("perm", np.uint8),
        ("g_perm", np.uint8),
        ("pbmt", np.uint8),
        ("g_pbmt", np.uint8),
    ]
)
"""One mapping: ``size`` bytes from ``va`` on.  ``page_bits`` is log2 of the page, which is larger
than ``size`` for an entry of a NAPOT range.  ``perm`` has bits 0..7 of the first stage's leaf, with
G if a table above has it; levels are -1 for Bare.  ``gpa`` equals ``pa`` if there is one stage."""

TABLE = np.dtype(
    [
        ("pa", np.int64),
        ("parent", np.int64),
        ("va", np.int64),
        ("level", np.int8),
        ("is_g", np.bool_),
        ("links", np.int16),
        ("leaves", np.int16),
    ]
)
"""One table that was followed: the address of the entry that points to it (-1: it is a root), the
first address that it translates, its stage, and how many links and leaves it holds."""


class Problem(NamedTuple):
    """Something that keeps an address from being mapped, apart from an entry that is not valid."""

    stage: str
    """``S``, ``VS`` or ``G``."""
    level: int
    va: int
    """First address concerned (for ``G``, guest-physical), as an int64."""
    entry_pa: int
    """Address of the entry; -1 for a root register."""
    entry: int
    """The entry, as an int64; 0 for a root register."""
    reason: str


class Scan(NamedTuple):
    """What the tables of one address space hold."""

    space: Space
    leaves: NDArray[Any]
    """See :data:`LEAF`; by rising unsigned address."""
    tables: NDArray[Any]
    """See :data:`TABLE`; from the root down."""
    problems: list[Problem]
    problem_count: int
    """How many problems there are; ``problems`` has the first ones."""
    unbacked: int
    """Bytes that the VS-stage maps and the G-stage does not."""
    cut: str | None
    """Why the scan ended before it had seen everything; None if it has."""


class _Tables(NamedTuple):
    """Tables of one level that are to be read."""

    address: NDArray[np.int64]
    """Physical; in a VS-stage, guest-physical."""
    parent: NDArray[np.int64]
    entry: NDArray[np.int64]
    va: NDArray[np.int64]
    inherited: NDArray[np.int64]
    """G if an entry above has it."""


_Load = Callable[
    [NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]
]
"""Returns the entries of tables, which could be read, and their physical addresses."""


class _Found:
    """What a scan has met so far."""

    def __init__(self) -> None:
        self.tables: list[NDArray[Any]] = []
        self.table_count = 0
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.cut: str | None = None

    @property
    def room(self) -> int:
        """How many more problems are kept."""
        return MOST_PROBLEMS - len(self.problems)


class _Stage(NamedTuple):
    """One stage: its root, and how its entries are read."""

    name: str
    atp: int
    levels: int
    extra_bits: int
    pbmte: bool
    svnapot: bool
    load: _Load

    def classify(self, entries: NDArray[np.int64], level: int) -> NDArray[np.uint8]:
        return entry_kinds.classify(entries, level, pbmte=self.pbmte, svnapot=self.svnapot)


def scan(memory: PhysicalMemory, space: Space) -> Scan:
    """Read all tables of ``space``."""
    status, found = space.status, _Found()

    def physical(
        pages: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        return (*memory.tables(pages), pages)

    if not space.two_stage:
        stage = _Stage("S", space.first, space.levels, 0, status.pbmte, status.svnapot, physical)
        leaves = _follow(stage, found, BARE_BITS)
        return _finished(space, leaves, found, 0)
    g_levels = _levels(_mode(space.second))
    g_stage = _Stage(
        "G",
        space.second,
        g_levels,
        atp.GPA_EXTRA_BITS,
        status.g_pbmte,
        status.svnapot,
        physical,
    )
    g = _follow(g_stage, found, BARE_BITS)
    g = g[np.argsort(g["va"], kind="stable")]

    def guest_physical(
        pages: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        where, mapped = _through(g, pages, status.g_adue)
        entries, readable = memory.tables(where)
        entries[~mapped] = 0
        return entries, readable & mapped, where

    vs_stage = _Stage(
        "VS", space.first, space.levels, 0, status.pbmte, status.svnapot, guest_physical
    )
    vs = _follow(vs_stage, found, WIDEST)
    leaves, unbacked = _composed(vs, g, found)
    return _finished(space, leaves, found, unbacked)


def _finished(space: Space, leaves: NDArray[Any], found: _Found, unbacked: int) -> Scan:
    order = np.argsort(leaves["va"].view(np.uint64), kind="stable")
    tables = np.concatenate(found.tables) if found.tables else np.zeros(0, TABLE)
    return Scan(
        space=space,
        leaves=leaves[order],
        tables=tables,
        problems=found.problems,
        problem_count=found.problem_count,
        unbacked=unbacked,
        cut=found.cut,
    )


def _follow(stage: _Stage, found: _Found, bare_bits: int) -> NDArray[Any]:
    """Return the leaves of one stage, with ``pa`` as what the stage translates to.

    :param bare_bits: log2 of what is translated to itself if the stage is Bare.
    """
    if not stage.levels:
        return _bare(bare_bits)
    pages = np.arange(1 << stage.extra_bits, dtype=np.int64)
    top = stage.levels - 1
    frontier = _Tables(
        address=_root(stage.atp) + pages * pte.PAGE,
        parent=np.full(len(pages), -1, np.int64),
        entry=np.zeros(len(pages), np.int64),
        va=pages << (_level_bits(top) + pte.INDEX_BITS),
        inherited=np.zeros(len(pages), np.int64),
    )
    leaves: list[NDArray[Any]] = [np.zeros(0, LEAF)]
    kept = 0
    for level in range(top, -1, -1):
        below: list[_Tables] = []
        room = max(MOST_TABLES - found.table_count - len(frontier.va), 0)
        for first in range(0, len(frontier.va), _CHUNK):
            chunk = _Tables(*(column[first : first + _CHUNK] for column in frontier))
            links, mapped = _read_level(stage, chunk, level, room, found)
            below.append(links)
            room -= len(links.va)
            leaves.append(mapped)
            kept += len(mapped)
            if kept > MOST_LEAVES:
                found.cut = f"only {kept:,} mappings were read; tables that are shared give so many"
                return np.concatenate(leaves)
        frontier = _Tables(*(np.concatenate(columns) for columns in zip(*below, strict=True)))
        if not len(frontier.va):
            break
    return np.concatenate(leaves)


def _read_level(
    stage: _Stage, chunk: _Tables, level: int, room: int, found: _Found
) -> tuple[_Tables, NDArray[Any]]:
    """Read tables of one level; return the tables below, at most ``room``, and the leaves."""
    # A table that is reached many times is read and judged once.
    once, number = np.unique(chunk.address, return_inverse=True)
    entries, readable, where = stage.load(once)
    kinds = stage.classify(entries, level)
    rows = np.zeros(len(once), TABLE)
    rows["pa"] = where
    rows["level"], rows["is_g"] = level, stage.name == "G"
    rows["links"] = (kinds == entry_kinds.LINK).sum(axis=1)
    rows["leaves"] = (kinds == entry_kinds.LEAF).sum(axis=1)
    rows = rows[number]
    rows["parent"], rows["va"] = chunk.parent, chunk.va
    found.tables.append(rows[readable[number]])
    found.table_count += len(rows)
    where = where[number]
    _note_problems(stage, chunk, level, found, where, entries, kinds, readable, number)
    row, column = np.nonzero((kinds == entry_kinds.LINK)[number])
    if len(row) > room:
        found.cut = (
            f"only {MOST_TABLES:,} tables were read; "
            "tables that point to themselves or to each other give so many"
        )
        row, column = row[:room], column[:room]
    entry = entries[number[row], column]
    links = _Tables(
        address=entry_kinds.targets(entry),
        parent=where[row] + 8 * column,
        entry=entry,
        va=_addresses(stage, chunk, level, row, column),
        inherited=chunk.inherited[row] | (entry & pte.G),
    )
    row, column = np.nonzero((kinds == entry_kinds.LEAF)[number])
    entry = entries[number[row], column]
    return links, _leaves(stage, chunk, level, where[row] + 8 * column, entry, row, column)


def _note_problems(
    stage: _Stage,
    chunk: _Tables,
    level: int,
    found: _Found,
    where: NDArray[np.int64],
    entries: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    readable: NDArray[np.bool_],
    number: NDArray[np.int64],
) -> None:
    """Count and keep what cannot be followed; ``number`` says which page each table is."""
    lost = np.flatnonzero(~readable[number])
    found.problem_count += len(lost)
    for r in lost[: found.room].tolist():
        found.problems.append(_unreadable(stage, chunk, r, level))
    malformed = np.asarray(kinds > entry_kinds.LEAF)
    found.problem_count += int(malformed.sum(axis=1)[number].sum())
    bad_rows = np.flatnonzero(np.any(malformed, axis=1)[number])
    for r in bad_rows[: found.room].tolist():
        page = number[r]
        for c in np.flatnonzero(malformed[page])[: found.room].tolist():
            found.problems.append(
                Problem(
                    stage=stage.name,
                    level=level,
                    va=int(_addresses(stage, chunk, level, r, c)),
                    entry_pa=int(where[r]) + 8 * c,
                    entry=int(entries[page, c]),
                    reason=entry_kinds.REASONS[int(kinds[page, c])],
                )
            )


def _addresses(stage: _Stage, chunk: _Tables, level: int, row: Any, column: Any) -> Any:
    """Return the first address that entries translate."""
    va = chunk.va[row] + (column << _level_bits(level))
    if level == stage.levels - 1 and not stage.extra_bits:
        unused = 64 - _level_bits(stage.levels)
        # The first stage's addresses are sign-extended.
        va = (va << unused) >> unused
    return va


def _leaves(
    stage: _Stage,
    chunk: _Tables,
    level: int,
    entry_pa: NDArray[np.int64],
    entry: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
) -> NDArray[Any]:
    out = np.zeros(len(row), LEAF)
    out["va"] = _addresses(stage, chunk, level, row, column)
    bits = np.where(entry < 0, pte.NAPOT_BITS, _level_bits(level))
    offset = (np.int64(1) << bits) - 1
    out["pa"] = (entry_kinds.targets(entry) & ~offset) | (out["va"] & offset)
    out["gpa"] = out["pa"]
    out["size"] = 1 << _level_bits(level)
    out["entry_pa"] = entry_pa
    out["level"], out["g_level"] = level, -1
    out["page_bits"] = bits
    out["perm"] = (entry & pte.PERMISSIONS) | chunk.inherited[row]
    out["g_perm"] = BARE_PERM
    out["pbmt"] = (entry >> pte.PBMT_SHIFT) & 3
    return out


def _bare(bits: int) -> NDArray[Any]:
    out = np.zeros(1, LEAF)
    out["size"] = 1 << bits
    out["entry_pa"] = -1
    out["level"] = out["g_level"] = -1
    out["page_bits"] = bits
    out["perm"] = out["g_perm"] = BARE_PERM
    return out


def _unreadable(stage: _Stage, chunk: _Tables, row: int, level: int) -> Problem:
    address = int(chunk.address[row])
    if stage.name != "VS":
        reason = f"the table at {address:#x} is outside of the memory that can be read"
    else:
        reason = f"the table at guest-physical {address:#x} cannot be read through the G-stage"
    return Problem(
        stage=stage.name,
        level=level,
        va=int(chunk.va[row]),
        entry_pa=int(chunk.parent[row]),
        entry=int(chunk.entry[row]),
        reason=reason,
    )


def _through(
    g: NDArray[Any], pages: NDArray[np.int64], adue: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where a walk reads guest-physical pages, and whether the G-stage lets it."""
    if not len(g):
        return np.zeros(len(pages), np.int64), np.zeros(len(pages), np.bool_)
    at = np.maximum(np.searchsorted(g["va"], pages, side="right") - 1, 0)
    leaf = g[at]
    offset = pages - leaf["va"]
    needed = pte.R | pte.U | (0 if adue else pte.A)
    mapped = (offset >= 0) & (offset < leaf["size"]) & (leaf["perm"] & needed == needed)
    return np.where(mapped, leaf["pa"] + offset, 0), mapped


def _composed(vs: NDArray[Any], g: NDArray[Any], found: _Found) -> tuple[NDArray[Any], int]:
    """Return the VS-stage's leaves cut up by the G-stage's, and how many bytes have none."""
    if not len(g):
        return np.zeros(0, LEAF), int(vs["size"].sum())
    end = vs["gpa"] + vs["size"]
    g_end = g["va"] + g["size"]
    low = np.searchsorted(g_end, vs["gpa"], side="right")
    high = np.searchsorted(g["va"], end, side="left")
    count = np.maximum(high - low, 0)
    if count.sum() > MOST_LEAVES:
        found.cut = (
            f"the scan ended after {MOST_LEAVES:,} mappings; the G-stage cuts those of the "
            "VS-stage into more"
        )
        fits = np.cumsum(count) <= MOST_LEAVES
        vs, end, low, count = vs[fits], end[fits], low[fits], count[fits]
    out = np.repeat(vs, count)
    number = np.arange(len(out)) - np.repeat(np.cumsum(count) - count, count)
    leaf = g[np.repeat(low, count) + number]
    start = np.maximum(out["gpa"], leaf["va"])
    stop = np.minimum(np.repeat(end, count), leaf["va"] + leaf["size"])
    out["va"] += start - out["gpa"]
    out["gpa"] = start
    out["pa"] = leaf["pa"] + (start - leaf["va"])
    out["size"] = stop - start
    out["g_level"] = leaf["level"]
    out["g_perm"] = leaf["perm"]
    out["g_pbmt"] = leaf["pbmt"]
    out["page_bits"] = np.minimum(out["page_bits"], leaf["page_bits"])
    return out, int(vs["size"].sum()) - int(out["size"].sum())
