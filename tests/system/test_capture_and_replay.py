"""Traces of real guests: a replay is the live run, a killed capture is a cut trace, run files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import guest
from cosim.capture.plugin.limits import FILTER_SLOTS
from cosim.machine import tools
from cosim.models.model_options import DEFAULT_MODELS
from cosim.run import run_file
from cosim.session.backends import BACKENDS, FOR_RUN
from cosim.trace.manifest import NAME
from cosim.trace.reader import TraceReader, verify

pytestmark = [pytest.mark.system, pytest.mark.long]

COSIM = Path(sys.executable).with_name("cosim")
RUNS = Path(__file__).parents[2] / "scripts" / "runs"
MODELS = "native,nested,shadow,lsp"


def cosim(*arguments: str | Path, status: int = 0) -> Any:
    """What `cosim` with --json prints; its exit status must be ``status``."""
    done = subprocess.run(
        [COSIM, *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["micro", "linux"])
def test_replay_agrees_with_the_run(tmp_path: Path, name: str) -> None:
    guest.ensure(name, lambda *_: None)
    live = cosim("run", name, "--backend", "plugin", "--model", MODELS)
    captured = cosim("capture", name, "-o", tmp_path / "t")
    assert captured["events"] == live["events"]
    replayed = cosim("replay", tmp_path / "t", "--model", MODELS)
    assert replayed == live
    assert live["events"]["pte_write"] > 100
    assert live["policies"]["shadow"]["exits"]["total"] > 0
    assert live["policies"]["nested"]["walk_refs"]["g"] > 0
    assert verify(tmp_path / "t") == []


def test_a_trace_says_what_it_is_of(tmp_path: Path) -> None:
    made = guest.ensure("micro", lambda *_: None)
    digest = hashlib.sha256(made.kernel.read_bytes()).hexdigest()
    workload = "scenario=lsp-bench pages=16 ops=60 share=50"
    firmware = tools.firmware(tools.qemu())
    assert firmware is not None
    asked: list[tuple[list[str | Path], Path | None]] = [
        (["micro", "--workload", workload, "--filter", "16"], None),
        (["--kernel", made.kernel, "--append", workload, "--bios", firmware], firmware),
    ]
    for number, (words, bios) in enumerate(asked):
        trace = tmp_path / str(number)
        cosim("capture", *words, "-o", trace)
        origin = cosim("trace", "info", trace)["origin"]
        assert origin["guest"]["sha256"] == {
            "kernel": digest,
            "initrd": None,
            "bios": bios and hashlib.sha256(bios.read_bytes()).hexdigest(),
        }
        line = origin["guest"]["arguments"]
        assert line[line.index("-kernel") + 1] == str(made.kernel)
        assert line[line.index("-append") + 1] == workload
        assert ("-bios" in line) is (bios is not None)
        assert "shift=0,sleep=off,rr=record,rrfile=recording.bin" in line
        assert origin["stream"]["filter"] == (16 if number == 0 else FILTER_SLOTS)


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in threads for child in path.read_text().split()]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _until(true: Any, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def test_a_capture_that_is_killed_leaves_a_cut_trace(tmp_path: Path) -> None:
    guest.ensure("micro", lambda *_: None)
    folder = tmp_path / "t"
    workload = "scenario=lsp-bench pages=1024 ops=5000000 share=50"
    process = subprocess.Popen(
        [
            *(COSIM, "capture", "micro", "--workload", workload, "-o", folder),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children: list[int] = []
    try:

        def a_segment() -> bool:
            assert process.poll() is None, "the capture ended before it could be killed"
            # The first one counts once the manifest has it, and so before the second is there.
            return len(list(folder.glob("events-*.parquet"))) >= 2

        _until(a_segment, 50)
        children = _children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert children
    _until(lambda: all(map(_gone, children)), 10)
    trace = TraceReader(folder)
    assert trace.cut is not None
    assert trace.events == sum(len(batch) for batch in trace.batches()) > 0
    assert any("the trace is cut" in finding for finding in verify(folder))
    result = cosim("replay", folder, "--model", "native")
    assert result["complete"] is False
    assert result["events"]["total"] == trace.events


def test_the_runs_of_a_file(tmp_path: Path) -> None:
    guest.ensure("micro", lambda *_: None)
    file = tmp_path / "runs.toml"
    file.write_text(
        """
