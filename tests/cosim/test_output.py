"""Text from outside on the terminal, and streams that cannot be written."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from cosim import cli, output
from cosim.errors import StorageError
from cosim.report.content import Cell, Listing, Notes, Paragraphs, Report, Section
from cosim.report.content import Table as Rows
from cosim.report.renderers import terminal
from cosim.session import live_terminal
from cosim.session.protocol import Progress
from cosim.session.view import line

COSIM = [sys.executable, "-c", "from cosim.start import main; main()"]
TITLE = "\x1b]0;owned\x07"
"""Sets a terminal's title."""
TROUBLE = [
    ("[/~] # ", "[/~] # "),
    ("[a-z]+", "[a-z]+"),
    ("[bold]x[/bold]", "[bold]x[/bold]"),
    ("[/x]", "[/x]"),
    (":smile:", ":smile:"),
    (TITLE, "\\x1b]0;owned\\x07"),
    ("a\tb\rc", "a\\tb\\rc"),
    ("\x9b2J", "\\x9b2J"),
    ("name\nforged", "name\\nforged"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    (os.fsdecode(b"bad\xff.elf"), "bad\\xff.elf"),
    ("\ud800", "\\ud800"),
    ("größe ≥ 漢字", "größe ≥ 漢字"),
]


@pytest.mark.parametrize(("text", "shown"), TROUBLE)
def test_notes_and_tables_show_text_as_it_is(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.note(text)
    assert capsys.readouterr().err == f"{shown}\n"
    table = Table(text, title=text, box=None)
    table.add_row(text)
    output.print_table(table)
    lines = [row.strip() for row in capsys.readouterr().out.splitlines()]
    assert lines == [shown.strip()] * 3
    output.print_line(text)
    assert capsys.readouterr().out == f"{shown}\n"


@pytest.mark.parametrize(("text", "shown"), TROUBLE)
def test_reports_show_text_as_it_is(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (Paragraphs(text, text), Listing(text), Notes((text,)), Rows("", ("", ""), _row(text)))
    shown_table = Rows(text, (text, text), _row(text))
    report = Report(text, text, (Section("s", text, (*parts, shown_table)),), (text,), parts)
    output.print_table(terminal.render(report, everything=True))
    out = capsys.readouterr().out
    assert out.count(shown.strip().replace("\\n", "\n")) + out.count(shown.strip()) >= 10
    assert not _acted_on(out)


def _row(text: str) -> tuple[tuple[Cell, ...], ...]:
    return ((Cell(text), Cell(text)),)


def _acted_on(text: str) -> set[str]:
    """What a terminal would act on, found without the tool's own list."""
    return {
        one
        for one in text
        if one != "\n"
        and (unicodedata.category(one) in ("Cc", "Cs") or unicodedata.bidirectional(one) in _ORDER)
    }


_ORDER = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text())
def test_no_text_is_parsed_or_reaches_the_terminal_raw(text: str) -> None:
    written = _printed(text)
    assert not _acted_on(written)
    # Nothing but control characters changes.
    assert re.sub(r"\s", "", written) == re.sub(r"\s", "", output.one_line(text))
    harmless = "".join(one for one in text if not _acted_on(one) and one not in "\n\u2028\u2029")
    assert output.one_line(harmless) == re.sub("[\u061c\u200e\u200f]", _escaped, harmless)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _printed(text: str) -> str:
    file = io.StringIO()
    console = output._Console(file=file, soft_wrap=True)
    console.print(text)
    return file.getvalue()


@given(st.text())
def test_a_text_that_someone_forgot_is_stopped_at_the_console(text: str) -> None:
    file = io.StringIO()
    output._Console(file=file, width=80).print(Text(text))
    assert not _acted_on(file.getvalue())


def test_columns_are_as_wide_as_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ((Cell(TITLE), Cell("1", 1)), (Cell("plain"), Cell("2", 2)))
    section = Section("s", "s", (Rows("", ("", "n"), rows),))
    output.print_table(terminal.render(Report("t", "t", (section,))))
    *_, first, second, _ = (row.rstrip() for row in capsys.readouterr().out.splitlines())
    assert len(first) == len(second)


def test_the_live_view_shows_a_place_as_it_is() -> None:
    shown = line(Progress("in the region", 1.0, 2, TITLE, {"[/x]": 3}), 1.0)
    assert not _acted_on(output.one_line(shown))
    assert "[/x]" in shown


def test_a_progress_bar_shows_its_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    # A dumb terminal gets no bar.
    monkeypatch.setenv("TERM", "xterm")
    console = output._Console(file=file, force_terminal=True, width=200)
    monkeypatch.setattr(output, "messages", console)
    with output.progress(f"[/x]{TITLE}") as step:
        step(1, 2, f"[/y]{TITLE}")
        time.sleep(0.3)
    assert "[/x]\\x1b]0;owned" in file.getvalue()
    assert "[/y]\\x1b]0;owned" in file.getvalue()
    assert "\x1b]0" not in file.getvalue()


def test_a_guest_that_nobody_types_into_cannot_set_the_title(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = live_terminal._Shown()
    data = f"caf\u00e9\r\n{TITLE}".encode()
    for place in range(len(data)):
        shown(data[place : place + 1])
    assert capsys.readouterr().err == "caf\u00e9\n\\x1b]0;owned\\x07"


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "info", "no[/x]\x1b]0;t\x07\nwhere"],
        ["run", "micro", "--from", "console:[/~\x1b] # ("],
        ["run", "[/x]\x1b]0;t\x07"],
        ["run", "micro", "--model", "[/x]\x1b[2J"],
        ["report", "[/x]\x1b"],
        ["[/x]\x1b"],
    ],
)
def test_an_error_shows_what_was_typed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "\\x1b" in said
    assert not _acted_on(said)


