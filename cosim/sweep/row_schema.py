"""The table of a sweep's results: one row for each trace and configuration.

Every file of results has these columns, in this order, so a folder of them is one table.  A count
that could not be measured is null, and ``reasons`` says why; a count that a policy does not have
is null, too.  docs/sweeps.md describes the columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from cosim.models.derived import derive
from cosim.sweep.feeding import Fed
from cosim.sweep.grid import Configuration, cost_table
from hypervisor_model.costs import CostTable
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.policies import MachineModel

Row = dict[str, Any]

VERSION = 1
"""Of the table.  A change that a reader could misunderstand raises it."""

_LEVELS = ("data", "fetch", "second")
_WORDS = pa.map_(pa.string(), pa.string())
_SCALARS = ("reference", "exit", "fast_exit", "synchronised")
_CYCLES = ("total", "exits", "fast_exits", "handling", "walks", "synchronisation")
_JUDGED = ("compared", "fresh", "stale_legal", "illegal", "undecided")

_ABOUT = [
    ("key", pa.string()),
    ("trace", pa.string()),
    ("trace_sha256", pa.string()),
    ("trace_path", pa.string()),
    ("trace_complete", pa.bool_()),
    ("trace_events", pa.int64()),
    ("guest", pa.string()),
    ("command_line", pa.string()),
    ("cpu", pa.string()),
    ("memory", pa.int64()),
    ("backend", pa.string()),
    ("accesses", pa.string()),
    ("filter", pa.int64()),
    ("harts", pa.int64()),
    ("capture", _WORDS),
    ("version", pa.string()),
    ("code", pa.string()),
    ("finished", pa.timestamp("us", tz="UTC")),
    ("seconds", pa.float64()),
]
_CONFIGURATION = [
    ("policy", pa.string()),
    ("model", pa.string()),
    ("options", _WORDS),
    ("setup", pa.string()),
    *((f"tlb_{level}_{part}", pa.int64()) for level in _LEVELS for part in ("sets", "ways")),
    ("tlb_replacement", pa.string()),
    ("tlb_superpages", pa.bool_()),
    ("tlb_seed", pa.int64()),
    ("walk_cache_ways", pa.int64()),
    ("gstage_mode", pa.string()),
    ("gstage_page", pa.int64()),
    ("footprint_data", pa.int64()),
    ("footprint_code", pa.int64()),
    ("machine", pa.string()),
    ("cost_name", pa.string()),
    *((f"cost_{name}", pa.float64()) for name in _SCALARS),
    *((f"cost_handling_{kind.key}", pa.float64()) for kind in Exit),
]
_COUNTS = [
    ("exits", pa.int64()),
    ("exits_at_least", pa.int64()),
    *((f"exits_{kind.key}", pa.int64()) for kind in Exit),
    ("tlb_misses", pa.int64()),
    *((f"tlb_hits_{level}", pa.int64()) for level in _LEVELS),
    ("tlb_displaced", pa.int64()),
    ("walk_refs", pa.int64()),
    ("walk_refs_vs", pa.int64()),
    ("walk_refs_g", pa.int64()),
    ("walk_cache_hits", pa.int64()),
    *((counter.key, pa.int64()) for counter in Counter),
    *((f"cycles_{part}", pa.float64()) for part in _CYCLES),
    *((f"translations_{verdict}", pa.int64()) for verdict in _JUDGED),
    ("reasons", _WORDS),
    ("counts", pa.string()),
]

SCHEMA = pa.schema(
    [*_ABOUT, *_CONFIGURATION, *_COUNTS],
    metadata={"lsp-cosim-sweep": str(VERSION)},
)
"""The columns of every file of results."""


class TraceFacts(NamedTuple):
    """What the rows of one trace have in common."""

    name: str
    path: str
    sha256: str
    complete: bool
    events: int
    guest: Mapping[str, Any]
    """As in a result document."""
    backend: str
    accesses: str
    filter: int
    harts: int
    capture: Mapping[str, str]
    """What the sweep's file asked for, if it captured the trace: keys and values as text."""


def row(
    key: str,
    trace: TraceFacts,
    one: Configuration,
    fed: Fed,
    *,
    version: str,
    code: str,
    finished: datetime,
) -> Row:
    """Return one row.

    :param version: of the tool.
    :param code: the digest of the models' code.
    """
    guest = trace.guest
    costs = cost_table(one.costs)
    cycles = derive({one.policy: fed.policy}, costs)["cycles"][one.policy]
    found: Row = {
        "key": key,
        "trace": trace.name,
        "trace_sha256": trace.sha256,
        "trace_path": trace.path,
        "trace_complete": trace.complete,
        "trace_events": trace.events,
        "guest": guest.get("name"),
        "command_line": guest.get("command_line"),
        "cpu": guest.get("cpu"),
        "memory": guest.get("memory"),
        "backend": trace.backend,
        "accesses": trace.accesses,
        "filter": trace.filter,
        "harts": trace.harts,
        "capture": list(trace.capture.items()),
        "version": version,
        "code": code,
        "finished": finished,
        "seconds": fed.seconds,
        "policy": one.policy,
        "model": one.model,
        "options": list(one.options.items()),
        **_machine(fed.machine),
        **_costs(costs),
        **_counts(fed.policy),
        **{f"cycles_{part}": cycles[part] if cycles else None for part in _CYCLES},  # type: ignore[literal-required]
        **{f"translations_{part}": fed.translations[part] for part in _JUDGED},  # type: ignore[literal-required]
        "reasons": list(fed.policy["reasons"].items()),
        "counts": json.dumps(fed.policy),
    }
    return found


def _machine(machine: MachineModel) -> Row:
    tlb = machine.tlb
    shapes = {level: getattr(tlb, level) or (None, None) for level in _LEVELS}
    return {
        "setup": machine.setup,
        **{f"tlb_{level}_sets": shape[0] for level, shape in shapes.items()},
        **{f"tlb_{level}_ways": shape[1] for level, shape in shapes.items()},
        "tlb_replacement": tlb.replacement.name.lower(),
        "tlb_superpages": tlb.superpages,
        "tlb_seed": tlb.seed,
        "walk_cache_ways": machine.walk_cache_ways,
        "gstage_mode": machine.gstage_mode.name.lower(),
        "gstage_page": machine.gstage_page,
        "footprint_data": machine.footprint_data,
        "footprint_code": machine.footprint_code,
        "machine": json.dumps(machine.to_json()),
    }


def _costs(costs: CostTable) -> Row:
    return {
        "cost_name": costs.title,
        **{f"cost_{name}": float(getattr(costs, name)) for name in _SCALARS},
        **{f"cost_handling_{kind.key}": float(costs.handling.get(kind, 0)) for kind in Exit},
    }


def _counts(policy: Mapping[str, Any]) -> Row:
    exits, hits, references = policy["exits"], policy["tlb_hits"] or {}, policy["walk_refs"]
    return {
        "exits": exits["total"],
        "exits_at_least": exits["at_least"],
        **{f"exits_{kind.key}": exits.get(kind.key) for kind in Exit},
        "tlb_misses": policy["tlb_misses"],
        **{f"tlb_hits_{level}": hits.get(level) for level in _LEVELS},
        "tlb_displaced": policy["tlb_displaced"],
        "walk_refs": None if references is None else sum(references.values()),
        "walk_refs_vs": None if references is None else references["vs"],
        "walk_refs_g": None if references is None else references["g"],
        "walk_cache_hits": policy["walk_cache_hits"],
        **{counter.key: policy.get(counter.key) for counter in Counter},
    }
