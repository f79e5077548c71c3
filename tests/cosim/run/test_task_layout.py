"""What a kernel must have so that its processes can be named, and what is said if it has not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosim.capture.processes import ProcessLayout
from cosim.kernel.symbols import Symbols, none
from cosim.run.task_layout import naming_of
from tests.cosim.kernel.test_btf import ARRAY, INT, Writer

INIT = 0xFFFF_FFFF_8000_1000


def linux(tmp_path: Path, name_bytes: int = 16, pgd: str = "pgd") -> Path:
    write = Writer()
    number = write.add("long", INT, 0, 8, 64)
    letter = write.add("char", INT, 0, 1, 8)
    comm = write.add("", ARRAY, 0, 0, letter, number, name_bytes)
    members = [("tasks", number, 800), ("mm", number, 1600), ("pid", number, 2400)]
    write.composite("task_struct", [*members, ("comm", comm, 3200)])
    write.composite("mm_struct", [(pgd, number, 64)])
    (tmp_path / "Image").write_bytes(b"code" + write.image())
    return tmp_path / "Image"


def names(*addresses: int) -> Symbols:
    return Symbols(np.array(addresses, np.uint64), ["init_task"] * len(addresses))


def test_a_kernel_with_type_information(tmp_path: Path) -> None:
    naming = naming_of(linux(tmp_path), names(INIT))
    assert naming.nameless is None
    assert naming.layout == ProcessLayout(INIT, tasks=100, mm=200, pid=300, comm=400, pgd=8)
    assert naming.layout.option() == "0xffffffff80001000:100:200:300:400:8"


@pytest.mark.parametrize(
    ("options", "symbols", "reason"),
    [
        ({}, none(), "not have one symbol init_task"),
        ({}, names(INIT, INIT + 8), "not have one symbol init_task"),
        ({"name_bytes": 32}, names(INIT), "does not know"),
        ({"pgd": "root"}, names(INIT), "does not know"),
    ],
)
def test_why_not(tmp_path: Path, options: dict[str, object], symbols: Symbols, reason: str) -> None:
    naming = naming_of(linux(tmp_path, **options), symbols)  # type: ignore[arg-type]
    assert naming.layout is None
    assert naming.nameless is not None and reason in naming.nameless


def test_a_kernel_without_type_information(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(b"nothing of the kind")
    naming = naming_of(tmp_path / "Image", names(INIT))
    assert naming.layout is None and "CONFIG_DEBUG_INFO_BTF" in str(naming.nameless)
    assert naming_of(None, names(INIT)).layout is None
