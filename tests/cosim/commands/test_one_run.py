"""A guest that is missing is made by the command that needs it, unless that is forbidden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import guest
from cosim import output
from cosim.commands import one_run
from cosim.commands.options import spec_from
from cosim.errors import GuestImageError
from cosim.machine.devices import Disk
from cosim.session.backends import FOR_RUN


@pytest.mark.parametrize("state", ["missing", "outdated"])
def test_a_guest_is_made(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(guest, "status", lambda name: state)
    monkeypatch.setattr(guest, "ensure", lambda name, step: made.append(name))
    one_run.make_guest(spec_from("micro", FOR_RUN), offline=False)
    assert made == ["micro"]
    word = {"missing": "not there yet", "outdated": "out of date"}[state]
    with pytest.raises(GuestImageError, match=f"guest linux is {word}, and with --offline") as said:
        one_run.make_guest(spec_from("linux", FOR_RUN), offline=True)
    assert "`cosim guest fetch linux`" in str(said.value)
    assert said.value.exit_status == 2
    assert made == ["micro"]


def test_a_guest_that_is_ready_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "status", lambda name: "ready")
    monkeypatch.setattr(guest, "ensure", lambda name, step: pytest.fail("made again"))
    one_run.make_guest(spec_from("micro", FOR_RUN), offline=True)


def test_large_disks_are_read_with_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    steps: list[tuple[float, float | None]] = []

    @contextmanager
    def progress(title: str) -> Iterator[output.Step]:
        shown.append(title)
        yield lambda done, total=None, text=None: steps.append((done, total))

    monkeypatch.setattr(output, "progress", progress)
    monkeypatch.setattr(guest, "status", lambda name: "ready")
    monkeypatch.setattr(one_run, "_LARGE", 700)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(bytes(300))
    second.write_bytes(b"2" * 400)
    gone = Disk(tmp_path / "gone")
    small = replace(spec_from("micro", FOR_RUN), disks=(Disk(first), gone))
    one_run.prepare(small, offline=True)
    assert shown == []
    large = replace(small, disks=(Disk(first), gone, Disk(second)))
    one_run.prepare(large, offline=True)
    assert shown == ["reading 0.0 GB of disks for their SHA-256"]
    assert steps == [(300, 700), (700, 700)]
