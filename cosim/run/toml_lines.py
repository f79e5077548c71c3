"""Find the line of a key in a TOML file; :mod:`tomllib` does not report it.

A TOML statement ends at the end of a line.  So the lines up to the end of a statement are a valid
document, and the lines up to a place inside a statement (a multi-line string or array) are not.
Parsing every valid prefix shows which statement sets which key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]
"""Keys and array indices from the top of the document to a value."""


def find(text: str, place: Place) -> int:
    """Return the line (from 1) of the statement in the valid TOML ``text`` that sets ``place``.

    If ``place`` does not exist, return the line of the longest part of it that does, or 1.
    This parses the text once for each line, so use it for error messages only.
    """
    lines: dict[Place, int] = {(): 1}
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
        for found in _places(document):
            lines.setdefault(found, start)
        start = end + 1
    while place not in lines:
        place = place[:-1]
    return lines[place]


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*at, index))


def dotted(place: Place) -> str:
    """Return ``place`` as people write it: ``run[0].console[1].expect``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
