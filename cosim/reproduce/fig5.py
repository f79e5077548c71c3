"""Figure 5: exits of the micro-benchmark over the share of modifications, base architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosim.report.number_text import percent
from cosim.reproduce.figure import Claim, Figure, Panel, Row, counted, points, ratio
from cosim.reproduce.measurement import BASE, BASE_MODELS, Measurement, micro
from cosim.reproduce.timeline import Counts, Timeline
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin

NAME = "fig5"
LINUX = "fig5-linux"
"""The Linux program has its own document, so that ``fig5`` holds one program."""

NEIGHBOURS = tuple(model for model in BASE_MODELS if model not in ("shadow", "lsp"))
"""Published policies beside the paper's."""
_LINUX_RUN = "linux"

KINDS = {"shadow": ("pt_write", "fence"), "lsp": ("fence", "fence_fast")}
"""Exits that the gdb backend counts without stepping, because they need no accesses."""


@dataclass(frozen=True)
class Size:
    """How much of it is measured."""

    pages: int
    operations: int
    shares: tuple[int, ...]
    """Per cent."""
    linux_operations: int
    linux_shares: tuple[int, ...]
    gdb_operations: int
    stepped_operations: int


FULL = Size(
    pages=1024,
    operations=100_000,
    shares=tuple(range(0, 101, 10)),
    linux_operations=20_000,
    linux_shares=tuple(range(0, 101, 20)),
    gdb_operations=12_000,
    stepped_operations=500,
)
QUICK = Size(
    pages=64,
    operations=4_000,
    shares=(0, 20, 50, 80, 100),
    linux_operations=1_000,
    linux_shares=(0, 50, 100),
    gdb_operations=400,
    stepped_operations=100,
)

_GDB_PAGES = 64
_STEPPED_PAGES = 16
_GDB_SHARE = 50


def expected(policy: str, share: float, operations: int) -> float | None:
    """Return the exits that theory predicts for random order: 2pN and N(p + p(1-p)).

    TSP takes one for each modification and one for its fence; LSP one for the fence, and one for
    each access that is the first since a modification of its page (paging-models, section 1).
    """
    if policy == "shadow":
        return _exact(2 * share * operations)
    if policy == "lsp":
        return _exact(operations * (share + share * (1 - share)))
    return None


def plan(*, quick: bool) -> dict[str, Measurement]:
    """Return what is measured, by name."""
    size = QUICK if quick else FULL
    made: dict[str, Measurement] = {}
    for share in size.shares:
        options = {"pages": size.pages, "ops": size.operations, "share": share}
        spec = micro(f"micro-{share}", options)
        made[f"micro {share}"] = Measurement(spec, BASE_MODELS, BASE, seconds=size.operations / 4e4)
    made[_LINUX_RUN] = Measurement(
        _linux(size), BASE_MODELS, BASE, seconds=9 + size.linux_operations / 2e3
    )
    for name, pages, operations, stepped in _gdb_sizes(size):
        options = {"pages": pages, "ops": operations, "share": _GDB_SHARE}
        models = ("shadow", "lsp")
        through_plugin = micro(name, options)
        through_gdb = micro(name, options, backend=Gdb(step_all=stepped))
        made[f"{name} plugin"] = Measurement(through_plugin, models, BASE)
        made[f"{name} gdb"] = Measurement(
            through_gdb,
            models,
            BASE,
            seconds=operations / (40 if stepped else 300),
        )
    return made


