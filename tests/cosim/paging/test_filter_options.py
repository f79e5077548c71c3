"""The filters of mapped ranges are the same on the command line and inside gdb."""

from __future__ import annotations

import inspect

import click

from cosim.commands.maps import command
from cosim.debug.commands import COMMANDS
from cosim.paging.maps import Filter


def _options(of: click.Command) -> dict[str, str | None]:
    return {one.opts[0]: one.help for one in of.params if isinstance(one, click.Option)}


def test_both_commands_have_each_filter() -> None:
    words = set(inspect.signature(Filter.named).parameters) - {"low", "high"}
    for word in (*words, "coarse"):
        text = _options(command)[f"--{word}"]
        assert text is not None and text == _options(COMMANDS["maps"])[f"--{word}"]
