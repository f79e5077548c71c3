"""Where the tool's files are, also for a user who has no home."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from cosim import doctor, paths
from cosim.cli import main
from cosim.errors import StorageError


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a user id without a name."""

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "COSIM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_each_variable_comes_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("COSIM_CACHE", "/own")
    assert paths.cache() == Path("/own")
    monkeypatch.delenv("COSIM_CACHE")
    assert paths.guests() == Path("/xdg/lsp-cosim/guests")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache() == Path("/home/u/.cache/lsp-cosim")


@pytest.mark.usefixtures("homeless")
def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=rf"user {os.getuid()} has no home.*set COSIM_CACHE"):
        paths.cache()
    monkeypatch.setenv("COSIM_CACHE", "/own")
    assert paths.cache() == Path("/own")


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("words", [["guest", "list"], ["run", "micro"]])
def test_commands_without_a_home_say_so_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "set COSIM_CACHE" in said


@pytest.mark.usefixtures("homeless")
def test_doctor_names_what_a_user_without_a_home_lacks() -> None:
    part = next(part for part in doctor.examine() if part.name == "cache folder")
    assert part.status == "missing" and part.required
    assert "has no home" in part.found and "COSIM_CACHE" in part.get
