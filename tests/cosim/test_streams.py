"""Standard streams that are closed, full or gone: the exit status still means what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COSIM = [sys.executable, "-c", "from cosim.start import main; main()"]
FINE, USAGE, ENVIRONMENT = ["guest", "list"], ["nonsense"], ["trace", "info", "nowhere"]


def _run(words: list[str], redirections: str, cache: Path) -> tuple[int, str, str]:
    """What ``cosim WORDS REDIRECTIONS`` gives in a shell: status, stdout, stderr."""
    ended = subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *COSIM, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COSIM_CACHE": str(cache)},
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full"])
@pytest.mark.parametrize(("words", "status"), [(FINE, 0), (USAGE, 2), (ENVIRONMENT, 2)])
def test_closed_streams_and_lost_messages(
    words: list[str], status: int, redirection: str, tmp_path: Path
) -> None:
    ended, out, said = _run(words, redirection, tmp_path)
    assert ended == status
    assert "Traceback" not in out + said
    assert bool(said) == (status == 2 and "2>" not in redirection)
    assert bool(out) == (status == 0 and ">&- 2" not in redirection and redirection != ">&-")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["guest", "list"]])
def test_a_result_that_cannot_be_written(words: list[str], tmp_path: Path) -> None:
    status, _, said = _run(words, ">/dev/full", tmp_path)
    assert status == 3
    assert said == (
        "cosim: [Errno 28] No space left on device; free space, or check the permissions\n"
    )
    assert _run(words, ">/dev/full 2>/dev/full", tmp_path)[0] == 3


@pytest.mark.parametrize(("words", "status"), [(FINE, 0), (USAGE, 2)])
def test_a_terminal_that_has_gone_takes_only_messages_along(
    words: list[str], status: int, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    os.close(ours)
    ended = subprocess.run(
        [*COSIM, *words],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=False,
        env={**os.environ, "COSIM_CACHE": str(tmp_path)},
    )
    os.close(theirs)
    assert ended.returncode == status
    assert bool(ended.stdout) == (status == 0)


def test_a_terminal_that_has_gone_with_the_result(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    os.close(ours)
    ended = subprocess.run(
        [*COSIM, *FINE],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COSIM_CACHE": str(tmp_path)},
    )
    os.close(theirs)
    assert ended.returncode == 3
    assert ended.stderr == (
        "cosim: [Errno 5] Input/output error; a terminal has gone, or a disk is damaged\n"
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_file_gets_the_number_of_a_closed_stream(number: int, tmp_path: Path) -> None:
    program = (
        "from cosim import streams; import os, sys; streams.prepare();"
        f"assert os.path.samestat(os.fstat({number}), os.stat('/dev/null'));"
        "assert os.open('/', os.O_RDONLY) > 2;"
        "assert None not in (sys.stdin, sys.stdout, sys.stderr)"
    )
    direction = "<" if number == 0 else str(number) + ">"
    words = ["sh", "-c", f'"$@" {direction}&-', "sh", sys.executable, "-c", program]
    subprocess.run(words, check=True, timeout=60)


def test_a_name_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    name = b"bad\xff.elf"
    walk = ["--base", "0x80000000", "--satp", "0", "0"]
    every: list[list[str | bytes]] = [
        ["run", "--kernel", name],
        ["trace", "info", name],
        ["walk", "--ram", name, *walk],
    ]
    for words in every:
        ended = subprocess.run(
            [*COSIM, *words],
            capture_output=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert ended.returncode == 2
        assert b"Traceback" not in ended.stderr
        assert rb"bad\xff.elf" in ended.stderr, ended.stderr
