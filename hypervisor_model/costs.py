"""From counts to cycles, and the exit cost at which one policy overtakes another.

Counts are what the models measure; cycles are counts times the parameters of a :class:`CostTable`
(paging-models section 7).  **The default parameters are our assumptions**, neither measured nor
quoted: round figures meant to be of the order reported for other architectures, of exits by
O. Agesen et al., "Software Techniques for Avoiding Hardware Virtualization Exits" (USENIX ATC
2012), and C. Dall et al., "ARM Virtualization: Performance and Architectural Implications" (ISCA
2016), of caches by the "Intel 64 and IA-32 Architectures Optimization Reference Manual".  No
hypervisor runs shadow or LSP on RISC-V hardware with the H extension whose exits could be measured
here.  Measure your own machine and put its numbers in: ``CostTable(reference=..., exit=...)``.
:func:`break_even` needs no exit cost and so assumes the least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hypervisor_model.errors import ModelError
from hypervisor_model.exits import M_MODE, Exit

_HANDLING = {
    Exit.PT_WRITE: 600,
    Exit.FENCE: 100,
    Exit.FENCE_FAST: 50,
    Exit.FENCE_GLOBAL: 200,
    Exit.SATP_WRITE: 200,
    Exit.SHADOW_FILL: 500,
    Exit.DIRTY_FILL: 300,
    Exit.GUEST_FAULT: 200,
    Exit.GSTAGE_FAULT: 600,
    Exit.REMOTE_FENCE: 400,
}


@dataclass(frozen=True)
class CostTable:
    """Cycles of everything that is counted.  Every default is our assumption.

    :raises ModelError: when a cost is negative.
    """

    reference: float = 20
    """One memory reference of a hardware walk: most page-table entries hit the L2 cache, the others
    the L3 or memory."""
    exit: float = 1000
    """The transition of one exit and back, without what is done in between: trap, saving and
    restoring the guest's registers and CSRs."""
    fast_exit: float = 100
    """The same for an exit to the M-mode fast path, which saves only a few registers and keeps the
    guest's context (paging-models section 2): a tenth of an exit."""
    handling: Mapping[Exit, float] = field(default_factory=lambda: dict(_HANDLING))
    """What the hypervisor does at an exit of each kind, in hundreds of instructions: decode and
    emulate a store, walk the guest's tables in software, fill an entry, send a request to other
    harts and wait for them (whose own time is not in it)."""
    synchronised: float = 30
    """One guest entry read, translated and compared by an active synchronisation: one reference and
    some ten instructions."""
    name: str = field(default="", compare=False)
    """What a report calls the table; see :attr:`title`."""

    def __post_init__(self) -> None:
        scalars = [getattr(self, key) for key in self._scalars()]
        if min(*scalars, *self.handling.values()) < 0:
            raise ModelError("costs: a cost cannot be negative")

    @staticmethod
    def _scalars() -> list[str]:
        return [one.name for one in fields(CostTable) if one.name not in ("handling", "name")]

    @property
    def title(self) -> str:
        """The name; without one ``default`` if all costs are the defaults, else ``own``."""
        return self.name or ("default" if self == CostTable() else "own")

    def to_json(self) -> dict[str, Any]:
        """Return ``name`` and all costs, for JSON."""
        handling = {kind.key: cost for kind, cost in self.handling.items()}
        scalars = {key: getattr(self, key) for key in self._scalars()}
        return {"name": self.title, **scalars, "handling": handling}


@dataclass(frozen=True)
class Cycles:
    """Cycles of one policy, by what they are spent on.

    ``transitions`` are the exits that cost :attr:`CostTable.exit` each; all else does not depend
    on that parameter.
    """

    transitions: int
    exits: float
    fast_exits: float
    handling: float
    walks: float
    synchronisation: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.exits + self.without_exits

    @property
    def without_exits(self) -> float:
        """All but the transitions of exits."""
        return self.fast_exits + self.handling + self.walks + self.synchronisation


def cycles(policy: Mapping[str, Any], table: CostTable | None = None) -> Cycles:
    """Return the cycles of one policy.

    :param policy: its part of a result document (:meth:`PolicyResult.to_json`).
    :param table: the costs; by default :class:`CostTable`'s.
    :raises ModelError: when a count that the costs need is unknown (null) in this run.
    """
    costs = table or CostTable()
    kinds = {kind: policy["exits"].get(kind.key, 0) for kind in Exit}
    refs = policy["walk_refs"]
    unknown = [f"exits.{kind.key}" for kind, count in kinds.items() if count is None]
    if refs is None:
        unknown.append("walk_refs")
    synced = policy.get("sync_reads", 0)
    if synced is None:
        unknown.append("sync_reads")
    if unknown:
        raise ModelError(f"no cycles without {', '.join(unknown)}: the run did not count it")
    slow = sum(count for kind, count in kinds.items() if kind not in M_MODE)
    fast = sum(count for kind, count in kinds.items() if kind in M_MODE)
    return Cycles(
        transitions=slow,
        exits=slow * costs.exit,
        fast_exits=fast * costs.fast_exit,
        handling=sum(count * costs.handling.get(kind, 0) for kind, count in kinds.items()),
        walks=sum(refs.values()) * costs.reference,
        synchronisation=synced * costs.synchronised,
    )


def break_even(
    one: Mapping[str, Any], other: Mapping[str, Any], table: CostTable | None = None
) -> float | None:
    """Return the cost of an exit, in cycles, at which two policies cost the same.

    Below it the policy with more exits is the cheaper one, above it the other.  None if there
    is no such cost: the policies exit equally often, or one is cheaper at every cost.

    :param one: a policy's part of a result document.
    :param other: another's, of the same run.
    :param table: the other costs; its ``exit`` plays no part.
    :raises ModelError: when a count that the costs need is unknown (null) in this run.
    """
    a, b = cycles(one, table), cycles(other, table)
    if a.transitions == b.transitions:
        return None
    cost = (b.without_exits - a.without_exits) / (a.transitions - b.transitions)
    return cost if cost >= 0 else None
