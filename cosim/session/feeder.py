"""A thread that works on batches of events while the next ones are captured."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from hypervisor_model.events import EventBatch

_WAITING = 4
"""Batches that may wait.  Then the source waits, too."""


class Feeder:
    """Gives batches to ``take``, in order, from a separate thread.

    :param take: takes a batch.  What it raises is raised by the next call here, once; what is put
        behind that is dropped.
    :param ahead: does a piece of work that need not wait for the next batch, in the same thread,
        and returns False if there is none.  It is called when no batch waits.
    """

    def __init__(
        self, take: Callable[[EventBatch], None], ahead: Callable[[], bool] = lambda: False
    ) -> None:
        self._take = take
        self._ahead = ahead
        self._queue: queue.Queue[EventBatch | None] = queue.Queue(_WAITING)
        self._problem: BaseException | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="feeder", daemon=True)
        self._thread.start()

    def put(self, batch: EventBatch) -> None:
        """Hand over a batch."""
        self._raise()
        self._queue.put(batch)

    def close(self) -> None:
        """Wait until all batches are taken, then end the thread.  May be called twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            if not self._failed:
                try:
                    self._take(batch)
                    while self._queue.empty() and self._ahead():
                        pass
                except BaseException as problem:
                    self._problem, self._failed = problem, True

    def _raise(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
