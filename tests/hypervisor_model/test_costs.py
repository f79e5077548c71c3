"""Costs against sums made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model.costs import CostTable, break_even, cycles
from hypervisor_model.errors import ModelError
from hypervisor_model.exits import Exit

FREE = dict.fromkeys(Exit, 0.0)


def policy(refs: int = 0, sync_reads: int = 0, **exits: int | None) -> dict[str, Any]:
    return {"exits": exits, "walk_refs": {"vs": refs, "g": 0}, "sync_reads": sync_reads}


def test_every_count_has_its_cost() -> None:
    table = CostTable(
        reference=3,
        exit=1000,
        fast_exit=10,
        handling={Exit.PT_WRITE: 7, Exit.FENCE_FAST: 1},
        synchronised=2,
    )
    found = cycles(policy(refs=5, sync_reads=4, pt_write=2, fence_fast=8, fence=1), table)
    assert found.transitions == 3, "the fast path is no full exit"
    assert found.total == 3 * 1000 + 8 * 10 + (2 * 7 + 8 * 1) + 5 * 3 + 4 * 2
    assert found.without_exits == found.total - 3000


def test_nested_against_lsp_by_hand() -> None:
    """100 misses of 15 references against 100 of 3 and 10 fills: 1,200 references buy 10 exits."""
    table = CostTable(reference=20, handling=FREE)
    nested, lsp = policy(refs=1500), policy(refs=300, shadow_fill=10)
    assert break_even(nested, lsp, table) == 1200 * 20 / 10
    assert break_even(lsp, nested, table) == 1200 * 20 / 10


def test_no_break_even_where_one_always_wins_or_exits_are_equal() -> None:
    table = CostTable(handling=FREE)
    assert break_even(policy(refs=10, fence=5), policy(refs=10, satp_write=5), table) is None
    assert break_even(policy(refs=10, fence=5), policy(refs=20, fence=9), table) is None


@given(
    *(st.tuples(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4)),) * 2,
)
def test_at_the_break_even_cost_both_cost_the_same(
    left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    one, other = (policy(refs=r, shadow_fill=f, fence_fast=m) for r, f, m in (left, right))
    cost = break_even(one, other)

    def dearer(exit_cost: float) -> float:
        table = CostTable(exit=exit_cost)
        return cycles(one, table).total - cycles(other, table).total

    if cost is None:
        # One is cheaper at every cost, or they exit equally often.
        assert dearer(0) * dearer(1e12) > 0 or left[1] == right[1]
    else:
        total = cycles(one, CostTable(exit=cost)).total
        assert dearer(cost) == pytest.approx(0, abs=1e-9 * max(total, 1))


def test_unknown_counts_and_negative_costs_are_refused() -> None:
    with pytest.raises(ModelError, match=r"exits\.shadow_fill"):
        cycles(policy(shadow_fill=None))
    with pytest.raises(ModelError, match="walk_refs"):
        cycles({"exits": {}, "walk_refs": None})
    with pytest.raises(ModelError, match="negative"):
        CostTable(exit=-1)
