"""Where events go: every batch of a run passes every consumer once, in order.

Live sessions and replays of traces both feed a :class:`Pipeline` and take its result document.  So
they differ only in where the events come from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cosim.capture.processes import Process
from cosim.kernel.symbols import Symbols, what_stands_at
from cosim.models.attribution import ROWS
from cosim.models.comparison import Comparison
from cosim.models.counts import EventCounter
from cosim.models.profile import Profiler
from cosim.models.result import Ending, Origin, ResultDocument, document
from hypervisor_model.events import EventBatch
from hypervisor_model.policies import Policy, own_events


class Pipeline:
    """The consumers of one run.

    :param origin: describes the run.
    :param policies: fresh models for the run's machine and stream, by their name in the result.
    """

    def __init__(self, origin: Origin, policies: Mapping[str, Policy]) -> None:
        self.origin = origin
        self._policies = dict(policies)
        self._counter = EventCounter(origin.machine.harts)
        self._comparison = Comparison(origin.machine, list(policies))
        self._profiler = Profiler(list(policies), origin.machine.harts)
        self.symbols: Callable[[], Symbols | None] = lambda: None
        """Returns what names the addresses of the guest's kernel, if there is such."""
        self.rows = ROWS
        """Functions, call sites and address spaces that the result lists at most."""
        self.labels: Callable[[], Mapping[int, str]] = dict
        """Returns the labels of the guest's marks, by number."""
        self.processes: Callable[[], Mapping[int, Process]] = dict
        """Returns the processes of the guest, by the number in SATP_WRITE events."""
        # Kernels release the interpreter's lock, and policies share nothing.
        self._threads = ThreadPoolExecutor(os.cpu_count(), "policy")

    def feed(self, batch: EventBatch) -> None:
        """Give ``batch`` to every consumer.  It follows the previous batch."""
        own = own_events(batch, self.origin.machine)
        answers = self._threads.map(lambda policy: policy.feed(own), self._policies.values())
        self._counter.feed(batch)
        given = dict(zip(self._policies, answers, strict=True))
        judged = self._threads.submit(self._comparison.feed, own, given)
        if self._policies:
            policies = self._policies.values()
            self._profiler.feed(
                batch,
                [policy.exits_taken for policy in policies],
                [policy.misses_taken for policy in policies],
            )
        judged.result()

    @property
    def illegal(self) -> int:
        """Illegal translations so far, of all parties."""
        return self._comparison.illegal

    def exits(self) -> dict[str, int]:
        """Return the exits counted so far, by policy: a lower bound if a kind cannot be counted."""
        return {name: policy.result().at_least for name, policy in self._policies.items()}

    def document(self, ending: Ending) -> ResultDocument:
        """Return the result so far, of a run that ended like ``ending``."""
        results = {name: policy.result() for name, policy in self._policies.items()}
        illegal = self._comparison.findings()
        symbols = self.symbols() if results or illegal else None
        for finding in illegal:
            place = what_stands_at(finding["pc"], finding["privilege"], symbols)
            finding["symbol"], finding["instruction"] = place
        made = document(
            self.origin,
            ending,
            self._counter.counts(),
            {name: result.to_json() for name, result in results.items()},
            self._comparison.counts(),
            illegal,
        )
        if results:
            lookup = symbols.lookup if symbols else None
            made["profile"] = self._profiler.profile(
                results,
                lookup,
                self.labels(),
                self.rows,
                processes=self.processes(),
                nameless=self.origin.nameless,
            )
        return made
