"""What is said of a guest that was recorded."""

from __future__ import annotations

import pytest

from cosim.session.recording import last_words


def test_a_guest_that_printed_nothing_has_no_last_line() -> None:
    assert last_words("") == "it printed nothing"
    assert last_words("a 'b'\x1b") == "its last line was \"a 'b'\\x1b\""


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("panic: could not find virtio disk", True),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", True),
        ("Kernel panic - not syncing: Attempted to kill init!", False),
        ("panic: kerneltrap", False),
    ],
)
def test_a_guest_that_lacks_a_disk_is_told_of_the_option(said: str, hint: bool) -> None:
    assert ("give it a disk with --disk" in last_words(said)) is hint
