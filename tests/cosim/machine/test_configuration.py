"""QEMU's command line and sizes, without a QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import UsageError
from cosim.machine.configuration import MachineConfig, Timing, arguments, parse_memory

QEMU = Path("/usr/bin/qemu")


def _after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_what_a_machine_is() -> None:
    config = MachineConfig(
        kernel=Path("Image"),
        initrd=Path("root.gz"),
        append="console=ttyS0 quiet",
        bios="none",
        memory=96 << 20,
        cpu="rv64,svade=on",
        harts=2,
        extra=("-global", "x=y"),
    )
    words = arguments(QEMU, config, Timing("live"))
    assert words[0] == str(QEMU)
    assert (_after(words, "-kernel"), _after(words, "-initrd")) == ("Image", "root.gz")
    assert (_after(words, "-append"), _after(words, "-bios")) == ("console=ttyS0 quiet", "none")
    assert (_after(words, "-m"), _after(words, "-smp")) == (f"{96 << 10}K", "2")
    assert _after(words, "-cpu") == "rv64,svade=on"
    assert words[-2:] == ["-global", "x=y"]
    assert "-icount" not in words
    few = arguments(QEMU, MachineConfig(Path("k")), Timing("live"))
    assert not {"-initrd", "-append", "-bios"} & set(few)


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_a_recording_and_its_replay_differ_in_one_word(mode: str) -> None:
    assert mode in ("record", "replay")
    log = Path("/tmp/a,b/log")
    words = Timing(mode, log).arguments()  # type: ignore[arg-type]
    assert _after(words, "-icount") == f"shift=0,sleep=off,rr={mode},rrfile=/tmp/a,,b/log"
    assert "filter-buffer" in " ".join(words)
    with pytest.raises(UsageError, match=f"timing mode {mode} needs a log file"):
        Timing(mode).arguments()  # type: ignore[arg-type]


def test_counting_instructions_is_deterministic_and_live_is_not() -> None:
    assert Timing("live").arguments() == []
    words = Timing().arguments()
    assert (_after(words, "-icount"), _after(words, "-seed")) == ("shift=0,sleep=off", "1")
    assert "clock=vm" in _after(words, "-rtc")


def test_a_recording_takes_input_only_if_a_user_types() -> None:
    log = Path("log")
    assert not Timing("record", log).takes_input
    assert Timing("record", log, typed=True).takes_input
    assert "sleep=on" in _after(Timing("record", log, typed=True).arguments(), "-icount")
    assert Timing("live").takes_input
    assert Timing("icount").takes_input


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2g", 2 << 30), ("64", 64 << 20), (" 4096K ", 4 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "M", "-1M", "1.5G", "2T", "lots"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a memory size; write for example 512M"):
        parse_memory(text)
