"""Finding registers in memory by values that stand nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cosim.debugger.peek import Peek, _search, _unusual


def _word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_each_register_is_found_next_to_the_pc() -> None:
    values = {name: _unusual(name, number) for number, name in enumerate(("pc", "satp", "stval"))}
    hart = bytes(64) + _word(values["satp"]) + _word(values["pc"]) + _word(values["stval"])
    # A copy of satp a little further away.
    data = bytes(100_000) + hart + bytes(400) + _word(values["satp"]) + bytes(50_000)
    assert _search(data, values) == {"satp": 100_064, "pc": 100_072, "stval": 100_080}


def test_what_is_elsewhere_is_not_the_hart() -> None:
    values = {"pc": 0x1234_5678_9000, "stval": 0x1234_5678_A000}
    far = bytes(20_000)
    assert _search(_word(values["pc"]) + far + _word(values["stval"]), values) is None
    assert _search(far, values) is None


def test_the_values_are_ones_that_registers_take() -> None:
    assert _unusual("pc", 0) % 8 == 0
    assert _unusual("satp", 1) >> 44 == 8 << 16


def test_the_memory_of_a_process_that_ends_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is not there any more is no register that is 0."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, bufsize=0)
    opened = Path.open

    def opened_too_late(path: Path, mode: str, buffering: int) -> object:
        memory = opened(path, mode, buffering)
        process.communicate(timeout=60)
        return memory

    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    stack = next(line for line in maps if line.endswith("[stack]"))
    word = int(stack.split("-")[1].split()[0], 16) - 16
    peek = Peek(process.pid, {"pc": word})
    assert peek.read().keys() == {"pc"}
    monkeypatch.setattr(Path, "open", opened_too_late)
    with pytest.raises(ProcessLookupError, match="no memory any more"):
        peek.read()
    with pytest.raises(FileNotFoundError):
        peek.read()
