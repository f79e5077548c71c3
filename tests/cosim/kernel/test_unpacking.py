"""Which formats are known, and what readers do at the end of their data."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pytest
import zstandard

from cosim.kernel import unpacking

CONTENT = bytes(range(256)) * 5000
PACKED = {
    "gzip": gzip.compress(CONTENT),
    "xz": lzma.compress(CONTENT),
    "lzma": lzma.compress(CONTENT, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(CONTENT),
    "zstd": zstandard.compress(CONTENT),
}


def _all(data: bytes) -> bytes:
    form = unpacking.format_of(data)
    assert form is not None and form.reader is not None
    reader = form.reader(io.BytesIO(data))
    return b"".join(iter(lambda: reader.read(1 << 16), b""))


@pytest.mark.parametrize("name", PACKED)
def test_a_file_is_unpacked(name: str) -> None:
    form = unpacking.format_of(PACKED[name])
    assert form is not None and form.name == name
    assert _all(PACKED[name]) == CONTENT


@pytest.mark.parametrize("name", PACKED)
def test_a_file_that_is_cut_off_is_no_end(name: str) -> None:
    with pytest.raises((unpacking.EndsEarly, EOFError, ValueError, OSError)):
        _all(PACKED[name][:-20])


def test_several_zstd_frames_with_padding_are_one_file() -> None:
    frame = zstandard.compress(b"abc")
    assert _all(frame + bytes(5) + frame) == b"abcabc"


def test_what_cannot_be_unpacked_is_known_by_name() -> None:
    for head, name in ((b"\x02\x21\x4c\x18", "lz4"), (b"\x89LZO\0", "lzo")):
        form = unpacking.format_of(head)
        assert form is not None and (form.name, form.reader) == (name, None)
    assert unpacking.format_of(b"\x7fELF") is None
