"""The command line itself: what it refuses, and who stops listening or interrupts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosim import cli

COSIM = [sys.executable, "-c", "from cosim.start import main; main()"]


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line by which ``cosim WORDS`` is refused."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    return said.err


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--from", "boot"],
        ["run", "--model", "lsp"],
        ["run", "--backend", "mi"],
        ["run", "--step-all"],
        ["run", "--logs", "logs"],
        ["run", "--expect", "a", "--send", "b"],
        ["capture", "-o", "t", "--no-accesses"],
        ["capture", "-o", "t", "--time-limit", "3"],
    ],
)
def test_options_of_one_run_beside_a_file_of_runs(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.toml"
    file.write_text('guest = "micro"\n')
    said = _refused(capsys, *words, str(file))
    option = next(word for word in words if word.startswith("--"))
    assert said == f"cosim: {option} cannot be used with a run file; put it into {file}\n"


def test_a_filter_of_no_accesses(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "capture", "micro", "-o", "t", "--no-accesses", "--filter", "8")
    assert said == "cosim: --filter has no effect with --no-accesses\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "GUEST is missing; name a guest or give --kernel\n"),
        (
            ["run", "micro", "--memory", "1Q"],
            "--memory: '1Q' is not a memory size; write",
        ),
        (["run", "micro", "--model", "lsp,foo"], "--model: no policy is called 'foo'; there are"),
        (
            ["run", "micro", "--backend", "gdb", "--filter", "8"],
            "--filter works only with the gdb+plugin or plugin backend; this run uses gdb",
        ),
        (
            ["capture", "micro", "-o", "t", "--backend", "gdb", "--no-accesses"],
            "--no-accesses works only with the gdb+plugin or plugin backend; this run uses gdb",
        ),
        (
            ["run", "micro", "--backend", "plugin", "--step-all"],
            "--step-all works only with the gdb+plugin or gdb backend; this run uses plugin",
        ),
        (
            ["run", "micro", "--backend", "plugin", "--rsp-log", "x"],
            "--rsp-log works only with the gdb+plugin or gdb backend; this run uses plugin",
        ),
        (["run", "micro", "--gdb", "x"], "--gdb works only with the plugin backend"),
        (
            ["run", "micro", "--backend", "kvm"],
            "--backend is 'kvm'; the backends are gdb+plugin, gdb, plugin",
        ),
        (
            ["check", "nothing"],
            "nothing is neither a folder that `cosim capture -o DIR` wrote nor a",
        ),
        (["check", "micro", "--scenario", "x"], "--scenario: there is no 'x'; scenarios: all, map"),
        (["debug", "micro", "--scenario", "x"], "--scenario: there is no 'x'; scenarios: all, map"),
        (["debug", "linux", "--scenario", "all"], "--scenario works only with the guests micro"),
        (["debug", "--attach", "host"], "--attach names host, which is neither HOST:PORT nor a"),
        (["walk"], "Missing argument 'VA...' (see cosim walk --help)\n"),
        (["run", "micro", "--from", "power-off"], "--from cannot be power-off; only --to can"),
        (["run", "micro", "--to", "boot"], "--to cannot be boot; only --from can"),
        (["run", "micro", "--from", "0x80", "--to", "0x80"], "--to is the same place as --from"),
        (
            ["run", "micro", "--expect", "a"],
            "--expect is given 1 times and --send 0 times; give one --send for each --expect",
        ),
        (
            ["capture", "micro", "-o", "t", "--expect", "a", "--send", "b", "--send", "c"],
            "--expect is given 1 times and --send 2 times",
        ),
        (["run", "micro", "--expect", "[", "--send", ""], "--expect step 1 "),
        (
            ["run", "micro", "--expect", "a", "--send", r"b\q"],
            r"--send has the unknown escape '\\q'; there are \n, \r, \t, \e, \\ and \xHH",
        ),
        (
            ["run", "micro", "--live", "--expect", "a", "--send", "b"],
            "--expect cannot be used together with --live; there you type yourself",
        ),
        (
            ["run", "micro", "--from-snapshot", "nothing.snap"],
            "--from-snapshot ",
        ),
        (["run", "micro", "--time-limit", "0"], "--time-limit is 0.0, not a number of seconds"),
    ],
)
def test_what_is_wrong_is_named_as_it_is_typed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _refused(capsys, *words).startswith(f"cosim: {said}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--workload", "all"],
            "--workload has no effect with --from-snapshot: the guest has booted",
        ),
        (["--append", "a"], "--append has no effect with --from-snapshot: the guest has booted"),
        (["--net", "user"], "--net cannot be used together with --from-snapshot, which does not"),
        (["--smp", "2"], "--smp cannot be used together with --from-snapshot, which does not hold"),
        (["--live"], "--live cannot be used together with --from-snapshot: a snapshot's guest"),
        (
            ["--backend", "plugin", "--gdb", "x"],
            "--gdb cannot be used together with --from-snapshot",
        ),
    ],
)
def test_what_a_snapshot_does_not_go_with(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "guest.snap"
    file.touch()
    given = ["run", "micro", "--from-snapshot", str(file), *words]
    assert _refused(capsys, *given).startswith(f"cosim: {said}")


@pytest.mark.parametrize("place", ["boot", "power-off"])
def test_where_no_snapshot_can_be_made(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "snapshot", "micro", "-o", "micro.snap", "--at", place)
    assert said == f"cosim: --at cannot be {place}: name a place in between\n"


def test_a_folder_of_results_for_a_guest(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "run", "micro", "-o", "there")
    assert said.startswith("cosim: -o works only with a run file; use `cosim capture` to keep a")


@pytest.mark.parametrize("words", [["run", "micro"], ["capture", "micro", "-o", "there"]])
def test_jobs_for_one_guest(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, *words, "--jobs", "2")
    assert said == "cosim: --jobs works only with a run file; name one, such as runs.toml\n"


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosim.commands.many_runs.do_runs", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "runs.toml"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "cosim: interrupted\n"


def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(*words: object, **options: object) -> int:
        raise MemoryError

    monkeypatch.setattr("cosim.commands.many_runs.do_runs", short)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "runs.toml"])
    assert ended.value.code == 3
    assert capsys.readouterr().err == "cosim: out of memory; free some memory\n"


@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
@pytest.mark.parametrize(
    ("words", "statuses"),
    [
        # A run that fails, told of on stderr and in a table.
        (["run", "runs.toml"], {0, 2}),
        (["guest", "list"], {0}),
        (["--help"], {0}),
        # An error is one all the same.
        (["trace", "info", "nowhere"], {2}),
        (["nonsense"], {2}),
    ],
)
def test_nobody_reads(
    words: list[str], statuses: set[int], closed: tuple[str, ...], tmp_path: Path
) -> None:
    """`cosim ... | true`: nothing is said of it, and the status is no finding."""
    (tmp_path / "runs.toml").write_text('guest = "micro"\n')
    reader, writer = os.pipe()
    os.close(reader)
    streams = dict.fromkeys(closed, writer)
    ended = subprocess.run(
        [*COSIM, *words],
        stdout=streams.get("stdout", subprocess.PIPE),
        stderr=streams.get("stderr", subprocess.PIPE),
        env={**os.environ, "COSIM_CACHE": str(tmp_path / "cache")},
        cwd=tmp_path,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert ended.returncode in statuses, ended
    assert "Broken" not in f"{ended.stdout}{ended.stderr}"
    assert "Traceback" not in f"{ended.stdout}{ended.stderr}"


def test_nothing_waits_for_numba_before_a_kernel_is_called() -> None:
    """A guest that is captured runs by then.  Only gdb can import its part of ours."""
    program = (
        "import cosim, guest, hypervisor_model, importlib, pkgutil, sys\n"
        "for package in (hypervisor_model, guest, cosim):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name not in sys.argv:\n"
        "            importlib.import_module(module.name)\n"
        "            assert 'numba' not in sys.modules, module.name\n"
    )
    words = ["hypervisor_model.compiled_forms", "cosim.debug.gdb_part"]
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=120)
