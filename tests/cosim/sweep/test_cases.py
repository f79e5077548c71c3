"""Cases of a sweep: settings by the names of a sweep file, and which of them vary."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import UsageError
from cosim.sweep.cases import Value, parameters, read
from tests.cosim.sweep.made_rows import folder_of, made


def test_settings_have_the_names_of_a_sweep_file(tmp_path: Path) -> None:
    cases = read(folder_of(tmp_path / "s", list(made())))
    assert len(cases) == 72
    varied = {one.name: [value.text for value in one.values] for one in parameters(cases)}
    assert varied == {
        "costs.exit": ["500", "2,000"],
        "machine.tlb.data": ["64 x 2", "64 x 4", "64 x 8"],
        "machine.walk_cache_ways": ["0", "8"],
    }
    (tlb,) = [one for one in parameters(cases) if one.name == "machine.tlb.data"]
    assert tlb.numeric
    assert [value.number for value in tlb.values] == [128, 256, 512]


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    rows = list(made())
    first = read(folder_of(tmp_path / "a", rows))
    assert read(folder_of(tmp_path / "b", rows[::-1])) == first


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [("4", "4", 4), ("all", "all", None), (True, "on", None), (None, "none", None), (8, "8", 8)],
)
def test_values_are_numbers_or_texts(value: object, text: str, number: float | None) -> None:
    assert Value.of(value) == Value(text, number)


def test_a_text_among_numbers_makes_no_axis(tmp_path: Path) -> None:
    rows = list(made())
    for at, row in enumerate(one for one in rows if one["policy"] == "lsp"):
        row["options"] = [("roots", ("1", "4", "all")[at % 3])]
    (roots,) = [
        one for one in parameters(read(folder_of(tmp_path / "s", rows))) if "roots" in one.name
    ]
    assert roots.name == "options.lsp.roots"
    assert [value.text for value in roots.values] == ["1", "4", "all"]
    assert not roots.numeric


def test_a_sweep_without_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results yet"):
        read(tmp_path)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "s", list(made()))
    (folder / "results" / "c.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UsageError, match="damaged"):
        read(folder)
