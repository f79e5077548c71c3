"""The end of a recording, put right; the bytes are from recordings of QEMU 10.0."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.machine.shutdown_order import mend, mend_file

_BEFORE = b"\x22" * 16
_POWER_OFF = ("22221f 10 0c 0000000009 0e27", "22221f 0000000009 10 0c 0e27")
"""Power-off, then the request to quit; 9 instructions of before come after them."""


@pytest.mark.parametrize(
    ("found", "right"),
    [
        _POWER_OFF,
        # QEMU's main loop heard of it late: 99,999,748 instructions more.
        (
            "22221f 10 0000000009 1f 0c 0005f5e004 0e27",
            "22221f 0000000009 1f 0005f5e004 10 0c 0e27",
        ),
        # A reset has no separate event.
        ("1e1d000000000a1d1b22 0c 0000000009 0e27", "1e1d000000000a1d1b22 0000000009 0c 0e27"),
    ],
)
def test_the_last_instructions_come_before_the_shutdown(found: str, right: str) -> None:
    assert mend(_BEFORE + bytes.fromhex(found)) == _BEFORE + bytes.fromhex(right)


@pytest.mark.parametrize(
    "found",
    [
        # In order already.
        "fe220000000009 1e1d000000000a2e02 0c 0e27",
        # QEMU 7.2 writes no shutdown.
        "22 0000000009 0e27",
        # The end has another layout.
        "22 10 0c 0000000009 0e28",
        # An exception behind the shutdown cannot be moved.
        "22 10 02 0c 0000000009 0e27",
        # Another way to read it begins inside the count; what comes before does not tell which.
        "05 22 10 0c 00 00 10 22 22 0e27",
        "",
    ],
)
def test_what_is_not_understood_stays(found: str) -> None:
    before = b"" if found.startswith("05") else _BEFORE
    assert mend(before + bytes.fromhex(found)) == before + bytes.fromhex(found)


def test_no_byte_of_a_clock_is_taken_for_a_shutdown() -> None:
    found, right = map(bytes.fromhex, _POWER_OFF)
    for byte in range(256):
        clocks = b"".join(
            b"\x1e\x1d" + (byte << 8 * place).to_bytes(8, "big") + b"\x22"
            for place in range(8)
            for _ in range(4)
        )
        assert mend(clocks + found) == clocks + right
        assert mend(clocks + right) == clocks + right
        # The first clock is cut.
        assert mend(clocks[5:] + found) == clocks[5:] + right


def test_a_short_recording_is_read_from_its_beginning() -> None:
    seed = b"\x1b" + bytes(4) + b"\x00\x00\x00\x20" + b"\x10\x22" * 16
    head = bytes.fromhex("00e0200c") + bytes(8) + b"\x25" + seed + b"\x26" + seed
    # The count of the last instructions holds the byte of a shutdown, too.
    found, right = b"\x10\x0c\x00\x00\x10\x22\x22", b"\x00\x00\x10\x22\x22\x10\x0c"
    assert mend(head + found + b"\x0e\x27", whole=True) == head + right + b"\x0e\x27"


def test_a_file_is_mended_in_place(tmp_path: Path) -> None:
    found, right = map(bytes.fromhex, _POWER_OFF)
    file = tmp_path / "recording"
    # Not whole: only the end of a recording is read.
    file.write_bytes(b"\x22" * 1000 + found)
    mend_file(file)
    assert file.read_bytes() == b"\x22" * 1000 + right
