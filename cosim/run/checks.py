"""Checks of single values, as a run file or the command line has them.

Each check takes the value and the folder at which relative paths start, and returns the value to
use.  It raises ValueError with a text that follows the name of the option: ``--step is -1, not a
whole number from 0 on``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosim.trace.locate import is_uri

Check = Callable[[Any, Path], Any]

LABEL_BYTES = 32
"""Longest label of a mark (docs/architecture.md, "Marks")."""


def text(value: Any, folder: Path) -> str:
    """Return ``value``.

    :raises ValueError: when it is not a text, or blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"is {value!r}, not a text")
    if "\0" in value:
        raise ValueError(f"is {value!r}; no program can be given a NUL character")
    return value


def exists(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Return True if ``path`` is what ``kind`` asks for.

    :param kind: ``Path.is_file`` or ``Path.is_dir``.
    :raises ValueError: when the host cannot say, for example because the name is too long.
    """
    try:
        return kind(path)
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read: {error.strerror}") from None


def file(value: Any, folder: Path) -> Path:
    """Return the path of the file that ``value`` names.

    :raises ValueError: when there is no such file.
    """
    path = folder / text(value, folder)
    if is_uri(value):
        raise ValueError("is a URI; only traces can be at one, so name a file of this machine")
    if not exists(path, Path.is_file):
        raise ValueError(f"names {path}, which is not a file")
    return path


def edge(value: Any, folder: Path) -> str:
    """Return the text of an edge of the region (:func:`cosim.run.region.parse`).

    :raises ValueError: when the label of a mark or the pattern of a console line is malformed.
    """
    written = text(value, folder)
    form, colon, rest = written.partition(":")
    if colon and form == "mark" and not (rest.isascii() and 0 < len(rest) <= LABEL_BYTES):
        raise ValueError(f"is {written!r}; a label is 1..{LABEL_BYTES} ASCII characters")
    if colon and form == "console":
        pattern(rest, folder)
    return written


def pattern(value: Any, folder: Path) -> str:
    """Return the regular expression ``value``.

    :raises ValueError: when it is not a regular expression.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"is {value!r}, not a pattern")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is {value!r}, not a regular expression ({error})") from error
    return value


def seconds(value: Any, folder: Path) -> float:
    """Return a length of time.

    :raises ValueError: when it is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"is {value!r}, not a number of seconds above 0")
    return float(value)


def count(value: Any, folder: Path) -> int:
    """Return a count.

    :raises ValueError: when it is not a whole number, or below 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"is {value!r}, not a whole number from 0 on")
    return value


def switch(value: Any, folder: Path) -> bool:
    """Return a truth value.

    :raises ValueError: when it is something else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"is {value!r}, neither true nor false")
    return value


def output_file(value: Any, folder: Path) -> Path:
    """Return the path of a file to write.

    :raises ValueError: when it is not a path.
    """
    return folder / (value if isinstance(value, Path) else text(value, folder))
