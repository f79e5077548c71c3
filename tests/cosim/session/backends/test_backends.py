"""The seam for backends: a source that plays events from a list, added in this file alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cosim.capture import marks
from cosim.capture.processes import Process
from cosim.commands import one_run as command
from cosim.commands.options import run_options, spec_from
from cosim.errors import GuestError, MissingTool, RunFileError, UsageError
from cosim.kernel.images import KernelImage
from cosim.kernel.symbols import Symbols
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig
from cosim.machine.tools import Tool
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending
from cosim.run import checks, run_file
from cosim.run.backend_options import OPTION, Option
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.run.run_spec import RunSpec
from cosim.session import execution
from cosim.session.backends import BACKENDS, FOR_CAPTURE, FOR_RUN
from cosim.session.backends.both import Both
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from cosim.session.protocol import Backend, Outcome, Progress, Session, Watchers
from cosim.trace.reader import TraceReader
from hypervisor_model import events
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.policies import Stream


def listed(count: int) -> EventBatch:
    """One mark, and fences behind it."""
    batch = events.empty(count)
    batch["kind"] = Kind.FENCE
    batch["sub"] = events.Fence.ALL
    batch["kind"][0] = Kind.MARK
    batch["a"][0] = 0
    return batch


@dataclass(frozen=True)
class Played(Backend):
    """Plays a list of events."""

    name: ClassVar[str] = "played"

    fences: int = field(
        default=4,
        metadata={OPTION: Option(checks.count, "Fences to play.", metavar="N", kind=int)},
    )
    fails: bool = field(
        default=False, metadata={OPTION: Option(checks.switch, "Break off.", selects=True)}
    )

    def stream(self) -> Stream:
        return Stream(accesses="none", page_faults=False)

    def sees_virtual_machines(self) -> bool:
        return False

    def open(self, plan: Plan, folder: Path, pipeline: Pipeline, watchers: Watchers) -> Session:
        return PlayedSession(self, pipeline, watchers)


class PlayedSession:
    def __init__(self, options: Played, pipeline: Pipeline, watchers: Watchers) -> None:
        self._options = options
        self._pipeline = pipeline
        self._watchers = watchers
        self.labels: list[str] = []
        self.processes: dict[int, Process] = {}

    def run(self) -> Outcome:
        batch = listed(1 + self._options.fences)
        self.labels.append("begin")
        self._watchers.keep(batch)
        self._pipeline.feed(batch)
        self._watchers.view(Progress("in the region", 0.0, len(batch), "", self._pipeline.exits()))
        error = GuestError("it broke off") if self._options.fails else None
        ending = Ending(error is None, None if error is None else str(error))
        return Outcome(self._pipeline.document(ending), error, ending)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its file in cosim/session/backends would do."""
    monkeypatch.setitem(BACKENDS, Played.name, Played)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs are resolved without QEMU and a guest."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"none")

    def resolve(spec: RunSpec) -> Plan:
        return Plan(
            name=spec.name,
            machine=MachineConfig(kernel=kernel, memory=1 << 24),
            kernel=kernel,
            image=KernelImage(kernel, "elf", 0, ()),
            symbols=Symbols(np.empty(0, np.uint64), []),
            qemu=Tool(Path("qemu"), (10, 0, 0), "10"),
            begin=Edge("boot", "boot"),
            end=Edge("power-off", "power-off"),
            mark_at=marks.USER_MARK,
            backend=spec.backend,
            console=spec.console,
            models=("native", "shadow"),
            modelled=spec.machine,
            stop_on_divergence=spec.stop_on_divergence,
            live=spec.live,
            time_limit=spec.time_limit,
            versions={},
            cpu_properties={},
            names=spec.names,
        )

    monkeypatch.setattr(execution, "resolve", resolve)
    monkeypatch.setattr(command, "resolve", resolve)
    monkeypatch.setattr(command, "prepare", lambda spec, *, offline: None)
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))


def spec(**given: object) -> RunSpec:
    return spec_from("micro", FOR_RUN, **given)


