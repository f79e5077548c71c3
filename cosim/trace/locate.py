"""From what a user writes to the place of a trace: a path, ``file://``, ``s3://`` or ``gs://``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cosim.errors import UsageError

if TYPE_CHECKING:
    from cosim.trace.object_storage import ObjectStorage

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_uri(text: str) -> bool:
    """Return True if ``text`` is a URI.  ``./s3://x`` is a path."""
    return _URI.match(text) is not None


def locate(text: str) -> Path | ObjectStorage:
    """Return the place that ``text`` names; nothing is read yet.

    For example, ``TraceReader(locate("s3://bucket/t"))`` opens a trace.

    :raises UsageError: when ``text`` is a URI that is malformed or not supported.
    """
    found = _URI.match(text)
    if found is None:
        return Path(text)
    if found[1].lower() == "file":
        split = urlsplit(text)
        if split.netloc not in ("", "localhost") or not split.path:
            raise UsageError("file://...: write file:///PATH, with an absolute path")
        return Path(unquote(split.path))
    # pyarrow's file systems take long to load, and most traces are in folders.
    from cosim.trace.object_storage import ObjectStorage

    return ObjectStorage(text)
