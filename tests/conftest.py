"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Put the files that take longest first if several workers share the tests.

    Otherwise one worker may begin with such a file at the end, while the others have no work left.
    """
    if hasattr(session.config, "workerinput"):
        # All tests of a file have one key, so they stay together and in their order.
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """Return 0 if the test's file takes minutes, 1 if it starts guests, 2 otherwise."""
    file = item.getparent(pytest.Module)
    marks = [] if file is None else [mark.name for mark in file.own_markers]
    return 0 if "long" in marks else 1 if "system" in marks else 2
