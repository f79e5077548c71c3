"""A model's answer does not depend on who shares its task; it is that of `cosim replay` alone."""

from __future__ import annotations

import pytest
from bench_replay import synthetic

from cosim.models.model_options import make_pipeline
from cosim.sweep.feeding import Replay, feed
from cosim.trace.reader import TraceReader
from cosim.trace.replay import replay
from hypervisor_model import policies
from hypervisor_model.errors import ModelError
from hypervisor_model.events import EventBatch

TOGETHER = [
    Replay("native", {}),
    Replay("shadow:roots=1", {"tlb": {"data": [4, 2]}, "footprint_data": 2}),
    Replay("shadow", {}),
    Replay("native", {"tlb": {"data": [16, 1], "second": None}, "walk_cache_ways": 8}),
    Replay("lsp", {"setup": "base"}),
    Replay("nested", {"gstage_page": 2 << 20}),
]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> TraceReader:
    folder = tmp_path_factory.mktemp("trace") / "t"
    synthetic(folder, 20_000)
    return TraceReader(folder)


def test_sharing_a_task_changes_no_answer(trace: TraceReader) -> None:
    fed = feed(trace, TOGETHER)
    assert not fed.failures
    assert fed.events == trace.events
    for index, one in enumerate(TOGETHER):
        pipeline = make_pipeline(trace.origin, [one.model], dict(one.machine))
        alone = replay(trace, pipeline, lambda *_: None)
        (name,) = alone["policies"]
        assert fed.results[index].policy == alone["policies"][name]
        assert fed.results[index].translations == alone["translations"][name]
        assert fed.results[index].machine.to_json() == alone["machine"]


def test_a_model_that_fails_leaves_the_others_alone(
    trace: TraceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = feed(trace, TOGETHER[:1])
    kind = policies.POLICIES["shadow"]

    def once(self: policies.Policy, batch: EventBatch) -> object:
        raise ModelError("it cannot take this")

    monkeypatch.setattr(kind, "feed", once)
    fed = feed(trace, [TOGETHER[2], TOGETHER[0], Replay("native", {"harts": 0})])
    assert {index: str(error) for index, error in fed.failures.items()} == {
        0: "it cannot take this",
        2: "machine: harts 0 is not in 1..64",
    }
    assert fed.results.keys() == {1}
    assert fed.results[1].policy == right.results[0].policy
    assert fed.results[1].translations == right.results[0].translations
