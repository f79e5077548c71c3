"""One trace into many models: read once, judged once, and every model on the machine it is given.

A model's answer does not depend on the others: each has its own memory, TLB and machine, and the
judge counts for each party apart.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cosim.models.comparison import Comparison
from cosim.models.result import TranslationCounts
from cosim.trace.reader import TraceReader
from hypervisor_model import policies
from hypervisor_model.errors import CosimError
from hypervisor_model.policies import MachineModel, replace_fields


@dataclass(frozen=True, slots=True)
class Replay:
    """One model over one trace."""

    model: str
    """As ``--model`` takes it."""
    machine: Mapping[str, Any]
    """What replaces fields of the trace's machine."""


@dataclass(frozen=True)
class Fed:
    """What one replay gave."""

    machine: MachineModel
    policy: dict[str, Any]
    """The policy's part of a result document."""
    translations: TranslationCounts
    seconds: float
    """In this model alone, without reading and judging."""


@dataclass
class FedTogether:
    """What the replays of one pass over a trace gave."""

    events: int = 0
    results: dict[int, Fed] = field(default_factory=dict)
    """By the replay's place in the list."""
    failures: dict[int, CosimError] = field(default_factory=dict)
    """Why a model could not take the events; the others went on."""


def feed(trace: TraceReader, replays: Sequence[Replay]) -> FedTogether:
    """Feed all of ``trace`` to every model of ``replays``, in one pass.

    :raises TraceError: when a segment is damaged or cannot be read.
    """
    together = FedTogether()
    origin = trace.origin
    models: dict[int, policies.Policy] = {}
    for index, one in enumerate(replays):
        try:
            machine = replace_fields(origin.machine, one.machine)
            models[index] = policies.make(one.model, machine, origin.stream)
        except CosimError as error:
            together.failures[index] = error
    names = {index: str(index) for index in models}
    judge = Comparison(origin.machine, list(names.values()), kept=1)
    seconds = dict.fromkeys(models, 0.0)
    for events in trace.batches():
        batch = policies.own_events(events, origin.machine)
        answers = {}
        for index, policy in list(models.items()):
            started = time.perf_counter()
            try:
                answers[names[index]] = policy.feed(batch)
            except CosimError as error:
                together.failures[index] = error
                del models[index]
            seconds[index] += time.perf_counter() - started
        for index, name in names.items():
            if index not in models:
                # A party must answer; what this one is counted is not asked for.
                answers[name] = np.ascontiguousarray(events["b"])
        judge.feed(batch, answers)
        together.events += len(events)
    counts = judge.counts()
    for index, policy in models.items():
        together.results[index] = Fed(
            machine=policy.machine,
            policy=policy.result().to_json(),
            translations=counts[names[index]],
            seconds=seconds[index],
        )
    return together
