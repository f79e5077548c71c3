"""The thread that feeds the models: everything in order, and no failure is lost."""

from __future__ import annotations

import threading

import pytest

from cosim.errors import StorageError
from cosim.session.feeder import Feeder
from hypervisor_model.events import EventBatch, empty


def batches(count: int) -> list[EventBatch]:
    made = [empty(1) for _ in range(count)]
    for number, batch in enumerate(made):
        batch["a"] = number
    return made


def test_batches_are_taken_in_order_from_another_thread() -> None:
    taken: list[int] = []
    threads: set[int] = set()

    def take(batch: EventBatch) -> None:
        taken.append(int(batch["a"][0]))
        threads.add(threading.get_ident())

    feeder = Feeder(take)
    for batch in batches(50):
        feeder.put(batch)
    feeder.close()
    feeder.close()
    assert taken == list(range(50))
    assert threads.isdisjoint({threading.get_ident()})


def test_a_failure_is_raised_where_the_batches_come_from() -> None:
    taken: list[int] = []

    def take(batch: EventBatch) -> None:
        taken.append(int(batch["a"][0]))
        if len(taken) == 2:
            raise StorageError("disk full")

    feeder = Feeder(take)
    with pytest.raises(StorageError, match="disk full"):
        for batch in batches(50):
            feeder.put(batch)
        feeder.close()
    feeder.close()
    # Nothing behind it is taken: a trace must not go on with a gap.
    assert taken == [0, 1]


def test_other_work_is_done_while_no_batch_waits() -> None:
    done: list[str] = []
    all_done = threading.Event()

    def ahead() -> bool:
        if len(done) >= 4:
            all_done.set()
            return False
        done.append("ahead")
        return True

    feeder = Feeder(lambda batch: done.append(f"batch {batch['a'][0]}"), ahead)
    first, second = batches(2)
    feeder.put(first)
    assert all_done.wait(60)
    feeder.put(second)
    feeder.close()
    # Not before the first batch: the region has not begun then.
    assert done == ["batch 0", *["ahead"] * 3, "batch 1"]


def test_a_failure_of_other_work_is_raised_too() -> None:
    called = threading.Event()

    def ahead() -> bool:
        called.set()
        raise StorageError("disk full")

    feeder = Feeder(lambda batch: None, ahead)
    feeder.put(batches(1)[0])
    assert called.wait(60)
    with pytest.raises(StorageError, match="disk full"):
        feeder.close()
