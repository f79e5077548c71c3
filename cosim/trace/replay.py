"""Replay of a trace: the consumers of a live session, fed from disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cosim.errors import GuestImageError
from cosim.kernel import symbols
from cosim.models.attribution import Lookup
from cosim.models.pipeline import Pipeline
from cosim.models.result import Json, ResultDocument
from cosim.output import Step
from cosim.trace.reader import TraceReader


def replay(trace: TraceReader, pipeline: Pipeline, step: Step) -> ResultDocument:
    """Feed all of ``trace`` to ``pipeline``, one segment in memory at a time.

    :param step: is told the events done so far and in all.
    :return: the result document.
    :raises TraceDamage: when a segment is damaged.
    :raises ModelError: when the models cannot take the events.
    """
    pipeline.labels = lambda: trace.labels
    pipeline.lookup = lambda: lookup_of(trace.origin.guest)
    done = 0
    for batch in trace.batches():
        pipeline.feed(batch)
        done += len(batch)
        step(done, trace.events)
    return pipeline.document(trace.ending)


def kernel_of(guest: Json) -> Path | None:
    """Return the kernel of a trace's or result's guest, if its file is still there and the same."""
    path, digests = guest.get("kernel"), guest.get("sha256")
    if not isinstance(path, str) or not isinstance(digests, dict):
        return None
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
    return Path(path) if digest == digests.get("kernel") else None


def lookup_of(guest: Json) -> Lookup | None:
    """Return what names the addresses of a trace's kernel, if its file is still there."""
    path = kernel_of(guest)
    try:
        found = None if path is None else symbols.load(path)
    except (OSError, ValueError, GuestImageError):
        return None
    return found.lookup if found else None
