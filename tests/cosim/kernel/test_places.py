"""Symbols and source lines of a kernel that has none, or a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel.places import Places


def test_no_kernel_has_no_names() -> None:
    places = Places(None)
    assert (places.symbol(0), places.instruction(0), places.source(0)) == (None, None, None)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(200)])
def test_a_damaged_kernel_has_no_names(tmp_path: Path, content: bytes) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(content)
    places = Places(kernel)
    assert (places.symbol(0x1000), places.source(0x1000)) == (None, None)


def test_a_lost_kernel_has_no_names(tmp_path: Path) -> None:
    assert Places(tmp_path / "none").source(0x1000) is None
