"""Real guests that fence as they must, and one that does not: what QEMU and every policy answer."""

from __future__ import annotations

from pathlib import Path

import pytest

import guest
from cosim import plan, session
from cosim.modelling import make_pipeline
from cosim.plugin_session import PluginSession
from cosim.result import TranslationCounts
from cosim.runspec import RunSpec
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
        RunSpec(name="legality", guest="micro", workload=workload, backend="plugin")
    )
    pipeline = make_pipeline(session.origin(resolved), list(POLICIES))
    outcome = PluginSession(resolved, folder, pipeline).run()
    assert outcome.error is None
    assert outcome.document is not None
    assert outcome.document["illegal_translations"] == []
    counts = outcome.document["translations"]
    assert set(counts) == {"reference", *POLICIES}
    for party in counts.values():
        assert party["illegal"] == party["undecided"] == 0
        assert party["compared"] == outcome.document["events"]["access"] > 100
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
