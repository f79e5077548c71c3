"""GdbMi's handling of the MI stream, with a scripted process in gdb's place.

What needs the real gdb is in tests/system/test_gdb_mi.py.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cosim.debugger import mi
from cosim.debugger.mi import GdbMi
from cosim.debugger.mi_records import GdbStop
from cosim.errors import GdbError, UsageError

_PROGRAM = """#!{python}
import os, re, signal, sys, time

def say(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

held = []
while True:
    line = sys.stdin.readline()
    if not line:
        break
    token, text = re.match(r"(\\d*)(.*)", line.rstrip("\\n")).groups()
    if text.startswith("-gdb-set"):
        say(token + "^done")
    elif text == "-gdb-exit":
        break
{rules}
    else:
        say(token + '^done,echo="' + text.replace('"', "'") + '"')
"""


def pretend(folder: Path, rules: str) -> Path:
    """A program that answers MI; ``rules`` are further branches for ``text`` and ``token``."""
    program = folder / "gdb"
    program.write_text(_PROGRAM.format(python=sys.executable, rules=rules))
    program.chmod(0o755)
    return program


def test_answers_are_matched_by_token_not_by_order(tmp_path: Path) -> None:
    rules = """
    elif text.startswith("-hold"):
        held.append((token, text))
        if len(held) == 3:
            for token, text in reversed(held):
                say('=some-event,id="1"')
                say(token + '^done,echo="' + text + '"')
"""
    answers: dict[str, Any] = {}
    with GdbMi(pretend(tmp_path, rules)) as gdb:

        def ask(text: str) -> None:
            answers[text] = gdb.command(text, timeout=10)

        threads = [threading.Thread(target=ask, args=(f"-hold {i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert answers == {f"-hold {i}": {"echo": f"-hold {i}"} for i in range(3)}


def test_stops_queue_up_and_a_resume_forgets_the_old(tmp_path: Path) -> None:
    rules = """
    elif text.startswith("-target-select"):
        say(token + "^connected")
        say('*stopped,frame={addr="0x80000000"},thread-id="1"')
    elif text == "-exec-continue":
        say(token + "^running")
        say('*running,thread-id="all"')
        for reason in ("one", "two"):
            say('*stopped,reason="%s",bkptno="7",frame={addr="0xffffffff80000002"}' % reason)
    elif text == "-exec-next":
        say('*stopped,reason="three"')
        say(token + "^done")
"""
    with GdbMi(pretend(tmp_path, rules)) as gdb:
        assert gdb.connect("anywhere") == GdbStop("", 0x8000_0000)
        gdb.resume()
        assert gdb.wait_stop(5) == GdbStop("one", 0xFFFF_FFFF_8000_0002, 7)
        gdb.command("-exec-next")
        gdb.resume()
        assert [getattr(gdb.wait_stop(5), "reason", None) for _ in range(2)] == ["one", "two"]
        assert gdb.wait_stop(0) is None


def test_an_unreadable_answer_is_an_error_of_that_command(tmp_path: Path) -> None:
    rules = """
    elif text == "-broken":
        say('=broken,x={{{')
        say(token + '^done,x={y=')
        say('@"unfinished')
        say("plain words")
"""
    with GdbMi(pretend(tmp_path, rules)) as gdb:
        with pytest.raises(GdbError, match=r"refuses -broken: unreadable answer"):
            gdb.command("-broken", timeout=10)
        assert gdb.command("-more") == {"echo": "-more"}


def test_a_flood_of_output_is_bounded(tmp_path: Path) -> None:
    rules = """
    elif text.startswith("-interpreter-exec"):
        for _ in range(3000):
            say('~"' + "x" * 1000 + '"')
        say(token + "^done")
"""
    with GdbMi(pretend(tmp_path, rules)) as gdb:
        text = gdb.execute("flood", timeout=60)
        assert 900_000 < len(text) <= 1 << 20
        assert set(text) == {"x"}


def test_text_is_unescaped(tmp_path: Path) -> None:
    rules = r"""
    elif text.startswith("-interpreter-exec"):
        say(r'~"tab\there \"quoted\" back\\slash \303\244 \033[0m\n"')
        say(token + "^done")
"""
    with GdbMi(pretend(tmp_path, rules)) as gdb:
        assert gdb.execute("anything") == 'tab\there "quoted" back\\slash ä \033[0m\n'


def test_output_closed_without_dying(tmp_path: Path) -> None:
    rules = """
    elif text == "-close":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.close(1)
        os.close(2)
        time.sleep(100)
"""
    with GdbMi(pretend(tmp_path, rules)) as gdb:
        began = time.monotonic()
        with pytest.raises(GdbError, match=r"gdb closed its output \(during -close\)"):
            gdb.command("-close", timeout=50)
        assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(gdb.pid, 0)


def test_a_gdb_that_does_not_go_is_killed(tmp_path: Path) -> None:
    rules = """
    elif text == "-deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(token + "^done")
        time.sleep(100)
"""
    gdb = GdbMi(pretend(tmp_path, rules))
    gdb.command("-deaf")
    began = time.monotonic()
    gdb.close()
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(gdb.pid, 0)
    gdb.close()
    with pytest.raises(GdbError, match="gdb was killed by signal 9"):
        gdb.command("-more")


def test_the_last_words_of_gdb_are_quoted(tmp_path: Path) -> None:
    rules = """
    elif text == "-crash":
        say("../../gdb/frob.c:17: internal-error: frob: assertion failed")
        os.abort()
"""
    with (
        GdbMi(pretend(tmp_path, rules), transcript=tmp_path / "log") as gdb,
        pytest.raises(GdbError, match=r"killed by signal 6 .*: .*internal-error.*") as caught,
    ):
        gdb.command("-crash")
    assert caught.value.log == str(tmp_path / "log")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-one\n-two", "info registers", ""])
def test_only_single_mi_commands(tmp_path: Path, text: str) -> None:
    with GdbMi(pretend(tmp_path, "")) as gdb:
        with pytest.raises(UsageError, match="not an MI command"):
            gdb.command(text)
        with pytest.raises(UsageError, match="no single line"):
            gdb.execute("print 1\nprint 2")


def test_the_transcript_holds_both_directions_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "mi.log"
    with GdbMi(pretend(tmp_path, ""), transcript=log) as gdb:
        gdb.command("-something")
    lines = log.read_text().splitlines()
    sent = next(i for i, line in enumerate(lines) if line.endswith("-something"))
    assert " > " in lines[sent]
    assert " < " in lines[sent + 1]
    assert "^done,echo=" in lines[sent + 1]
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    monkeypatch.setattr(mi, "_LOG_LIMIT", 2000)
    with GdbMi(pretend(tmp_path, ""), transcript=log) as gdb:
        for _ in range(50):
            gdb.command("-something")
        gdb.check_log()
    assert log.stat().st_size < 2200
    assert "[log cut here" in log.read_text()
