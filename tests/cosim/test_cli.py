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
    assert (
        said == f"cosim: {option} is for a guest; what the runs of {file} do stands in the file\n"
    )


def test_a_filter_of_no_accesses(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "capture", "micro", "-o", "t", "--no-accesses", "--filter", "8")
    assert said == "cosim: --filter is of accesses, and this run captures none\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "GUEST is missing: name a guest"),
        (["run", "micro", "--filter", "8"], "--filter is for the plugin"),
        (["capture", "micro", "-o", "t", "--step", "2", "--no-accesses"], "--no-accesses is for"),
        (["run", "micro", "--to", "boot"], "--to is boot, which only from can be"),
        (["run", "micro", "--time-limit", "0"], "--time-limit is 0.0, not a number of seconds"),
    ],
)
def test_what_is_wrong_is_named_as_it_is_typed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _refused(capsys, *words).startswith(f"cosim: {said}")


def test_a_folder_of_results_for_a_guest(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "run", "micro", "-o", "there")
    assert said.startswith("cosim: -o is for the results of a run file; `cosim capture` keeps a")


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosim.commands.batch.run_file", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "runs.toml"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "cosim: interrupted\n"


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
