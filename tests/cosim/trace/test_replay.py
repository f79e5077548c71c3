"""A replay gives what feeding the models directly gives, to the last counter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_guest import RAM_BASE, RAM_SIZE, SyntheticGuest

from cosim import cli
from cosim.errors import UsageError
from cosim.models import choices as modelling
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending, Origin
from cosim.trace.manifest import NAME
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.policies import MachineModel, Stream, make

ORIGIN = Origin(
    guest={"name": "synthetic", "qemu": "none"},
    backend="plugin",
    region={"from": "boot", "to": "power-off"},
    stream=Stream("all"),
    machine=MachineModel(ram_base=RAM_BASE, ram_size=RAM_SIZE),
)
ENDING = Ending(complete=True, region={"instructions": 5}, audit={"checks": 1, "missed_writes": 0})


@pytest.fixture(scope="module")
def stream() -> EventBatch:
    return np.concatenate(list(SyntheticGuest(pages=40, turns=5).batches(4000)))


@pytest.fixture(scope="module")
def folder(stream: EventBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay") / "t"
    with TraceWriter(folder, ORIGIN, segment_events=1000) as writer:
        writer.write(stream)
        writer.close(ENDING)
    return folder


def live(stream: EventBatch, models: list[str], **machine: Any) -> dict[str, Any]:
    """The result of feeding ``stream`` as a session does, in batches of many sizes."""
    pipeline = modelling.make_pipeline(ORIGIN, models, machine)
    random = np.random.default_rng(1)
    at = 0
    while at < len(stream):
        size = int(random.integers(1, 700))
        pipeline.feed(stream[at : at + size])
        at += size
    result: dict[str, Any] = json.loads(json.dumps(pipeline.document(ENDING)))
    return result


def cosim(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in argv])
    output = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, output.out, output.err


@pytest.mark.parametrize(
    ("arguments", "models", "machine"),
    [
        ([], list(modelling.DEFAULT_MODELS), {}),
        (["--model", "shadow:roots=1,lsp"], ["shadow:roots=1", "lsp"], {}),
        (
            ["--model", "shadow", "--model", "native", "--tlb", "data=2x2,fetch=none,second=none"],
            ["shadow", "native"],
            {"tlb": {"data": [2, 2], "fetch": None, "second": None}},
        ),
    ],
)
def test_replay_is_the_live_result(
    capsys: pytest.CaptureFixture[str],
    stream: EventBatch,
    folder: Path,
    arguments: list[str],
    models: list[str],
    machine: dict[str, Any],
) -> None:
    status, out, err = cosim(capsys, "replay", folder, "--json", *arguments)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result == live(stream, models, **machine)
    assert result["events"]["total"] == len(stream)
    assert result["policies"]["shadow"]["exits"]["total"] > 0
    profile = result["profile"]
    for name, policy in result["policies"].items():
        total = policy["exits"]["total"]
        assert sum(profile["over_time"]["exits"][name]) == total
        places = [*(one["exits"] for one in profile["by_function"]), profile["other_functions"]]
        assert sum(exits[name] for exits in places) == total
    assert result["policies"]["shadow"]["tlb_misses"] > 0


def test_a_smaller_tlb_misses_more(stream: EventBatch) -> None:
    small = live(stream, ["native"], tlb={"data": [1, 1], "fetch": None, "second": None})
    large = live(stream, ["native"])
    misses = [result["policies"]["native"]["tlb_misses"] for result in (small, large)]
    assert misses[0] > misses[1] > 0


def test_the_table(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = cosim(capsys, "replay", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    for word in (*modelling.DEFAULT_MODELS, "fence", "references", "0 missed"):
        assert word in out


def test_a_cut_trace_is_replayed_as_far_as_it_goes(
    capsys: pytest.CaptureFixture[str], stream: EventBatch, tmp_path: Path
) -> None:
    with TraceWriter(tmp_path / "t", ORIGIN, segment_events=1000) as writer:
        writer.write(stream)
        writer.close(ENDING)
    path = tmp_path / "t" / NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))  # Header and two segments.
    status, out, _ = cosim(capsys, "replay", tmp_path / "t", "--json", "--model", "native")
    result = json.loads(out)
    assert status == 0
    assert result["complete"] is False
    assert "the trace is cut" in result["incomplete_because"]
    assert result["events"]["total"] == 2000
    assert result["audit"] is None
    prefix = live(stream[:2000], ["native"])
    assert result["policies"] == prefix["policies"]
    assert result["events"] == prefix["events"]


def test_a_damaged_segment_is_no_result(
    capsys: pytest.CaptureFixture[str], stream: EventBatch, tmp_path: Path
) -> None:
    with TraceWriter(tmp_path / "t", ORIGIN, segment_events=1000) as writer:
        writer.write(stream)
        writer.close(ENDING)
    path = tmp_path / "t" / "events-000002.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    status, out, err = cosim(capsys, "replay", tmp_path / "t", "--json")
    assert (status, out) == (2, "")
    assert "events-000002.parquet: this segment is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "shadwo"], "shadwo"),
        (["--model", "shadow:x=1"], "no option 'x'"),
        (["--tlb", "data=4"], "--tlb: cannot read 'data=4'"),
        (["--tlb", "data=0x4"], "TLB"),
    ],
)
def test_what_the_models_do_not_have(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], message: str
) -> None:
    status, out, err = cosim(capsys, "replay", folder, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("texts", "models"),
    [
        ([], []),
        (["a,b"], ["a", "b"]),
        (["a:x=1,y=2,b", "c"], ["a:x=1,y=2", "b", "c"]),
        (["a,b:x=1,c:y=2,z=3"], ["a", "b:x=1", "c:y=2,z=3"]),
    ],
)
def test_splitting_models(texts: list[str], models: list[str]) -> None:
    assert modelling.split_models(texts) == models


def test_parsing_a_tlb() -> None:
    assert modelling.parse_tlb("data=16x4,fetch=none,second=128x8,replacement=plru,seed=7") == {
        "data": [16, 4],
        "fetch": None,
        "second": [128, 8],
        "replacement": "plru",
        "seed": 7,
    }
    assert modelling.parse_tlb("superpages=yes") == {"superpages": True}
    for text in ("", "data", "data=none", "ways=4", "superpages=2", "replacement=fifo", "seed=-1"):
        with pytest.raises(UsageError):
            modelling.parse_tlb(text)


def test_the_synthetic_guest_tells_the_truth(stream: EventBatch) -> None:
    """The walk of an independent model gives every answer that the stream claims."""
    native = make("native", ORIGIN.machine, ORIGIN.stream)
    answers = native.feed(stream)
    accesses = stream["kind"] == Kind.ACCESS
    assert np.array_equal(answers[accesses], stream["b"][accesses])
    assert (stream["b"][accesses] < 0).any()  # Faults too.
    assert np.array_equal(
        stream, np.concatenate(list(SyntheticGuest(pages=40, turns=5).batches(4000, size=100)))
    )


def test_a_pipeline_knows_the_exits_so_far(stream: EventBatch) -> None:
    pipeline: Pipeline = modelling.make_pipeline(ORIGIN, ["shadow", "native"])
    assert pipeline.exits() == {"shadow": 0, "native": 0}
    pipeline.feed(stream)
    document = pipeline.document(ENDING)
    assert pipeline.exits()["shadow"] == document["policies"]["shadow"]["exits"]["total"]
    assert pipeline.illegal == 0
