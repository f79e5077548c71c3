"""Counts of several runs: by hand."""

from __future__ import annotations

from typing import Any

from cosim.models.result import ResultDocument, has_finding
from cosim.models.spread import combine


def result(instructions: int, exits: int | None, **others: Any) -> ResultDocument:
    document = {
        "guest": {"name": "linux", "memory": 1 << 29},
        "region": {"from": "boot", "instructions": instructions},
        "events": {"pte_write": 7, "fence": {"va": exits}, "reasons": {"access": "why"}},
        "audit": {"missed_writes": 0, "missed": []},
        "policies": {"lsp": {"exits": {"total": exits}, "reasons": {}}},
        "translations": {},
    }
    return ResultDocument(**{**document, **others})  # type: ignore[typeddict-item]


def test_each_count_has_its_median_and_its_spread() -> None:
    combined = combine([result(30, 5), result(10, 9), result(20, 6), result(40, 8)])
    assert combined["region"]["instructions"] == 20
    spread = combined["spread"]
    assert (spread["runs"], spread["findings"]) == (4, 0)
    assert spread["counts"] == {
        "region.instructions": {"median": 25, "lowest": 10, "highest": 40},
        "events.pte_write": {"median": 7, "lowest": 7, "highest": 7},
        "events.fence.va": {"median": 7, "lowest": 5, "highest": 9},
        "audit.missed_writes": {"median": 0, "lowest": 0, "highest": 0},
        "policies.lsp.exits.total": {"median": 7, "lowest": 5, "highest": 9},
    }
    assert not has_finding(combined)


def test_a_median_between_two_counts_is_no_whole_number() -> None:
    counts = combine([result(1, 2), result(1, 3)])["spread"]["counts"]
    assert counts["policies.lsp.exits.total"]["median"] == 2.5


def test_a_count_that_one_run_does_not_know_is_left_out() -> None:
    counts = combine([result(1, 2), result(1, None), result(1, 4)])["spread"]["counts"]
    assert "policies.lsp.exits.total" not in counts and "events.pte_write" in counts


def test_a_finding_of_any_run_is_shown_and_is_one() -> None:
    missed = result(50, 5, audit={"missed_writes": 1})
    combined = combine([result(1, 5), missed, result(2, 5)])
    assert combined["audit"] == {"missed_writes": 1}
    assert combined["spread"]["findings"] == 1
    assert has_finding(combined)
    # Also if the document that is shown were without it.
    assert has_finding(ResultDocument(**{**combined, "audit": None}))
