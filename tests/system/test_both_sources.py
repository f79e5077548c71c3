"""One run, both sources: gdb's re-execution agrees with what the plugin heard, and whatever does
not agree is a finding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim.capture.gdb.interception import Interception
from cosim.capture.plugin.stream import Place
from cosim.commands.options import spec_from
from cosim.debugger.mi import GdbMi
from cosim.machine.qemu import Machine
from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument, has_finding
from cosim.run.plan import resolve
from cosim.session.backends import FOR_RUN
from cosim.session.both_sources import BothSources
from cosim.session.execution import execute, load_models
from cosim.session.origin import origin
from cosim.session.protocol import Watchers
from cosim.trace.reader import TraceReader
from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

SHORT = "scenario=lsp-bench pages=16 ops=60 share=50"
SPINS = "cosim-mark begin; true; cosim-mark end; while :; do :; done"
"""The guest never ends: its recording ends with the region."""
TELLS = "true; echo half-way; while :; do :; done"
"""The same with a line: however late we read it, the plugin can still note where the guest is."""


def session(
    guest: str, folder: Path, *, models: bool = False, **given: Any
) -> tuple[ResultDocument, EventBatch]:
    """Run one session; return its result and the merged stream."""
    plan = resolve(spec_from(guest, FOR_RUN, **given))
    pipeline = load_models(plan) if models else Pipeline(origin(plan), {})
    kept: list[EventBatch] = []
    outcome = execute(plan, folder, pipeline, watchers=Watchers(keep=kept.append))
    assert outcome.error is None
    assert outcome.document is not None
    assert outcome.document["backend"] == "gdb+plugin"
    return outcome.document, np.concatenate(kept)


def assert_agreed(document: ResultDocument, least: int) -> dict[str, Any]:
    agreement: dict[str, Any] = document["agreement"]
    assert agreement["difference"] is None
    assert agreement["equal"] == agreement["events"] >= least
    assert agreement["not_reached"] == agreement["late"] == 0
    assert document["complete"] and not has_finding(document)
    audit = document["audit"]
    assert audit is not None and audit["missed_writes"] == 0
    return agreement


def test_the_main_job_of_micro(tmp_path: Path) -> None:
    """On a fresh cache: the guest is built, and every count is there."""
    home = Home(tmp_path / "home")
    (home.cache / "guests").unlink()
    refused = run(["run", "micro", "--offline"], home.environment())
    assert refused.status == 2
    assert "guest micro is not there yet, and with --offline it is not made" in refused.line
    ended = run(["run", "micro", "--workload", SHORT, "--json"], home.environment())
    assert ended.status == 0
    document = ended.document
    assert_agreed(document, 30)  # type: ignore[arg-type]
    assert document["accesses"] == "all"
    assert document["events"]["sample"] > 0 < document["events"]["fence"]["va"]
    for name in ("nested", "shadow", "lsp"):
        policy = document["policies"][name]
        assert policy["exits"]["total"] == policy["exits"]["at_least"] > 0
        assert policy["tlb_misses"] > 0
        assert policy["walk_refs"]["vs"] > 0
        assert None not in policy["exits"].values()
    # Each access of the plugin, and what gdb has sampled beside them.
    events = document["events"]
    compared = document["translations"]["reference"]["compared"]
    assert compared > events["access"] > 40


def test_linux(tmp_path: Path) -> None:
    document, stream = session(
        "linux",
        tmp_path,
        workload=SPINS,
        **{"from": "mark:begin", "to": "mark:end"},  # type: ignore[arg-type]
    )
    assert_agreed(document, 100)
    assert np.count_nonzero(stream["kind"] == Kind.ACCESS) > 1000


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, Place, int | None]]]:
    """Where gdb stands when it has come to each edge: its pc, the plugin's place, QEMU's count."""
    found = []
    go_to = BothSources._go_to

    def noted(
        self: BothSources, place: Place, machine: Machine, interposer: Any, gdb: GdbMi
    ) -> bool:
        reached = go_to(self, place, machine, interposer, gdb)
        registers = gdb.registers(["pc", "sp", "a0", "a7"])
        assert [registers[name] for name in ("sp", "a0", "a7")] == [
            place.general[number] for number in (2, 10, 17)
        ]
        found.append((registers["pc"], place, machine.replay_icount()))
        return reached

    monkeypatch.setattr(BothSources, "_go_to", noted)
    yield found


@pytest.mark.parametrize("step", [0, 3])
def test_edges_on_the_console(
    step: int, places: list[tuple[int, Place, int | None]], tmp_path: Path
) -> None:
    """gdb is sent to the very instruction that the plugin took: pc, registers, QEMU's count."""
    document, stream = session(
        "linux",
        tmp_path,
        workload=TELLS,
        step=step,
        **{"from": "console:Run /init", "to": "console:^half-way"},  # type: ignore[arg-type]
    )
    assert_agreed(document, 300)
    assert len(places) == 2
    for pc, place, count in places:
        assert pc == place.pc
        # Hundreds of calls to the firmware and of system calls are in QEMU's count.
        assert count == place.instructions > place.retired + 100
    assert (stream[stream["icount"] >= 0]["icount"][[0, -1]] > 0).all()
    stepped = document["stepped"]
    assert stepped is not None and (stepped["instructions"] > 0) == (step > 0)


