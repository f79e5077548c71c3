"""Where events go: every batch of a run through every consumer, once, in order.

The live session and the replay both feed a :class:`Pipeline` and take its result document, so
they cannot differ in anything but where the events come from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cosim.models.comparison import Comparison
from cosim.models.counts import EventCounter
from cosim.models.result import Ending, Origin, ResultDocument, document
from hypervisor_model.events import EventBatch
from hypervisor_model.policies import Policy


class Pipeline:
    """The consumers of one run.

    ``origin`` describes the run, ``policies`` are fresh models made for its machine and stream,
    by the name that they have in the result.
    """

    def __init__(self, origin: Origin, policies: Mapping[str, Policy]) -> None:
        self.origin = origin
        self._policies = dict(policies)
        self._counter = EventCounter()
        self._comparison = Comparison(origin.machine, list(policies))
        # Kernels leave the interpreter's lock, and no policy knows of another.
        self._threads = ThreadPoolExecutor(os.cpu_count(), "policy")

    def feed(self, batch: EventBatch) -> None:
        """Give ``batch``, which follows the one before, to every consumer."""
        self._counter.feed(batch)
        answers = self._threads.map(lambda policy: policy.feed(batch), self._policies.values())
        self._comparison.feed(batch, dict(zip(self._policies, answers, strict=True)))

    @property
    def illegal(self) -> int:
        """Illegal translations so far, of all parties."""
        return self._comparison.illegal

    def exits(self) -> dict[str, int]:
        """The exits counted so far, by policy; at least so many where a kind is not known."""
        return {name: policy.result().at_least for name, policy in self._policies.items()}

    def document(self, ending: Ending) -> ResultDocument:
        """The result so far, of a run that ended like ``ending``."""
        return document(
            self.origin,
            ending,
            self._counter.counts(),
            {name: policy.result().to_json() for name, policy in self._policies.items()},
            self._comparison.counts(),
            self._comparison.findings(),
        )
