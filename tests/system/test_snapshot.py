"""A guest that is saved while its timers run, and runs that start there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cosim import cli
from cosim.trace.reader import TraceReader
from hypervisor_model.events import EVENT, Kind
from tests.system import bare_kernel
from tests.system.cosim_process import Ended, Home, run

pytestmark = pytest.mark.system

USAGE = 2
MACHINE = ("--bios", "none", "--memory", "32M")
DIALOGUE = ("--expect", "ready> ", "--send", "x")


@dataclass(frozen=True)
class Saved:
    """A kernel, and a snapshot of it."""

    home: Home
    kernel: Path
    file: Path

    def cosim(self, command: str, *options: str | Path) -> Ended:
        return run([command, "--kernel", self.kernel, *MACHINE, *options], self.home.environment())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("snapshot")
    kernel = bare_kernel.build("snapshot", folder, bare_kernel.M_MODE)
    made = Saved(Home(folder / "home"), kernel, folder / "kernel.snap")
    ended = made.cosim("snapshot", "--at", "waiting", "-o", made.file, "--json")
    assert ended.status == 0, ended.stderr
    assert ended.document["bytes"] == made.file.stat().st_size
    # Both timers were to come.
    assert sum(command[0] in "PM" for command in ended.document["timers"]) == 2
    return made


def _captured(saved: Saved, folder: Path, *where: str | Path) -> tuple[list[object], int]:
    """The events without their counts of instructions, and the instructions of the region."""
    ended = saved.cosim(
        "capture",
        *(*where, "--backend", "plugin", *DIALOGUE, "--json", "-o", folder / "trace"),
        *("--logs", folder / "logs"),
    )
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    (log,) = (folder / "logs").glob("*.console.log")
    assert log.read_text().endswith("x")
    events = np.concatenate(list(TraceReader(folder / "trace").batches()))
    fields = [name for name in EVENT.names or () if name != "icount"]
    return events[fields].tolist(), ended.document["region"]["instructions"]


def test_the_guest_goes_on_as_if_it_had_not_been_saved(saved: Saved, tmp_path: Path) -> None:
    whole, executed = _captured(saved, tmp_path / "whole", "--from", "waiting")
    again, executed_again = _captured(saved, tmp_path / "again", "--from-snapshot", saved.file)
    assert sum(event[4] == Kind.FENCE for event in whole) == 4  # type: ignore[index]
    assert again == whole
    assert executed and executed_again


def test_both_sources_see_the_same_events(saved: Saved) -> None:
    ended = saved.cosim(
        "run", "--from-snapshot", saved.file, *DIALOGUE, "--model", "native", "--json"
    )
    assert ended.status == 0, ended.stderr
    document = ended.document
    assert document["events"]["fence"]["all"] == 4
    # The fences, and what satp holds at the beginning.
    assert document["agreement"]["events"] == 5
    assert document["agreement"]["difference"] is None
    assert document["guest"]["snapshot"]["at"] == "waiting"
    assert len(document["guest"]["snapshot"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("file", "memory", "said"),
    [
        (
            "kernel.snap",
            "64M",
            "was made with another memory (32768K) than this run has (65536K); give the run the",
        ),
        ("cut.snap", "32M", "is damaged; make it again with `cosim snapshot`"),
    ],
)
def test_another_machine_and_a_cut_file_are_refused(
    saved: Saved,
    file: str,
    memory: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in saved.home.environment().items():
        monkeypatch.setenv(name, value)
    path = saved.file.with_name(file)
    if not path.exists():
        path.write_bytes(saved.file.read_bytes()[:-5])
    with pytest.raises(SystemExit) as ended:
        words = ["run", "--kernel", str(saved.kernel), "--bios", "none", "--memory", memory]
        cli.main([*words, "--model", "native", "--from-snapshot", str(path)])
    line = capsys.readouterr().err
    assert ended.value.code == USAGE
    assert line.count("\n") == 1
    assert f"{path} {said}" in line
    assert saved.home.leftovers() == []
