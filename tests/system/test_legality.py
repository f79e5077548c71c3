"""Real guests that fence as they must, and one that does not: what QEMU and every policy answer."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

import guest
from cosim.machine import tools
from cosim.models.model_options import make_pipeline
from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument, TranslationCounts, has_finding
from cosim.run import plan
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import execute
from cosim.session.origin import origin
from cosim.session.protocol import Backend
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.isa import pte
from hypervisor_model.policies import POLICIES

pytestmark = pytest.mark.system

SOUND = (
    "map,protect,bulk,alias,superpage,unlink,asid,bare,stores,cbo-zero,misaligned,svinval,fault,"
    "user"
)


def translations(folder: Path, workload: str) -> dict[str, TranslationCounts]:
    """The counts of a run of ``micro``, by party."""
    guest.ensure("micro", lambda *_: None)
    resolved = plan.resolve(
        RunSpec(name="legality", guest="micro", workload=workload, backend=Plugin())
    )
    pipeline = make_pipeline(origin(resolved), list(POLICIES))
    outcome = execute(resolved, folder, pipeline)
    assert outcome.error is None
    assert outcome.document is not None
    assert outcome.document["illegal_translations"] == []
    counts = outcome.document["translations"]
    accesses = outcome.document["events"]["access"]
    assert accesses is not None and accesses > 100
    assert set(counts) == {"reference", *POLICIES}
    for party in counts.values():
        assert party["illegal"] == party["undecided"] == 0
        assert party["compared"] == accesses
    return counts


@pytest.mark.parametrize("mode", ["sv39", "sv48"])
def test_a_guest_that_fences_never_sees_a_stale_translation(tmp_path: Path, mode: str) -> None:
    counts = translations(tmp_path, f"scenario={SOUND} mode={mode}")
    assert {party["stale_legal"] for party in counts.values()} == {0}


def test_a_guest_that_forgets_fences_sees_stale_ones(tmp_path: Path) -> None:
    """16 pages, each read once after its frame changed and stored to once after W went.

    QEMU's own TLB keeps an entry until the next fence, and so does everybody else's.
    """
    counts = translations(tmp_path, "scenario=forgotten")
    assert {party["stale_legal"] for party in counts.values()} == {32}


def test_a_fence_with_an_asid_leaves_global_mappings_only_where_asids_are_known(
    tmp_path: Path,
) -> None:
    """One read of a global page between a fence with an ASID and one without.

    QEMU flushes everything at every fence and ``vtlb`` ignores ASIDs, so that both are fresh.
    """
    counts = translations(tmp_path, "scenario=global,map")
    stale = {name: party["stale_legal"] for name, party in counts.items()}
    assert stale == {name: int(name not in ("reference", "vtlb")) for name in counts}


@pytest.mark.parametrize("cpu", ["rva23s64", "rv64,svade=on,svpbmt=true"])
def test_linux_uses_the_features_of_its_cpu(tmp_path: Path, cpu: str) -> None:
    """Linux maps devices with Svpbmt's types, which a CPU without Svpbmt would fault on."""
    emulator = tools.qemu()
    if emulator.version < (10,):
        cpu = "rv64,svpbmt=true"
    guest.ensure("linux", lambda *_: None)
    spec = RunSpec(name="features", guest="linux", cpu=cpu, workload="true", backend=Plugin())
    resolved = plan.resolve(spec)
    about = origin(resolved)
    assert about.machine.svpbmt
    outcome = execute(resolved, tmp_path, make_pipeline(about, ["native"]))
    assert outcome.error is None
    assert outcome.document is not None
    assert outcome.document["illegal_translations"] == []
    # With Svade the guest sets A and D itself, and firmware leaves them to it.
    assert about.machine.svadu == (emulator.version < (10,))
    assert about.machine.svadu or (outcome.document["audit"] or {})["hardware_ad_updates"] == 0


def misread(batch: EventBatch) -> EventBatch:
    """``batch`` with every leaf that is stored sent to the page beside its own."""
    wrong = batch.copy()
    leaf = (wrong["kind"] == Kind.PTE_WRITE) & (wrong["c"] & (pte.V | pte.R) == pte.V | pte.R)
    wrong["c"][leaf] ^= np.int64(1 << 10)
    return wrong


def divergent(folder: Path, backend: Backend, stop: bool) -> ResultDocument:
    """What a run of ``micro`` gives whose models are told of the wrong pages."""
    folder.mkdir()
    spec = RunSpec(
        name="divergent",
        guest="micro",
        workload="scenario=map",
        backend=backend,
        stop_on_divergence=stop,
    )
    resolved = plan.resolve(spec)
    pipeline = make_pipeline(origin(resolved), ["native", "lsp"])
    feed = Pipeline.feed
    with patch.object(Pipeline, "feed", lambda self, batch: feed(self, misread(batch))):
        outcome = execute(resolved, folder, pipeline)
    assert outcome.error is None
    assert outcome.document is not None
    return outcome.document


@pytest.mark.parametrize("backend", [Gdb(step_all=True), Plugin()], ids=lambda one: one.name)
def test_a_divergence_is_found_and_can_stop_the_session(tmp_path: Path, backend: Backend) -> None:
    whole = divergent(tmp_path / "whole", backend, stop=False)
    stopped = divergent(tmp_path / "stopped", backend, stop=True)
    illegal = [
        sum(party["illegal"] for party in document["translations"].values())
        for document in (whole, stopped)
    ]
    assert has_finding(whole) and has_finding(stopped)
    assert whole["illegal_translations"] and stopped["illegal_translations"]
    assert 0 < illegal[1] <= illegal[0]
    if isinstance(backend, Gdb):
        # The plugin's guest has often ended by the time that its last events are looked at.
        fewer, all_of_them = (document["events"]["access"] for document in (stopped, whole))
        assert fewer is not None and all_of_them is not None
        assert fewer < all_of_them
