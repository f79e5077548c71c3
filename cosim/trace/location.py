"""Where a trace is: what its readers and writers need of a folder, or of what stands for one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from cosim.errors import StorageError

MANIFEST = "_manifest.jsonl"
"""Readers of a folder of Parquet files ignore names that begin with an underscore."""
SEGMENTS = "*events-*.parquet*"
"""The names of segments, also of those that a killed writer left half-written."""


class Output(Protocol):
    """A trace that is being written."""

    @property
    def closed(self) -> bool:
        """True if nothing more can be written."""

    def store(self, name: str, data: bytes) -> None:
        """Write the segment ``name``; when this returns it is there whole, whatever happens.

        :raises OSError: when a disk does not take it.
        :raises StorageError: when object storage does not take it.
        """

    def append(self, line: bytes, *, now: bool = True) -> None:
        """Add ``line`` to the manifest, whole or not at all.

        :param now: False: it may wait for the next line.
        :raises OSError: when a disk does not take it.
        :raises StorageError: when object storage does not take it.
        """

    def close(self) -> None:
        """Take nothing more."""

    def discard(self) -> None:
        """Close a trace whose first line could not be written, and leave nothing of it."""


class Location(Protocol):
    """The place of one trace.  Its text is for messages and never holds a secret."""

    def shown(self, name: str) -> str:
        """Return where the file ``name`` of the trace is, for messages."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the file ``name``.

        :param most: the largest size that is read, in bytes.
        :raises OSError: when there is no such file, it cannot be read, or it is larger.
        :raises StorageError: when object storage does not give it.
        """

    def segments(self) -> list[str]:
        """Return the names that segments have, whole or in the making, in order.

        :raises StorageError: when object storage does not tell.
        """

    def for_scan(self, names: Sequence[str], stack: ExitStack) -> tuple[list[str], Any]:
        """Return the files ``names`` for a dataset of pyarrow: their paths and its file system.

        :param stack: is closed after the scan.
        """

    def lost_while_scanned(self, text: str) -> StorageError | None:
        """Return what the error ``text`` of a scan says of object storage, if it is about that."""

    def why_no_trace(self) -> str:
        """Say why there is no trace, if its manifest is not there."""

    def check_unused(self) -> None:
        """Check that a trace can begin here.

        :raises UsageError: when there is one, or the place cannot hold one.
        :raises StorageError: when object storage does not answer.
        """

    def begin(self) -> Output:
        """Begin a trace.

        :raises UsageError: when there is one, or the place cannot hold one.
        :raises OSError: when a disk does not take it.
        :raises StorageError: when object storage does not take it.
        """
