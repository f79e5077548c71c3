"""Made-up documents of `cosim reproduce`, in the sizes of the paper, for the tests of the page."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_POLICIES = ("nested", "shadow", "lsp", "vtlb", "unsync", "oos", "ssp")


def document(figure: str, rows: list[Json], **more: Any) -> Json:
    """A document with all texts."""
    texts = {
        "title": f"The figure {figure}",
        "measured": "Made-up counts of a guest that never ran: 1,024 pages, 100,000 operations.\n\n"
        "A second paragraph, with <b>signs</b> that HTML & its readers must not take as theirs.",
        "paper": "At 100 % modifications TSP takes 200,000 exits and LSP 100,000.",
        "difference": "None: the counts were drawn from the expectation.",
    }
    settings = {"pages": 1024, "guest": {"name": "micro", "qemu": "10.0.2"}, "quick": False}
    return {"figure": figure, "rows": rows, "settings": settings, **texts, **more}


def fig5() -> Json:
    """Curves on top of each other, some with an expectation, for two programs; one count null."""
    rows = []
    for program, operations in (("micro", 100_000), ("mprotect, Linux", 20_000)):
        for policy in _POLICIES:
            for tenth in range(11):
                share = tenth / 10
                shadow = 2 * share * operations
                lsp = operations * (share + share * (1 - share))
                exits = {"nested": 1024, "shadow": shadow, "unsync": 0.8 * shadow}.get(policy, lsp)
                known = not (policy == "oos" and tenth == 5)
                rows.append(
                    {
                        "program": program,
                        "share": share,
                        "policy": policy,
                        "exits": round(exits) if known else None,
                        "expected": {"shadow": shadow, "lsp": lsp}.get(policy),
                    }
                )
    claims = [
        {
            "claim": "exits at 100 %, TSP",
            "measured": 201_000,
            "paper": 200_000,
            "departure": "+0.5 %",
        },
        {"claim": "fewer exits", "measured": "50 %", "paper": "up to 50 %"},
    ]
    return document("fig5", rows, claims=claims)


def fig6() -> Json:
    """Two panels over powers of two, of which one has counts far apart."""
    rows: list[Json] = [
        {
            "window": window,
            "policy": policy,
            "fence": fence,
            "exits": 110_000 if policy == "vtlb" and fence == "all" else 10_000 // window,
            "sync_reads": None if policy == "shadow" else 2_570_000 // window,
        }
        for fence in ("va", "all")
        for policy in ("shadow", "lsp", "vtlb")
        for window in (1, 2, 4, 8, 16)
    ]
    return document("fig6", rows)


def refs() -> Json:
    """Bars with an expectation, one of them missed."""
    rows = [
        {"mode": mode, "policy": policy, "refs_per_miss": measured, "expected": expected}
        for mode, policy, measured, expected in (
            ("sv39 x sv39x4", "nested", 14.8, 15),
            ("sv39 x sv39x4", "lsp", 3, 3),
            ("sv57 x sv57x4", "nested", 35, 35),
            ("sv57 x sv57x4", "lsp", 5, 5),
        )
    ]
    return document("refs", rows)


def fig7() -> Json:
    """Eight programs, four policies, one count null."""
    numbers = random.Random(7)
    rows = []
    for program, stands_for, stand_in in (
        ("cc1", "403.gcc", False),
        ("mincost", "429.mcf", True),
        ("lattice", "433.milc", True),
        ("gridpath", "473.astar", True),
        ("sqlite3", None, False),
        ("redis with its benchmark", None, False),
        ("stress-ng fork", None, False),
        ("xz", None, False),
    ):
        exits, misses = numbers.randrange(10**4, 10**6), numbers.randrange(10**5, 10**7)
        for policy in ("nested", "shadow", "lsp", "unsync"):
            of_shadow = 1.0 if policy == "shadow" else numbers.uniform(0.02, 1.1)
            of_nested = 1.0 if policy == "nested" else numbers.uniform(1.05, 1.4)
            known = not (program == "xz" and policy == "lsp")
            rows.append(
                {
                    "program": program,
                    "stands_for": stands_for,
                    "stand_in": stand_in,
                    "policy": policy,
                    "exits": round(exits * of_shadow) if known else None,
                    "tlb_misses": round(misses * of_nested),
                    "exits_vs_shadow": of_shadow if known else None,
                    "tlb_misses_vs_nested": of_nested,
                }
            )
    return document("fig7", rows)


def beyond() -> Json:
    """Small multiples: lines over numbers, bars over words, shares, counts far apart."""
    rows: list[Json] = []
    for series in ("shadow", "lsp", "shadow:roots=4"):
        weight = len(series)
        for size in (16, 32, 64, 128):
            y = weight * 100_000 / size
            rows.append({"panel": "TLB size", "series": series, "x": size, "y": y})
        for pages in (0, 4, 8, 12):
            y = weight * 0.01 * pages
            row = {"panel": "Footprint", "series": series, "x": pages, "y": y}
            rows.append({**row, "x_label": "pages", "y_label": "misses", "y_unit": "share"})
            other = {**row, "panel": "Footprint of all", "y": y / 2}
            rows.append({**other, "x_label": "pages", "y_label": "misses", "y_unit": "share"})
        for state in ("on", "off"):
            rows.append({"panel": "Svvptc", "series": series, "x": state, "y": 1000 * weight})
    for program, cycles in (("mcf-like", 118_921), ("xz", 14_627), ("redis", 14.05)):
        for series, y in (("shadow", cycles), ("lsp", 2 * cycles)):
            row = {"panel": "Break-even", "series": series, "x": program, "y": y}
            rows.append({**row, "y_label": "cycles"})
    return document("beyond", rows, notes=["A note <below> the figure."])


DOCUMENTS = {"fig5": fig5, "fig6": fig6, "refs": refs, "fig7": fig7, "beyond": beyond}


def write_all(folder: Path) -> Path:
    """All documents in ``folder``, as `cosim reproduce` leaves them; returns it."""
    folder.mkdir(exist_ok=True)
    for name, make in DOCUMENTS.items():
        (folder / f"{name}.json").write_text(json.dumps(make()))
    return folder
