"""Kernels and firmware in the forms in which users have them, started for real."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cosim.machine import tools
from cosim.models.pipeline import Pipeline
from cosim.run.plan import resolve
from cosim.run.run_spec import RunSpec
from cosim.session.backends.plugin import Plugin
from cosim.session.execution import execute
from cosim.session.origin import origin
from tests.system import bare_kernel

pytestmark = pytest.mark.system

M_MODE = bare_kernel.M_MODE


def _flat(folder: Path) -> Path:
    flat = folder / "waits.bin"
    objcopy = tools.cross_compiler().path.with_name("riscv64-linux-gnu-objcopy")
    elf = bare_kernel.build("waits", folder, M_MODE)
    subprocess.run([str(objcopy), "-O", "binary", str(elf), str(flat)], check=True, timeout=60)
    return flat


def _packed(folder: Path) -> Path:
    packed = folder / "kernel.gz"
    packed.write_bytes(gzip.compress(bare_kernel.build("waits", folder, M_MODE).read_bytes()))
    return packed


def _with_headers(folder: Path) -> Path:
    """Linked as a program is: the first page holds the ELF header, and the code is behind it."""
    output = folder / "waits-with-headers"
    source = Path(__file__).with_name("waits.S")
    words = [str(tools.cross_compiler().path), "-nostdlib", "-static", "-Wl,--build-id=none"]
    words += [f"-Wl,-Ttext-segment={M_MODE:#x}", str(source), "-o", str(output)]
    subprocess.run(words, check=True, timeout=60)
    return output


def _at_zero(folder: Path) -> Path:
    return bare_kernel.build("waits", folder, 0)


FORMS: dict[str, Callable[[Path], RunSpec]] = {
    "flat": lambda folder: _spec(kernel=_flat(folder), load_address=M_MODE, bios="none"),
    "compressed": lambda folder: _spec(kernel=_packed(folder), bios="none"),
    "with its ELF header": lambda folder: _spec(kernel=_with_headers(folder), bios="none"),
    "firmware alone": lambda folder: _spec(bios=str(_flat(folder))),
    "position-independent firmware": lambda folder: _spec(bios=str(_at_zero(folder))),
}


def _spec(**fields: object) -> RunSpec:
    return RunSpec(name="waits", backend=Plugin(), memory="32M", models=("native",), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_the_guest_runs_to_its_end(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FORMS[form](tmp_path)
    monkeypatch.setattr("cosim.kernel.bootable.paths.cache", lambda: tmp_path / "cache")
    plan = resolve(spec)
    outcome = execute(plan, tmp_path, Pipeline(origin(plan), {}))
    assert outcome.error is None
    document = outcome.document
    assert document is not None and document["complete"]
    assert document["events"]["fence"]["all"] == 1
    given = Path(document["guest"]["kernel"])
    assert given == spec.kernel or str(given) == spec.bios
