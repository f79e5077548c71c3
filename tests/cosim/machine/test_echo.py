"""Echo against the longest common subsequence by its definition, and what it reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.machine.echo import Echo


def _longest(one: str, other: str) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    row = [0] * (len(other) + 1)
    for a in one:
        before, row = row, [0]
        for index, b in enumerate(other):
            row.append(before[index] + 1 if a == b else max(before[index + 1], row[index]))
    return row[-1]


def _after(typed: str, printed: str) -> Echo:
    echo = Echo()
    for byte in typed.encode():
        echo.type(byte)
    echo.print(printed.encode())
    return echo


@given(st.text("abc ", max_size=30), st.text("abcx ", max_size=40))
def test_it_counts_the_longest_common_subsequence(typed: str, printed: str) -> None:
    echo = _after(typed, printed)
    assert echo.shown == _longest(typed, printed)
    assert len(echo.missing) == len(typed) - echo.shown


@given(st.text(max_size=40), st.data())
def test_noise_and_pieces_hide_nothing(typed: str, data: st.DataObject) -> None:
    echo = Echo()
    for byte in typed.encode():
        echo.type(byte)
        whole = data.draw(st.binary(max_size=5)) + bytes([byte])
        cut = data.draw(st.integers(0, len(whole)))
        echo.print(whole[:cut])
        echo.print(whole[cut:])
        assert echo.newest_shown
    assert echo.missing == ""


@pytest.mark.parametrize(
    ("typed", "printed", "missing"),
    [
        ("abc\n", "abc\r\n", ""),
        ("echo abcdefghij; off\n", "echo abij; off\r\nabij\r\n", "cdefgh"),
        ("secret\n", "", "secret"),
        ("secret\n", "\r\n", "secret"),
        ("gr\u00fcn", "grn", "\u00fc"),
        ("gr\u00fcn", "gr\u00fcn", ""),
        ("gr\u00fcn", "gr\u00e4n", "\u00fc"),
        ("aab", "ab", "a"),
        ("\n\n", "", ""),
        ("", "abc", ""),
    ],
)
def test_what_is_missing(typed: str, printed: str, missing: str) -> None:
    assert _after(typed, printed).missing == missing


def test_what_was_printed_before_shows_nothing() -> None:
    echo = Echo()
    echo.type(ord("a"))
    echo.print(b"abab")
    echo.type(ord("b"))
    assert not echo.newest_shown
    echo.print(b"b")
    assert echo.newest_shown
