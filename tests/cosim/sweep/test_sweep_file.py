"""Sweep files: what they ask for, and what is refused with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosim.errors import RunFileError
from cosim.paths import SOURCE
from cosim.session.backends import BACKENDS, FOR_CAPTURE
from cosim.sweep import sweep_file
from cosim.sweep.sweep_file import SweepFile
from cosim.trace.writer import TraceWriter
from tests.cosim.streams import ENDING, ORIGIN

TRACE = '[sweep.traces]\nt = "t"\n'


def load(tmp_path: Path, text: str) -> SweepFile:
    path = tmp_path / "s.toml"
    path.write_text(text)
    return sweep_file.load(path, BACKENDS, FOR_CAPTURE)


def test_a_matrix_gives_every_combination_once(tmp_path: Path) -> None:
    asked = load(
        tmp_path,
        f"""
[sweep]
models = ["native", "shadow", "shadow:roots=1"]
{TRACE}
[sweep.machine]
tlb.superpages = true
[sweep.matrix]
machine.tlb.data = [[16, 2], [64, 2]]
costs.exit = [500, 1000]
""",
    )
    found = asked.configurations
    assert len(found) == 3 * 2 * 2
    assert found[0].model == "native"
    assert found[0].machine == {"tlb": {"superpages": True, "data": [16, 2]}}
    assert [one.costs["exit"] for one in found[:2]] == [500, 1000]
    assert len({one.replayed for one in found}) == 3 * 2
    assert asked.traces == {"t": str(tmp_path / "t")}
    assert asked.varied == ("machine.tlb.data", "costs.exit")
    assert asked.captures is None and asked.names == ["t"]


def test_options_vary_only_their_own_policy(tmp_path: Path) -> None:
    asked = load(
        tmp_path,
        f"""
[sweep]
models = ["native", "shadow", "lsp:fast_path=off"]
{TRACE}
[sweep.matrix]
options.shadow.roots = [1, "all"]
options.lsp.fence_global = ["drop"]
""",
    )
    assert [one.policy for one in asked.configurations] == ["native", "shadow", "shadow", "lsp"]
    assert asked.configurations[1].options["roots"] == "1"
    assert asked.configurations[3].options["fast_path"] == "off"
    assert asked.configurations[3].options["fence_global"] == "drop"


def test_equal_configurations_are_one(tmp_path: Path) -> None:
    """However they are written: `all` is the default of roots."""
    asked = load(tmp_path, f'[sweep]\nmodels = ["shadow", "shadow:roots=all"]\n{TRACE}')
    assert len(asked.configurations) == 1


def test_equal_tables_are_one_object(tmp_path: Path) -> None:
    """A sweep may have 200,000 configurations, and few cost tables."""
    asked = load(
        tmp_path,
        f"""
[sweep]
models = ["native", "shadow"]
{TRACE}
[sweep.matrix]
machine.footprint_data = [1, 2, 3]
costs.exit = [500, 1000]
""",
    )
    found = asked.configurations
    assert len(found) == 12
    assert len({id(one.costs) for one in found}) == 2
    assert len({id(one.machine) for one in found}) == 3


def test_tables_as_values_set_several_keys(tmp_path: Path) -> None:
    asked = load(
        tmp_path,
        f"""
