"""What is said of a guest that was recorded."""

from __future__ import annotations

from cosim.session.recording import last_words


def test_a_guest_that_printed_nothing_has_no_last_line() -> None:
    assert last_words("") == "it printed nothing"
    assert last_words("a 'b'\x1b") == "its last line was \"a 'b'\\x1b\""
