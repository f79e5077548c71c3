"""What the paper could not show: exits by kind, and what the results depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from cosim.report.programs import label
from cosim.reproduce import fig7
from cosim.reproduce.figure import Figure, Panel, Row, percents, ratio
from cosim.reproduce.measurement import Measurement, program
from cosim.reproduce.timeline import Counts, Timeline
from guest.workloads import WORKLOADS
from hypervisor_model.costs import CostTable, break_even, cycles

NAME = "beyond"

Programs = Mapping[str, Counts]

SHOWN = ("cc1", "mcf-like", "sqlite3", "stress-fork")
"""Programs whose exits are shown by kind."""

SECOND_LEVEL = (512, 1024, 2048, 4096)
QUICK_SECOND_LEVEL = (256, 512, 1024)
"""Entries of the TLB's second level; 1,024 is the default."""

FOOTPRINTS = (0, 12, 48, 96)
QUICK_FOOTPRINTS = (0, 12, 48)
"""Pages that an exit touches; two of three are data, as in the default of 8 and 4."""

HUGE = ("cc1", "mcf-like", "astar-like")
"""Programs that run without transparent huge pages, too."""
_HUGE_BOOTED = fig7.QUICK[: 1 + max(map(fig7.QUICK.index, HUGE))]
"""Programs of the quick boot without transparent huge pages: :data:`HUGE`, and all that run before
them in the usual boot, so that the models keep the same."""

COSTS = CostTable(handling={})
"""The cost of handling is part of the exit cost that is looked for."""

_WAYS = 8
_SENSITIVE = "cc1"
"""The program whose TLB is varied at full size: for its size, it uses the most pages."""
_EXITING = "stress-fork"
"""The program whose exits are varied in size: it has the most exits."""

_THREE = ("nested", "shadow", "lsp")
_OF_FENCES = "share of the guest's fences"
_OVER_NESTED = "TLB misses, nested = 1"
_NEVER = ", thp=never"
"""Ends the names of measurements without transparent huge pages."""


