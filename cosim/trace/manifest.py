"""The manifest of a trace: ``_manifest.jsonl``, one JSON record per line, only ever appended to.

A trace is a folder: this file and ``events-000000.parquet``, ``events-000001.parquet`` ... (see
:mod:`cosim.trace.schema`).  The records, by their key ``record``:

``header``
    The first line.  ``format`` = ``lsp-cosim-trace``, ``version``, ``written_by``, ``created``
    (UTC) and ``origin``: what was captured (:class:`cosim.models.result.Origin`).  Keys may be
    added to ``origin`` within a version; a reader takes those that it knows.
``segment``
    One for each segment, in order, written when the segment is safe on disk: ``file``, ``events``,
    ``bytes``, ``sha256`` of the file, ``kinds`` (events by kind), ``first_icount`` and
    ``last_icount`` (null if unknown).
``label``
    The text of a mark: ``number`` (field ``a`` of MARK events) and ``text``; before the segment
    that has the mark.
``process``
    The process that owns an address space: ``number`` (field ``c`` of SATP_WRITE events), ``pid``
    and ``name``.  A later record with the same number replaces it: ``execve`` gives a process
    another name.
``end``
    The last line of a capture that was closed: ``ending``
    (:class:`cosim.models.result.Ending`), with the audit at the end of the run.  A trace without
    it is *cut*: its writer died, or still writes.

Each line has ``crc32``, eight hexadecimal digits: the CRC-32 of the line's record without that key,
as JSON with sorted keys, no spaces and ASCII only.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

from cosim.errors import TraceError
from cosim.trace.location import MANIFEST, Location
from cosim.trace.schema import LAYOUTS, VERSION

FORMAT = "lsp-cosim-trace"
NAME = MANIFEST

Record = dict[str, Any]

_LARGEST = 256 << 20
"""Bytes of a manifest that are read; one segment takes some 400."""
_DEEPEST = 50
"""How deep a record may be nested."""


class TraceDamage(TraceError):
    """A trace is ours, but something in it changed or vanished after it was written."""


class Lines(NamedTuple):
    """What a manifest holds."""

    records: list[Record]
    cut: str | None
    """Why the manifest ends before its ``end`` record; None if it has one."""


def to_line(record: Record) -> bytes:
    """Return ``record`` as one line of a manifest, with its checksum and newline."""
    return _canonical({**record, "crc32": _crc(record)}) + b"\n"


def read(location: Location) -> Lines:
    """Return the checked records of the trace at ``location``.

    A crash leaves a last line that is torn or damaged.  It is left out, and the trace counts as
    cut.

    :raises TraceError: when there is no trace of a version that this tool reads.
    :raises TraceDamage: when a line before the last one is damaged.
    :raises StorageError: when object storage does not give it.
    """
    path = location.shown(NAME)
    try:
        data = location.read(NAME, _LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise TraceError(location.why_no_trace()) from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    lines = data.split(b"\n")
    torn = lines.pop() != b""
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            if number > 1 and number == len(lines) and not torn:
                torn = True
                break
            raise TraceDamage(f"{path}:{number}: this line is damaged; the trace cannot be trusted")
        if number == 1:
            _check_header(path, record)
        records.append(record)
    if not records:
        raise TraceDamage(f"{path}: holds no header; the capture died before its first block")
    if torn:
        return Lines(records, "its last manifest line is incomplete: the writer was interrupted")
    if records[-1]["record"] != "end":
        return Lines(records, "it has no end record: the writer was killed, or still writes")
    return Lines(records, None)


def _canonical(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _crc(record: Record) -> str:
    return f"{zlib.crc32(_canonical(record)):08x}"


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if _is_deeper(record, _DEEPEST):
        return None
    if not isinstance(record, dict) or not {"record", "crc32"} <= record.keys():
        return None
    del record["crc32"]
    # Compare every byte, so that nothing passes that could be read in another way.
    return record if to_line(record) == line + b"\n" else None


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in parts)


def _check_header(path: str, record: Record) -> None:
    if record["record"] != "header" or record.get("format") != FORMAT:
        raise TraceError(f"{path}: not the manifest of a cosim trace")
    version = record.get("version")
    # True is an int for Python.
    if type(version) is not int or version < 1:
        raise TraceError(f"{path}: {version!r} is not a version of a trace; capture it again")
    if version not in LAYOUTS:
        raise TraceError(
            f"{path}: trace version {version}, but this tool reads up to {VERSION}; "
            "update the tool that reads it"
        )
