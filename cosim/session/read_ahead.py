"""Reading a source of events ahead of the work on them, so that the guest need not wait for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator

from hypervisor_model.events import EventBatch

_BYTES = 64 << 20
"""How much may be read ahead: what a guest sends in about a second.  Then the source waits."""


def read_ahead(
    batches: Iterable[EventBatch], limit: int = _BYTES
) -> Generator[EventBatch, None, None]:
    """Yield ``batches``, in order, while another thread reads the next ones.

    An exception of ``batches`` is raised behind the last batch before it.  If the caller ends
    early, no more is read: the thread ends when it has the next batch.

    :param limit: how many bytes may wait.  One batch may always wait, however large it is.
    """
    reader = _Reader(batches, limit)
    try:
        yield from reader.taken()
    finally:
        reader.stop()


class _Reader:
    def __init__(self, batches: Iterable[EventBatch], limit: int) -> None:
        self._batches = batches
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: deque[EventBatch] = deque()
        self._bytes = 0
        self._over = False
        self._stopped = False
        self._problem: BaseException | None = None
        threading.Thread(target=self._read, name="read ahead", daemon=True).start()

    def taken(self) -> Iterator[EventBatch]:
        """Yield what was read, to the end of it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    break
                batch = self._waiting.popleft()
                self._bytes -= batch.nbytes
                self._changed.notify_all()
            yield batch
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """Read no more."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for batch in self._batches:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._stopped:
                        return
                    self._waiting.append(batch)
                    self._bytes += batch.nbytes
                    self._changed.notify_all()
        except BaseException as problem:
            self._problem = problem
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._stopped or self._bytes < self._limit
