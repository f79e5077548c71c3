"""What the line of the live view says."""

from __future__ import annotations

from cosim.session.protocol import Progress
from cosim.session.view import line


def test_a_recording_shows_what_is_left_or_why_nobody_knows() -> None:
    known = Progress("recording", 2.0, 0, "Booting", {}, left=6.2)
    assert line(known, 0.0) == "recording   2.0 s, about 6 s left  Booting"
    first = Progress("recording", 2.0, 0, "", {}, remark="no earlier run to estimate from")
    assert line(first, 0.0) == "recording   2.0 s (no earlier run to estimate from)"


def test_gdb_s_part_shows_how_many_events_there_are() -> None:
    known = Progress("in the region", 9.0, 500, "walk", {"lsp": 3}, of=2000, left=240.0)
    assert line(known, 55.0) == (
        "in the region   9.0 s  500 of 2,000 events, 55/s, about 4 min left  walk  exits: lsp 3"
    )
