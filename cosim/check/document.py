"""What a check found, as one JSON document (docs/debugging.md, "The document")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosim.check.suppress import Suppression
from cosim.check.verdict import OUT_OF_ORDER, Verdict, judge
from cosim.kernel.places import Frame, Places
from cosim.models.result import Ending, Origin
from cosim.paging.maps import MEMORY_TYPES
from hypervisor_model.events import Access, Fence, Kind, priv_name
from hypervisor_model.fences import Culprit, FenceChecker, FenceSeen, Finding
from hypervisor_model.hazards import LEGAL, Hazard
from hypervisor_model.isa.causes import NAMES
from hypervisor_model.jit import unsigned

FORMAT = "lsp-cosim-check"
VERSION = 1

_SFENCE = 'Privileged specification, "Supervisor Memory-Management Fence Instruction"'
SECTIONS = {
    "frame-changed": _SFENCE,
    "permission-lost": _SFENCE,
    "link-changed": f"{_SFENCE}: with rs1 it orders only leaf entries",
    "freed-reachable": f'{_SFENCE}; "Virtual Address Translation Process"',
    "asid-reused": f"{_SFENCE}: when an ASID gets another root, fence that ASID",
    "global-differs": f'{_SFENCE}; "Addressing and Memory Protection" on the G bit',
    "order": f'{_SFENCE}: it orders stores that come before it; "Svinval"',
    "svade-ad": 'Privileged specification, "Svade"; "Virtual Address Translation Process"',
    "paging-switched": (
        'Privileged specification, "Machine Environment Configuration Register": after a change of '
        "ADUE or PBMTE, fence everything"
    ),
    "wrong-hart": f"{_SFENCE}: it is a fence of the hart that executes it alone",
    "memory-type-changed": f'{_SFENCE}; "Svpbmt"',
    "made-valid": 'Privileged specification, "Svvptc"',
    "permission-gained": _SFENCE,
}
"""What each kind of finding rests on."""
KINDS = tuple(SECTIONS)
_NO_GUEST = "a trace holds no guest that could be run up to there; check the guest itself"

_SHARED_NAMES = {
    Hazard.DIRTY_CLEARED: "svade-ad",
    Hazard.ACCESSED_CLEARED: "svade-ad",
    Hazard.MEMORY_ORDER_CHANGED: "memory-type-changed",
}
_NAMES = {
    hazard: _SHARED_NAMES.get(hazard, hazard.name.lower().replace("_", "-")) for hazard in Hazard
}
_WARNINGS = (Hazard.ACCESSED_CLEARED, Hazard.MEMORY_ORDER_CHANGED)


def severity(kind: Hazard) -> str:
    """Return ``error``, ``warning`` (accessed bits become less exact, or accesses less ordered) or
    ``note`` (legal)."""
    if kind in LEGAL:
        return "note"
    return "warning" if kind in _WARNINGS else "error"


def build(
    checker: FenceChecker,
    origin: Origin,
    ending: Ending,
    places: Places,
    suppressions: Sequence[Suppression],
    chains: Mapping[int, Sequence[Frame] | str],
) -> dict[str, Any]:
    """Return the document of a check.

    :param chains: by the event of a store, its call chain, or why that is not known.
    """
    rows = [_finding(finding, places, chains) for finding in checker.findings]
    suppressed = []
    open_ = []
    for row in rows:
        accepted = next((one for one in suppressions if one.accepts(row)), None)
        if accepted is None:
            open_.append(row)
        else:
            accepted.used = True
            suppressed.append({**row, "reason": accepted.reason})
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "complete": ending.complete,
        "guest": origin.guest,
        "backend": origin.backend,
        "region": origin.region | ending.region,
        "stream": dict(vars(origin.stream)),
        "checked": {
            "accesses": checker.accesses,
            "hazards": checker.hazards,
            "undecided": checker.undecided,
        },
        "findings": [row for row in open_ if row["severity"] != "note"],
        "legal": [row for row in open_ if row["severity"] == "note"],
        "suppressed": suppressed,
        "unused_suppressions": [one.text() for one in suppressions if not one.used],
        "hidden": _hidden(origin, checker),
    }
    if not ending.complete:
        document["incomplete_because"] = ending.reason
    return document


def _finding(
    finding: Finding, places: Places, chains: Mapping[int, Sequence[Frame] | str]
) -> dict[str, Any]:
    verdict = judge(finding)
    culprit = finding.culprit
    kind = "order" if verdict.name in OUT_OF_ORDER else _NAMES[finding.kind]
    return {
        "kind": kind,
        "severity": severity(finding.kind),
        "section": SECTIONS[kind],
        "effect": _effect(finding),
        "va": finding.va,
        "store_pc": culprit.pc,
        "store_symbol": places.symbol(culprit.pc),
        "store_instruction": places.instruction(culprit.pc),
        "store_source": places.source(culprit.pc),
        "store": _store(culprit),
        "access": _access(finding, places),
        "fence": _fence(verdict, places),
        "late": None if finding.late is None else _seen(finding.late, places),
        "stores": finding.stores,
        "accesses": finding.accesses,
        **_call_chain(chains.get(culprit.event, _NO_GUEST)),
    }


def _call_chain(chain: Sequence[Frame] | str) -> dict[str, Any]:
    if isinstance(chain, str):
        return {"call_chain": None, "call_chain_reason": chain}
    return {"call_chain": [frame._asdict() for frame in chain]}


def _store(culprit: Culprit) -> dict[str, Any]:
    return {
        "event": culprit.event,
        "icount": culprit.icount,
        "hart": culprit.hart,
        "register": culprit.register,
        "entry": culprit.entry,
        "level": culprit.level,
        "old": culprit.old,
        "new": culprit.new,
    }


def _access(finding: Finding, places: Places) -> dict[str, Any]:
    event = finding.access
    pc, icount = unsigned(int(event["pc"])), int(event["icount"])
    is_access = int(event["kind"]) == Kind.ACCESS
    return {
        "event": finding.event,
        "icount": None if icount < 0 else icount,
        "hart": int(event["hart"]),
        "pc": pc,
        "symbol": places.symbol(pc),
        "instruction": places.instruction(pc),
        "source": places.source(pc),
        "kind": Access(int(event["sub"])).name.lower() if is_access else None,
        "va": unsigned(int(event["a"])),
        "privilege": priv_name(int(event["priv"])),
        "satp": finding.satp,
        "today": _answer(finding.today, finding.today_type),
        "stale": _answer(finding.stale, finding.stale_type),
    }


def _answer(answer: int | None, memory_type: int | None) -> dict[str, Any] | None:
    """``pa`` and ``pbmt``, or ``cause`` and its name; None if it is not known."""
    if answer is None:
        return None
    if memory_type is not None:
        return {"pa": answer, "pbmt": MEMORY_TYPES[memory_type]}
    cause = -1 - answer
    return {"cause": cause, "name": NAMES.get(cause, f"cause {cause}")}


def _fence(verdict: Verdict, places: Places) -> dict[str, Any]:
    seen = None if verdict.fence is None else _seen(verdict.fence, places)
    return {"verdict": verdict.name, "text": verdict.text, "executed": seen}


def _seen(fence: FenceSeen, places: Places) -> dict[str, Any]:
    return {
        "event": fence.event,
        "icount": fence.icount,
        "hart": fence.hart,
        "pc": fence.pc,
        "symbol": places.symbol(fence.pc),
        "source": places.source(fence.pc),
        "instruction": "sinval.vma" if fence.instruction == Fence.SINVAL_VMA else "sfence.vma",
        "va": fence.va,
        "asid": fence.asid,
        **({} if fence.caller is None else {"caller": fence.caller, "size": fence.size}),
    }


def _effect(finding: Finding) -> str:
    """Return what hardware could do, in words."""
    old = _answer(finding.stale, finding.stale_type)
    new = _answer(finding.today, finding.today_type)
    match finding.kind:
        case Hazard.FREED_REACHABLE:
            return "hardware could read the page's new content as page-table entries"
        case Hazard.DIRTY_CLEARED:
            return "a store could go through without D being set again"
        case Hazard.ACCESSED_CLEARED:
            return "an access could go through without A being set again"
        case Hazard.MADE_VALID | Hazard.PERMISSION_GAINED:
            return "the access could fault once more"
    if old is None or new is None:
        return "hardware could use the old translation"
    if old["pa"] == new.get("pa"):
        types = f"as {old['pbmt'].upper()} memory instead of {new['pbmt'].upper()}"
        return f"the access could go to {old['pa']:#x} {types}"
    if "pa" in new:
        return f"the access could go to {old['pa']:#x} instead of {new['pa']:#x}"
    return f"the access could go to {old['pa']:#x} instead of a {new['name']}"


def _hidden(origin: Origin, checker: FenceChecker) -> list[str]:
    """Return what this check could not see."""
    stream = origin.stream
    found = ["Fences that were owed before the region began are not known."]
    if stream.accesses == "partial":
        found.append(
            "Only stepped instructions show their accesses; all other accesses are hidden."
        )
    if stream.filter:
        found.append(
            f"Repeated accesses to a page are left out (filter of {stream.filter} slots), so "
            "counts of accesses are lower bounds. The first access after a change is never left "
            "out. A write to a freed table page may be, if the write before went to the same page."
        )
    if origin.machine.harts == 1:
        found.append("Writes by devices are not seen, nor are other harts: a run has one.")
    else:
        found.append(
            "Writes by devices are not seen. What one hart changes is looked at on the others when "
            "it has gone on behind the fence."
        )
    if not checker.ordered:
        found.append(
            "The trace is older than version 3: sinval.vma counts as if sfence.w.inval and "
            "sfence.inval.ir surrounded it."
        )
    if checker.undecided:
        found.append(f"{checker.undecided} accesses needed more history than is kept.")
    return found