guest = "micro"
backend = "plugin"
models = ["shadow", "lsp"]
time_limit = 50
[[run]]
name = "small"
[run.matrix]
workload = ["scenario=lsp-bench pages=16 ops=200 share=100", "scenario=asid"]
[[run]]
name = "never"
from = "mark:nowhere"
"""
    )
    output = tmp_path / "results"
    first = cosim("capture", file, "-o", output, status=3)
    names = [run["name"] for run in first["runs"]]
    assert [run["status"] for run in first["runs"]] == ["done", "done", "failed"]
    assert "mark:nowhere" in first["runs"][2]["error"]
    for name in names[:2]:
        live = json.loads((output / name / "result.json").read_text())
        replayed = cosim("replay", output / name / "trace", "--model", "shadow,lsp")
        assert replayed == live
    traces = [output / name / "trace" / NAME for name in names[:2]]
    stamps = [trace.stat().st_mtime_ns for trace in traces]
    second = cosim("capture", file, "-o", output, status=3)
    assert [run["earlier"] for run in second["runs"]] == [True, True, False]
    assert stamps == [trace.stat().st_mtime_ns for trace in traces]


# tests/cosim/sweep reads the sweep file.
_RUN_FILES = [path for path in sorted(RUNS.glob("*.toml")) if path.stem != "sweep"]


@pytest.mark.parametrize("example", _RUN_FILES, ids=lambda path: path.stem)
def test_the_examples(tmp_path: Path, example: Path) -> None:
    """Every shipped file, by the command at its head; what its guests run is made shorter."""
    text = example.read_text()
    head = re.search(r"^#   cosim (run|capture) scripts/runs/", text, re.MULTILINE)
    assert head is not None
    if "cosim.shell" not in text:
        text = text.replace('guest = "linux"', 'guest = "linux"\nworkload = "true"')
    file = tmp_path / example.name
    file.write_text(text)
    specs = run_file.load(file, BACKENDS, FOR_RUN).runs
    for name in {spec.guest for spec in specs if spec.guest is not None}:
        guest.ensure(name, lambda *_: None)
    output = tmp_path / "results"
    done = cosim(head[1], file, "-o", output)["runs"]
    assert [(run["name"], run["error"]) for run in done] == [(spec.name, None) for spec in specs]
    for spec in specs:
        folder = output / spec.name
        result = json.loads((folder / "result.json").read_text())
        assert (result["complete"], result["backend"]) == (True, spec.backend.name)
        assert set(result["policies"]) == set(spec.models or DEFAULT_MODELS)
        assert result["events"]["pte_write"] > 100
        assert result["audit"]["missed_writes"] == 0
        assert result["machine"]["setup"] == spec.machine.get("setup", "h")
        second = spec.machine.get("tlb", {}).get("second", [128, 8])
        assert result["machine"]["tlb"]["second"] == second
        assert spec.cpu in (None, result["guest"]["cpu"])
        if spec.trace or head[1] == "capture":
            assert verify(folder / "trace") == []
        else:
            assert not (folder / "trace").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('from = "nosuchsymbol"', "the guest has no symbol nosuchsymbol"),
        ('to = "console:("', "not a regular expression"),
        ('cpu = "nosuchcpu"', "QEMU refuses -cpu nosuchcpu: unable to find CPU model"),
        ('memory = "1K"', "ram_size 0x400 is no number of 4 KiB pages"),
        ('models = ["shdow"]', "no policy is called 'shdow'"),
        (f'workload = "{"x" * 2000}"', "makes the guest's command line 2000 bytes long"),
    ],
)
def test_a_wrong_run_keeps_all_from_starting(tmp_path: Path, line: str, said: str) -> None:
    guest.ensure("micro", lambda *_: None)
    file = tmp_path / "runs.toml"
    file.write_text(f'guest = "micro"\n[[run]]\nname = "right"\n[[run]]\nname = "wrong"\n{line}\n')
    words: list[str | Path] = [COSIM, "run", file, "-o", tmp_path / "results"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cosim: {file}:6: run[1].{line.partition(' ')[0]}: ")
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("backend", ["plugin", "gdb"])
def test_a_dialogue_with_a_recorded_guest(tmp_path: Path, backend: str) -> None:
    """The shipped example: what is typed arrives whole, though the guest is being recorded."""
    guest.ensure("linux", lambda *_: None)
    example = (RUNS / "console.toml").read_text()
    file = tmp_path / "console.toml"
    file.write_text(example.replace('backend = "plugin"', f'backend = "{backend}"'))
    done = cosim("run", file, "-o", tmp_path / "results")
    assert [run["error"] for run in done["runs"]] == [None]
    log = "plugin.console.log" if backend == "plugin" else "record.console.log"
    text = (tmp_path / "results" / "console" / log).read_text(errors="replace")
    assert "mount | sort | head -n 3" in text
    assert " on /proc type proc" in text
    result = json.loads((tmp_path / "results" / "console" / "result.json").read_text())
    assert result["complete"] is True
    assert result["events"]["pte_write"] > 100
