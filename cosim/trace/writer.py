"""Writing a trace so that what was written can be read, whatever happens to the writer.

Events collect in one block of fixed size.  A full block, or one that has waited too long, becomes a
Parquet file.  The file is written under a temporary name, flushed to the device, and renamed; only
then the manifest gets its line.  So at every moment the manifest lists exactly the whole segments.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cosim.capture.processes import Process
from cosim.errors import CosimError, StorageError, UsageError
from cosim.files import write_atomically
from cosim.models.result import Ending, Origin
from cosim.trace import manifest, schema
from hypervisor_model.events import EVENT, EventBatch

SEGMENT_EVENTS = 1 << 18
"""Events in a full segment; 12.6 MB of memory for the writer and for every reader."""

FLUSH_SECONDS = 10.0
"""A block older than this is written at the next event even if it is not full."""


class TraceWriter:
    """Writes one trace into a folder.

    Use it as a context manager.  Before you leave the block, call :meth:`close` with the ending of
    the run.  If an exception leaves the block, what was written so far is kept, and the end record
    says why the trace is incomplete.

    :param folder: made if it does not exist; must not hold a trace.
    :param origin: what is captured.
    :param segment_events: events in a full segment.
    :param flush_seconds: a block older than this is written even if it is not full.
    :raises UsageError: when the folder holds a trace.
    :raises StorageError: when it cannot be written.  If :meth:`write` raises it, the trace is
        readable up to its last whole segment.
    """

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        *,
        segment_events: int = SEGMENT_EVENTS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self.folder = folder
        self.events = 0
        """Events accepted so far, including those still in the block."""
        self._block: EventBatch = np.zeros(segment_events, dtype=EVENT)
        self._fill = 0
        self._flush_seconds = flush_seconds
        self._oldest = 0.0
        self._segments = 0
        self._labels: dict[int, str] = {}
        self._failure: str | None = None
        self._manifest = self._create(folder)
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
            _sync_folder(folder)
        except BaseException as error:
            self._manifest.close()
            (folder / manifest.NAME).unlink()
            if isinstance(error, OSError):
                raise _storage(folder, error) from error
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
        self._append({"record": "label", "number": number, "text": text})

    def name(self, processes: Mapping[int, Process]) -> None:
        """Say which process each number in SATP_WRITE events means; the last call counts."""
        self._check_usable()
        self._append(
            *(
                {"record": "process", "number": number, **process._asdict()}
                for number, process in processes.items()
            )
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
        self._manifest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._manifest.closed:
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
            self._manifest.close()

    def _create(self, folder: Path) -> _Appender:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.glob("*events-*.parquet*")):
                raise FileExistsError
            return _Appender(folder / manifest.NAME)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"{folder}: holds a trace already or is a file; name a new folder"
            ) from None
        except OSError as error:
            raise _storage(folder, error) from error

    def _store(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self.folder / name, data)
            _sync_folder(self.folder)
        except StorageError as error:
            raise self._fail(error.__cause__ or error) from error
        except OSError as error:
            raise self._fail(error) from error

    def _append(self, *records: manifest.Record) -> None:
        try:
            self._manifest.append(b"".join(map(manifest.to_line, records)))
        except OSError as error:
            raise self._fail(error) from error

    def _fail(self, error: BaseException) -> StorageError:
        failure = _storage(self.folder, error)
        self._failure = str(failure)
        return failure

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StorageError(self._failure)
        if self._manifest.closed:
            raise UsageError(f"{self.folder}: the trace is closed")


class _Appender:
    """A file of lines: a line is on the device whole, or not in the file at all."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._length = 0

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def append(self, line: bytes) -> None:
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(self._fd, line[done:], self._length + done)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._length)
            raise
        self._length += len(line)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
            self._fd = -1


def _storage(folder: Path, error: BaseException) -> StorageError:
    why = error.strerror if isinstance(error, OSError) else error
    return StorageError(
        f"{folder}: the trace cannot be written ({why}); "
        "free space, or name a folder on another disk"
    )


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "the capture ended without saying how"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