def figure(results: Mapping[str, Timeline], *, quick: bool) -> Figure:
    """Return the figure; ``results`` are by the names of :func:`plan`."""
    size = QUICK if quick else FULL
    micro_counts = {share: results[f"micro {share}"].after("measured") for share in size.shares}
    top = micro_counts[100]
    tsp, lsp = top.exits("shadow"), top.exits("lsp")
    worst = _worst_ratio(micro_counts)
    warm = _before(results["micro 50"])
    sources = [
        *_sources("gdb", results, size.gdb_operations, kinds=KINDS),
        *_sources("gdb-stepped", results, size.stepped_operations, kinds=None),
    ]
    saved = 1 - (ratio(lsp, tsp) or 0)
    n = size.operations
    differing = [row for row in sources if row["plugin"] != row["gdb"] or row["gdb"] is None]
    return Figure(
        figure=NAME,
        title="Figure 5: VM exits over the share of modifications",
        rows=_rows(micro_counts, n),
        measured=f"The micro-benchmark in a bare S-mode guest (Sv39) makes {n:,} operations on"
        f" {size.pages:,} pages in sequence. An exact share of them is `PTE ^= W; sfence.vma va`,"
        " the rest are loads. Their order is random (a shuffled list, fixed seed). Every policy"
        " gets the same captured events, in the set-up without H extension. Counting starts when"
        f" every page has been read once; this warm-up costs {_list(warm)} exits, which are not"
        " counted. The dashed lines are 2pN for TSP (`shadow`) and N(p + p(1-p)) for LSP (`lsp`)."
        " The models do not use these formulas.\n\n" + _agreement(differing),
        paper="TSP takes 200,000 exits at 100 % (a write-protection fault and a flush trap for each"
        " modification) and is linear in the share; LSP takes 100,000; up to 50 % fewer.",
        difference=f"At 100 % TSP takes {tsp:,} exits and LSP {lsp:,} of {n:,} operations:"
        f" {percent(saved, 1)} fewer. Over all shares LSP/TSP departs from the line 1 - p/2 by at"
        f" most {worst * 100:.2f} percentage points."
        + ("" if n == FULL.operations else f" This quick run makes {n:,} operations, not 100,000."),
        settings={
            "pages": size.pages,
            "operations": n,
            "seed": 1,
            "setup": "base",
            "paging": "Sv39",
            "gdb": f"{size.gdb_operations:,} operations on {_GDB_PAGES} pages; stepped:"
            f" {size.stepped_operations:,} on {_STEPPED_PAGES}",
        },
        claims=(
            Claim(
                f"exits of TSP at 100 % of {n:,} operations",
                tsp,
                "200,000 of 100,000",
                _off(tsp, n, 2),
            ),
            Claim(
                f"exits of LSP at 100 % of {n:,} operations",
                lsp,
                "100,000 of 100,000",
                _off(lsp, n, 1),
            ),
            Claim("fewer exits than TSP, at most", percent(saved, 1), "50 %", points(saved - 0.5)),
        ),
        notes=[*(_source_note(source) for source in sources), _neighbour_note(top)],
        warnings=["gdb and the plugin do not count the same exits."] if differing else [],
        also=[_linux_figure(results[_LINUX_RUN], size)],
        made_of=[name for name in results if name != _LINUX_RUN],
    )


def _exact(exits: float) -> float:
    """Return ``exits`` without the rounding error of binary fractions."""
    return round(exits, 6)


def _off(exits: int | None, operations: int, paper: int) -> str:
    """Say how many more exits we have for each operation than the ``paper``."""
    return "unknown" if exits is None else f"{exits / operations - paper:+.3f} for each operation"


def _linux_figure(timeline: Timeline, size: Size) -> Figure:
    """Return the figure of the nearest Linux program, without its first pass (the warm-up)."""
    _, *passes = timeline.between("begin", "end")
    counts = dict(zip(size.linux_shares, passes, strict=True))
    idle = counts[0]
    over_tsp = (
        ratio(one.exits("lsp"), one.exits("shadow")) for share, one in counts.items() if share
    )
    saved = 1 - min(known for known in over_tsp if known is not None)
    panel = Panel("mprotect of single pages", "VM exits", x_label="share of modifications")
    return Figure(
        figure=LINUX,
        title="Beside figure 5: the nearest Linux program",
        rows=[
            panel.row(model, share / 100, one.exits(model))
            for share, one in counts.items()
            for model in BASE_MODELS
        ],
        measured="mprotect of one page makes two stores (clear, set) and one fence. For each share"
        f" there are {size.linux_operations:,} operations on {size.pages:,} pages, one share after"
        " the other in one boot. A first pass reads every page and is not counted. All exits of the"
        " guest count, those of its kernel too.",
        paper="Nothing: its benchmark needs no operating system.",
        difference="A modification is two stores and a fence here. LSP saves up to"
        f" {percent(saved, 1)} of TSP's exits. At a share of 0 % TSP still takes"
        f" {counted(idle.exits('shadow'))} exits and LSP {counted(idle.exits('lsp'))}.",
        settings={
            "pages": size.pages,
            "operations": size.linux_operations,
            "seed": 1,
            "setup": "base",
            "paging": "Sv39",
        },
        made_of=[_LINUX_RUN],
    )