[sweep]
models = ["native"]
{TRACE}
[sweep.matrix]
machine = [{{setup = "base"}}, {{tlb = {{data = [8, 4]}}, gstage_page = 2097152}}]
costs = [{{name = "mine", exit = 1, handling = {{fence = 7}}}}]
""",
    )
    assert [one.machine for one in asked.configurations] == [
        {"setup": "base"},
        {"tlb": {"data": [8, 4]}, "gstage_page": 2097152},
    ]
    costs = asked.configurations[0].costs
    assert (costs["name"], costs["exit"], costs["handling"]["fence"]) == ("mine", 1, 7)
    assert costs["handling"]["pt_write"] == 600


MACHINES = f"""
[sweep]
models = ["native"]
{TRACE}
[sweep.matrix]
"""


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (
            'machine.tlb.second = ["none", "128x8"]\nmachine.tlb.fetch = ["none"]',
            [{"second": None, "fetch": None}, {"second": [128, 8], "fetch": None}],
        ),
        ('machine.tlb = [{data = "64x2", superpages = "yes"}]', [{"data": [64, 2]}]),
    ],
)
def test_tlbs_are_written_as_on_the_command_line(
    tmp_path: Path, texts: str, values: list[dict[str, object]]
) -> None:
    asked = load(tmp_path, MACHINES + texts)
    found = [one.machine["tlb"] for one in asked.configurations]
    assert [{key: one[key] for key in value} for one, value in zip(found, values, strict=True)] == (
        values
    )


def test_a_value_written_in_another_way_is_the_same_configuration(tmp_path: Path) -> None:
    asked = load(
        tmp_path,
        f"""{MACHINES}machine.tlb.second = ["128x8", [128, 8]]
machine.gstage_page = ["4K", 4096]
""",
    )
    (one,) = asked.configurations
    assert one.machine == {"tlb": {"second": [128, 8]}, "gstage_page": 4096}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            "machine.tlb.data = [[64, 2]]\nmachine.tlb.second = [[0, 0]]",
            ":9: sweep.matrix.machine.tlb.second: machine: tlb: a TLB of 0 sets",
        ),
        (
            "machine.tlb.second = [false]",
            'tlb.second cannot be False, it is [SETS, WAYS] or "SETSxWAYS" or "none"',
        ),
        ('machine.tlb.data = ["none"]', "data cannot be 'none', it is [SETS, WAYS] or \"SETSxWAYS"),
        (
            'machine.gstage_page = ["4k"]',
            ":8: sweep.matrix.machine.gstage_page: machine: gstage_page cannot be '4k', it is 4K",
        ),
        ('machine.gstage_mode = ["sv32"]', "cannot be 'sv32', it is sv39, sv48 or sv57"),
    ],
)
def test_what_no_machine_can_be_says_what_it_can(tmp_path: Path, texts: str, said: str) -> None:
    with pytest.raises(RunFileError) as found:
        load(tmp_path, MACHINES + texts)
    assert said in str(found.value)


def test_what_is_captured_is_a_run_file(tmp_path: Path) -> None:
    asked = load(
        tmp_path,
        """
