"""The argument of a command that is the place of a trace: a folder or a URI."""

from __future__ import annotations

from typing import Any

import click

from cosim.trace.locate import locate


class TracePlace(click.Path):
    """A path, or a URI such as ``s3://BUCKET/PREFIX``."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or the place that a URI names."""
        return locate(value) if isinstance(value, str) else value
