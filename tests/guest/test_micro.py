"""What the tool says of the scenarios of ``micro``."""

from __future__ import annotations

from cosim.check.document import KINDS
from cosim.paths import SOURCE
from guest.micro.scenarios import harts_for, scenarios


def test_every_row_of_the_table_is_read() -> None:
    table = (SOURCE / "guest/micro/scenario_list.c").read_text()
    assert len(scenarios()) == table.count("run_") > 30


def test_every_seeded_bug_has_a_repaired_twin() -> None:
    named = {one.name: one.seeded_bug for one in scenarios()}
    bugs = [name for name in named if name.startswith("bug-")]
    assert len(bugs) > 8
    for name in bugs:
        assert named[name] in KINDS
        assert named[name.replace("bug-", "fixed-")] is None


def test_scenarios_of_two_harts_say_so() -> None:
    assert harts_for("map,bug-remote") == harts_for("fixed-remote") == 2
    assert harts_for("all") == harts_for("map,bug-free") == harts_for("nonsense") == 1
