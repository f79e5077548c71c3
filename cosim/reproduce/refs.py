"""Memory references of a TLB miss, measured on a guest that misses at every access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosim.reproduce.figure import Claim, Figure, Row, ratio
from cosim.reproduce.measurement import Measurement, describe_tlb, micro
from cosim.reproduce.timeline import Counts, Timeline

NAME = "refs"
LEVELS = {"sv39": 3, "sv48": 4, "sv57": 5}
PAIRS = (("sv39", "sv39"), ("sv39", "sv48"), ("sv39", "sv57"), ("sv48", "sv48"), ("sv57", "sv57"))
"""Modes of the guest's tables and of the G-stage's."""
SHADOWS = ("shadow", "lsp")
TLB = {"second": None}
"""Small, so that pages read in sequence always miss."""


@dataclass(frozen=True)
class Size:
    """How much of it is measured."""

    pages: int
    """More than the first level of the TLB holds."""
    operations: int


FULL = Size(pages=1024, operations=20_000)
QUICK = Size(pages=1024, operations=4_000)


def expected(policy: str, mode: str, gstage: str) -> int:
    """Return the references of a miss on a 4 KiB page without walk caches (paging-models, 4)."""
    n, m = LEVELS[mode], LEVELS[gstage]
    return (n + 1) * (m + 1) - 1 if policy == "nested" else n


def plan(*, quick: bool) -> dict[str, Measurement]:
    """Return what is measured, by name."""
    size = QUICK if quick else FULL
    made = {}
    for mode, gstage in PAIRS:
        options = {"mode": mode, "pages": size.pages, "ops": size.operations, "share": 0}
        spec = micro(f"refs-{mode}", options)
        models = ("nested", *SHADOWS) if mode == gstage else ("nested",)
        machine = {"tlb": TLB, "gstage_mode": gstage}
        made[f"{mode} {gstage}"] = Measurement(
            spec, models, machine, seconds=1 + size.operations / 1e4
        )
    return made


def figure(results: Mapping[str, Timeline], *, quick: bool) -> Figure:
    """Return the figure; ``results`` are by the names of :func:`plan`."""
    size = QUICK if quick else FULL
    rows: list[Row] = []
    for mode, gstage in PAIRS:
        counts = results[f"{mode} {gstage}"].after("measured")
        rows += [
            {
                "mode": f"{mode} x {gstage}x4",
                "policy": model,
                "refs_per_miss": _refs_per_miss(counts, model),
                "expected": expected(model, mode, gstage),
                "tlb_misses": counts.policies[model]["tlb_misses"],
            }
            for model in counts.policies
        ]
    sv39 = {row["policy"]: row["refs_per_miss"] for row in rows[:3]}
    saved = sv39["nested"] - sv39["lsp"]
    per_read = rows[0]["tlb_misses"] / size.operations
    return Figure(
        figure=NAME,
        title="Walk references for each TLB miss",
        rows=rows,
        measured=f"The bare S-mode guest reads {size.pages:,} pages in sequence,"
        f" {size.operations:,} times, in each paging mode that QEMU has. The modelled TLB has no"
        " second level and few entries. Counting starts when all pages"
        " have been read once: the references of all walks, divided by the misses. There are no"
        " walk caches. The marks at the bars are (n+1)(m+1)-1 for n levels of the guest's tables"
        " and m of the G-stage's, and n for one stage.",
        paper="15 extra memory references for each TLB miss under nested paging, 3 under LSP: 12"
        " fewer (Sv39).",
        difference=f"For Sv39 {sv39['nested']:.3f} under nested paging and {sv39['lsp']:.3f} under"
        f" LSP, {saved:.3f} fewer. Under nested paging there are {per_read:.2f} misses for each"
        " read; those of the guest's own code and stack are among them.",
        settings={
            "pages": size.pages,
            "operations": size.operations,
            "TLB": describe_tlb({"tlb": TLB}),
            "walk caches": "none",
            "G-stage pages": "4 KiB",
            "setup": "h",
        },
        claims=(
            Claim(
                "references for each miss, nested, Sv39",
                sv39["nested"],
                15,
                _off(sv39["nested"], 15),
            ),
            Claim("references for each miss, LSP, Sv39", sv39["lsp"], 3, _off(sv39["lsp"], 3)),
            Claim("references saved", saved, 12, _off(saved, 12)),
        ),
    )


def _off(measured: float, paper: int) -> str:
    return f"{measured - paper:+.3f}"


def _refs_per_miss(counts: Counts, model: str) -> float | None:
    policy = counts.policies[model]
    refs = policy["walk_refs"]
    return None if refs is None else ratio(refs["vs"] + refs["g"], policy["tlb_misses"])
