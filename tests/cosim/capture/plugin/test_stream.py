"""The reader of the plugin's stream: whole, cut and damaged streams; faults of the compiler."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture.plugin import build
from cosim.capture.plugin.source import PluginSource
from cosim.capture.plugin.stream import StreamReader, Summary
from cosim.errors import CosimError, MachineError, MissingTool, UsageError
from cosim.machine import tools
from hypervisor_model.events import EventBatch, empty

EVENTS, LABEL, END, CALLS = 1, 2, 3, 5


def block(kind: int, sequence: int, payload: bytes, instructions: int = 7) -> bytes:
    header = struct.pack("<4sHHQQQ", b"CSPE", 3, kind, sequence, instructions, len(payload))
    words = struct.unpack(
        f"<{(len(header) + len(payload) + 7) // 8}Q", header + payload + bytes(-len(payload) % 8)
    )
    once, twice = sum(words), sum(itertools.accumulate(words))
    return header + struct.pack("<QQ", once % 2**64, twice % 2**64) + payload


def batch(count: int, first: int = 0) -> EventBatch:
    events = empty(count)
    events["a"] = range(first, first + count)
    return events


def end(events: int) -> bytes:
    return struct.pack("<8Q", 1, 0, events, 1000, 3, 1536, 0, 0)


WHOLE = (
    block(EVENTS, 0, batch(3).tobytes())
    + block(LABEL, 1, b"begin")
    + block(EVENTS, 2, batch(2, 3).tobytes(), 99)
    + block(CALLS, 3, struct.pack("<2Q", 40, 41))
    + block(END, 4, end(5))
)


def read(data: bytes, timeout: float = 20) -> tuple[StreamReader, list[int]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(timeout)

        def write() -> None:
            theirs.sendall(data)
            theirs.shutdown(1)

        writer = threading.Thread(target=write)
        writer.start()
        reader = StreamReader(ours)
        try:
            numbers = [int(a) for events in reader.batches() for a in events["a"]]
        finally:
            writer.join()
    return reader, numbers


def test_a_whole_stream() -> None:
    reader, numbers = read(WHOLE)
    assert numbers == [0, 1, 2, 3, 4]
    assert reader.labels == ["begin"]
    assert reader.instructions == 7
    assert reader.calls == [40, 41]
    assert reader.summary == Summary(True, False, 5, 1000, 3, 1536, 0, 0)


@settings(max_examples=60)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_cut_stream_says_so_wherever_it_is_cut(length: int) -> None:
    with pytest.raises(MachineError, match="cut"):
        read(WHOLE[:length])


@settings(max_examples=200)
@given(bit=st.integers(0, 8 * len(WHOLE) - 1))
def test_a_flipped_bit_is_found_wherever_it_is(bit: int) -> None:
    data = bytearray(WHOLE)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MachineError):
        read(bytes(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (block(END, 1, end(0)), "expected block 0, got 1"),
        (block(END, 0, end(1)), "0 of 1 events came"),
        (block(9, 0, b""), "type 9"),
        (block(EVENTS, 0, bytes(47)), "half an event"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(32), "a block was expected"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, said: str) -> None:
    with pytest.raises(MachineError, match=said):
        read(data)


def test_a_silent_plugin_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.1)
        with pytest.raises(MachineError, match="silent"):
            list(StreamReader(ours).batches())


def test_each_batch_is_an_array_by_itself() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(WHOLE)
        first, second = StreamReader(ours).batches()
        assert len(first) == 3 and len(second) == 2
        assert not np.shares_memory(first, second)


# -- the source before it runs -------------------------------------------------------------------


@pytest.mark.parametrize("slots", [3, 1024, -2])
def test_a_filter_has_a_power_of_two_slots(slots: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        PluginSource(Path("/bin/true"), memory=1 << 20, slots=slots)


@pytest.mark.parametrize("limit", ["mark:", "mark:" + 33 * "x", "pc:here", "later", "mark:ä"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(UsageError, match="not an edge of a region"):
        PluginSource(Path("/bin/true"), memory=1 << 20, start=limit)


def program(folder: Path, name: str, script: str) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\n" + script)
    file.chmod(0o755)
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("COSIM_CACHE", str(folder))
    return folder


def test_the_plugin_is_compiled_once(cache: Path) -> None:
    first = build.build()
    made = first.stat().st_mtime_ns
    assert build.build() == first and first.stat().st_mtime_ns == made
    assert list((cache / "plugin").iterdir()) == [first]


def test_a_compiled_plugin_needs_no_compiler(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build.build()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.build() == made
    made.unlink()
    with pytest.raises(MissingTool, match="no C compiler on PATH"):
        build.build()


def test_a_compiler_that_fails_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = program(tmp_path, "cc", "echo 'x.c:1:1: error: no such thing' >&2\nexit 1\n")
    monkeypatch.setattr(tools, "host_compiler", lambda: tools.Tool(compiler, (1,), "cc 1"))
    with pytest.raises(MissingTool, match="no such thing") as caught:
        build.build()
    assert "\n" not in str(caught.value)
    assert list((cache / "plugin").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "file"))
    with pytest.raises(CosimError, match="cannot write"):
        build.build()


def test_an_old_qemu_is_one_line(tmp_path: Path) -> None:
    # What QEMU 7.2 answers to a plugin of interface version 4.
    refusal = (
        "TCG plugin requires version 4, but this QEMU supports only a minimum of 0 and a "
        "maximum of 1"
    )
    old = program(tmp_path, "qemu-system-riscv64", f"echo '{refusal}' >&2\nexit 1\n")
    with pytest.raises(MissingTool, match="interface version 4") as caught:
        build.check_loads(old, tmp_path / "plugin.so")
    assert "\n" not in str(caught.value) and "maximum of 1" in str(caught.value)
