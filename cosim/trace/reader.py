"""Reading a trace, one checked segment at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cosim.capture.processes import LARGEST_PID, Process
from cosim.errors import TraceError
from cosim.models.result import Ending, Origin
from cosim.trace import manifest, schema
from cosim.trace.folder import location
from cosim.trace.location import Location
from cosim.trace.manifest import TraceDamage
from hypervisor_model.errors import ModelError
from hypervisor_model.events import EventBatch, Kind

_T = TypeVar("_T")

_FILE = re.compile(r"events-\d{6,12}\.parquet")
_MOST_EVENTS = 1 << 24
"""Events that a segment may hold: 768 MiB of records.  The writer makes far smaller ones."""
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Segment:
    """One Parquet file of a trace, as its line in the manifest describes it."""

    location: Location
    """Where its trace is."""
    name: str
    layout: schema.Layout
    """The layout of the trace's version."""
    first: int
    """The number of its first event."""
    events: int
    size: int
    sha256: str
    kinds: dict[str, int]
    first_icount: int | None
    last_icount: int | None

    @property
    def shown(self) -> str:
        """Where it is, for messages."""
        return self.location.shown(self.name)

    def load(self) -> bytes:
        """Return the file's bytes.

        :raises TraceDamage: when they are not those that were written.
        :raises StorageError: when object storage does not give them.
        """
        try:
            data = self.location.read(self.name, max(self.size, _MOST_BYTES))
        except FileNotFoundError:
            raise TraceDamage(f"{self.shown}: this segment is missing") from None
        except OSError as error:
            raise TraceDamage(f"{self.shown}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            what = f"{len(data)} bytes instead of {self.size}"
            raise TraceDamage(
                f"{self.shown}: this segment is damaged "
                f"({what if len(data) != self.size else 'its checksum differs'})"
            )
        return data

    def read(self) -> EventBatch:
        """Return the events.

        :raises TraceDamage: when the file is not what the manifest says.
        :raises StorageError: when object storage does not give it.
        """
        data = self.load()
        try:
            batch = self.layout.decode(data, self.first, self.events)
        except ValueError as error:
            raise TraceDamage(f"{self.shown}: {error}") from error
        return batch


class TraceReader:
    """A stored trace: what it says of itself, and its events.

    Opening reads only the manifest.

    :param place: the folder of the trace, or where :func:`cosim.trace.locate.locate` found it.
    :raises TraceError: when there is no trace of a version that this tool reads.
    :raises TraceDamage: when its manifest is damaged.
    :raises StorageError: when object storage does not give it.
    """

    def __init__(self, place: Path | Location) -> None:
        self.location = location(place)
        lines = manifest.read(self.location)
        header = lines.records[0]
        self.version: int = header["version"]
        self.written_by: str
        self.created: str
        self.segments: list[Segment] = []
        self.labels: dict[int, str] = {}
        """The text of each mark, by the number in field ``a`` of its MARK events."""
        self.processes: dict[int, Process] = {}
        """The processes, by the number in field ``c`` of SATP_WRITE events."""
        ending: Ending | None = None
        try:
            self.written_by = _value(header, "written_by", str)
            self.created = _value(header, "created", str)
            self.origin = Origin.from_json(header["origin"])
            for record in lines.records[1:]:
                match record["record"]:
                    case "segment":
                        self.segments.append(self._segment(record))
                    case "label":
                        self.labels[_label(record)] = _value(record, "text", str)
                    case "process":
                        self.processes[_number(record, "number")] = _process(record)
                    case "end":
                        ending = Ending.from_json(record["ending"])
        except (AttributeError, KeyError, TypeError, ValueError, ModelError) as error:
            path = self.location.shown(manifest.NAME)
            raise TraceError(f"{path}: a record is not of this format ({error})") from error
        self.ending: Ending = ending or Ending.incomplete(f"the trace is cut: {lines.cut}")
        """How the capture ended; for a cut trace an incomplete ending that says so."""
        self.cut = lines.cut
        """Why the trace has no end, or None when its writer closed it."""

    @property
    def events(self) -> int:
        """How many events are in all segments."""
        return sum(segment.events for segment in self.segments)

    @property
    def size(self) -> int:
        """How many bytes all segments take on disk."""
        return sum(segment.size for segment in self.segments)

    def batches(self) -> Iterator[EventBatch]:
        """Yield the events in order, one segment at a time.

        :raises TraceDamage: when it comes to a damaged segment.
        :raises StorageError: when object storage does not give one.
        """
        for segment in self.segments:
            yield segment.read()

    def _segment(self, record: manifest.Record) -> Segment:
        name = _value(record, "file", str)
        if not _FILE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a segment")
        if _number(record, "events") > _MOST_EVENTS:
            raise ValueError(f"a segment of {record['events']} events")
        kinds = _value(record, "kinds", dict)
        for kind in kinds:
            _number(kinds, kind)
        return Segment(
            location=self.location,
            name=name,
            layout=schema.LAYOUTS[self.version],
            first=self.events,
            events=_number(record, "events"),
            size=_number(record, "bytes"),
            sha256=_value(record, "sha256", str),
            kinds=kinds,
            first_icount=_count(record, "first_icount"),
            last_icount=_count(record, "last_icount"),
        )


def _value(record: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = record[key]
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {value!r}, not {kind.__name__}")
    return value


def _number(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    # True is an int for Python.
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{key} is {value!r}, not a number of 63 bits")
    return value


def _label(record: Mapping[str, Any]) -> int:
    number = record["number"]
    if type(number) is not int or not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"number is {number!r}, not a number of 64 bits")
    return number


def _process(record: Mapping[str, Any]) -> Process:
    pid = _number(record, "pid")
    if pid > LARGEST_PID:
        raise ValueError(f"pid is {pid}, which no process has")
    # JSON may hold half a surrogate pair, which is no text for anybody else.
    name = _value(record, "name", str).encode(errors="backslashreplace")
    return Process(pid, name.decode())


def _count(record: Mapping[str, Any], key: str) -> int | None:
    return None if record[key] is None else _number(record, key)


def verify(place: Path | Location) -> list[str]:
    """Return what is wrong with the trace at ``place``, one line for each finding.

    :raises TraceError: when it is no trace of a version that this tool reads.
    :raises StorageError: when object storage does not give it.
    """
    try:
        reader = TraceReader(place)
    except TraceDamage as error:
        return [str(error)]
    findings: list[str] = []
    for segment in reader.segments:
        try:
            batch = segment.read()
        except TraceDamage as error:
            findings.append(str(error))
            continue
        if schema.count_kinds(batch) != segment.kinds:
            findings.append(f"{segment.shown}: the counts by kind are not those of the manifest")
        unnamed = set(batch["a"][batch["kind"] == Kind.MARK].tolist()) - set(reader.labels)
        if unnamed:
            findings.append(f"{segment.shown}: mark {min(unnamed)} has no label in the manifest")
    listed = {segment.name for segment in reader.segments}
    for name in reader.location.segments():
        if name not in listed:
            path = reader.location.shown(name)
            shown = path if name.isprintable() else repr(path)
            findings.append(f"{shown}: left over from an interrupted writer, not part of the trace")
    if reader.cut:
        findings.append(f"{reader.location}: the trace is cut: {reader.cut}")
    elif not reader.ending.complete:
        findings.append(f"{reader.location}: the capture is incomplete: {reader.ending.reason}")
    return findings
