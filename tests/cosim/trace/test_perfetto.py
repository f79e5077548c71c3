"""The Perfetto file, read back with the package's own classes, against what it was made of."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

from cosim import cli
from cosim.capture.processes import Process
from cosim.models.address_spaces import space_name
from cosim.trace.perfetto import WINDOWS, PerfettoFile
from hypervisor_model.events import EventBatch, Kind, Priv, Satp, empty
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import signed, unsigned
from tests.cosim.streams import write_trace

NAMES = ("shadow", "lsp")
KERNEL = 0xFFFF_FFFF_8000_0000
SATPS = [signed(make(Mode.SV39, 0x8000_1000 + (n << 12), n)) for n in range(3)]
KINDS = (
    *(Kind.ACCESS, Kind.FENCE, Kind.REMOTE_FENCE, Kind.SATP_WRITE),
    *(Kind.PTE_WRITE, Kind.MARK, Kind.PAGE_FAULT),
)


def events(seed: int, count: int, step: int) -> tuple[EventBatch, np.ndarray]:
    """Events of two harts, with the exits and misses of two policies at a third of them."""
    random = np.random.default_rng(seed)
    batch = empty(count)
    batch["kind"] = random.choice(KINDS, count)
    batch["sub"][batch["kind"] == Kind.SATP_WRITE] = Satp.SATP
    batch["hart"] = random.integers(0, 2, count)
    batch["b"] = random.choice(SATPS, count)
    batch["a"] = random.integers(0, 3, count)
    batch["pc"] = signed(KERNEL) + 4 * random.integers(0, 100, count)
    batch["priv"] = random.choice([Priv.U, Priv.S], count)
    batch["icount"] = 5000 + np.cumsum(random.integers(0, step, count))
    taken = random.integers(0, 3, (2, 2, count)) * (random.integers(0, 3, (2, 2, count)) == 0)
    return batch, taken


def exported(batch: EventBatch, taken: np.ndarray, cuts: list[int], **options: Any) -> bytes:
    file = io.BytesIO()
    settings: dict[str, Any] = {
        "instructions": int(batch["icount"][-1] - batch["icount"][0]),
        "timed": True,
        "start": int(batch["icount"][0]),
        "labels": {0: "zero", 1: "<b>"},
        "lookup": lambda address: f"f{address - KERNEL}",
        "harts": 2,
    }
    export, at = PerfettoFile(file, "guest", NAMES, **{**settings, **options}), 0
    for piece in np.split(batch, sorted(cuts)):
        counts = taken[:, :, at : at + len(piece)]
        export.feed(piece, list(counts[0]), list(counts[1]))
        at += len(piece)
    export.close()
    return file.getvalue()


class ReadBack:
    """A Perfetto trace as its readers understand it: interned texts are texts again."""

    def __init__(self, data: bytes) -> None:
        trace = Trace()
        trace.ParseFromString(data)
        self.names: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        self.counters: set[int] = set()
        self.events: list[tuple[int, int, int, str, dict[str, Any], int]] = []
        texts: dict[tuple[str, int], Any] = {}
        for number, packet in enumerate(trace.packet):
            assert packet.trusted_packet_sequence_id == 1
            cleared = packet.sequence_flags == TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            assert cleared == (number == 0)
            for field, entries in packet.interned_data.ListFields():
                for entry in entries:
                    text = entry.str.decode() if hasattr(entry, "str") else entry.name
                    assert texts.setdefault((field.name, entry.iid), text) == text
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                assert track.uuid not in self.names
                self.names[track.uuid] = track.name
                if track.HasField("parent_uuid"):
                    assert track.parent_uuid in self.names
                    self.parents[track.uuid] = track.parent_uuid
                if track.HasField("counter"):
                    self.counters.add(track.uuid)
                continue
            event = packet.track_event
            assert event.track_uuid in self.names, "a track is described before it is used"
            name = texts["event_names", event.name_iid] if event.HasField("name_iid") else ""
            notes = {}
            for note in event.debug_annotations:
                value = getattr(note, note.WhichOneof("value"))
                if note.HasField("string_value_iid"):
                    value = texts["debug_annotation_string_values", value]
                notes[texts["debug_annotation_names", note.name_iid]] = value
            self.events.append(
                (
                    packet.timestamp,
                    event.track_uuid,
                    event.type,
                    name,
                    notes,
                    event.counter_value,
                )
            )

    def path(self, track: int) -> tuple[str, ...]:
        """The names of the track and of what it is below, from the group on."""
        names: list[str] = []
        while track in self.parents:
            names.insert(0, self.names[track])
            track = self.parents[track]
        return tuple(names)

    def instants(self, group: str) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
        for time, track, kind, name, notes, _ in self.events:
            if kind == TrackEvent.TYPE_INSTANT and self.path(track)[0] == group:
                yield self.path(track)[1], time, name, notes


def slices(read: ReadBack) -> dict[str, list[tuple[int, int, str]]]:
    """Begin, end and name of the slices of each hart; each ends before the next begins."""
    running: dict[str, tuple[int, str]] = {}
    found: dict[str, list[tuple[int, int, str]]] = {}
    for time, track, kind, name, _, _ in read.events:
        group, *rest = read.path(track)
        if group != "harts" or kind == TrackEvent.TYPE_INSTANT:
            continue
        (hart,) = rest
        if kind == TrackEvent.TYPE_SLICE_BEGIN:
            assert hart not in running
            running[hart] = (time, name)
        else:
            assert kind == TrackEvent.TYPE_SLICE_END
            begun, name = running.pop(hart)
            found.setdefault(hart, []).append((begun, time, name))
    assert not running
    return found


@given(
    st.integers(0, 10_000),
    st.integers(1, 120),
    st.sampled_from([2, 100, 10**7]),
    st.lists(st.integers(0, 120), max_size=4),
)
def test_what_happened_is_on_its_track(seed: int, count: int, step: int, cuts: list[int]) -> None:
    batch, taken = events(seed, count, step)
    read = ReadBack(exported(batch, taken, cuts))
    start = int(batch["icount"][0])

    on_harts, stores, exits = Counter[Any](), Counter[Any](), Counter[Any]()
    resident: dict[str, list[tuple[int, str]]] = {"hart 0": [], "hart 1": []}
    satp = [0, 0]
    for event, counts in zip(batch, taken[0].T.tolist(), strict=True):
        time, hart, kind = int(event["icount"]) - start, int(event["hart"]), Kind(event["kind"])
        name = kind.name.lower() if kind != Kind.ACCESS else "read"
        space = space_name(satp[hart])
        if not resident[f"hart {hart}"]:
            resident[f"hart {hart}"].append((time, space))
        if kind == Kind.MARK:
            label = {0: "zero", 1: "<b>"}.get(int(event["a"]), f"mark {event['a']}")
            on_harts[f"hart {hart}", time, label] += 1
        elif kind in (Kind.FENCE, Kind.REMOTE_FENCE, Kind.PAGE_FAULT):
            on_harts[f"hart {hart}", time, name] += 1
        elif kind == Kind.PTE_WRITE:
            stores[space, time, name] += 1
        place = unsigned(int(event["pc"]))
        function = "user program" if event["priv"] == Priv.U else f"f{place - KERNEL}"
        for policy, exited in zip(NAMES, counts, strict=True):
            exits[policy, time, name, function] += exited
        if kind == Kind.SATP_WRITE:
            satp[hart] = unsigned(int(event["b"]))
            if space_name(satp[hart]) != space:
                resident[f"hart {hart}"].append((time, space_name(satp[hart])))

    assert Counter((track, time, name) for track, time, name, _ in read.instants("harts")) == (
        on_harts
    )
    of_spaces = read.instants("address spaces")
    assert Counter((track, time, name) for track, time, name, _ in of_spaces) == stores
    found = Counter[Any]()
    for track, time, name, notes in read.instants("exits"):
        found[track, time, name, notes["function"]] += notes["exits"]
    assert found == +exits

    for track, loads in resident.items():
        ends = [*(time for time, _ in loads[1:]), int(batch["icount"][-1]) - start]
        expected = [(time, end, name) for (time, name), end in zip(loads, ends, strict=False)]
        assert slices(read).get(track, []) == expected
    # The same, seen from the address spaces.
    edges = Counter(
        (*read.path(number), time, kind)
        for time, number, kind, _, _, _ in read.events
        if kind in (TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END)
    )
    for track, stays in slices(read).items():
        for begin, end, space in stays:
            for time, kind in (
                (begin, TrackEvent.TYPE_SLICE_BEGIN),
                (end, TrackEvent.TYPE_SLICE_END),
            ):
                edges["harts", track, time, kind] -= 1
                edges["address spaces", space, time, kind] -= 1
    assert not +edges and not -edges


@given(
    st.integers(0, 10_000),
    st.integers(1, 120),
    st.sampled_from([2, 100, 10**7]),
    st.lists(st.integers(0, 120), max_size=4),
)
def test_counters_have_every_count_once(seed: int, count: int, step: int, cuts: list[int]) -> None:
    batch, taken = events(seed, count, step)
    read = ReadBack(exported(batch, taken, cuts, without_misses=["lsp"]))
    length = int(batch["icount"][-1] - batch["icount"][0])
    window = max(-(-length // WINDOWS), 1)
    groups = ("exits in each window", "TLB misses in each window")
    for place, group in enumerate(groups):
        for column, name in enumerate(NAMES):
            expected = Counter[int]()
            for event, number in zip(batch, taken[place, column].tolist(), strict=True):
                expected[(int(event["icount"]) - int(batch["icount"][0])) // window] += number
            values = {
                time // window: value
                for time, track, _, _, _, value in read.events
                if track in read.counters and read.path(track) == (group, name)
            }
            if (group, name) == (groups[1], "lsp"):
                assert not values
                continue
            assert +Counter(values) == +expected
            # A counter holds its value until the next one: a window without counts says 0.
            for at, value in values.items():
                assert not value or at + 1 in values or at == max(values)


def test_without_instruction_counts_time_is_the_number_of_the_event() -> None:
    batch, taken = events(1, 50, 10)
    batch["icount"] = -1
    read = ReadBack(exported(batch, taken, [20], timed=False, start=0, instructions=50))
    marks = [index for index, event in enumerate(batch) if event["kind"] == Kind.MARK]
    labels = {"zero", "<b>", "mark 2"}
    times = [time for _, time, name, _ in read.instants("harts") if name in labels]
    assert times == marks
    assert "(1 ns is 1 event)" in read.names[1]


def test_processes_are_tracks_as_perfetto_has_them() -> None:
    batch = empty(6)
    batch["kind"], batch["sub"] = Kind.SATP_WRITE, Satp.SATP
    batch["icount"] = 10 * np.arange(6)
    batch["b"] = [SATPS[0], SATPS[1], SATPS[0], SATPS[2], SATPS[0], 0]
    batch["c"] = [1, 2, 1, 3, 4, 0]
    names = {1: "sh", 2: "init", 3: "\x1b<ls>", 4: "next"}
    pids = {1: 45, 2: 1, 3: 45, 4: 46}
    processes = {number: Process(pids[number], name) for number, name in names.items()}
    taken = np.zeros((2, 2, 6), np.int64)
    data = exported(batch, taken, [3], processes=processes, harts=1)
    read = ReadBack(data)
    trace = Trace()
    trace.ParseFromString(data)
    tracks = [p.track_descriptor for p in trace.packet if p.HasField("track_descriptor")]
    described = {
        track.uuid: (track.process.pid, track.process.process_name)
        for track in tracks
        if track.HasField("process")
    }
    # The last name of a process that had two.
    assert sorted(described.values()) == [(1, "init"), (45, "\\x1b<ls>"), (46, "next")]
    spaces = {
        (described[track.parent_uuid][0], track.name)
        for track in tracks
        if track.parent_uuid in described
    }
    rest = [space_name(unsigned(satp)) for satp in SATPS]
    assert spaces == {
        (45, f"sh (pid 45), {rest[0]}"),
        (1, f"init (pid 1), {rest[1]}"),
        (45, f"\\x1b<ls> (pid 45), {rest[2]}"),
        (46, f"next (pid 46), {rest[0]}"),
    }
    assert [(begin, end, name) for begin, end, name in slices(read)["hart 0"]][1:4] == [
        (0, 10, f"sh (pid 45), {rest[0]}"),
        (10, 20, f"init (pid 1), {rest[1]}"),
        (20, 30, f"sh (pid 45), {rest[0]}"),
    ]


def test_memory_does_not_grow_with_the_trace() -> None:
    """What the exporter keeps is names; it hands every packet on."""
    batch, taken = events(1, 500, 10)

    class Nowhere(io.BytesIO):
        def write(self, data: Any) -> int:
            return len(data)

    export = PerfettoFile(
        Nowhere(),
        "g",
        NAMES,
        instructions=5000,
        timed=True,
        start=0,
        labels={},
        lookup=None,
        harts=2,
    )
    sizes = []
    for _ in range(3):
        export.feed(batch, list(taken[0]), list(taken[1]))
        sizes.append(sum(len(one) for one in vars(export).values() if isinstance(one, dict)))
        batch["icount"] += 5000
    assert sizes[1] == sizes[2]


def cosim(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in argv])
    output = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, output.out, output.err


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    batch, _ = events(2, 200, 10)
    batch["hart"] = 0
    # The models need tables for accesses; these events have none.
    batch = batch[~np.isin(batch["kind"], (Kind.ACCESS, Kind.PTE_WRITE))]
    write_trace(tmp_path / "t", batch)
    target = tmp_path / "t.pftrace"
    words = ("export", tmp_path / "t", "--perfetto", target, "--model", "shadow,lsp")
    status, out, err = cosim(capsys, *words, "--json")
    document = json.loads(out)
    assert (status, err, document["bytes"]) == (0, "", target.stat().st_size)
    assert document["time"] == "instructions"
    read = ReadBack(target.read_bytes())
    assert read.names[1] == "synthetic (1 ns is 1 instruction of the guest)"
    for name, counts in document["policies"].items():
        exits = [notes["exits"] for track, *_, notes in read.instants("exits") if track == name]
        assert sum(exits) == counts["exits"] > 0
    status, out, err = cosim(capsys, *words)
    assert (status, out) == (0, "") and "ui.perfetto.dev" in err


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    batch, _ = events(2, 20, 10)
    batch["hart"] = 0
    write_trace(tmp_path / "t", batch[batch["kind"] == Kind.FENCE])
    target = tmp_path / "missing" / "t.pftrace"
    status, out, err = cosim(capsys, "export", tmp_path / "t", "--perfetto", target)
    assert (status, out, len(err.splitlines())) == (3, "", 1)
    assert "cannot write" in err