def _linux(size: Size) -> RunSpec:
    # The models begin empty, so that a first pass fills what all of them use; it is not counted.
    passes = [(size.pages, 0), *((size.linux_operations, share) for share in size.linux_shares)]
    runs = (f"mprotect-bench:full {size.pages} {count} {share} 1" for count, share in passes)
    return RunSpec(
        name="mprotect",
        guest="workloads",
        workload="; ".join(runs),
        region_from="mark:begin",
        region_to="mark:done",
        backend=Plugin(),
        time_limit=1800,
    )


def _gdb_sizes(size: Size) -> tuple[tuple[str, int, int, bool], ...]:
    """Return name, pages, operations, and True if every instruction is stepped."""
    return (
        ("gdb", _GDB_PAGES, size.gdb_operations, False),
        ("gdb-stepped", _STEPPED_PAGES, size.stepped_operations, True),
    )


def _rows(counts: Mapping[int, Counts], operations: int) -> list[Row]:
    return [
        {
            "share": share / 100,
            "policy": model,
            "exits": one.exits(model),
            "expected": expected(model, share / 100, operations),
        }
        for share, one in counts.items()
        for model in BASE_MODELS
    ]


def _worst_ratio(counts: Mapping[int, Counts]) -> float:
    """Return the largest distance of LSP/TSP from 1 - p/2."""
    distances = []
    for share, one in counts.items():
        measured = ratio(one.exits("lsp"), one.exits("shadow"))
        if measured is not None and share:
            distances.append(abs(measured - (1 - share / 200)))
    return max(distances, default=0.0)


def _before(timeline: Timeline) -> dict[str, int | None]:
    """Return the exits before the mark ``measured``."""
    counts = next(counts for label, counts in timeline.marks if label == "measured")
    return {model: counts.exits(model) for model in ("shadow", "lsp")}


def _sources(
    name: str,
    results: Mapping[str, Timeline],
    operations: int,
    kinds: Mapping[str, tuple[str, ...]] | None,
) -> list[Row]:
    """Return the exits of the same guest through the plugin and through gdb."""
    through = {
        backend: results[f"{name} {backend}"].after("measured") for backend in ("plugin", "gdb")
    }
    made: list[Row] = []
    for model in ("shadow", "lsp"):
        of = () if kinds is None else kinds[model]
        made.append(
            {
                "operations": operations,
                "policy": model,
                "kinds": ", ".join(of) or "all",
                "plugin": through["plugin"].exits(model, *of),
                "gdb": through["gdb"].exits(model, *of),
            }
        )
    return made


def _agreement(differing: list[Row]) -> str:
    if differing:
        return (
            "At a smaller size the gdb backend does NOT give the same counts as the plugin for the"
            " same guest: see the notes below."
        )
    return (
        "At a smaller size the gdb backend gives the same counts as the plugin for the same guest:"
        " the exits that need no accesses, and all exits if gdb steps every instruction."
    )


def _source_note(row: Row) -> str:
    return (
        f"{row['operations']:,} operations at a share of {_GDB_SHARE} %, {row['policy']},"
        f" exits ({row['kinds']}): plugin {counted(row['plugin'])}, gdb {counted(row['gdb'])}."
    )


def _neighbour_note(counts: Counts) -> str:
    """Say how the published neighbours exit if every operation is a modification."""
    listed = []
    for model in NEIGHBOURS:
        exits = counts.policies[model]["exits"]
        kinds = {kind: n for kind, n in exits.items() if kind not in ("total", "at_least")}
        taken = (f"{kind} {counted(n)}" for kind, n in kinds.items() if n != 0)
        listed.append(f"{model}: {', '.join(taken) or 'none'}")
    return f"Exits by kind at a share of 100 %. {'; '.join(listed)}."


def _list(counts: Mapping[str, int | None]) -> str:
    return ", ".join(f"{counted(number)} ({name})" for name, number in counts.items())
