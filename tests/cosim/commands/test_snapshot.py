"""``cosim snapshot`` and ``--from-snapshot``: names of files that are none."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import UsageError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["snapshot", "micro", "--at", "mark:init", "-o", "s3://bucket/x"], "-o: a snapshot is a"),
        (["run", "micro", "--from-snapshot", "s3://bucket/x"], "--from-snapshot is a URI; only"),
    ],
)
def test_a_snapshot_is_never_at_a_uri(words: list[str], says: str) -> None:
    refused = CliRunner().invoke(cosim, words).exception
    assert isinstance(refused, UsageError) and str(refused).startswith(says)
