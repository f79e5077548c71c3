#!/usr/bin/env python3
"""Benchmark: what judging every translation costs.

    scripts/bench_legality.py [--json] [--events N] [--model NAME,..]

Over the synthetic guest of ``scripts/synthetic_guest.py``, in processor time of one core, best of
three, all in one run:

- ``models``: events per second of the models alone;
- ``tracker.K``: events per second of the tracker alone, with the answers of K parties;
- ``run``: of both, and its ratio to the models alone;
- ``stale``: accesses per second whose answer is stale but legal (what the tracker must search
  for), and accesses whose answer is illegal (the longest search), after many fences by address.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from synthetic_guest import RAM_BASE, RAM_SIZE, SyntheticGuest

from cosim.models.model_options import DEFAULT_MODELS
from hypervisor_model.events import EventBatch, Fence, Kind, Priv, empty
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode
from hypervisor_model.isa.atp import make as make_satp
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import MachineModel, make

ROUNDS = 3
MACHINE = MachineModel(ram_base=RAM_BASE, ram_size=RAM_SIZE)
FENCES = 1000
ACCESSES = 20_000


def rate(count: int, prepare: Callable[[], Callable[[], object]]) -> float:
    """``count`` a processor second, by the fastest of some rounds; each is prepared anew."""
    seconds = []
    for _ in range(ROUNDS + 1):
        task = prepare()
        started = time.process_time()
        task()
        seconds.append(time.process_time() - started)
    return count / min(seconds[1:])


def judging(batch: EventBatch, answers: NDArray[np.int64]) -> Callable[[], object]:
    tracker = LegalityTracker(MACHINE, [str(party) for party in range(len(answers))])
    return lambda: tracker.feed(batch, answers)


def modelling(batch: EventBatch, names: list[str], judged: bool) -> Callable[[], object]:
    models = [make(name, MACHINE) for name in names]
    tracker = LegalityTracker(MACHINE, ["reference", *names])

    def task() -> None:
        answers = [model.feed(batch) for model in models]
        if judged:
            tracker.feed(batch, np.array([batch["b"], *answers]))

    return task


def forgetful(stale: bool) -> tuple[EventBatch, NDArray[np.int64]]:
    """One page that changed and was not fenced, fences of others, then accesses to it."""
    root, middle, leaf = (RAM_BASE + 4096 * i for i in range(3))
    old, new = RAM_BASE + (1 << 20), RAM_BASE + (2 << 20)
    rights = pte.V | pte.R | pte.W | pte.A | pte.D
    batch = empty(8 + FENCES + ACCESSES)
    rows = [
        (Kind.SATP_WRITE, 0, make_satp(Mode.SV39, root, 1), 0),
        (Kind.TABLE_ADD, root, 2, 0),
        (Kind.TABLE_ENTRY, root, 0, middle >> 2 | pte.V),
        (Kind.TABLE_ADD, middle, 1, 0),
        (Kind.TABLE_ENTRY, middle, 0, leaf >> 2 | pte.V),
        (Kind.TABLE_ADD, leaf, 0, 0),
        (Kind.TABLE_ENTRY, leaf, 0, old >> 2 | rights),
        (Kind.PTE_WRITE, leaf, old >> 2 | rights, new >> 2 | rights),
    ]
    for row, (kind, a, b, c) in enumerate(rows):
        batch[row]["kind"], batch[row]["a"], batch[row]["b"], batch[row]["c"] = kind, a, b, c
    fences = batch[8 : 8 + FENCES]
    fences["kind"], fences["sub"], fences["a"], fences["b"] = Kind.FENCE, Fence.VA_ASID, 1 << 21, 1
    accesses = batch[8 + FENCES :]
    accesses["kind"], accesses["priv"], accesses["b"] = Kind.ACCESS, Priv.S, old
    answer = old if stale else RAM_BASE + (3 << 20)
    return batch, np.full((1, len(batch)), answer, np.int64)


def measure(events: int, names: list[str]) -> dict[str, float]:
    batch = np.concatenate(list(SyntheticGuest().batches(events)))
    count = len(batch)
    one = batch["b"].copy().reshape(1, count)
    parties = len(names) + 1
    result = {
        "events": count,
        "accesses": int(np.count_nonzero(batch["kind"] == Kind.ACCESS)),
        "models": rate(count, lambda: modelling(batch, names, False)),
        "tracker.1": rate(count, lambda: judging(batch, one)),
        f"tracker.{parties}": rate(count, lambda: judging(batch, one.repeat(parties, axis=0))),
        "run": rate(count, lambda: modelling(batch, names, True)),
    }
    result["run_to_models"] = result["run"] / result["models"]
    for name, stale in (("stale", True), ("illegal", False)):

        def judged(stale: bool = stale) -> Callable[[], object]:
            return judging(*forgetful(stale))

        result[name] = rate(ACCESSES, judged)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--events", type=int, default=500_000, help="of the guest (500000)")
    parser.add_argument("--model", default=",".join(DEFAULT_MODELS), help="names, by commas")
    options = parser.parse_args()
    result = measure(options.events, options.model.split(","))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['events']:,.0f} events, {result['accesses']:,.0f} of them accesses")
    for name in list(result)[2:]:
        unit = "of the models alone" if name == "run_to_models" else "a second"
        print(f"{name:16} {result[name]:>14,.2f} {unit}")


if __name__ == "__main__":
    main()