output = "there"
accesses = true
[[run]]
name = "a"
guest = "micro"
[matrix]
append = ["x", "y"]
[sweep]
models = ["native"]
""",
    )
    assert asked.captures is not None
    assert [spec.append for spec in asked.captures.runs] == ["x", "y"]
    assert asked.names == ["a-append=x", "a-append=y"]
    assert asked.output == Path("there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('guest = "micro"', "sweep: must be a table [sweep]"),
        ('[sweep]\nmodels = ["native"]', ":1: sweep: nothing to replay: give a [[run]] (or guest)"),
        ('accesses = true\n[sweep]\nmodels = ["native"]', ":2: sweep: nothing to replay"),
        (
            'acesses = true\n[sweep]\nmodels = ["native"]',
            "machine, output, run, matrix, sweep, cluster",
        ),
        (
            f'[sweep]\nmodels = ["shadow"]\n{TRACE}[sweep.matrix]\noptions.shadow.rots = [1]',
            ":6: sweep.matrix.options.shadow.rots: policy shadow has no option 'rots'; it knows",
        ),
        (
            f'[sweep]\nmodels = ["native", "lsp:fast_path=off"]\n{TRACE}[sweep.matrix]\n'
            "options.lsp.fast_path = [true]",
            ":6: sweep.matrix.options.lsp.fast_path: sweep.models[1] sets fast_path already; the",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\ncosts.exit = []',
            ":6: sweep.matrix.costs.exit: is empty; give one value at least",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nmachine.walk_cache_ways = 4',
            "is 4, not a list of values; write [4], or put it into [sweep.machine]",
        ),
        (
            f'[sweep]\nmodels = ["lsp"]\n{TRACE}[sweep.matrix]\noptions.lsp.fast_path = true',
            "is True, not a list of values; write [true]",
        ),
        ("[sweep]\nmodels = []\n" + TRACE, "sweep.models: must be a list of models"),
        ('[sweep]\nmodels = ["nativ"]\n' + TRACE, ":2: sweep.models[0]: no policy is called"),
        ('[sweep]\nmodels = ["shadow:root=1"]\n' + TRACE, ":2: sweep.models[0]: policy shadow has"),
        ('[sweep]\nmodel = ["native"]\n' + TRACE, ":2: sweep.model: unknown key"),
        ('[sweep]\nmodels = ["native"]\nper_task = 0\n' + TRACE, ":3: sweep.per_task"),
        ('models = ["native"]\nguest="micro"\n[sweep]\nmodels = ["lsp"]', ":1: models: belongs in"),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nmachine.tlb.data = [[0, 2]]',
            ":6: sweep.matrix.machine.tlb.data: machine: tlb: a TLB of 0 sets",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nmachine.ram_size = [4096]',
            ":6: sweep.matrix.machine.ram_size: unknown key",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\ncosts.exti = [1]',
            ":6: sweep.matrix.costs.exti: costs: unknown cost 'exti'",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\ncosts.exit = [1, -1]',
            ":6: sweep.matrix.costs.exit: costs: exit cannot be -1",
        ),
        (
            f'[sweep]\nmodels = ["shadow"]\n{TRACE}[sweep.matrix]\noptions.shadow.roots = [0]',
            ":6: sweep.matrix.options.shadow.roots: policy shadow: roots is",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\noptions.shadow.roots = [1]',
            ":6: sweep.matrix.options.shadow.roots: no model of the sweep is shadow",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nsetup = ["h"]',
            ":6: sweep.matrix.setup: unknown key; a matrix varies machine, costs, options",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\n'
            f"machine.footprint_data = {list(range(500))}\n"
            f"machine.footprint_code = {list(range(500))}",
            ":5: sweep.matrix: gives more than 200,000 rows",
        ),
        ('[sweep]\nmodels = ["native"]\n[sweep.traces]\n"a b" = "t"', ":4: sweep.traces.a b"),
        (
            '[[run]]\nname = "t"\nguest = "micro"\n[sweep]\nmodels = ["native"]\n' + TRACE,
            ":7: sweep.traces.t: a capture has this name, too",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RunFileError) as found:
        load(tmp_path, text)
    assert said in str(found.value)


def test_a_trace_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    asked = load(tmp_path, f'[sweep]\nmodels = ["native"]\n{TRACE}')
    with pytest.raises(RunFileError, match=r"s.toml:4: sweep.traces.t: /.*/t: no such folder$"):
        asked.check_traces()
    with TraceWriter(tmp_path / "t" / "trace", ORIGIN) as writer:
        writer.close(ENDING)
    with pytest.raises(RunFileError, match=r"the trace of this capture is /.*/t/trace$"):
        asked.check_traces()
    load(tmp_path, '[sweep]\nmodels = ["native"]\n[sweep.traces]\nt = "t/trace"').check_traces()


def test_the_example_has_at_least_500_configurations_of_two_traces() -> None:
    asked = sweep_file.load(SOURCE / "scripts" / "runs" / "sweep.toml", BACKENDS, FOR_CAPTURE)
    assert len(asked.configurations) >= 500
    assert asked.names == ["micro", "linux"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('matrix = 5\n[sweep]\nmodels = ["native"]\n' + TRACE, "1: matrix: must be a table"),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.machine]\ntlb = 5\n'
            "[sweep.matrix]\nmachine.tlb.data = [[16, 2]]\n",
            "6: sweep.machine.tlb: is 5, not a table",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nmachine = [1]\n',
            "6: sweep.matrix.machine: is 1, not a table",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\ncosts = [{{exit = 1}}, 7]\n',
            "6: sweep.matrix.costs: is 7, not a table",
        ),
        (
            f'[sweep]\nmodels = ["native"]\n{TRACE}[sweep.matrix]\nx{".a" * 3000} = [1]\n',
            "its tables or arrays are nested too deep",
        ),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RunFileError, match=re.escape(said)):
        load(tmp_path, text)
