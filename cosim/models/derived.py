"""What follows from the counts: ratios, estimated cycles, the break-even exit cost.

Nothing here is measured.  Every value can be computed again from the ``policies`` of a result and
the parameters of its cost table (:mod:`hypervisor_model.costs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, TypedDict

from hypervisor_model.costs import CostTable, Cycles, break_even, cycles
from hypervisor_model.errors import ModelError

Policies = Mapping[str, Mapping[str, Any]]

BASELINE = "shadow"
"""The policy whose exits the others are compared with."""
_RIVALS = ("lsp", "nested")
"""The policies whose break-even exit cost is given."""


class CyclesOf(TypedDict):
    """Estimated cycles of one policy, by what they are spent on."""

    total: float
    exits: float
    fast_exits: float
    handling: float
    walks: float
    synchronisation: float


class BreakEven(TypedDict):
    """How two policies compare, whatever an exit costs."""

    one: str
    other: str
    exit_cost: float | None
    """The cost of an exit, in cycles, at which both cost the same.  None: there is none."""
    below: str | None
    """The cheaper one below that cost; at every cost if there is none.  None: they are equal."""
    above: str | None
    """The cheaper one above that cost; at every cost if there is none.  None: they are equal."""


class Derived(TypedDict):
    """The part ``derived`` of a result.  A value that needs an unknown count is None."""

    exits_vs_shadow: dict[str, float | None]
    """Exits divided by those of shadow paging; empty if that was not modelled."""
    references_per_miss: dict[str, float | None]
    """References of hardware walks for each TLB miss."""
    cost_table: dict[str, Any]
    """``name`` and the parameters, in cycles."""
    cycles: dict[str, CyclesOf | None]
    break_even: list[BreakEven]
    reasons: dict[str, str]
    """Why the cycles of a policy are None."""


def derive(policies: Policies, table: CostTable | None = None) -> Derived:
    """Return what follows from the counts of ``policies``.

    :param policies: the part of that name of a result.
    :param table: the costs; by default :class:`CostTable`'s.
    """
    costs = table or CostTable()
    estimated: dict[str, CyclesOf | None] = {}
    known: dict[str, Cycles] = {}
    reasons = {}
    for name, policy in policies.items():
        try:
            found = _cycles(policy, costs)
        except ModelError as error:
            estimated[name], reasons[name] = None, str(error)
            continue
        known[name] = found
        estimated[name] = CyclesOf(
            total=found.total,
            exits=found.exits,
            fast_exits=found.fast_exits,
            handling=found.handling,
            walks=found.walks,
            synchronisation=found.synchronisation,
        )
    return Derived(
        exits_vs_shadow=_against(policies),
        references_per_miss={name: _references(policy) for name, policy in policies.items()},
        cost_table=costs.to_json(),
        cycles=estimated,
        break_even=list(_break_evens(policies, known, costs)),
        reasons=reasons,
    )


def models_of(policies: Iterable[str], policy: str) -> list[str]:
    """Return the models of ``policy``: its name, or several with options behind it."""
    return [name for name in policies if name.partition(":")[0] == policy]


def _against(policies: Policies) -> dict[str, float | None]:
    baselines = models_of(policies, BASELINE)
    if not baselines:
        return {}
    base = policies[baselines[0]]["exits"]["total"]
    totals = {name: policy["exits"]["total"] for name, policy in policies.items()}
    return {
        name: total / base if base and total is not None else None for name, total in totals.items()
    }


def _references(policy: Mapping[str, Any]) -> float | None:
    references, misses = policy.get("walk_refs"), policy.get("tlb_misses")
    return sum(references.values()) / misses if references and misses else None


def _cycles(policy: Mapping[str, Any], costs: CostTable) -> Cycles:
    """Return the cycles of a policy.

    :raises ModelError: when a count is unknown, or covers less than the run.
    """
    found = cycles(policy, costs)
    for key in ("exits.total", "walk_refs"):
        if key in policy.get("reasons", {}):
            raise ModelError(f"no cycles: {key} covers only a part of the run")
    return found


def _break_evens(
    policies: Policies, known: Mapping[str, Cycles], costs: CostTable
) -> Iterator[BreakEven]:
    for one, other in product(*(models_of(known, policy) for policy in _RIVALS)):
        cost = break_even(policies[one], policies[other], costs)
        a, b = known[one], known[other]
        if cost is not None:
            more, fewer = (one, other) if a.transitions > b.transitions else (other, one)
            yield BreakEven(one=one, other=other, exit_cost=cost, below=more, above=fewer)
            continue
        cheaper = None if a.total == b.total else one if a.total < b.total else other
        yield BreakEven(one=one, other=other, exit_cost=None, below=cheaper, above=cheaper)
