"""Arguments that several ``paging`` commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cosim.paging.space import MODES

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.ParamType[int]):
    """An unsigned 64-bit number, decimal or with ``0x``; gdb has made one of its expression."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            number = int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor an expression that gdb knows")
        if not -(1 << 63) <= number < 1 << 64:
            self.fail(f"{value} does not fit 64 bits")
        return number & ((1 << 64) - 1)


NUMBER = Number()


def space_options(function: F) -> F:
    """Add --as and --satp, which name an address space."""
    for option in (
        click.option("--satp", type=NUMBER, metavar="X", help="Use this satp (vsatp)."),
        click.option(
            "--as",
            "mode",
            type=click.Choice([mode for mode in MODES if mode != "M"]),
            help="Privilege of the access.  Default: the hart's own.",
        ),
    ):
        function = option(function)
    return function
