"""The rows of a sweep as cases: settings that vary, and counts.

A setting has the name that a sweep file gives it, such as ``machine.tlb.data``.  A parameter is a
setting that has more than one value among the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.dataset as ds

from cosim.sweep.result_files import files_of
from cosim.sweep.row_schema import SCHEMA
from hypervisor_model.costs import CostTable
from hypervisor_model.exits import Exit

COUNTERS = {
    "exits": "VM exits",
    "tlb_misses": "TLB misses",
    "walk_refs": "page-walk references",
    "cycles_total": "estimated cycles",
}
"""What is compared: the column and what people call it."""

_LEVELS = ("data", "fetch", "second")
_MACHINE = (
    *("setup", "tlb_replacement", "tlb_superpages", "tlb_seed", "walk_cache_ways"),
    *("gstage_mode", "gstage_page", "footprint_data", "footprint_code"),
)
_COSTS = [name for name in SCHEMA.names if name.startswith("cost_") and name != "cost_name"]
_PAGES = {1 << 12: "4K", 1 << 21: "2M"}
_READ = [
    *("trace", "policy", "options", *_MACHINE, *_COSTS, *COUNTERS, "counts"),
    *(f"tlb_{level}_{part}" for level in _LEVELS for part in ("sets", "ways")),
]


class Value(NamedTuple):
    """A value of a setting: how it reads, and its number if it is one."""

    text: str
    number: float | None = None

    @classmethod
    def of(cls, value: Any) -> Value:
        """Return the value of a column or an option."""
        if value is None:
            return cls("none")
        if isinstance(value, bool):
            return cls("on" if value else "off")
        try:
            number = float(value)
        except ValueError:
            return cls(str(value))
        return cls(f"{number:,.15g}", number)


@dataclass(frozen=True)
class Case:
    """One row of a sweep."""

    trace: str
    policy: str
    settings: Mapping[str, Value]
    counts: Mapping[str, float | None]
    """By the keys of :data:`COUNTERS`; None: not known."""
    document: str
    """The policy's part of a result, as JSON."""
    costs: CostTable

    @cached_property
    def result(self) -> dict[str, Any]:
        """The policy's part of a result."""
        found: dict[str, Any] = json.loads(self.document)
        return found


class Parameter(NamedTuple):
    """A setting that varies."""

    name: str
    values: tuple[Value, ...]
    """Numbers by size, then texts."""

    @property
    def numeric(self) -> bool:
        """True if every value is a number, and no two are the same."""
        numbers = [value.number for value in self.values]
        return None not in numbers and len(set(numbers)) == len(numbers)

    @property
    def label(self) -> str:
        """The name as it reads at an axis."""
        return f"{self.name} (entries)" if self.name.startswith("machine.tlb.") else self.name


def read(folder: Path) -> list[Case]:
    """Return the rows that are in the folder of a sweep now, in the order of their configurations.

    :raises UsageError: when there are none, or a file of results is damaged.
    """
    rows = ds.dataset(files_of(folder), schema=SCHEMA, format="parquet").to_table(columns=_READ)
    cases = [_case(row) for row in rows.to_pylist()]
    # Files come in the order of their names, which says nothing.
    return sorted(cases, key=lambda case: (case.trace, case.policy, _order(case.settings)))


def _order(settings: Mapping[str, Value]) -> list[tuple[str, bool, float, str]]:
    return [
        (name, value.number is None, value.number or 0.0, value.text)
        for name, value in settings.items()
    ]


def _case(row: Mapping[str, Any]) -> Case:
    policy = row["policy"]
    settings = {f"machine.{_key(name)}": Value.of(row[name]) for name in _MACHINE}
    # There are two sizes of pages, and nothing between them.
    page = row["gstage_page"]
    settings["machine.gstage_page"] = Value("none" if page is None else _PAGES.get(page, str(page)))
    for level in _LEVELS:
        sets, ways = (row[f"tlb_{level}_{part}"] for part in ("sets", "ways"))
        shape = Value("none", 0) if sets is None else Value(f"{sets} x {ways}", sets * ways)
        settings[f"machine.tlb.{level}"] = shape
    settings |= {f"options.{policy}.{name}": Value.of(value) for name, value in row["options"]}
    settings |= {f"costs.{_cost(name)}": Value.of(row[name]) for name in _COSTS}
    handling = {kind: row[f"cost_handling_{kind.key}"] for kind in Exit}
    costs = CostTable(
        reference=row["cost_reference"],
        exit=row["cost_exit"],
        fast_exit=row["cost_fast_exit"],
        synchronised=row["cost_synchronised"],
        handling=handling,
    )
    counts = {key: row[key] for key in COUNTERS}
    return Case(row["trace"], policy, settings, counts, row["counts"], costs)


def _key(column: str) -> str:
    """Return the key of a machine's column in a sweep file."""
    head, _, rest = column.partition("_")
    return f"tlb.{rest}" if head == "tlb" else column


def _cost(column: str) -> str:
    """Return the key of a cost's column in a sweep file."""
    name = column.removeprefix("cost_")
    head, _, rest = name.partition("handling_")
    return name if head else f"handling.{rest}"


def parameters(cases: Iterable[Case]) -> list[Parameter]:
    """Return the settings that have more than one value, by name."""
    found: dict[str, set[Value]] = {}
    for case in cases:
        for name, value in case.settings.items():
            found.setdefault(name, set()).add(value)
    return [
        Parameter(name, tuple(sorted(values, key=by_size)))
        for name, values in sorted(found.items())
        if len(values) > 1
    ]


def by_size(value: Value) -> tuple[bool, float, str]:
    """Return a key that sorts numbers by size, then texts."""
    return value.number is None, value.number or 0.0, value.text


def groups(cases: Iterable[Case]) -> Iterator[tuple[str, str, list[Case]]]:
    """Yield trace, policy and the cases of both."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        found.setdefault((case.trace, case.policy), []).append(case)
    for (trace, policy), members in found.items():
        yield trace, policy, members


def names(values: Iterable[str]) -> Sequence[str]:
    """Return each of ``values`` once, in the order in which they come."""
    return list(dict.fromkeys(values))
