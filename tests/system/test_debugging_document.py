"""The session that docs/debugging.md shows is what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosim.paths import SOURCE
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

_BLOCK = re.compile(r"<!-- session -->\n```\ncosim ([^\n]*)\n(.*?)```", re.DOTALL)


def _words(text: str) -> list[str]:
    """The words of a text, without what another compiler may choose: addresses and counts."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"of [\d,]+ accesses|access of [\d,]+ ", "", text)
    return text.split()


def test_the_session_of_the_document(tmp_path: Path) -> None:
    blocks = _BLOCK.findall((SOURCE / "docs/debugging.md").read_text())
    assert len(blocks) == 2
    for number, (command, shown) in enumerate(blocks):
        home = Home(tmp_path / str(number), "micro")
        ended = run(command.split(), home.environment())
        assert ended.status == (1 if number == 0 else 0), ended.stderr
        printed = ended.stdout.partition("Not seen by this check")[0]
        assert _words(printed) == _words(shown)


def test_the_line_of_the_bug_is_the_one_that_the_document_names() -> None:
    lines = (SOURCE / "guest/micro/bugs.c").read_text().splitlines()
    assert lines[23].strip() == "*e = 0;"
