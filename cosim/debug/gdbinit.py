"""The file that a user's own gdb sources to get the ``paging`` commands."""

from __future__ import annotations

import sys
from pathlib import Path

GDB_PART = Path(__file__).with_name("gdb_part.py")
"""The part that runs inside gdb."""
_SERVER = "_SERVER: list[str] | None = None\n"


def gdbinit() -> str:
    """Return the text of a file to ``source``; it starts this cosim to answer."""
    words = [sys.executable, "-m", "cosim.debug.answering"]
    text = GDB_PART.read_text(encoding="utf-8")
    assert _SERVER in text
    return text.replace(_SERVER, f"_SERVER: list[str] | None = {words!r}\n", 1)