def test_a_new_backend_runs_as_the_command_line_does(
    played: None, resolved: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = spec(backend="played", fences=6)
    assert run.backend == Played(fences=6)
    document = command.document(replace(run, trace=True), tmp_path)
    assert (document["backend"], document["accesses"]) == ("played", "none")
    assert document["events"]["fence"]["all"] == 6
    assert document["events"]["access"] is None
    assert document["policies"]["shadow"]["exits"]["fence"] == 6
    trace = TraceReader(tmp_path / "trace")
    assert trace.origin.backend == "played"
    assert not trace.origin.virtual_machines
    assert trace.labels == {0: "begin"}
    kept = np.concatenate(list(trace.batches()))
    assert (kept == listed(7)).all()
    assert command.run_and_print(run, as_json=False, verbose=True) == 0
    assert "played" in capsys.readouterr().out


def test_several_runs_have_one_result(
    played: None, resolved: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Played, "several_harts", True)
    document = command.document(spec(backend="played", fences=6, smp=2, runs=3), tmp_path)
    assert document["spread"]["runs"] == 3
    count = document["spread"]["counts"]["policies.shadow.exits.fence"]
    assert count == {"median": 6, "lowest": 6, "highest": 6}
    assert sorted(path.name for path in tmp_path.glob("run-*")) == ["run-1", "run-2", "run-3"]


def test_its_failure_is_the_command_s(played: None, resolved: None) -> None:
    with pytest.raises(GuestError, match="it broke off"):
        command.run_and_print(spec(backend="played", fails=True), as_json=True)


def test_its_options_are_those_of_run_files_and_of_the_command_line(
    played: None, tmp_path: Path
) -> None:
    file = tmp_path / "runs.toml"
    file.write_text('guest = "micro"\nbackend = "played"\nfences = 2\n')
    (run,) = run_file.load(file, BACKENDS, FOR_RUN).runs
    assert run.backend == Played(fences=2)
    assert run.to_json()["fences"] == 2
    file.write_text('guest = "micro"\nfences = 2\n')
    with pytest.raises(RunFileError, match=r":2: fences: works only with the played backend"):
        run_file.load(file, BACKENDS, FOR_RUN)
    file.write_text('guest = "micro"\nbackend = "played"\nfences = -2\n')
    with pytest.raises(RunFileError, match=r":3: fences: is -2, not a whole number"):
        run_file.load(file, BACKENDS, FOR_RUN)
    assert spec(fails=True).backend == Played(fails=True)  # The option selects its backend.

    @click.command
    @run_options("run")
    def typed(**given: object) -> None:
        click.echo(f"{given['backend']} {given['fences']}")

    runner = CliRunner()
    assert runner.invoke(typed, ["--backend", "played", "--fences", "3"]).output == "played 3\n"
    said = runner.invoke(typed, ["--help"]).output
    assert "|".join(BACKENDS) in said and "Fences to play." in said


def test_every_backend_is_found_by_its_file() -> None:
    assert [one for one in BACKENDS.values() if one in (Both, Gdb, Plugin)] == [Both, Gdb, Plugin]
    assert FOR_RUN in BACKENDS and FOR_CAPTURE in BACKENDS


def test_without_gdb_one_line_names_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gdb() -> tools.Tool:
        raise MissingTool("no gdb")

    notes: list[str] = []
    monkeypatch.setattr(tools, "gdb", no_gdb)
    monkeypatch.setattr(Plugin, "missing", lambda self: None)
    assert execution.available(spec(backend="plugin"), notes.append).backend == Plugin()
    for backend in ("gdb", "gdb+plugin"):
        with pytest.raises(MissingTool, match=r"^no gdb$"):
            execution.available(spec(backend=backend), notes.append)
    monkeypatch.setattr(Plugin, "missing", lambda self: "no compiler")
    for backend in ("plugin", "gdb+plugin"):
        with pytest.raises(MissingTool, match=r"^no compiler; no gdb$"):
            execution.available(spec(backend=backend), notes.append)
    assert notes == []


def test_what_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "gdb", lambda: None)
    monkeypatch.setattr(Plugin, "missing", lambda self: "no compiler")
    notes: list[str] = []
    run = spec(backend="plugin")
    assert execution.available(run, notes.append).backend == Gdb()
    assert notes == [
        "cosim: no compiler; using gdb instead, which is about a hundred times slower and sees no "
        "accesses"
    ]
    with pytest.raises(MissingTool, match="no compiler; gdb cannot stand in for it: --filter"):
        execution.available(spec(backend="plugin", filter=8), notes.append)
    with pytest.raises(MissingTool, match=r"gdb cannot stand in for it: --smp needs the plugin"):
        execution.available(spec(smp=2), notes.append)
    assert execution.available(spec(backend="gdb"), notes.append).backend == Gdb()
    assert len(notes) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Gdb, "missing", lambda self: "no gdb")
        # Nothing stands in for gdb.
        with pytest.raises(MissingTool, match=r"^no gdb$"):
            execution.available(spec(backend="gdb"), notes.append)
    # Gdb keeps what it was to do if it goes on alone.
    assert execution.available(spec(step=3), notes.append).backend == Gdb(step=3)
    assert notes[1:] == [
        "cosim: no compiler; using gdb alone, which sees accesses only of instructions that it "
        "steps"
    ]
    with pytest.raises(MissingTool, match="no compiler; gdb alone cannot stand in for it: --filt"):
        execution.available(spec(filter=8), notes.append)


def test_the_backend_of_a_run_that_names_none() -> None:
    assert spec().backend == Both()
    assert spec(step=2, filter=1).backend == Both(step=2, filter=1)
    assert spec_from("micro", FOR_CAPTURE).backend == Plugin()
    assert spec_from("micro", FOR_CAPTURE, step=2).backend == Both(step=2)
    # What runs in real time cannot be run twice.
    assert spec(live=True).backend == Gdb()
    others = " or ".join(name for name in BACKENDS if name != "gdb+plugin")
    with pytest.raises(UsageError, match=f"--live works only with the {others} backend"):
        spec(live=True, backend="gdb+plugin")
    with pytest.raises(UsageError, match="--gdb works only with the plugin backend"):
        spec(gdb="socket")


@pytest.mark.parametrize(
    ("backend", "stream", "virtual"),
    [
        (Gdb(), Stream("none", page_faults=False), False),
        (Gdb(step=2), Stream("partial", page_faults=False), False),
        (Gdb(step_all=True), Stream("all", page_faults=True), False),
        (Plugin(), Stream(filter=64), True),
        (Plugin(filter=8, accesses=True), Stream(filter=8), True),
        (Plugin(accesses=False), Stream("none"), True),
        (Both(step=2), Stream(filter=64), True),
        (Both(filter=8), Stream(filter=8), True),
    ],
)
def test_what_streams_know(backend: Backend, stream: Stream, virtual: bool) -> None:
    assert backend.stream() == stream
    assert backend.sees_virtual_machines() is virtual


def test_only_options_that_are_set_are_written() -> None:
    assert Gdb(recording=Path("r")).to_json() == {"backend": "gdb"}
    assert Plugin(accesses=False, gdb=Path("s")).to_json() == {
        "backend": "plugin",
        "accesses": False,
        "gdb": "s",
    }


@pytest.mark.parametrize("slots", [0, 3, 1024, -1])
def test_slots_that_the_filter_cannot_have(slots: int) -> None:
    with pytest.raises(UsageError, match="--filter is "):
        spec(backend="plugin", filter=slots)
