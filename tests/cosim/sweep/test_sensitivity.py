"""Effects, curves, grids, break-even costs and fronts against values computed by hand."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

import pytest

from cosim.sweep import sensitivity
from cosim.sweep.cases import Case, Parameter, parameters, read
from cosim.sweep.sensitivity import counter
from hypervisor_model.costs import CostTable
from hypervisor_model.exits import Exit
from tests.cosim.sweep.made_rows import CACHES, WAYS, counts_of, folder_of, made


@pytest.fixture(name="cases")
def made_cases(tmp_path: Path) -> list[Case]:
    return read(folder_of(tmp_path / "s", list(made())))


def parameter(cases: list[Case], name: str) -> Parameter:
    (found,) = [one for one in parameters(cases) if one.name == name]
    return found


def of(cases: list[Case], policy: str, trace: str = "") -> list[Case]:
    return [one for one in cases if one.policy == policy and trace in ("", one.trace)]


def test_an_effect_is_the_correlation_ratio(cases: list[Case]) -> None:
    # References are a product of 1/ways (2, 4, 8) and of 1 or 1/2, so by hand, over the six cells:
    cells = {(ways, cache): (1 / ways) * (1 - cache / 16) for ways in WAYS for cache in CACHES}
    mean = fmean(cells.values())
    whole = sum((value - mean) ** 2 for value in cells.values())
    by_ways = sum(2 * (0.75 / ways - mean) ** 2 for ways in WAYS)
    by_cache = sum(3 * (fmean(cells[w, c] for w in WAYS) - mean) ** 2 for c in CACHES)
    for policy in ("native", "nested", "lsp"):
        mine, references = of(cases, policy), counter("walk_refs")
        tlb = sensitivity.effect(mine, parameter(cases, "machine.tlb.data"), references)
        cache = sensitivity.effect(mine, parameter(cases, "machine.walk_cache_ways"), references)
        cost = sensitivity.effect(mine, parameter(cases, "costs.exit"), references)
        assert tlb == pytest.approx(by_ways / whole)
        assert cache == pytest.approx(by_cache / whole)
        assert cost == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("other", [(1.0, 1.0), (8.0, 2.0)], ids=["does not move", "moves down"])
def test_each_trace_has_its_own_means(other: tuple[float, float], tmp_path: Path) -> None:
    by_trace = {"small": (1.0, 3.0), "large": other}
    rows = [
        {**row, "exits": by_trace[row["trace"]][row["walk_cache_ways"] // 8]}
        for row in made()
        if row["policy"] == "lsp"
    ]
    cases = read(folder_of(tmp_path / "s", rows))
    cache = parameter(cases, "machine.walk_cache_ways")
    tlb = parameter(cases, "machine.tlb.data")
    assert sensitivity.effect(cases, cache, counter("exits")) == pytest.approx(1)
    assert sensitivity.effect(cases, tlb, counter("exits")) == pytest.approx(0, abs=1e-12)


def test_what_never_differs_has_no_effect(cases: list[Case]) -> None:
    tlb = parameter(cases, "machine.tlb.data")
    assert sensitivity.effect(of(cases, "lsp"), tlb, counter("exits")) is None
    assert sensitivity.effect(of(cases, "native"), tlb, counter("exits")) is None


def test_a_curve_compares_only_what_is_known_at_every_value(tmp_path: Path) -> None:
    rows = list(made())
    for row in rows:
        if row["tlb_data_ways"] == 2 and row["walk_cache_ways"] == 8:
            row["walk_refs"] = None
    cases = read(folder_of(tmp_path / "s", rows))
    tlb = parameter(cases, "machine.tlb.data")
    points = sensitivity.curve(of(cases, "lsp", "small"), tlb, counter("walk_refs"))
    # Without the cache every value is known; with it one is missing, so none of it counts.
    assert [y for _, y in points] == [counts_of("lsp", 10, ways, 0)[1] for ways in WAYS]


def test_a_curve_of_nothing_known_has_gaps(tmp_path: Path) -> None:
    rows = [{**row, "tlb_misses": None} for row in made()]
    cases = read(folder_of(tmp_path / "s", rows))
    tlb = parameter(cases, "machine.tlb.data")
    points = sensitivity.curve(of(cases, "lsp", "small"), tlb, counter("tlb_misses"))
    assert [y for _, y in points] == [None, None, None]


def test_a_grid_has_the_mean_of_each_pair(cases: list[Case]) -> None:
    tlb, cache = (parameter(cases, f"machine.{name}") for name in ("tlb.data", "walk_cache_ways"))
    grid = sensitivity.grid(of(cases, "nested", "large"), tlb, cache, counter("walk_refs"))
    assert {(int(y.number or 0) // 64, x.number): value for (y, x), value in grid.items()} == {
        (ways, way): counts_of("nested", 1000, ways, way)[1] for ways in WAYS for way in CACHES
    }


def test_the_break_even_cost_is_where_both_cost_the_same(cases: list[Case]) -> None:
    duels = sensitivity.duels(cases, "lsp", "nested", "large")
    assert len(duels) == 6  # The cost of an exit plays no part.
    handling = 30 * 1000 * CostTable().handling[Exit.SATP_WRITE]
    for duel in duels:
        ways = int(duel.settings["machine.tlb.data"].number or 0) // 64
        cache = int(duel.settings["machine.walk_cache_ways"].number or 0)
        mine, theirs = (counts_of(name, 1000, ways, cache)[1] for name in ("lsp", "nested"))
        saved = 20 * (theirs - mine) - handling
        if saved >= 0:
            assert duel.cost == pytest.approx(saved / (30 * 1000))
        else:
            assert (duel.cost, duel.cheaper) == (None, "nested")
    known = [duel.cost for duel in duels if duel.cost is not None]
    assert known
    assert sensitivity.break_even_at(duels) == ("", median(known))


def test_policies_that_never_exit_have_no_break_even_cost(cases: list[Case]) -> None:
    cheap = [one for one in cases if one.policy == "native"]
    again = [Case(c.trace, "twin", c.settings, c.counts, c.document, c.costs) for c in cheap]
    duels = sensitivity.duels([*cheap, *again], "native", "twin", "small")
    assert [(duel.cost, duel.cheaper) for duel in duels] == [(None, None)] * 6
    assert sensitivity.break_even_at(duels) == ("none", None)


def test_the_front_holds_what_nothing_beats(cases: list[Case]) -> None:
    exits, references = counter("exits"), counter("walk_refs")
    rivals = [one for one in cases if one.trace == "large" and one.policy != "native"]
    front = sensitivity.front(rivals, exits, references)
    # The cost of an exit changes neither count, so two configurations are equal.
    assert [[one.policy for one in equal] for equal in front] == [["nested"] * 2, ["lsp"] * 2]
    for one, _ in front:
        a = one.counts
        beaten = [
            other
            for other in rivals
            if other.counts["exits"] <= a["exits"]  # type: ignore[operator]
            and other.counts["walk_refs"] < a["walk_refs"]  # type: ignore[operator]
        ]
        assert not beaten
