"""Replay of a trace: the consumers of a live session, fed from disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument
from cosim.output import Step
from cosim.trace.reader import TraceReader
from cosim.trace.run_kernel import symbols_of
from hypervisor_model.events import EventBatch


def replay(trace: TraceReader, pipeline: Pipeline, step: Step) -> ResultDocument:
    """Feed all of ``trace`` to ``pipeline``, two segments in memory at a time.

    :param step: is told the events done so far and in all.
    :return: the result document.
    :raises TraceDamage: when a segment is damaged.
    :raises ModelError: when the models cannot take the events.
    """
    pipeline.labels = lambda: trace.labels
    pipeline.processes = lambda: trace.processes
    pipeline.symbols = lambda: symbols_of(trace.origin.guest)
    done = 0
    for batch in read_ahead(trace.batches()):
        pipeline.feed(batch)
        done += len(batch)
        step(done, trace.events)
    return pipeline.document(trace.ending)


def read_ahead(batches: Iterator[EventBatch]) -> Iterator[EventBatch]:
    """Yield ``batches``, and let another thread read the next one while this one is worked on."""
    with ThreadPoolExecutor(1, "reader") as reader:
        pending = reader.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = reader.submit(next, batches, None)
            yield batch
