"""Where in a TOML file a key stands, which :mod:`tomllib` does not say.

A statement of TOML ends at a line's end, so the lines up to the end of a statement are a valid
document and the lines up to any place inside of one (a multi-line string or array) are not.
Parsing every valid prefix therefore tells which statement brought which key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""Keys and array indices from the top of the document to a value."""


def find(text: str, path: Path) -> int:
    """The line (from 1) of the statement in the valid TOML ``text`` that brought ``path``.

    Where ``path`` does not exist, the line of the longest part of it that does; 1 for none.
    It parses the text once a line: for error messages, not for every key.
    """
    lines: dict[Path, int] = {(): 1}
    start = 1
    rows = text.split("\n")
    for end in range(1, len(rows) + 1):
        if start == end and rows[end - 1].split("#")[0].strip() == "":
            start = end + 1
            continue
        try:
            document = tomllib.loads("\n".join(rows[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        for found in _paths(document):
            lines.setdefault(found, start)
        start = end + 1
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*at, index))


def dotted(path: Path) -> str:
    """``path`` as people write it: ``run[0].console[1].expect``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