def test_a_trace_has_both(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    words: list[str | Path] = ["capture", "micro", "--workload", SHORT, "--step", "2", "-o"]
    assert run([*words, tmp_path / "t"], home.environment()).status == 0
    trace = TraceReader(tmp_path / "t")
    assert trace.origin.backend == "gdb+plugin"
    assert trace.ending is not None and trace.ending.agreement is not None
    assert trace.ending.agreement["difference"] is None
    stream = np.concatenate(list(trace.batches()))
    is_sample = (stream["kind"] == Kind.ACCESS) & (stream["flags"] & FLAG_STOP != 0)
    assert is_sample.any() and ((stream["kind"] == Kind.ACCESS) & ~is_sample).any()
    replayed = run(["replay", tmp_path / "t", "--json"], home.environment())
    assert replayed.status == 0
    assert replayed.document["agreement"] == trace.ending.agreement


def test_as_many_instructions_are_stepped_as_with_gdb_alone(tmp_path: Path) -> None:
    """Also behind events that come again and again, which are foretold."""
    kernel = bare_kernel.build("repeated_stores", tmp_path)
    gdb, both = (
        bare_kernel.capture(kernel, backend, tmp_path / backend, "--step", "3").document["stepped"]
        for backend in ("gdb", "gdb+plugin")
    )
    assert both["instructions"] == gdb["instructions"] > 60


def test_stop_on_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session ends at the stop behind the first illegal translation, with what came before."""
    monkeypatch.setattr(
        Pipeline, "illegal", property(lambda self: int(self._counter.counts()["mark"] > 0))
    )
    document, stream = session(
        "micro", tmp_path, workload="scenario=map,protect", stop_on_divergence=True
    )
    assert not document["complete"]
    assert "--stop-on-divergence" in document["incomplete_because"]
    assert document["agreement"]["not_reached"] > 0
    assert np.count_nonzero(stream["kind"] == Kind.MARK) == 1


def _blind(seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the 20th stop on, interception says that a fence named another address."""
    flush = Interception.flush

    def changed(self: Interception) -> None:
        records = self._log._records
        for at, record in enumerate(records):
            if record[5] == Kind.FENCE:
                seen.append(at)
                if len(seen) == 20:
                    records[at] = (*record[:2], record[2] ^ 0x1000, *record[3:])
        flush(self)

    monkeypatch.setattr(Interception, "flush", changed)


def test_a_disagreement_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    _blind(seen, monkeypatch)
    document, stream = session("micro", tmp_path, workload=SHORT)
    assert has_finding(document)
    difference = document["agreement"]["difference"]
    assert difference["fields"] == ["a"]
    assert difference["gdb"].startswith("fence") and difference["plugin"].startswith("fence")
    assert difference["gdb"] != difference["plugin"]
    assert len(difference["last_events"]["gdb"]) == 5
    assert difference["last_events"]["gdb"] == difference["last_events"]["plugin"]
    # The counts are the plugin's, and whole.
    assert document["complete"]
    fences = stream[stream["kind"] == Kind.FENCE]
    assert len(fences) == document["events"]["fence"]["va"] > 20
    assert json.dumps(document)