# -- streams -------------------------------------------------------------------------------------


class _Failing(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EBADF, errno.EPIPE])
def test_messages_that_cannot_be_written_are_lost(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", _Failing(number))
    output.note("lost")
    output.note_lines("lost")
    output.note_in_raw_mode("lost")
    with output.progress("lost") as step:
        step(1, 2)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EBADF])
def test_a_result_that_cannot_be_written_is_an_error(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", _Failing(number))
    for write in (output.print_json, output.print_table, output.print_line):
        with pytest.raises(StorageError, match="cannot write to standard output"):
            write("x")


LIST = ["guest", "list"]
"""Prints a table."""
WRONG = ["trace", "info", "nowhere"]
"""Says one line on stderr."""


def _status(words: list[str], tmp_path: Path, redirection: str) -> tuple[int, str]:
    """The exit status of a shell's ``cosim WORDS REDIRECTION``, and all that was said."""
    ended = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *COSIM, *words],
        env={**os.environ, "COSIM_CACHE": str(tmp_path / "cache")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("words", "redirection", "status"),
    [
        (LIST, ">&-", 3),
        (["--help"], ">&-", 3),
        ([*LIST, "--json"], ">/dev/full", 3),
        (LIST, "2>&-", 0),
        (LIST, "2>/dev/full", 0),
        (LIST, "<&-", 0),
        (LIST, ">&- 2>&- <&-", 3),
        (WRONG, ">&-", 2),
        (WRONG, "2>&-", 2),
        (WRONG, "2>/dev/full", 2),
        (WRONG, ">&- 2>&- <&-", 2),
    ],
)
def test_closed_and_full_streams(
    words: list[str], redirection: str, status: int, tmp_path: Path
) -> None:
    ended, said = _status(words, tmp_path, redirection)
    assert ended == status, said
    assert "Traceback" not in said
    assert said.count("cosim:") <= 1


def test_a_finding_is_one_even_if_its_reader_has_gone(tmp_path: Path) -> None:
    """`cosim trace verify t | true`: the status is the command's."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "_manifest.jsonl").write_text("damaged\n")
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COSIM, "trace", "verify", str(tmp_path / "t")]
    ended = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize(("words", "status"), [(LIST, 3), (WRONG, 2)])
def test_a_terminal_that_has_gone(words: list[str], status: int, tmp_path: Path) -> None:
    """A write to it fails; an error stays that error, and nothing is a finding."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", 'read -r _; exec "$@"', "bash", *COSIM, *words],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "COSIM_CACHE": str(tmp_path / "cache")},
        start_new_session=True,
    )
    os.close(slave)
    os.close(master)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == status


_WAITS = """
import time
import cosim.commands.many_runs
from cosim.start import main

def waits(*words, **options):
    print("ready", flush=True)
    time.sleep(60)

cosim.commands.many_runs.do_runs = waits
main()
"""


def test_a_window_that_is_closed_interrupts() -> None:
    pid, master = pty.fork()
    if pid == 0:
        # The tests may run where it is ignored.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", _WAITS, "run", "x.toml"])
    said = b""
    while b"ready" not in said:
        said += os.read(master, 100)
    os.close(master)
    _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 130


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "s3://KEY:sec/ret@bucket/t?region=x"],
        ["trace", "info", "s3:/KEY:secret@bucket/t"],
        ["trace", "info", "nowhere", "s3://KEY:secret@bucket/t"],
        ["run", "s3://KEY:secret@bucket/t"],
    ],
)
def test_a_uri_in_a_wrong_place_shows_no_secret(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "...@bucket/t" in said
    assert "KEY" not in said and "ret" not in said


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a: no such thing, ask a@b.c", "tcp://h:8786: gone", "x: y@z", "a:/b/c:d@e"],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert output.without_secrets(text) == text
