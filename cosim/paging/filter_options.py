"""Options that choose among the mapped ranges, for ``cosim maps`` and ``paging maps``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cosim.paging.maps import MEMORY_TYPES, SIZES

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--user", is_flag=True, help="Only pages for U-mode."),
    click.option("--kernel", is_flag=True, help="Only pages that are not for U-mode."),
    click.option(
        "--has", metavar="LETTERS", default="", help="Only pages with all of these: RWXUGAD."
    ),
    click.option(
        "--lacks", metavar="LETTERS", default="", help="Only pages with none of these: RWXUGAD."
    ),
    click.option("--size", type=click.Choice(list(SIZES)), help="Only pages of this size."),
    click.option("--pbmt", type=click.Choice(MEMORY_TYPES), help="Only pages of this type."),
    click.option(
        "--coarse", is_flag=True, help="Merge pages that differ only in frame, size, A or D."
    ),
]


def filter_options(function: F) -> F:
    """Add the options to a command, which passes them to
    :meth:`~cosim.paging.maps.Filter.named` (``--coarse``: to :func:`~cosim.paging.maps.maps`)."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
