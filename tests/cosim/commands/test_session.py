"""A guest that is missing is made by the command that needs it, unless that is forbidden."""

from __future__ import annotations

import pytest

import guest
from cosim.commands import session
from cosim.commands.options import spec_from
from cosim.errors import GuestImageError
from cosim.session.backends import FOR_RUN


@pytest.mark.parametrize("state", ["missing", "outdated"])
def test_a_guest_is_made(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(guest, "status", lambda name: state)
    monkeypatch.setattr(guest, "ensure", lambda name, step: made.append(name))
    session.make_guest(spec_from("micro", FOR_RUN), offline=False)
    assert made == ["micro"]
    word = {"missing": "not there yet", "outdated": "out of date"}[state]
    with pytest.raises(GuestImageError, match=f"guest linux is {word}, and with --offline") as said:
        session.make_guest(spec_from("linux", FOR_RUN), offline=True)
    assert "`cosim guest fetch linux`" in str(said.value)
    assert said.value.exit_status == 2
    assert made == ["micro"]


def test_a_guest_that_is_ready_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "status", lambda name: "ready")
    monkeypatch.setattr(guest, "ensure", lambda name, step: pytest.fail("made again"))
    session.make_guest(spec_from("micro", FOR_RUN), offline=True)
