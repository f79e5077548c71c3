"""Remove each fence of a trace in turn, and see if the fence checker notices.

QEMU drops every translation at every fence, so a run without one of them is the same run.  The
checker goes through the trace once.  At each fence a copy of the process goes on without it.  Of
each fence that is not missed, the script says why: nothing that it covers was owed, only changes
that the specification lets go without a fence were owed, or no access came that could go wrong.

Example: python scripts/mutate_fences.py DIR --every 10 --json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from cosim.trace.reader import TraceReader
from hypervisor_model.events import (
    FLAG_MXR,
    FLAG_SUM,
    KINDS,
    ORDER_NAMES,
    Access,
    EventBatch,
    Fence,
    Kind,
    Order,
    Priv,
    empty,
)
from hypervisor_model.fences import FenceChecker
from hypervisor_model.hazards import LEGAL

_PROBED = 256
"""Stores before a fence whose pages are probed."""
_PIECE = 1 << 16
"""Events after which a copy looks if the removal is noticed."""
_FORMS = {Fence.ALL: "all", Fence.VA: "va", Fence.ASID: "asid", Fence.VA_ASID: "va+asid"}
NOTICED = "noticed"
NO_ACCESS = "a harmful change was owed, but nothing accessed it before the next fence"
ONLY_LEGAL = "only changes that need no fence were owed"
NOTHING = "no change was owed (with Svvptc, making an entry valid owes none)"


_T = TypeVar("_T")


class Copy(Generic[_T]):
    """A copy of this process, which works something out on the state that there is now."""

    def __init__(self, work: Callable[[], _T]) -> None:
        context = multiprocessing.get_context("fork")
        self._answer, there = context.Pipe(duplex=False)
        self._process = context.Process(target=lambda: there.send(work()))
        self._process.start()
        there.close()

    def result(self) -> _T:
        """Wait for what it comes to.

        :raises EOFError: when the copy failed; it has said why.
        """
        answer: _T = self._answer.recv()
        self._process.join()
        return answer


def in_copy(work: Callable[[], _T]) -> _T:
    """Return what ``work`` comes to in a copy, so that nothing changes here."""
    return Copy(work).result()


def addresses(events: EventBatch) -> list[tuple[int, int]]:
    """Return (number of the event, address) for each table store: the first address that the entry
    translates."""
    level: dict[int, int] = {}
    prefix: dict[int, int] = {}
    found = []
    kinds = (Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.PTE_WRITE)
    for i in np.flatnonzero(np.isin(events["kind"], kinds)).tolist():
        event = events[i]
        pa, page = int(event["a"]), int(event["a"]) >> 12
        if event["kind"] == Kind.TABLE_ADD:
            level[page] = int(event["b"])
            prefix.setdefault(page, 0)
            continue
        at = level.get(page, 0)
        va = prefix.get(page, 0) | (pa >> 3 & 511) << 12 + 9 * at
        value = int(event["c"])
        if at and value & 15 == 1:
            prefix[value >> 10 & (1 << 44) - 1] = va
        if event["kind"] == Kind.PTE_WRITE:
            found.append((i, va))
    return found


def probes(vas: set[int], hart: int, bits: int) -> EventBatch:
    """Return accesses of every sort to each address."""
    rows = [
        (va, sub, priv, flags)
        for va in sorted(vas)
        for sub in Access
        for priv, flags in ((Priv.S, FLAG_SUM | FLAG_MXR), (Priv.U, 0))
    ]
    batch = empty(len(rows))
    for at, (va, sub, priv, flags) in enumerate(rows):
        wide = va | ~((1 << bits) - 1) if va >> (bits - 1) & 1 else va
        batch[at]["kind"], batch[at]["a"], batch[at]["sub"] = Kind.ACCESS, wide, sub
        batch[at]["priv"], batch[at]["flags"], batch[at]["hart"] = priv, flags, hart
        batch[at]["b"] = -1
    return batch


def in_force(events: EventBatch, fence: int) -> int:
    """Return the number of the event from which on ``fence`` counts.

    That of Svinval counts from the next ``sfence.inval.ir`` of its hart on.
    """
    kind, sub = int(events[fence]["kind"]), int(events[fence]["sub"])
    if kind == Kind.FENCE and sub & ~Fence.FORM != Fence.SINVAL_VMA:
        return fence
    done = (events["kind"] == Kind.FENCE_ORDER) & (events["sub"] == Order.SFENCE_INVAL_IR)
    done &= events["hart"] == events[fence]["hart"]
    after = np.flatnonzero(done[fence:])
    return fence + int(after[0]) if len(after) else len(events) - 1


def name(event: np.void) -> str:
    """Return the form of a fence, or the name of an instruction that orders fences."""
    sub = int(event["sub"])
    return (
        ORDER_NAMES[sub] if event["kind"] == Kind.FENCE_ORDER else _FORMS[Fence(sub & Fence.FORM)]
    )


def noticed(checker: FenceChecker, rest: EventBatch, before: int) -> bool:
    """Return True if the checker finds more than ``before`` hazards in all."""
    for at in range(0, len(rest), _PIECE):
        checker.feed(rest[at : at + _PIECE])
        if checker.hazards > before:
            return True
    return False


def owed(checker: FenceChecker, rest: EventBatch, sampled: EventBatch) -> tuple[int, int]:
    """Return how many probes after ``rest`` depend on a missing fence, and how many could fault
    once more, which is legal."""

    def counts() -> tuple[int, int]:
        legal = sum(f.accesses for f in checker.findings if f.kind in LEGAL)
        return checker.hazards, legal

    checker.feed(rest)
    before = counts()
    checker.feed(sampled)
    after = counts()
    return after[0] - before[0], after[1] - before[1]


def outcome(
    checker: FenceChecker,
    events: EventBatch,
    fence: int,
    stores: list[tuple[int, int]],
    before: int,
) -> str:
    """Return what becomes of the removal of ``fence``.

    :param checker: has seen all events before it.
    :param before: how many hazards the whole stream has with the fence.
    """
    if in_copy(lambda: noticed(checker, events[fence + 1 :], before)):
        return NOTICED
    end = in_force(events, fence) + 1
    vas = {va for _, va in [store for store in stores if store[0] < end][-_PROBED:]}
    if events[fence]["kind"] == Kind.FENCE and int(events[fence]["sub"]) & Fence.VA:
        vas.add(int(events[fence]["a"]) & (1 << 57) - 1 & ~0xFFF)
    hart = int(events[fence]["hart"])
    earlier = events[:fence]
    satps = earlier["b"][(earlier["kind"] == Kind.SATP_WRITE) & (earlier["hart"] == hart)]
    mode = int(satps[-1]) >> 60 & 15 if len(satps) else 8
    sampled = probes(vas, hart, 12 + 9 * (mode - 5) if mode else 39)
    without = in_copy(lambda: owed(checker, events[fence + 1 : end], sampled))
    with_it = in_copy(lambda: owed(checker, events[fence:end], sampled))
    if without[0] > with_it[0]:
        return NO_ACCESS
    return ONLY_LEGAL if without[1] > with_it[1] else NOTHING


def mutate(folder: Path, every: int) -> dict[str, Any]:
    """Return what became of each removal."""
    trace = TraceReader(folder)
    if trace.version < KINDS[Kind.FENCE_ORDER].since:
        raise SystemExit(f"{folder} is an old trace; capture the guest again")
    events = np.concatenate(list(trace.batches()))
    fences = np.flatnonzero(np.isin(events["kind"], (Kind.FENCE, Kind.FENCE_ORDER))).tolist()
    original = FenceChecker(trace.origin.machine)
    original.feed(events)
    stores = addresses(events)
    checker = FenceChecker(trace.origin.machine, legal=True)
    seen = 0
    running: deque[tuple[int, Copy[str]]] = deque()
    outcomes: Counter[tuple[str, str]] = Counter()

    def take() -> None:
        fence, copy = running.popleft()
        outcomes[name(events[fence]), copy.result()] += 1

    for fence in fences[::every]:
        checker.feed(events[seen:fence])
        seen = fence
        if len(running) == (os.cpu_count() or 1):
            take()
        judge = partial(outcome, checker, events, fence, stores, original.hazards)
        running.append((fence, Copy(judge)))
    while running:
        take()
    return {
        "trace": str(folder),
        "fences": len(fences),
        "removed": sum(outcomes.values()),
        "hazards_before": original.hazards,
        "outcomes": [
            {"form": form, "outcome": outcome, "fences": count}
            for (form, outcome), count in sorted(outcomes.items())
        ],
    }


def main() -> None:
    """Print the outcome for the trace that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="remove each Nth fence only")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = mutate(arguments.folder, arguments.every)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['removed']} of {result['fences']} fences removed, one at a time")
    for row in result["outcomes"]:
        print(f"{row['fences']:6}  {row['form']:15} {row['outcome']}")


if __name__ == "__main__":
    main()
