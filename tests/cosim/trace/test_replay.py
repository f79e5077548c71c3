"""A replay gives what feeding the models directly gives, to the last counter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_guest import RAM_BASE, RAM_SIZE, SyntheticGuest

from cosim import cli
from cosim.commands.options import spec_from
from cosim.errors import UsageError
from cosim.models import model_options
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending, Origin
from cosim.trace.manifest import NAME, TraceDamage
from cosim.trace.replay import read_ahead
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch, Kind, empty
from hypervisor_model.policies import MachineModel, Stream, make
from hypervisor_model.policies.machine import MODELLED
from hypervisor_model.tlb import TlbConfig

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
    pipeline = model_options.make_pipeline(ORIGIN, models, machine)
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
        ([], list(model_options.DEFAULT_MODELS), {}),
        (["--model", "shadow:roots=1,lsp"], ["shadow:roots=1", "lsp"], {}),
        (
            ["--model", "shadow", "--model", "native", "--tlb", "data=2x2,fetch=none,second=none"],
            ["shadow", "native"],
            {"tlb": {"data": [2, 2], "fetch": None, "second": None}},
        ),
        (
            [
                *("--model", "nested,shadow", "--machine"),
                "gstage_page=2M,footprint_data=0,footprint_code=3,tlb.data=2x2",
            ],
            ["nested", "shadow"],
            {
                "gstage_page": 2 << 20,
                "footprint_data": 0,
                "footprint_code": 3,
                "tlb": {"data": [2, 2]},
            },
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
        for rows in profile["causes"].values():
            assert sum(row["exits"][name] for row in rows) == total
            assert sum(row["misses"][name] for row in rows) == policy["tlb_misses"]
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
    for word in (*model_options.DEFAULT_MODELS, "fence", "references", "0 missed"):
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
        (["--machine", "gstage_page=8K"], "--machine: gstage_page 8192 is neither 4096 nor"),
        (["--machine", "ram_size=4096"], "--machine: cannot read 'ram_size=4096'; write KEY=VALUE"),
        (["--machine", "tlb=8x4"], "--machine: cannot read 'tlb=8x4'"),
        (["--machine", "tlb.ways=4"], "--machine tlb: cannot read 'ways=4'"),
        (["--machine", "tlb.data=4x4", "--tlb", "data=4x4"], "--tlb cannot be used together"),
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
    assert model_options.split_models(texts) == models


def test_parsing_a_tlb() -> None:
    assert model_options.parse_tlb("data=16x4,fetch=none,second=128x8,replacement=plru,seed=7") == {
        "data": [16, 4],
        "fetch": None,
        "second": [128, 8],
        "replacement": "plru",
        "seed": 7,
    }
    assert model_options.parse_tlb("superpages=yes") == {"superpages": True}
    for text in ("", "data", "data=none", "ways=4", "superpages=2", "replacement=fifo", "seed=-1"):
        with pytest.raises(UsageError):
            model_options.parse_tlb(text)


MACHINE: dict[str, Any] = {
    "setup": "base",
    "walk_cache_ways": 4,
    "gstage_mode": "sv48",
    "gstage_page": 2 << 20,
    "footprint_data": 0,
    "footprint_code": 12,
    "tlb": {
        "data": [8, 4],
        "fetch": None,
        "second": [32, 2],
        "replacement": "plru",
        "seed": 3,
        "superpages": True,
    },
}


def test_parsing_a_machine_reaches_every_choice() -> None:
    text = "setup=base,walk_cache_ways=4,gstage_mode=sv48,gstage_page=2M,footprint_data=0,"
    text += "footprint_code=12,tlb.data=8x4,tlb.fetch=none,tlb.second=32x2,"
    text += "tlb.replacement=plru,tlb.seed=3,tlb.superpages=yes"
    assert model_options.parse_machine(text) == MACHINE
    assert set(MACHINE) == set(MODELLED)
    assert set(MACHINE["tlb"]) == {one.name for one in fields(TlbConfig)}
    # What these do not name belongs to the guest, and its machine says it.
    guests = {"ram_base", "ram_size", "harts", "svadu", "svpbmt", "svnapot", "svvptc"}
    assert {one.name for one in fields(MachineModel)} == set(MODELLED) | guests


@pytest.mark.parametrize(
    "text",
    [
        *("", "setup", "setup=", "setup=x", "setup=h,", "harts=2", "gstage_mode=bare"),
        *("gstage_page=2G", "gstage_page=-1", "footprint_data=1e3", "footprint_data=100000"),
        *("footprint_code=1,footprint_code=2", "walk_cache_ways=\u0664"),
        *("tlb.", "tlb.data", "tlb.data=none"),
    ],
)
def test_what_no_machine_can_be_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--machine") as refused:
        model_options.parse_machine(text)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 2


def test_what_a_machine_does_not_name_stays_as_it_was_captured() -> None:
    captured = replace(ORIGIN.machine, tlb=TlbConfig(data=(4, 4), superpages=True), harts=2)
    origin = replace(ORIGIN, machine=captured)
    changes = model_options.parse_machine("tlb.second=none,footprint_code=1")
    machine = model_options.make_pipeline(origin, ["native"], changes).origin.machine
    tlb = TlbConfig(data=(4, 4), second=None, superpages=True)
    assert machine == replace(captured, tlb=tlb, footprint_code=1)


def test_a_run_has_the_machine_that_was_typed() -> None:
    text = "gstage_page=2M,footprint_data=0,tlb.fetch=none"
    machine = {"gstage_page": 2 << 20, "footprint_data": 0, "tlb": {"fetch": None}}
    assert spec_from("micro", "plugin", machine=text).machine == machine


@pytest.mark.parametrize("command", ["run", "capture"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("footprint_data=x", "footprint_data cannot be 'x'; write a number"),
        ("x=3", "cannot read 'x=3'; write KEY=VALUE"),
        ("tlb.x=3", "tlb: cannot read 'x=3'; write data="),
        ("gstage_page=8K", "gstage_page 8192 is neither"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, says: str
) -> None:
    typed = ["micro", "--machine", text]
    typed += ["-o", str(tmp_path / "t")] if command == "capture" else []
    status, out, err = cosim(capsys, command, *typed)
    assert (status, out) == (2, "")
    assert err.startswith(f"cosim: --machine: {says}")
    assert len(err.splitlines()) == 1


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
    pipeline: Pipeline = model_options.make_pipeline(ORIGIN, ["shadow", "native"])
    assert pipeline.exits() == {"shadow": 0, "native": 0}
    pipeline.feed(stream)
    document = pipeline.document(ENDING)
    assert pipeline.exits()["shadow"] == document["policies"]["shadow"]["exits"]["total"]
    assert pipeline.illegal == 0


def test_batches_that_are_read_ahead_come_in_order_and_their_errors_in_their_place() -> None:
    def batches(count: int) -> Iterator[EventBatch]:
        for number in range(count):
            yield empty(number)
        raise TraceDamage("the next segment is damaged")

    seen = []
    with pytest.raises(TraceDamage):
        for batch in read_ahead(batches(5)):
            seen.append(len(batch))
    assert seen == [0, 1, 2, 3, 4]
    assert next(read_ahead(iter([empty(7)]))).shape == (7,), "one that is given up half-way ends"
    assert list(read_ahead(iter([]))) == []
