"""What a report says of several runs."""

from __future__ import annotations

from typing import Any

from cosim.report import from_spread
from cosim.report.content import Table

COUNTS: dict[str, Any] = {
    "region.instructions": {"median": 1000, "lowest": 900, "highest": 1100},
    "events.fence.va": {"median": 0, "lowest": 0, "highest": 3},
    "policies.lsp.exits.total": {"median": 2.5, "lowest": 2, "highest": 3},
    "policies.lsp.exits.at_least": {"median": 2.5, "lowest": 2, "highest": 3},
    "policies.shadow.exits.at_least": {"median": 8, "lowest": 8, "highest": 8},
}


def rows(table: object) -> list[list[str]]:
    assert isinstance(table, Table)
    return [[cell.text for cell in row] for row in table.rows]


def test_the_short_table_has_totals_and_the_long_one_all() -> None:
    short, full = from_spread.sections({"runs": 3, "findings": 0, "counts": COUNTS})
    assert short.heading == "Median and spread of 3 runs" and not short.detail and full.detail
    assert rows(short.parts[0]) == [
        ["region.instructions", "1,000", "900", "1,100", "20\u00a0%"],
        ["lsp.exits.total", "2.5", "2", "3", "40\u00a0%"],
        ["shadow.exits.at_least", "8", "8", "8", "none"],
    ]
    assert ["events.fence.va", "0", "0", "3", "3"] in rows(full.parts[0])
    assert len(rows(full.parts[0])) == len(COUNTS)


def test_it_says_which_run_is_shown() -> None:
    (middle,) = from_spread.sentences({"runs": 3, "findings": 0, "counts": {}})
    assert middle == "Of 3 runs this is the one in the middle, by its instructions."
    (found,) = from_spread.sentences({"runs": 3, "findings": 2, "counts": {}})
    assert found == "2 of 3 runs have a finding; this is the first."


def test_one_run_says_nothing() -> None:
    assert not [*from_spread.sections(None), *from_spread.sentences(None)]
