"""What the models say of a recording, on a stream written by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from cosim.debug import analysis
from cosim.debug.analysis import Analysis
from cosim.debug.commands.history import rule
from cosim.debug.debuggee import Recording
from cosim.kernel.places import Places
from cosim.models.result import Origin
from hypervisor_model.policies import MachineModel, Stream
from tests.hypervisor_model.test_fences import NEW, SIZE, VA, started

WRONG = 50
ORIGIN = Origin(
    guest={"name": "hand-made", "kernel": "/nowhere"},
    backend="plugin",
    region={"from": "boot", "to": "power-off"},
    stream=Stream(filter=1),
    machine=MachineModel(ram_size=SIZE),
)


def wrong_answers() -> Recording:
    """A recording in which QEMU translates an address ``WRONG`` times to a frame that it never
    had."""
    guest, _ = started()
    guest.fence(VA)
    for _ in range(WRONG):
        guest.access(VA)
    events = guest.batch()
    events["b"][-WRONG:] = NEW
    said = Analysis(events, ORIGIN, Places(None), ("native",))
    return cast(Recording, SimpleNamespace(analysis=said, timeline=SimpleNamespace(events=events)))


def test_every_divergence_is_a_place_to_stop() -> None:
    recording = wrong_answers()
    stops = rule(recording, "divergence")
    first = len(recording.timeline.events) - WRONG
    assert stops.numbers.tolist() == list(range(first, first + WRONG))
    assert stops.text(first).startswith(
        f"divergence: reference translates {VA:#x} (read) to {NEW:#x}"
    )
    assert stops.note == ""


def test_divergences_that_are_not_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_DIVERGENCES", 20)
    stops = rule(wrong_answers(), "divergence")
    assert len(stops.numbers) == 20
    assert stops.note == "the first ones; 30 further translations are illegal"
