"""What the paper could not show: exits by kind, and what the results depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from cosim.reproduce import fig7
from cosim.reproduce.figure import Figure, Row, ratio
from cosim.reproduce.measurement import Measurement
from cosim.reproduce.timeline import Counts, Timeline
from hypervisor_model.costs import CostTable, break_even

NAME = "beyond"

SHOWN = ("cc1", "mcf-like", "sqlite3", "stress-fork")
"""Programs whose exits are shown by kind."""

SECOND_LEVEL = (512, 1024, 2048, 4096)
QUICK_SECOND_LEVEL = (512, 4096)
"""Entries of the TLB's second level."""

FOOTPRINTS = (0, 6, 12, 24, 48, 96)
QUICK_FOOTPRINTS = (0, 48)
"""Pages that an exit touches; two of three are data, as in the default of 8 and 4."""

COSTS = CostTable(handling={})
"""Handling is part of the exit cost that is asked for."""

_WAYS = 8
_SENSITIVE = "cc1"
"""The program whose TLB is varied: it works in most pages for its size."""
_EXITING = "stress-fork"
"""The program whose exits are varied in size: it has most of them."""

_THREE = ("nested", "shadow", "lsp")


def plan(*, quick: bool) -> dict[str, Measurement]:
    """What is measured; much of it is figure 7's."""
    made = dict(fig7.plan(quick=quick))
    for entries in QUICK_SECOND_LEVEL if quick else SECOND_LEVEL:
        shape = {"second": [entries // _WAYS, _WAYS]}
        made[f"tlb {entries}"] = _varied(_SENSITIVE, {"tlb": shape}, quick)
    for pages in QUICK_FOOTPRINTS if quick else FOOTPRINTS:
        data = pages * 2 // 3
        footprint = {"footprint_data": data, "footprint_code": pages - data}
        made[f"footprint {pages}"] = _varied(_EXITING, footprint, quick)
    boot = Measurement(fig7.one_boot(), _THREE, fig7.MACHINE, seconds=15)
    made["as it is"] = boot
    made["svvptc=off"] = replace(
        boot, spec=replace(boot.spec, name="programs-svvptc-off", cpu="rv64,svade=on,svvptc=off")
    )
    never = "transparent_hugepage=never"
    made["thp=never"] = replace(
        boot, spec=replace(boot.spec, name="programs-thp-never", append=never)
    )
    small_pages = {**fig7.MACHINE, "gstage_page": 4096}
    made["4 KiB"] = Measurement(fig7.one_boot(), ("nested",), small_pages, seconds=3)
    return made


def figure(results: Mapping[str, Timeline], *, quick: bool) -> Figure:
    """The figure made of what was measured; ``results`` are by the names of :func:`plan`."""
    programs = fig7.stretches(results, quick=quick)
    rows = [
        *_kinds({name: one for name, one in programs.items() if name in SHOWN}),
        *_of_lsp(programs),
        *_tlb_sizes(results, quick),
        *_footprints(results, quick),
        *_variants(results),
        *_break_even(programs),
    ]
    return Figure(
        figure=NAME,
        title="What the paper could not show",
        rows=rows,
        measured="The programs of figure 7, their events and set-up. Exits by kind, and for LSP:"
        " how many exits its M-mode fast path takes, how many of the guest's fences name an"
        " address (what LSP lives on), and how many of the guest's entries it reads at each fence"
        f" that names none. The TLB is varied for {_SENSITIVE}, the pages that an exit touches"
        f" (`exit_footprint`) for {_EXITING}. Svvptc and huge pages are varied for all programs at"
        " their small size in one boot: `-cpu ...,svvptc=off` makes Linux fence after each new"
        " mapping; `transparent_hugepage=never` keeps it to 4 KiB pages. Break-even: the cost of"
        " an exit, handling included, at which a policy costs what nested paging costs, given"
        f" {COSTS.reference:g} cycles for a reference of a page walk, {COSTS.fast_exit:g} for a"
        f" fast-path exit and {COSTS.synchronised:g} for an entry synchronised, which are"
        " assumptions of ours (hypervisor_model/costs.py); no walk caches.",
        paper="No figures. It states that a fence without an address forces a synchronisation that"
        " is dearer than a per-address flush, and that an architecture whose flush is not"
        " fine-grained gains little.",
        difference=_difference(results, programs),
        settings={"programs": ", ".join(programs), "otherwise": "as figure 7"},
        notes=[
            "Each page that an exit displaces from the first level is found in the second, as long"
            " as that has room.",
            "Break-even: with walk caches nested paging would make fewer references, and the"
            " break-even be lower.  No bar: nested paging costs less whatever an exit costs.",
        ],
    )


def _varied(name: str, machine: Mapping[str, object], quick: bool) -> Measurement:
    base = fig7.plan(quick=quick)
    of = next(iter(base.values())) if quick else base[name]
    return replace(of, models=_THREE, machine={**of.machine, **machine}, seconds=of.seconds / 2)


def _stretch(results: Mapping[str, Timeline], key: str, name: str, quick: bool) -> Counts:
    return fig7.stretch(results[key], name, quick=quick)


def _kinds(programs: Mapping[str, Counts]) -> Iterator[Row]:
    """Exits by kind, as shares of the policy's."""
    for policy in ("shadow", "lsp"):
        for name, counts in programs.items():
            exits = counts.policies[policy]["exits"]
            for kind, number in exits.items():
                if kind not in ("total", "at_least") and number:
                    yield {
                        "panel": f"Exits by kind: {policy}",
                        "series": kind,
                        "x": name,
                        "y": ratio(number, exits["total"]),
                        "y_label": "share of the policy's exits",
                        "y_unit": "share",
                    }


def _of_lsp(programs: Mapping[str, Counts]) -> Iterator[Row]:
    for name, counts in programs.items():
        yield {
            "panel": "Fast path of LSP",
            "series": "lsp",
            "x": name,
            "y": ratio(counts.exits("lsp", "fence_fast"), counts.exits("lsp")),
            "y_label": "share of exits handled in M-mode",
            "y_unit": "share",
        }
    for name, counts in programs.items():
        lsp = counts.policies["lsp"]
        yield {
            "panel": "Synchronisation at fences without an address",
            "series": "lsp",
            "x": name,
            "y": ratio(lsp["sync_reads"], lsp["exits"]["fence_global"]),
            "y_label": "entries read for each such fence",
        }


def _tlb_sizes(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    for entries in QUICK_SECOND_LEVEL if quick else SECOND_LEVEL:
        counts = _stretch(results, f"tlb {entries}", _SENSITIVE, quick)
        yield from _misses_over_nested(
            counts, f"TLB size ({_SENSITIVE})", entries, "entries of the second level"
        )


def _footprints(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    for pages in QUICK_FOOTPRINTS if quick else FOOTPRINTS:
        counts = _stretch(results, f"footprint {pages}", _EXITING, quick)
        label = "pages touched by each exit"
        yield from _misses_over_nested(counts, f"exit_footprint ({_EXITING})", pages, label)
        for model in ("shadow", "lsp"):
            yield {
                "panel": f"exit_footprint ({_EXITING}): first level",
                "series": model,
                "x": pages,
                "y": ratio(
                    _first_level_misses(counts, model), _first_level_misses(counts, "nested")
                ),
                "x_label": label,
                "y_label": "misses of the first level, nested = 1",
                "y_unit": "ratio",
            }


def _first_level_misses(counts: Counts, model: str) -> int:
    policy = counts.policies[model]
    return int(policy["tlb_hits"]["second"] + policy["tlb_misses"])


def _misses_over_nested(counts: Counts, panel: str, x: int, x_label: str) -> Iterator[Row]:
    misses = {model: counts.policies[model]["tlb_misses"] for model in _THREE}
    for model in ("shadow", "lsp"):
        yield {
            "panel": panel,
            "series": model,
            "x": x,
            "y": ratio(misses[model], misses["nested"]),
            "x_label": x_label,
            "y_label": "TLB misses, nested = 1",
            "y_unit": "ratio",
        }


def _variants(results: Mapping[str, Timeline]) -> Iterator[Row]:
    usual, without, never = (
        dict(zip(fig7.QUICK, results[name].between("begin", "end"), strict=True))
        for name in ("as it is", "svvptc=off", "thp=never")
    )
    small = dict(zip(fig7.QUICK, results["4 KiB"].between("begin", "end"), strict=True))
    svvptc = {"with Svvptc": usual, "without": without}
    huge = {"always": usual, "never": never}
    for series, programs in svvptc.items():
        for name, counts in programs.items():
            yield {
                "panel": "Fences that name an address",
                "series": series,
                "x": name,
                "y": _naming(counts),
                "y_label": "share of the guest's fences",
                "y_unit": "share",
            }
    for series, programs in svvptc.items():
        for name, counts in programs.items():
            yield {
                "panel": "Svvptc: exits of LSP",
                "series": series,
                "x": name,
                "y": ratio(counts.exits("lsp"), counts.exits("shadow")),
                "y_label": "exits, shadow = 1",
                "y_unit": "ratio",
            }
    for series, programs in huge.items():
        for name, counts in programs.items():
            yield {
                "panel": "Transparent huge pages: exits of LSP",
                "series": series,
                "x": name,
                "y": counts.exits("lsp"),
                "y_label": "VM exits",
            }
    for series, programs in {"2 MiB": usual, "4 KiB": small}.items():
        for name, counts in programs.items():
            yield {
                "panel": "Host pages: TLB misses of nested",
                "series": series,
                "x": name,
                "y": counts.policies["nested"]["tlb_misses"],
                "y_label": "TLB misses",
            }


def _naming(counts: Counts) -> float | None:
    fences = counts.fences
    return ratio(fences["va"] + fences["va_asid"], sum(fences.values()))


def _break_even(programs: Mapping[str, Counts]) -> Iterator[Row]:
    for name, counts in programs.items():
        for policy in ("shadow", "lsp"):
            yield {
                "panel": "Break-even with nested paging",
                "series": policy,
                "x": name,
                "y": _exit_cost(counts, policy),
                "y_label": "cycles that an exit may cost",
            }


def _exit_cost(counts: Counts, policy: str) -> float | None:
    """Cycles of an exit, handling included, above which nested paging costs less than ``policy``.

    None where nested paging costs less whatever an exit costs.
    """
    return break_even(counts.policies[policy], counts.policies["nested"], COSTS)


def _difference(results: Mapping[str, Timeline], programs: Mapping[str, Counts]) -> str:
    costs = (_exit_cost(counts, "lsp") for counts in programs.values())
    even = [cost for cost in costs if cost is not None]
    usual = results["as it is"].between("begin", "end")
    without = results["svvptc=off"].between("begin", "end")
    parts = [
        "The paper gives nothing to compare with. Fences that name an address are"
        f" {_spread(_naming(one) for one in usual)} of all with Svvptc and"
        f" {_spread(_naming(one) for one in without)} without it."
    ]
    if even:
        parts.append(
            f" For {len(even)} of {len(programs)} programs LSP costs less than nested paging as"
            f" long as an exit, handling included, costs less than {min(even):,.0f} to"
            f" {max(even):,.0f} cycles, depending on the program (at {COSTS.reference:g} cycles a"
            " reference)."
        )
    return "".join(parts)


def _spread(shares: Iterable[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{min(known):.0%} to {max(known):.0%}" if known else "an unknown part"
