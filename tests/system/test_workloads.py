"""The workloads run in the guest and give the answers that other programs give."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from pathlib import Path

import pytest

import guest
from cosim.capture.plugin.source import PluginSource
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, parse_memory
from cosim.machine.qemu import Machine
from cosim.models.counts import EventCounter
from guest import GuestSpec, workloads
from guest.workloads import WORKLOADS, catalog, python_script
from tests.guest import workload_reference as reference

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def made() -> GuestSpec:
    return guest.ensure("workloads", lambda *_: None)


def _config(made: GuestSpec, run: str) -> MachineConfig:
    chosen = workloads.select(made, run)
    return MachineConfig(
        kernel=chosen.kernel,
        initrd=chosen.initrd,
        append=chosen.append,
        memory=parse_memory(chosen.memory),
        cpu=tools.default_cpu(tools.qemu()),
    )


def _boot(made: GuestSpec, folder: Path, *runs: str) -> list[str]:
    """Run the commands in one boot; the lines of the console from /init on."""
    config = _config(made, "; ".join(runs))
    with Machine(tools.qemu().path, config, folder=folder) as machine:
        machine.resume()
        assert machine.wait(55), machine.console.last_line()
        assert machine.end_reason() == "guest-shutdown"
        text = machine.console_log.read_text(errors="replace")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    start = next(i for i, line in enumerate(lines) if "Run /init" in line)
    return lines[start + 1 :]


def _checksums(lines: list[str]) -> dict[str, str]:
    found = (re.fullmatch(r"workload (\S+) ok (\S+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def _sql_output(statements: str) -> str:
    """What the sqlite3 shell prints, from Python's own SQLite."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    rows = [row for statement in statements.split(";\n") for row in database.execute(statement)]
    return "".join("|".join(map(str, row)) + "\n" for row in rows)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def test_stand_ins_agree_with_this_machine(made: GuestSpec, tmp_path: Path) -> None:
    kernels = ("mcf-like", "milc-like", "astar-like")
    benches = ("mprotect-bench", "fork-bench")
    lines = _boot(made, tmp_path, *(f"{n}:test" for n in kernels + benches), "milc-like:test 5 1 1")
    expected = {
        name: reference.native(
            tmp_path, name.replace("-", "_"), *WORKLOADS[name].arguments["test"].split()
        )
        for name in kernels
    }
    pages, operations, share, seed = map(int, WORKLOADS["mprotect-bench"].arguments["test"].split())
    expected["mprotect-bench"] = reference.shuffled_reads(pages, operations, share, seed)
    pages, forks, *_ = map(int, WORKLOADS["fork-bench"].arguments["test"].split())
    expected["fork-bench"] = reference.forks(pages, forks)
    assert _checksums(lines) == {name: line.split()[-1] for name, line in expected.items()}
    # Other arguments, which it refuses: an odd side.
    assert "usage: milc-like SIDE(even) ITERATIONS SEED" in lines
    assert "workload milc-like failed, exit status 2" in lines


def test_programs_agree_with_this_machine(made: GuestSpec, tmp_path: Path) -> None:
    found = _checksums(_boot(made, tmp_path, "sqlite3:test", "xz:test", "python3:test", "cc1:test"))
    inputs = catalog.inputs()
    # The function and main; what the headers declare inline is not used.
    assert re.fullmatch("2-[0-9a-f]{16}", found.pop("cc1"))
    assert found == {
        "sqlite3": _digest(_sql_output(inputs["test.sql"].decode()).encode()),
        "xz": _digest(inputs["test.txt"]),
        "python3": f"{python_script.run(2000):016x}",
    }


def test_stressors_and_server_do_what_they_are_asked(made: GuestSpec, tmp_path: Path) -> None:
    runs = ("redis:test", "stress-fork:test", "stress-vm:test", "redis:test 300 50 10")
    lines = _boot(made, tmp_path, *runs)
    commands = ("get", "hset", "incr", "lpop", "lpush", "set")
    said = [line for line in lines if line.startswith("workload ")]
    assert said == [
        "workload redis ok " + ",".join(f"{command}=500" for command in commands),
        "workload stress-fork ok forks=50",
        "workload stress-vm ok operations=2000",
        # A second server, on the same socket.
        "workload redis ok " + ",".join(f"{command}=300" for command in commands),
    ]


def test_full_size_is_as_large_as_the_catalog_says(made: GuestSpec, tmp_path: Path) -> None:
    lines = _boot(made, tmp_path, "time -v milc-like:full")
    assert "milc-like" in _checksums(lines)
    resident = next(line for line in lines if "Maximum resident set size" in line)
    mebibytes = int(resident.split()[-1]) / 1024
    assert mebibytes == pytest.approx(WORKLOADS["milc-like"].memory["full"], abs=1)


def _region(made: GuestSpec, folder: Path, run: str) -> EventCounter:
    """Events between the marks, as the plugin sees them."""
    config, qemu = _config(made, run), tools.qemu().path
    counter = EventCounter()
    source = PluginSource(
        qemu, memory=config.memory, start="mark:begin", end="mark:end", timeout=200
    )
    with (
        source,
        Machine(
            qemu,
            config,
            folder=folder,
            plugin_arguments=tuple(source.qemu_args()),
            pass_fds=source.pass_fds,
        ) as machine,
    ):
        source.started()
        machine.resume()
        for batch in source.batches():
            counter.feed(batch)
        summary = source.summary
    assert summary is not None
    assert summary.region_ended
    return counter


def test_one_modification_is_two_stores_and_one_fence(made: GuestSpec, tmp_path: Path) -> None:
    """The region of mprotect-bench holds its loop and nothing else."""
    counts = _region(made, tmp_path, "mprotect-bench:test 64 2000 30 1").counts()
    assert counts["fence"] == {"va": 0, "va_asid": 600, "asid": 0, "all": 0}
    assert counts["pte_write"] == 1200
    assert counts["page_fault"] == 0


def test_marks_stand_around_a_program(made: GuestSpec, tmp_path: Path) -> None:
    """From its fork to its exit: a program's own page faults and exec's switch of tables."""
    counts = _region(made, tmp_path, "milc-like:test").counts()
    pages = WORKLOADS["milc-like"].memory["test"] * 256
    faults = counts["page_fault"]
    assert faults is not None
    assert pages / 2 < faults < 4 * pages
    assert counts["satp_write"] >= 2
