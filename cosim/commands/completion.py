"""What a shell completes; the README says how to turn it on."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def guest_or_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of guests that begin with ``incomplete``, or else ask for files."""
    # Not at the top: most calls complete nothing.
    from guest.registry import NAMES

    names = [CompletionItem(name) for name in NAMES if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]
