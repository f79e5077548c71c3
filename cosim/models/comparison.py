"""Translations compared: the reference machine's and every policy's, against what is legal.

A :class:`Comparison` hears every batch together with what each policy answered, and judges each
answer (:mod:`hypervisor_model.legality`).  The counts of the parties stay apart; the first illegal
answers are kept with today's walk and the path by which the answer once was true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.models.result import Json, TranslationCounts
from hypervisor_model.events import FLAG_MXR, FLAG_STOP, FLAG_SUM, Access, EventBatch, priv_name
from hypervisor_model.isa.causes import NAMES
from hypervisor_model.jit import unsigned
from hypervisor_model.legality import Illegal, LegalityTracker, Limits
from hypervisor_model.policies import MachineModel, OwnEvents, own_events

REFERENCE = "reference"
"""The party whose answers the events carry: QEMU."""

_FLAGS = {FLAG_SUM: "SUM", FLAG_MXR: "MXR", FLAG_STOP: "sample"}


class Comparison:
    """Judges what the reference and the policies answered to every access of one run.

    :param machine: what the run's events come from.
    :param policies: the names of the models.
    :param kept: how many of the first illegal answers are kept.
    """

    def __init__(
        self, machine: MachineModel, policies: Sequence[str], kept: int = Limits.findings
    ) -> None:
        self._machine = machine
        self._policies = tuple(policies)
        self._kept = kept

    @cached_property
    def _tracker(self) -> LegalityTracker:
        # Made for the first batch: to load its kernels takes time, in which a guest can run.
        parties = (REFERENCE, *self._policies)
        return LegalityTracker(self._machine, parties, Limits(findings=self._kept))

    def feed(self, batch: EventBatch | OwnEvents, answers: Mapping[str, NDArray[np.int64]]) -> None:
        """Judge ``batch``, which follows the one before; ``answers`` are what each policy's
        ``feed`` returned for it."""
        own = own_events(batch, self._machine)
        table = np.empty((1 + len(self._policies), len(own.events)), np.int64)
        table[0] = own.events["b"]
        for row, name in enumerate(self._policies, start=1):
            table[row] = answers[name]
        self._tracker.feed(own, table)

    @property
    def illegal(self) -> int:
        """Illegal answers so far, of all parties."""
        return self._tracker.illegal

    def counts(self) -> dict[str, TranslationCounts]:
        """Return the answers judged so far, by party."""
        return {
            name: TranslationCounts(
                compared=counts.compared,
                fresh=counts.fresh,
                stale_legal=counts.stale_legal,
                illegal=counts.illegal,
                undecided=counts.undecided,
            )
            for name, counts in self._tracker.counts.items()
        }

    def findings(self) -> list[Json]:
        """Return the first illegal answers, for JSON (docs/architecture.md, "Results")."""
        return [_document(finding) for finding in self._tracker.findings]


def _document(finding: Illegal) -> Json:
    access = {name: int(finding.access[name]) for name in ("icount", "hart", "priv", "size")}
    flags = int(finding.access["flags"])
    today = finding.today
    return {
        "event": finding.event,
        "icount": None if access["icount"] < 0 else access["icount"],
        "hart": access["hart"],
        "pc": unsigned(int(finding.access["pc"])),
        "privilege": priv_name(access["priv"]),
        "flags": [name for flag, name in _FLAGS.items() if flags & flag],
        "access": Access(int(finding.access["sub"])).name.lower(),
        "va": unsigned(int(finding.access["a"])),
        "size": access["size"],
        "satp": finding.satp,
        "party": finding.party,
        "answer": _answer(finding.answer),
        "today": _answer(-1 - today.cause if today.cause is not None else today.pa or 0),
        "walk": [
            {"level": step.level, "address": step.address, "entry": step.entry}
            for step in today.references
        ],
        "origin": [
            {"level": step.level, "address": step.address, "entry": step.value, "until": step.until}
            for step in finding.origin
        ],
    }


def _answer(answer: int) -> dict[str, Any]:
    """``pa``, or ``cause`` and its name."""
    if answer >= 0:
        return {"pa": answer}
    cause = -1 - answer
    return {"cause": cause, "name": NAMES.get(cause, f"cause {cause}")}
