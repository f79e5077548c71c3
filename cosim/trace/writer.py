"""Writing a trace so that what was written can be read, whatever happens to the writer.

Events collect in one block of fixed size.  A full block, or one that has waited too long, becomes a
Parquet file.  In a folder, the file is written under a temporary name, flushed to the device, and
renamed; object storage takes it whole or not at all.  Only then the manifest gets its line.  So at
every moment the manifest lists exactly the whole segments.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cosim.capture.processes import Process
from cosim.errors import CosimError, StorageError, UsageError
from cosim.models.result import Ending, Origin
from cosim.trace import manifest, schema
from cosim.trace.folder import location
from cosim.trace.location import Location, Output
from hypervisor_model.events import EVENT, EventBatch

SEGMENT_EVENTS = 1 << 18
"""Events in a full segment; 12.6 MB of memory for the writer and for every reader."""

FLUSH_SECONDS = 10.0
"""A block older than this is written at the next event even if it is not full."""


class TraceWriter:
    """Writes one trace.

    Use it as a context manager.  Before you leave the block, call :meth:`close` with the ending of
    the run.  If an exception leaves the block, what was written so far is kept, and the end record
    says why the trace is incomplete.

    :param place: a folder, made if it does not exist, or what :func:`cosim.trace.locate.locate`
        found; must not hold a trace.
    :param origin: what is captured.
    :param segment_events: events in a full segment.
    :param flush_seconds: a block older than this is written even if it is not full.
    :raises UsageError: when there is a trace.
    :raises StorageError: when it cannot be written.  If :meth:`write` raises it, the trace is
        readable up to its last whole segment.
    """

    def __init__(
        self,
        place: Path | Location,
        origin: Origin,
        *,
        segment_events: int = SEGMENT_EVENTS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self.location = location(place)
        self.events = 0
        """Events accepted so far, including those still in the block."""
        self._block: EventBatch = np.zeros(segment_events, dtype=EVENT)
        self._fill = 0
        self._flush_seconds = flush_seconds
        self._oldest = 0.0
        self._segments = 0
        self._labels: dict[int, str] = {}
        self._failure: str | None = None
        self._output = self._begin()
        try:
            self._append(
                {
                    "record": "header",
                    "format": manifest.FORMAT,
                    "version": schema.VERSION,
                    "written_by": f"lsp-cosim {version('lsp-cosim')}",
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "origin": origin.to_json(),
                }
            )
        except BaseException:
            self._output.discard()
            raise

    def write(self, batch: EventBatch) -> None:
        """Take ``batch``.

        :raises StorageError: when a segment cannot be written.
        """
        self._check_usable()
        taken = 0
        while taken < len(batch):
            if self._fill == 0:
                self._oldest = time.monotonic()
            count = min(len(batch) - taken, len(self._block) - self._fill)
            self._block[self._fill : self._fill + count] = batch[taken : taken + count]
            self._fill += count
            self.events += count
            taken += count
            if self._fill == len(self._block):
                self.flush()
        if self._fill and time.monotonic() - self._oldest > self._flush_seconds:
            self.flush()

    def label(self, number: int, text: str) -> None:
        """Say that MARK events with label ``number`` mean ``text``; call it before the event.

        :raises UsageError: when the number has another text already.
        """
        self._check_usable()
        if self._labels.setdefault(number, text) != text:
            raise UsageError(f"mark {number} is {self._labels[number]!r} already, not {text!r}")
        self._append({"record": "label", "number": number, "text": text}, now=False)

    def name(self, processes: Mapping[int, Process]) -> None:
        """Say which process each number in SATP_WRITE events means; the last call counts."""
        self._check_usable()
        self._append(
            *(
                {"record": "process", "number": number, **process._asdict()}
                for number, process in processes.items()
            ),
            now=False,
        )

    def flush(self) -> None:
        """Write the events taken so far as a segment, even if it is short."""
        self._check_usable()
        if not self._fill:
            return
        block = self._block[: self._fill]
        name = f"events-{self._segments:06d}.parquet"
        data = schema.CURRENT.encode(block, self.events - self._fill)
        self._store(name, data)
        known = block["icount"][block["icount"] >= 0]
        self._append(
            {
                "record": "segment",
                "file": name,
                "events": self._fill,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "kinds": schema.count_kinds(block),
                "first_icount": int(known[0]) if len(known) else None,
                "last_icount": int(known[-1]) if len(known) else None,
            }
        )
        self._segments += 1
        self._fill = 0

    def close(self, ending: Ending) -> None:
        """Write what is left and the end record; the writer then takes nothing more."""
        self.flush()
        self._append({"record": "end", "ending": ending.to_json()})
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._output.closed:
            return
        reason = self._failure or _reason(error)
        try:
            if self._failure is None:
                self.flush()
            self._failure = None
            self._append({"record": "end", "ending": Ending.incomplete(reason).to_json()})
        except CosimError:
            # The disk is still full.  The trace stays cut, and its reader will say so.
            if error is None:
                raise
        finally:
            self._output.close()

    def _begin(self) -> Output:
        try:
            return self.location.begin()
        except OSError as error:
            raise self._storage(error) from error

    def _store(self, name: str, data: bytes) -> None:
        with self._noting_failure():
            self._output.store(name, data)

    def _append(self, *records: manifest.Record, now: bool = True) -> None:
        with self._noting_failure():
            self._output.append(b"".join(map(manifest.to_line, records)), now=now)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self._failure = str(error)
            raise
        except OSError as error:
            failure = self._storage(error)
            self._failure = str(failure)
            raise failure from error

    def _storage(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.location}: the trace cannot be written ({error.strerror}); "
            "free space, or name a folder on another disk"
        )

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StorageError(self._failure)
        if self._output.closed:
            raise UsageError(f"{self.location}: the trace is closed")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "the capture ended without saying how"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
