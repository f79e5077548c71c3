"""Address spaces against a loop over single events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.capture.processes import Process
from cosim.models import address_spaces
from cosim.models.address_spaces import OTHERS, AddressSpaces, space_name
from hypervisor_model.events import EventBatch, Kind, Priv, Satp, empty
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import signed, unsigned

SATPS = [0, *(signed(make(Mode.SV39, 0x8000_1000 + (n << 12), n)) for n in range(5))]


def events(seed: int, count: int, harts: int) -> EventBatch:
    """Accesses and writes of all registers that hold roots."""
    random = np.random.default_rng(seed)
    batch = empty(count)
    batch["kind"] = random.choice([Kind.ACCESS, Kind.SATP_WRITE], count)
    batch["sub"] = random.choice([Satp.SATP, Satp.SATP, Satp.VSATP], count)
    batch["hart"] = random.integers(0, harts, count)
    batch["priv"] = random.choice([Priv.U, Priv.S], count)
    batch["b"] = random.choice(SATPS, count)
    batch["c"] = random.integers(0, 3, count)
    return batch


def naive(batch: EventBatch, harts: int) -> list[tuple[int, int]]:
    """The ``satp`` under which each event happened, and the number of its process."""
    current, found = [(0, 0)] * harts, []
    for event in batch:
        found.append(current[event["hart"]])
        if event["kind"] == Kind.SATP_WRITE and event["sub"] == Satp.SATP:
            current[event["hart"]] = unsigned(int(event["b"])), int(event["c"])
    return found


@given(
    st.integers(0, 10_000),
    st.integers(0, 60),
    st.integers(1, 3),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_each_event_is_in_the_space_that_its_hart_loaded_last(
    seed: int, count: int, harts: int, cuts: list[int]
) -> None:
    batch = events(seed, count, harts)
    spaces = AddressSpaces(harts)
    numbers = [one for piece in np.split(batch, sorted(cuts)) for one in spaces.feed(piece)]
    expected = naive(batch, harts)
    processes = {1: Process(7, "sh"), 2: Process(8, "ls")}
    found = [(spaces.satps[n], spaces.owner(n, processes)) for n in numbers]
    assert found == [(satp, processes.get(owner)) for satp, owner in expected]
    asked, whole = np.flatnonzero(np.arange(count) % 3 == 1), AddressSpaces(harts)
    some = [(whole.satps[n], whole.owner(n, processes)) for n in whole.feed(batch, asked)]
    assert some == [found[at] for at in asked]
    # One number for each satp with its process.
    assert len(set(numbers)) == len(set(expected))
    users = batch["priv"] == Priv.U
    of_user = {one for one, user in zip(found, users, strict=True) if user}
    for known in (spaces, whole):
        every = range(len(known.satps))
        with_user = [n for n in every if known.has_user(n)]
        assert {(known.satps[n], known.owner(n, processes)) for n in with_user} == of_user


def test_spaces_beyond_the_last_share_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_spaces, "OTHERS", 3)
    spaces = AddressSpaces()
    assert [spaces.number(satp) for satp in SATPS] == [0, 1, 2, 3, 3, 3]
    assert [spaces.number(satp) for satp in SATPS] == [0, 1, 2, 3, 3, 3]
    assert len(spaces.satps) == 3 and spaces.name(3) == "other address spaces"
    assert OTHERS == address_spaces.MOST


def test_names() -> None:
    assert space_name(0) == "no translation (Bare)"
    satp = make(Mode.SV48, 0x80A3_C000, 12)
    assert space_name(satp) == "root 0x80a3c000, ASID 12"
    assert space_name(satp, Process(45, "sh")) == "sh (pid 45), root 0x80a3c000, ASID 12"
