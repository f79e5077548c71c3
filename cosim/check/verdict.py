"""What was wrong with the fences of a finding: none, too late, too narrow, or before the store."""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor_model.events import Fence
from hypervisor_model.fences import FenceSeen, Finding
from hypervisor_model.hazards import Hazard

_NEAR_INSTRUCTIONS = 64
_NEAR_EVENTS = 16
"""A fence so short before a store belongs to it (ours)."""
_NO_ORDER = (
    Hazard.FREED_REACHABLE,
    Hazard.ASID_REUSED,
    Hazard.GLOBAL_DIFFERS,
    Hazard.PAGING_SWITCHED,
)


@dataclass(frozen=True)
class Verdict:
    """What became of the fence that a store owed."""

    name: str
    """``no-w-inval``, ``no-inval-ir``, ``before``, ``not-everything``, ``leaf-form``,
    ``spares-global``, ``wrong-asid``, ``other-hart``, ``wrong-address``, ``late`` or ``never``."""
    text: str
    fence: FenceSeen | None
    """The fence that the text is about."""


_TEXTS = {
    "no-w-inval": "no sfence.w.inval stands between the store and sinval.vma",
    "no-inval-ir": "no sfence.inval.ir stands between sinval.vma and the access",
    "leaf-form": "the fence names an address, which leaves pointers to tables",
    "spares-global": "the fence names an ASID, which leaves global translations",
    "not-everything": "the fence has an operand, and only one without covers a switch",
    "wrong-asid": "the fence names another ASID",
    "other-hart": "only another hart executed the fence",
    "wrong-address": "the fence names another address",
    "before": "the fence was executed before the store, not after it",
    "late": "the fence came after the access",
    "never": "no fence covered it until the end of the region",
}
_RANKS = (
    "no-w-inval",
    "no-inval-ir",
    "not-everything",
    "leaf-form",
    "spares-global",
    "wrong-asid",
    "other-hart",
)
"""What explains best, first."""
OUT_OF_ORDER = ("no-w-inval", "no-inval-ir", "before")
"""Verdicts on a fence that covers the store, but not in the order that the specification wants."""


def judge(finding: Finding) -> Verdict:
    """Return what was wrong with the fences that could belong to the store of ``finding``."""
    store = finding.culprit.event
    after = [fence for fence in finding.fences if store < fence.event < finding.event]
    failures = [(name, fence) for fence in after if (name := _failure(finding, fence)) is not None]
    for rank in _RANKS:
        for name, fence in failures:
            if name == rank:
                return Verdict(name, _TEXTS[name], fence)
    early = _early(finding)
    if early is not None:
        return Verdict("before", _TEXTS["before"], early)
    for name, fence in failures:
        return Verdict(name, _TEXTS[name], fence)
    name = "never" if finding.late is None else "late"
    return Verdict(name, _TEXTS[name], finding.late)


def _failure(finding: Finding, fence: FenceSeen) -> str | None:
    """Return why a fence after the store does not cover it; None if it says nothing."""
    hart = int(finding.access["hart"])
    if finding.kind is Hazard.PAGING_SWITCHED and fence.form != Fence.ALL:
        return "not-everything" if fence.hart == hart else None
    link = finding.is_link
    same_page = _same(finding, fence)
    if fence.hart != hart:
        return "other-hart" if _covers(finding, fence) else None
    if fence.form & Fence.VA and not same_page:
        return "wrong-address"
    if link and same_page:
        return "leaf-form"
    if fence.asid is not None and finding.asid is None:
        return "spares-global"
    if fence.asid is not None and fence.asid != finding.asid:
        return "wrong-asid"
    if fence.order < finding.culprit.event:
        return "no-w-inval" if fence.caller is None else None
    return None if fence.in_force else "no-inval-ir"


def _early(finding: Finding) -> FenceSeen | None:
    """Return a fence just before the store that had nothing else to cover."""
    store = finding.culprit
    if finding.kind in _NO_ORDER:
        return None
    hart = int(finding.access["hart"])
    covering = [
        fence
        for fence in finding.fences
        if store.since < fence.event < store.event
        and fence.hart == hart
        and fence.form & Fence.VA
        and _covers(finding, fence)
    ]
    # The first of them was for the value that the store replaced.
    if not covering or (store.since >= 0 and len(covering) < 2):
        return None
    last = covering[-1]
    if store.icount is not None and last.icount is not None:
        return last if store.icount - last.icount <= _NEAR_INSTRUCTIONS else None
    return last if store.event - last.event <= _NEAR_EVENTS else None


def _same(finding: Finding, fence: FenceSeen) -> bool:
    if fence.va is None:
        return False
    bits, last = finding.page_bits, fence.va + max(fence.size, 1) - 1
    return fence.va >> bits <= finding.va >> bits <= last >> bits


def _covers(finding: Finding, fence: FenceSeen) -> bool:
    if fence.va is not None and (finding.is_link or not _same(finding, fence)):
        return False
    return fence.asid is None or fence.asid == finding.asid
