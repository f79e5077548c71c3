"""What the ``paging`` commands refuse, and what they say of fences."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cosim.debug import commands
from cosim.debug.commands import history
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Link
from cosim.errors import UsageError


@pytest.fixture
def debuggee() -> Iterator[Debuggee]:
    """A guest without a recording; whoever asked gdb for anything would wait."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Debuggee(Link(ours))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["walk"], "Missing argument 'VA'; type `help paging walk`"),
        (["walk", "-1"], "No such option '-1'; type `help paging walk`"),
        (["maps", "5", "3"], "the range ends at 0x3, before it begins at 0x5"),
        (["who", "0"], "this needs a recorded run: start the guest with"),
        (["frob"], "there is no command 'frob'; type `help paging`"),
    ],
)
def test_words_that_are_refused(debuggee: Debuggee, words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        commands.answer(debuggee, words)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (0, "    no fence of the recording covers it"),
        # A fence by address may cover the entry: which addresses it maps is not known.
        (None, "    no fence without address of the recording covers it"),
    ],
)
def test_an_entry_alone_claims_nothing_of_fences_by_address(level: int | None, said: str) -> None:
    change: dict[str, Any] = {
        "event": 1,
        "instruction": 2,
        "in_the_future": False,
        "pc": 0x1000,
        "symbol": None,
        "source": None,
        "op": "store",
        "entry": 0x2000,
        "level": level,
        "old": 1,
        "new": 0,
        "fence": None,
    }
    assert history._who_lines(change)[-1] == said