def plan(*, quick: bool) -> dict[str, Measurement]:
    """Return what is measured; much of it is figure 7's."""
    made = dict(fig7.plan(quick=quick))
    for entries in QUICK_SECOND_LEVEL if quick else SECOND_LEVEL:
        shape = {"second": [entries // _WAYS, _WAYS]}
        made[f"tlb {entries}"] = _varied(_sensitive(quick), {"tlb": shape}, quick)
    for pages in QUICK_FOOTPRINTS if quick else FOOTPRINTS:
        data = pages * 2 // 3
        footprint = {"footprint_data": data, "footprint_code": pages - data}
        made[f"footprint {pages}"] = _varied(_EXITING, footprint, quick)
    boot = Measurement(fig7.one_boot(), ("shadow", "lsp"), fig7.MACHINE, seconds=18)
    made["svvptc=on"] = boot
    made["svvptc=off"] = replace(
        boot,
        spec=replace(boot.spec, name="programs-svvptc-off", cpu="rv64,svade=on,svvptc=off"),
        seconds=14,
    )
    for key in dict.fromkeys(fig7.boot(name, quick=quick) for name in HUGE):
        usual = made[key]
        spec = replace(
            fig7.one_boot(_HUGE_BOOTED) if quick else usual.spec,
            name=f"{usual.spec.name}-thp-never",
            append="transparent_hugepage=never",
        )
        made[f"{key}{_NEVER}"] = replace(
            usual, spec=spec, models=_THREE, seconds=9 if quick else usual.seconds
        )
    return made


def figure(results: Mapping[str, Timeline], *, quick: bool) -> Figure:
    """Return the figure; ``results`` are by the names of :func:`plan`."""
    programs = fig7.stretches(results, quick=quick)
    rows = [
        *_kinds({name: one for name, one in programs.items() if name in SHOWN}),
        *_of_lsp(programs),
        *_fences(programs),
        *_tlb_sizes(results, quick),
        *_footprints(results, quick),
        *_svvptc(results),
        *_huge_pages(results, quick),
        *_host_pages(results, quick),
        *_break_even(programs),
    ]
    return Figure(
        figure=NAME,
        title="What the paper could not show",
        rows=rows,
        measured="The programs of figure 7, their events and set-up. Exits by kind, and for LSP:"
        " how many exits its M-mode fast path takes, how many of the guest's fences name an"
        " address, and how many of the guest's entries it reads to synchronise"
        " for each fence that names none."
        f" The TLB is varied for {_sensitive(quick)}, the pages that an exit touches"
        f" (`exit_footprint`) for {_EXITING}. Svvptc is varied for {len(fig7.QUICK)} programs at"
        " their small test size in one boot: `-cpu ...,svvptc=off` takes it away."
        f" Huge pages are varied for {', '.join(map(label, HUGE))}, at the sizes of"
        " figure 7: `transparent_hugepage=never` keeps Linux to 4 KiB pages. Host pages are those"
        " of the G-stage, for the programs of figure 7 that the paper has or a stand-in of ours"
        " stands for, at the sizes of figure 7. Break-even: the cost of"
        " an exit, handling included, at which a policy costs what nested paging costs, given"
        f" {COSTS.reference:g} cycles for a reference of a page walk, {COSTS.fast_exit:g} for a"
        f" fast-path exit and {COSTS.synchronised:g} for an entry synchronised, which are"
        " assumptions of ours, to be replaced by measurements (hypervisor_model/costs.py); no walk"
        " caches.",
        paper="No figures. It states that a fence without an address forces a synchronisation that"
        " is dearer than a per-address flush, and that an architecture whose flush is not"
        " fine-grained gains little.",
        difference=_difference(results, programs),
        settings={
            "programs": ", ".join(map(label, programs)),
            "sizes": "as figure 7; for Svvptc, "
            + ", ".join(
                f"{label(name)}: {WORKLOADS[name].arguments['test']}" for name in fig7.QUICK
            ),
            "otherwise": "as figure 7",
        },
        notes=[
            "The entries read to synchronise are counted in all: those read when a guest links a"
            " table or loads a root are among them, not only those read at the fences.",
            *_without_break_even(programs),
        ],
    )


def _varied(name: str, machine: Mapping[str, object], quick: bool) -> Measurement:
    of = fig7.plan(quick=quick)[fig7.boot(name, quick=quick)]
    varied = replace(of, models=_THREE, machine={**of.machine, **machine}, seconds=of.seconds / 3)
    # A boot for one program has a fraction of the events of the quick one of all programs.
    return replace(varied, spec=program(name, "test"), seconds=3) if quick else varied


def _sensitive(quick: bool) -> str:
    """Return the program whose TLB is varied; a quick run has one boot for both variations."""
    return _EXITING if quick else _SENSITIVE


def _kinds(programs: Programs) -> Iterator[Row]:
    """Give exits by kind, as shares of the policy's."""
    for policy in ("shadow", "lsp"):
        panel = Panel(f"Exits by kind: {policy}", "share of the policy's exits", "share")
        for name, counts in programs.items():
            exits = counts.policies[policy]["exits"]
            for kind, number in exits.items():
                if kind not in ("total", "at_least") and number:
                    yield panel.row(kind, label(name), ratio(number, exits["total"]))


def _of_lsp(programs: Programs) -> Iterator[Row]:
    panel = Panel("Fast path of LSP", "share of exits handled in M-mode", "share")
    for name, counts in programs.items():
        share = ratio(counts.exits("lsp", "fence_fast"), counts.exits("lsp"))
        yield panel.row("lsp", label(name), share)
    what = "entries read in all, for each fence without an address"
    panel = Panel("Synchronisation of LSP", what)
    for name, counts in programs.items():
        lsp = counts.policies["lsp"]
        reads = ratio(lsp["sync_reads"], lsp["exits"]["fence_global"])
        yield panel.row("lsp", label(name), reads)


def _fences(programs: Programs) -> Iterator[Row]:
    panel = Panel("Fences that name an address", _OF_FENCES, "share")
    for name, counts in programs.items():
        yield panel.row("guest", label(name), _naming(counts))


def _tlb_sizes(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    what = "entries of the second level"
    panel = Panel(f"TLB size ({_sensitive(quick)})", _OVER_NESTED, "ratio", what)
    for entries in QUICK_SECOND_LEVEL if quick else SECOND_LEVEL:
        counts = results[f"tlb {entries}"].after("begin")
        for model in ("shadow", "lsp"):
            yield panel.row(model, entries, _over_nested(counts, model, _misses))


def _footprints(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    name, what = f"exit_footprint ({_EXITING})", "pages touched by each exit"
    panel = Panel(name, _OVER_NESTED, "ratio", what)
    first_level = Panel(
        f"{name}: first level", "misses of the first level, nested = 1", "ratio", what
    )
    for pages in QUICK_FOOTPRINTS if quick else FOOTPRINTS:
        counts = results[f"footprint {pages}"].after("begin")
        for model in ("shadow", "lsp"):
            yield panel.row(model, pages, _over_nested(counts, model, _misses))
        for model in ("shadow", "lsp"):
            over = _over_nested(counts, model, _first_level_misses)
            yield first_level.row(model, pages, over)


def _misses(counts: Counts, model: str) -> int:
    return int(counts.policies[model]["tlb_misses"])


def _first_level_misses(counts: Counts, model: str) -> int:
    policy = counts.policies[model]
    return int(policy["tlb_hits"]["second"] + policy["tlb_misses"])


def _over_nested(counts: Counts, model: str, of: Callable[[Counts, str], int]) -> float | None:
    return ratio(of(counts, model), of(counts, "nested"))


def _svvptc(results: Mapping[str, Timeline]) -> Iterator[Row]:
    series = {"with Svvptc": _small(results["svvptc=on"]), "without": _small(results["svvptc=off"])}
    panel = Panel("Svvptc, test sizes: fences that name an address", _OF_FENCES, "share")
    for one, programs in series.items():
        for name, counts in programs.items():
            yield panel.row(one, label(name), _naming(counts))
    panel = Panel("Svvptc, test sizes: exits of LSP", "exits, shadow = 1", "ratio")
    for one, programs in series.items():
        for name, counts in programs.items():
            over = ratio(counts.exits("lsp"), counts.exits("shadow"))
            yield panel.row(one, label(name), over)


def _small(timeline: Timeline) -> dict[str, Counts]:
    """Return the counts of each program in the boot of all programs at their test sizes."""
    return {name: fig7.stretch(timeline, name, quick=True) for name in fig7.QUICK}


def _huge_pages(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    series = {
        "always": fig7.stretches(results, quick=quick, names=HUGE),
        "never": fig7.stretches(
            results, quick=quick, names=HUGE, variant=_NEVER, booted=_HUGE_BOOTED
        ),
    }
    for model in ("shadow", "lsp"):
        panel = Panel(f"Transparent huge pages: exits of {model}", "VM exits")
        for one, programs in series.items():
            for name, counts in programs.items():
                yield panel.row(one, label(name), counts.exits(model))
    for model in _THREE:
        panel = Panel(f"Transparent huge pages: TLB misses of {model}", "TLB misses")
        for one, programs in series.items():
            for name, counts in programs.items():
                yield panel.row(one, label(name), _misses(counts, model))


def _host_pages(results: Mapping[str, Timeline], quick: bool) -> Iterator[Row]:
    usual = fig7.stretches(results, quick=quick, names=fig7.PAPERS)
    small = fig7.stretches(results, quick=quick, names=fig7.PAPERS, variant=fig7.SMALL)
    panel = Panel("Host pages: TLB misses of LSP", _OVER_NESTED, "ratio")
    for series, programs in {"2 MiB": usual, "4 KiB": small}.items():
        for name, counts in programs.items():
            over = ratio(_misses(usual[name], "lsp"), _misses(counts, "nested"))
            yield panel.row(series, label(name), over)


def _naming(counts: Counts) -> float | None:
    """Return the share of the guest's fences that name an address."""
    fences = counts.fences
    return ratio(fences["va"] + fences["va_asid"], sum(fences.values()))


def _break_even(programs: Programs) -> Iterator[Row]:
    panel = Panel("Break-even with nested paging", "cycles that an exit may cost")
    for name, counts in programs.items():
        for policy in ("shadow", "lsp"):
            yield panel.row(policy, label(name), _exit_cost(counts, policy))


def _exit_cost(counts: Counts, policy: str) -> float | None:
    """Return the cycles of an exit, handling included, at which both cost the same.

    None if there is no such cost, or a count is unknown.
    """
    return break_even(counts.policies[policy], counts.policies["nested"], COSTS)


def _cheaper(counts: Counts, policy: str) -> tuple[str | None, str | None]:
    """Return the cheaper of ``policy`` and nested paging: at exits that cost nothing, and much.

    None if both cost the same.
    """
    of_policy, of_nested = (cycles(counts.policies[one], COSTS) for one in (policy, "nested"))
    free = of_nested.without_exits - of_policy.without_exits
    dear = of_nested.transitions - of_policy.transitions
    below, above = (free or dear), (dear or free)
    return tuple(  # type: ignore[return-value]
        None if gain == 0 else policy if gain > 0 else "nested" for gain in (below, above)
    )


def _without_break_even(programs: Programs) -> Iterator[str]:
    """Say which policy is cheaper if the cost of an exit makes no difference."""
    for policy in ("shadow", "lsp"):
        always: dict[str, list[str]] = {}
        for name, counts in programs.items():
            if _exit_cost(counts, policy) is None:
                cheaper, _ = _cheaper(counts, policy)
                always.setdefault(cheaper or "neither", []).append(label(name))
        for cheaper, names in always.items():
            yield (
                f"Break-even of {policy} and nested, no bar for {', '.join(names)}: {cheaper} costs"
                " less, whatever an exit costs."
            )


def _difference(results: Mapping[str, Timeline], programs: Programs) -> str:
    usual, without = (
        _spread(map(_naming, _small(results[key]).values())) for key in ("svvptc=on", "svvptc=off")
    )
    parts = [
        "The paper gives nothing to compare with. Fences that name an address are"
        f" {_spread(map(_naming, programs.values()))} of all that the programs make; at their test"
        f" sizes {usual} with Svvptc and {without} without it."
    ]
    even: dict[tuple[str | None, str | None], list[float]] = {}
    for counts in programs.values():
        cost = _exit_cost(counts, "lsp")
        if cost is not None:
            even.setdefault(_cheaper(counts, "lsp"), []).append(cost)
    for (below, above), costs in even.items():
        parts.append(
            f" For {len(costs)} of {len(programs)} programs {below} costs less than {above} as long"
            f" as an exit, handling included, costs less than {min(costs):,.0f} to"
            f" {max(costs):,.0f} cycles, depending on the program (assuming {COSTS.reference:g}"
            " cycles per reference)."
        )
    return "".join(parts)


def _spread(shares: Iterable[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return percents(min(known), max(known)) if known else "an unknown part"
