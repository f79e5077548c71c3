"""What the fence checker and the models say of the recorded run, computed when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.check import document
from cosim.kernel.places import Places
from cosim.models import model_options
from cosim.models.comparison import Comparison
from cosim.models.result import Ending, Json, Origin
from hypervisor_model.events import EventBatch
from hypervisor_model.fences import FenceChecker
from hypervisor_model.policies import Policy

_CHUNK = 1 << 18
_DIVERGENCES = 10_000
"""Illegal translations that are kept.  Each takes about a millisecond to write down."""


class Analysis:
    """The checker and the models over one recording.

    :param events: all of them.
    :param origin: of the run.
    :param places: names its addresses.
    :param models: as ``--model`` takes them; empty for the default ones.
    """

    def __init__(
        self,
        events: EventBatch,
        origin: Origin,
        places: Places,
        models: tuple[str, ...],
    ) -> None:
        self.say: Callable[[str], None] = lambda text: None
        """Is told what takes long."""
        self._events = events
        self._origin = origin
        self._places = places
        self._models = models
        self._kept: tuple[int, dict[str, Policy]] = (0, {})

    @cached_property
    def findings(self) -> list[dict[str, Any]]:
        """What ``cosim check`` finds, in its form."""
        self.say(f"checking {len(self._events):,} events (the first time compiles the checker)")
        checker = FenceChecker(self._origin.machine)
        for first in range(0, len(self._events), _CHUNK):
            checker.feed(self._events[first : first + _CHUNK])
        ending = Ending(complete=True, reason=None, region={})
        found = document.build(checker, self._origin, ending, self._places, [], {})
        rows: list[dict[str, Any]] = found["findings"]
        return sorted(rows, key=lambda row: int(row["access"]["event"]))

    @cached_property
    def _judged(self) -> tuple[list[Json], int, dict[str, NDArray[np.int64]]]:
        """The first illegal translations, how many there are in all, and how often each policy had
        exited before each event."""
        self.say(f"modelling {len(self._events):,} events (the first time compiles the models)")
        origin, models = self._origin, self._models or model_options.DEFAULT_MODELS
        policies = model_options.make_models(models, origin.machine, origin.stream)
        comparison = Comparison(origin.machine, list(policies), _DIVERGENCES)
        taken: dict[str, list[NDArray[np.int64]]] = {name: [] for name in policies}
        for first in range(0, len(self._events), _CHUNK):
            batch = self._events[first : first + _CHUNK]
            answers = {name: policy.feed(batch) for name, policy in policies.items()}
            comparison.feed(batch, answers)
            for name, policy in policies.items():
                taken[name].append(policy.exits_taken.copy())
        exits = {
            name: np.concatenate([np.zeros(1, np.int64), *parts]).cumsum()
            for name, parts in taken.items()
        }
        return comparison.findings(), comparison.illegal, exits

    @property
    def divergences(self) -> list[Json]:
        """The first illegal translations, in the form of the result document."""
        return sorted(self._judged[0], key=lambda row: int(row["event"]))

    @property
    def divergences_left_out(self) -> int:
        """How many further illegal translations are not among :attr:`divergences`."""
        return self._judged[1] - len(self._judged[0])

    def exits(self, first: int, end: int) -> dict[str, int]:
        """Return the exits of each policy from event ``first`` up to before ``end``."""
        return {name: int(sums[end] - sums[first]) for name, sums in self._judged[2].items()}

    def policies(self, end: int) -> dict[str, Policy]:
        """Return the policies as they are before event ``end``.

        They are kept, so that a later moment costs only the events between.
        """
        fed, made = self._kept
        if not made or fed > end:
            origin, models = self._origin, self._models or model_options.DEFAULT_MODELS
            fed, made = 0, model_options.make_models(models, origin.machine, origin.stream)
        for first in range(fed, end, _CHUNK):
            batch = self._events[first : min(first + _CHUNK, end)]
            for policy in made.values():
                policy.feed(batch)
        self._kept = end, made
        return made
