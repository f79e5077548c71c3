"""A field of an event is declared once: everything else follows from hypervisor_model/events.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hypervisor_model.events import Kind, empty
from tests.cosim.streams import write_trace

ROOT = Path(__file__).parents[3]
FIELD = """
    Field("toy", "uint32", Content.NUMBER, "a toy", unit="beads", column=12, since=5),
"""
VALUE = """
            Value("toy", "toy", Form.NUMBER, "the beads of the toy"),
"""


def insert(text: str, after: str, line: str) -> str:
    assert text.count(after) == 1, after
    return text.replace(after, after + line.rstrip("\n"))


def test_a_field_added_to_the_description_is_everywhere(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "system")
    for part in ("cosim", "hypervisor_model", "guest", "tests", "scripts", "docs"):
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    # The only file that changes.
    description = tree / "hypervisor_model" / "events.py"
    text = description.read_text()
    text = insert(text, "        column=11,\n        since=4,\n    ),", FIELD)
    text = insert(
        text,
        '            Value("label", "a", Form.LABEL, "the text of the label", text="{}"),',
        VALUE,
    )
    description.write_text(text)
    old = empty(2)
    old["kind"] = Kind.FENCE
    write_trace(tmp_path / "old", old)
    done = subprocess.run(
        [
            sys.executable,
            tree / "tests/cosim/trace/one_field.py",
            tmp_path / "old",
            tmp_path / "new",
        ],
        cwd=tree,
        env={
            **os.environ,
            "PYTHONPATH": f"{tree}:{tree / 'scripts'}",
            "COSIM_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
