"""A dialogue as it is typed on the command line."""

from __future__ import annotations

import pytest

from cosim.commands import dialogue_options
from cosim.errors import UsageError


def test_each_text_follows_its_pattern() -> None:
    assert dialogue_options.steps((), ()) is None
    assert dialogue_options.steps(("login: ", "# "), (r"root\n", "")) == [
        {"expect": "login: ", "send": "root\n"},
        {"expect": "# ", "send": ""},
    ]


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (r"ls -l\n", "ls -l\n"),
        (r"\x03\t\r\e[A", "\x03\t\r\x1b[A"),
        (r"a\\n", r"a\n"),
        (r"\x7E", "~"),
        ("gr\u00fcn", "gr\u00fcn"),
        ("real\nline", "real\nline"),
    ],
)
def test_escapes(typed: str, sent: str) -> None:
    assert dialogue_options.unescape(typed) == sent


@pytest.mark.parametrize("typed", [r"\q", r"\x1", r"\xgg", "end\\"])
def test_an_unknown_escape_is_named(typed: str) -> None:
    with pytest.raises(UsageError, match=r"--send has the unknown escape '\\"):
        dialogue_options.unescape(typed)
