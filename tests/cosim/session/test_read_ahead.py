"""Reading ahead: everything comes, in order, and no more than the limit waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cosim.errors import MachineError
from cosim.session.read_ahead import read_ahead
from hypervisor_model.events import EventBatch, empty

SIZE = empty(1).nbytes


class Source:
    """Batches of one event, numbered; knows how many were read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.read = 0
        self.changed = threading.Condition()
        self.thread: int | None = None
        self.ended = threading.Event()

    def batches(self) -> Iterator[EventBatch]:
        self.thread = threading.get_ident()
        try:
            for number in range(self._count):
                batch = empty(1)
                batch["a"] = number
                with self.changed:
                    self.read += 1
                    self.changed.notify_all()
                yield batch
            raise MachineError("cut")
        finally:
            self.ended.set()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.read >= count, 30)


def test_batches_come_in_order_and_the_error_behind_them() -> None:
    source = Source(50)
    taken: list[int] = []
    with pytest.raises(MachineError, match="cut"):
        for batch in read_ahead(source.batches(), 10 * SIZE):
            taken.append(int(batch["a"][0]))
    assert taken == list(range(50))
    assert source.thread != threading.get_ident()


def test_the_source_goes_on_while_a_batch_is_worked_on_up_to_the_limit() -> None:
    source = Source(50)
    ahead = read_ahead(source.batches(), 10 * SIZE)
    next(ahead)
    # 1 is taken, 10 wait, and the thread holds one that has no room yet.
    source.wait_for(12)
    assert not source.ended.wait(0.05)
    assert source.read == 12
    next(ahead)
    source.wait_for(13)
    ahead.close()


def test_a_batch_larger_than_the_limit_comes_too() -> None:
    source = Source(3)
    ahead = read_ahead(source.batches(), 1)
    assert [int(next(ahead)["a"][0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MachineError, match="cut"):
        next(ahead)


def test_the_thread_ends_if_the_caller_ends_early() -> None:
    source = Source(50)
    ahead = read_ahead(source.batches(), 2 * SIZE)
    next(ahead)
    source.wait_for(4)
    ahead.close()
    # The thread drops its iterator when it ends.
    assert source.ended.wait(30)
    assert source.read <= 5
