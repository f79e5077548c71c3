"""Snapshot files: what is read is what was written, and everything else is refused."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cosim.errors import StorageError, UsageError
from cosim.machine import snapshot
from cosim.machine.snapshot import Head

SIZE = 5 << 20
STATE = random.Random(1).randbytes(3000)
HEAD = Head(
    machine={"QEMU": "10.0.2", "memory": "5120K"},
    at="console:guest# ",
    pc=0xFFFF_FFFF_8000_1234,
    said="guest# \x1b[6n",
    timers=("P18f=3412000000000000",),
    state_bytes=len(STATE),
    # The second part is longer than one piece.
    ram=((4096, 8192), (1 << 20, (3 << 20) + 5)),
)


def _ram() -> bytearray:
    ram = bytearray(SIZE)
    for number, (first, size) in enumerate(HEAD.ram):
        ram[first : first + size] = random.Random(number).randbytes(size)
    return ram


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "guest.snap"
    snapshot.write(path, HEAD, io.BytesIO(STATE), _ram())
    return path


def test_what_is_unpacked_is_what_was_saved(file: Path) -> None:
    assert snapshot.read_head(file) == HEAD
    state, ram = io.BytesIO(), bytearray(SIZE)
    assert snapshot.restore(file, state, ram, SIZE) == HEAD
    assert state.getvalue() == STATE
    assert ram == _ram()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.9999])
def test_a_cut_file_is_refused(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match="is damaged; make it again with `cosim snapshot`"):
        snapshot.restore(file, io.BytesIO(), bytearray(SIZE), SIZE)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_one_wrong_bit_is_found(file: Path, share: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(len(data) * share)] ^= 4
    file.write_bytes(data)
    with pytest.raises(UsageError, match="is damaged"):
        snapshot.restore(file, io.BytesIO(), bytearray(SIZE), SIZE)


def test_ram_of_a_larger_guest_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="is damaged"):
        snapshot.restore(file, io.BytesIO(), bytearray(SIZE), 1 << 20)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"lsp-cosim snapshot 0\n{}\n"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a snapshot that `cosim snapshot` of this version"):
        snapshot.read_head(path)


@pytest.mark.parametrize("line", [b"", b"[]\n", b'{"at": "boot"}\n', b"\xff\xfe\n"])
def test_a_damaged_head_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"lsp-cosim snapshot 1\n" + line)
    with pytest.raises(UsageError, match="is damaged"):
        snapshot.read_head(path)


def test_what_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    for read in (snapshot.read_head, snapshot.checksum):
        with pytest.raises(StorageError, match=r"cannot read the snapshot .*No such file"):
            read(tmp_path / "nothing")


def test_a_snapshot_that_cannot_be_finished_leaves_the_old_one(file: Path) -> None:
    before = file.read_bytes()
    too_much = replace(HEAD, ram=((0, SIZE),))

    class Gone:
        def __getitem__(self, part: slice) -> bytes:
            raise OSError(28, "No space left on device")

        def __setitem__(self, part: slice, data: bytes) -> None:
            raise AssertionError

    with pytest.raises(StorageError, match="No space left"):
        snapshot.write(file, too_much, io.BytesIO(STATE), Gone())
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pc", float("inf")),
        ("state_bytes", -5),
        ("machine", "DEEP"),
        ("timers", ["qRcmd,71756974"]),
        ("timers", ["P18f=3412000000000000#00"]),
    ],
)
def test_a_head_that_no_snapshot_has_is_refused(file: Path, key: str, value: object) -> None:
    magic, head, rest = file.read_bytes().split(b"\n", 2)
    line = json.dumps({**json.loads(head), key: value}).replace('"DEEP"', "[" * 100_000)
    file.write_bytes(b"\n".join((magic, line.encode(), rest)))
    with pytest.raises(UsageError, match="is damaged; make it again with `cosim snapshot`"):
        snapshot.read_head(file)
