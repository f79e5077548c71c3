"""Linux's processes by name: what the guest's own ``ps`` says, and which programs ran when."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import guest
from cosim.models import model_options
from cosim.report import from_profile
from cosim.run.plan import resolve
from cosim.run.run_spec import RunSpec
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import execute, load_models
from cosim.trace import query
from cosim.trace.reader import TraceReader
from cosim.trace.replay import replay

pytestmark = pytest.mark.system

# Two that wait beside the shell, one after another two that end, and one that execs twice.
WORKLOAD = (
    "sleep 60 & sleep 61 & ls / > /dev/null; cat /proc/version > /dev/null; "
    "sh -c 'exec env true'; ps -o pid,comm; true"
)


def test_processes_are_those_of_ps(tmp_path: Path) -> None:
    guest.ensure("linux", lambda *_: None)
    backend = Plugin(accesses=False)
    spec = RunSpec(name="names", guest="linux", workload=WORKLOAD, backend=backend, models=("lsp",))
    plan = resolve(spec)
    outcome = execute(plan, tmp_path, load_models(plan), trace=tmp_path / "t")
    assert outcome.error is None and outcome.document is not None
    (log,) = tmp_path.glob("*.console.log")
    lines = log.read_text().splitlines()
    listed = {
        int(one[1]): one[2] for line in lines if (one := re.match(r" *(\d+) (\S+)\r?$", line))
    }
    trace = TraceReader(tmp_path / "t")
    assert trace.origin.nameless is None

    named = {(one.pid, one.name) for one in trace.processes.values()}
    pids = {pid for pid, _ in named}
    sleeping = [pid for pid, name in listed.items() if name == "sleep"]
    assert len(sleeping) == 2 and {*sleeping, 1} <= pids
    # Whatever ps saw of those that ran in the region has the same name here.
    seen = {(pid, name) for pid, name in listed.items() if pid in pids}
    assert seen - named == set() and len(seen) >= 5
    # Those that had ended before ps was there.
    assert {"ls", "cat", "true", "init"} <= {name for _, name in named}

    # A live run and a replay say the same, and every way to ask knows the names.
    again = replay(
        trace, model_options.make_pipeline(trace.origin, ("lsp",)), lambda *_, **__: None
    )
    assert again["profile"] == outcome.document["profile"]
    causes = outcome.document["profile"]["causes"]
    of_user = [row for row in causes["spaces"] if row["user"]]
    assert of_user and all(row["process"] for row in of_user)
    table = from_profile.table(causes, "exits", "spaces")
    assert table is not None
    shown = {str(row[0].text) for row in table.rows}
    assert any(re.match(rf"sleep \(pid {sleeping[0]}\), root 0x", text) for text in shown)
    sql = "SELECT DISTINCT pid, process FROM satp_writes WHERE process IS NOT NULL"
    assert {(pid, name) for pid, name in query.run(trace, sql).rows} == named
