"""The pages that are tables of an address space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.paging.scan import Scan
from hypervisor_model.jit import unsigned

MOST_PARENTS = 16
"""Parents of one table that are listed; all are counted."""


class TablePage(NamedTuple):
    """A page that a walk reads as a table of one level."""

    pa: int
    stage: str
    """``S``, ``VS`` or ``G``."""
    level: int
    va: int
    """The lowest address that it translates (in the G-stage, guest-physical), unsigned."""
    parents: list[int]
    """Addresses of entries that point to it, the first :data:`MOST_PARENTS`; empty for a root."""
    parent_count: int
    links: int
    """Entries that point to a table below."""
    leaves: int
    """Entries that map a page."""


def table_pages(scan: Scan) -> list[TablePage]:
    """Return the tables, the G-stage's first, each stage from the root down.

    A page that is a table at several levels is listed at each.
    """
    rows = scan.tables
    rows = rows[np.lexsort((rows["va"].view(np.uint64), rows["pa"], -rows["level"], ~rows["is_g"]))]
    if not len(rows):
        return []
    key = rows[["pa", "level", "is_g"]]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1]))).tolist()
    first = "VS" if scan.space.two_stage else "S"
    pages = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        row = rows[start]
        parents = np.unique(rows["parent"][start:stop])
        parents = parents[parents >= 0]
        pages.append(
            TablePage(
                pa=int(row["pa"]),
                stage="G" if row["is_g"] else first,
                level=int(row["level"]),
                va=unsigned(int(row["va"])),
                parents=parents[:MOST_PARENTS].tolist(),
                parent_count=len(parents),
                links=int(row["links"]),
                leaves=int(row["leaves"]),
            )
        )
    pages.sort(key=lambda page: (page.stage != "G", -page.level, page.va))
    return pages
