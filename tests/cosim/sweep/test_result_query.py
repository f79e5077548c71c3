"""SQL over the results of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import UsageError
from cosim.sweep.result_query import run
from tests.cosim.sweep.made_rows import folder_of, made


@pytest.fixture(name="folder", scope="module")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("sweep") / "s", list(made()))


def test_all_files_are_one_table(folder: Path) -> None:
    sql = "SELECT policy, count(*), max(exits) FROM results GROUP BY policy ORDER BY policy"
    assert run(folder, sql).rows == [
        ["lsp", 24, 40_000],
        ["native", 24, 0],
        ["nested", 24, 10_000],
    ]


def test_maps_are_read_by_key(folder: Path) -> None:
    sql = "SELECT DISTINCT options['fast_path'] FROM results WHERE policy = 'lsp'"
    assert run(folder, sql).rows == [["on"]]


@pytest.mark.parametrize(
    "sql",
    ["DROP VIEW results", "SELECT 1; SELECT 2", "COPY results TO '/tmp/x'", "SELECT * FROM events"],
)
def test_nothing_else_can_be_done(folder: Path, sql: str) -> None:
    with pytest.raises(UsageError):
        run(folder, sql)


def test_no_results_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results yet"):
        run(tmp_path, "SELECT 1")


@pytest.mark.parametrize("content", [b"", b"PAR1 cut"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path / "s", list(made()))
    (folder / "results" / "c.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.parquet: is damaged"):
        run(folder, "SELECT count(*) FROM results")


def test_the_command_takes_the_folder_of_a_sweep(folder: Path) -> None:
    sql = "SELECT count(*) AS n FROM results"
    done = CliRunner().invoke(cosim, ["query", str(folder), sql, "--json"])
    assert json.loads(done.stdout) == {"columns": ["n"], "rows": [[72]], "more": False}
