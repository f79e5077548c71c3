"""The models over a trace: the same consumers as a live session, fed from disk."""

from __future__ import annotations

from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument
from cosim.output import Step
from cosim.trace.reader import TraceReader


def replay(trace: TraceReader, pipeline: Pipeline, step: Step) -> ResultDocument:
    """Feed all of ``trace`` to ``pipeline``, one segment in memory at a time.

    ``step`` is told the events done and in all.  Raises TraceDamage when a segment is damaged
    and ModelError when the events are none that the models take.
    """
    done = 0
    for batch in trace.batches():
        pipeline.feed(batch)
        done += len(batch)
        step(done, trace.events)
    return pipeline.document(trace.ending)
