"""The notebook runs, over rows whose counts follow a formula."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from cosim.paths import SOURCE
from tests.cosim.sweep.made_rows import counts_of, folder_of, made

NOTEBOOK = SOURCE / "docs" / "sweep.ipynb"


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """A folder with a short name: the sockets of the kernel are in it."""
    with tempfile.TemporaryDirectory(prefix="cosim-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def executed(short: Path) -> dict[str, Any]:
    """The outputs of each cell of code."""
    folder_of(short / "tlbs", list(made()))
    with pytest.MonkeyPatch.context() as patched:
        # The user's settings of Jupyter do not count, and nothing is left in the home.
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patched.setenv(name, str(short))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        # Sockets in a folder, as a port that is free now may be taken when the kernel starts.
        kernel = AsyncKernelManager(
            transport="ipc", connection_file=str(short / "kernel"), ip=str(short / "k")
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=None,
            startup_timeout=240,
            resources={"metadata": {"path": str(short)}},
        )
        client.execute()
    return {cell["id"]: cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"}


def _numbers(outputs: Any) -> list[list[str]]:
    """The cells of the rows of a table of DuckDB."""
    lines = outputs[0]["data"]["text/plain"].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    return rows[2:]


def test_it_is_kept_without_outputs() -> None:
    """Else each run would change the file."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_its_tables_have_the_numbers_of_the_rows(executed: dict[str, Any]) -> None:
    there = _numbers(executed["there-table"])
    assert there == [
        [trace, policy, "12", "12", "12"]
        for trace in ("large", "small")
        for policy in ("lsp", "native", "nested")
    ]
    assert [row[:2] for row in _numbers(executed["sql-table"])] == [row[:2] for row in there]
    for trace, policy, fewest, most, exits in _numbers(executed["sql-table"]):
        size = {"small": 10, "large": 1000}[trace]
        assert int(exits) == counts_of(policy, size, 2, 0)[0]
        assert int(most) == counts_of(policy, size, 2, 0)[1]
        assert int(fewest) == counts_of(policy, size, 8, 8)[1]


def test_it_says_which_parameter_matters(executed: dict[str, Any]) -> None:
    (stream,) = executed["effects-table"]
    shares = dict(line.split() for line in stream["text"].splitlines())
    assert float(shares["costs.exit"]) == 0
    assert float(shares["machine.tlb.data"]) > float(shares["machine.walk_cache_ways"]) > 0


def test_it_draws(executed: dict[str, Any]) -> None:
    pictures = [output for output in executed["curve"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
