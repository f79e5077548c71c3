"""A guest that is saved while its timers run, and runs that start there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim import cli
from cosim.machine import snapshot
from cosim.run.backend_options import BackendOptions
from cosim.run.run_spec import Exchange, RunSpec
from cosim.session.backends.both import Both
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import capture
from cosim.session.protocol import Watchers
from cosim.trace.reader import TraceReader
from hypervisor_model.events import Kind
from tests.system import bare_kernel

pytestmark = pytest.mark.system

USAGE = 2


@dataclass(frozen=True)
class Saved:
    """A kernel, and a snapshot of it."""

    kernel: Path
    file: Path

    def machine(self, memory: str = "32M") -> list[str]:
        """The options of its machine."""
        return ["--kernel", str(self.kernel), "--bios", "none", "--memory", memory]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("snapshot")
    kernel = bare_kernel.build("snapshot", folder, bare_kernel.M_MODE)
    made = Saved(kernel, folder / "kernel.snap")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setenv("COSIM_CACHE", str(folder / "cache"))
        cli.main(["snapshot", *made.machine(), "--at", "waiting", "-o", str(made.file)])
    assert ended.value.code == 0
    assert not list((folder / "cache").glob("sessions/*"))
    # Both timers were still to come.
    assert len([one for one in snapshot.read_head(made.file).timers if one[0] in "PM"]) == 2
    return made


def _captured(
    saved: Saved, folder: Path, backend: BackendOptions, **where: Any
) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """The document, and the events without their counts of instructions."""
    spec = RunSpec(
        name="snapshot",
        backend=backend,
        kernel=saved.kernel,
        bios="none",
        memory="32M",
        console=(Exchange("ready> ", "x"),),
    )
    folder.mkdir()
    outcome = capture(replace(spec, **where), folder, folder / "trace", Watchers())
    assert outcome.error is None and outcome.document is not None
    for log in folder.glob("*.console.log"):
        assert log.read_text().endswith("x")
    events = np.concatenate(list(TraceReader(folder / "trace").batches()))
    fields = [name for name in events.dtype.names or () if name != "icount"]
    return dict(outcome.document), [dict(zip(fields, one, strict=True)) for one in events[fields]]


def test_the_guest_goes_on_as_if_it_had_not_been_saved(saved: Saved, tmp_path: Path) -> None:
    _, whole = _captured(saved, tmp_path / "whole", Plugin(), region_from="waiting")
    document, again = _captured(saved, tmp_path / "again", Plugin(), snapshot=saved.file)
    assert [event["kind"] for event in whole].count(Kind.FENCE) == 4
    assert again == whole
    start = document["guest"]["snapshot"]
    assert start == {
        "file": str(saved.file),
        "sha256": snapshot.checksum(saved.file),
        "at": "waiting",
    }


def test_both_sources_see_the_same_events(saved: Saved, tmp_path: Path) -> None:
    document, _ = _captured(saved, tmp_path / "both", Both(), snapshot=saved.file)
    assert document["events"]["fence"]["all"] == 4
    # The fences, and what satp holds at the beginning.
    assert document["agreement"]["events"] == 5
    assert document["agreement"]["difference"] is None


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path))
    path = saved.file.with_name(file)
    if not path.exists():
        path.write_bytes(saved.file.read_bytes()[:-5])
    words = ["capture", *saved.machine(memory), "--backend", "gdb", "-o", str(tmp_path / "trace")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--from-snapshot", str(path)])
    line = capsys.readouterr().err
    assert ended.value.code == USAGE
    assert line.count("\n") == 1
    assert f"{path} {said}" in line
    assert not (tmp_path / "trace").exists()
