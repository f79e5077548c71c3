"""Rows of a sweep whose counts follow a formula, so that a test can compute the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from cosim.sweep.result_files import RESULTS, write_rows
from cosim.sweep.row_schema import SCHEMA
from cosim.sweep.state_file import NAME
from hypervisor_model.costs import CostTable, cycles
from hypervisor_model.exits import Exit

WAYS = (2, 4, 8)
CACHES = (0, 8)
EXITS = (500.0, 2000.0)


def counts_of(policy: str, size: int, ways: int, cache: int) -> tuple[int, int]:
    """Return exits and references: exits do not move, references fall with ways and cache."""
    exits = {"native": 0, "nested": 10 * size, "lsp": 40 * size}[policy]
    references = {"native": 3, "nested": 15, "lsp": 3}[policy] * size * 64 // ways
    return exits, references - references * cache // 16


def made() -> Iterator[dict[str, Any]]:
    """Yield all rows: three policies, two traces, two costs, six machines."""
    for (trace, size), policy, ways, cache, exit_cost in product(
        (("small", 10), ("large", 1000)), ("native", "nested", "lsp"), WAYS, CACHES, EXITS
    ):
        exits, references = counts_of(policy, size, ways, cache)
        costs = CostTable(exit=exit_cost)
        document = {
            "exits": {"total": exits, "at_least": exits, Exit.SATP_WRITE.key: exits},
            "tlb_misses": references // 3,
            "walk_refs": {"vs": references, "g": 0},
            "sync_reads": 0,
            "reasons": {},
        }
        yield {
            **dict.fromkeys(SCHEMA.names),
            "key": f"{trace}-{policy}-{ways}-{cache}-{exit_cost}",
            "trace": trace,
            "policy": policy,
            "options": [("fast_path", "on")] if policy == "lsp" else [],
            "setup": "h",
            "tlb_data_sets": 64,
            "tlb_data_ways": ways,
            "walk_cache_ways": cache,
            **{f"cost_{name}": getattr(costs, name) for name in _SCALARS},
            **{f"cost_handling_{kind.key}": costs.handling.get(kind, 0.0) for kind in Exit},
            "exits": exits,
            "tlb_misses": references // 3,
            "walk_refs": references,
            "cycles_total": cycles(document, costs).total,
            "counts": json.dumps(document),
        }


_SCALARS = ("reference", "exit", "fast_exit", "synchronised")


def folder_of(folder: Path, rows: list[dict[str, Any]], status: str = "done") -> Path:
    """Write ``rows`` as the results of a sweep in ``folder`` and return it."""
    (folder / RESULTS).mkdir(parents=True)
    write_rows(folder, "a", rows[::2])
    write_rows(folder, "b", rows[1::2])
    (folder / NAME).write_text(json.dumps({"status": status, "outcome": {"missing": 0}}))
    return folder
