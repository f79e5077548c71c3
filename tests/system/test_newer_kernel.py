"""A kernel of Debian's unstable suite: its package layout, its symbols, and a run by its symbols.

Linux 7.2 and newer: another layout of the packages and of the kernel's own symbol table.  The
image (10 MB) is fetched once into the cache folder.  Its index may be expired: a mirror that is
some weeks old has such a kernel, too.  apt checks the signatures all the same.
"""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import pytest

from cosim import paths
from cosim.kernel import kallsyms, symbols
from guest import apt
from guest.linux import packages
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def image() -> Path:
    folder = paths.cache() / "newer-kernel"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "Image"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            settings = folder / "apt.conf"
            settings.write_text('Acquire::Check-Valid-Until "false";\n')
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("APT_CONFIG", str(settings))
                deb = _package(folder / "apt")
            apt.unpack(deb, lambda path: packages.kernel_place(path) and "part", folder)
            apt.Apt(folder / "apt").clean()
            (folder / "part").rename(made)
    return made


def _package(folder: Path) -> Path:
    index = apt.Apt(folder, suite="sid")
    index.update(lambda *_: None)
    package = packages.kernel_packages(index, packages.Kernel("sid"))["kernel"]
    assert package.name.startswith("linux-binary-")
    return index.download(package, lambda *_: None)


def test_its_symbols_name_what_stands_there(image: Path) -> None:
    found = symbols.load(image)
    assert len(found) > 100_000
    data = image.read_bytes()

    def at(name: str, count: int) -> bytes:
        place = found.address(name) - kallsyms.LINK_BASE
        return data[place : place + count]

    version = re.match(rb"Linux version (\d+)\.(\d+)", at("linux_banner", 40))
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (7, 2)
    assert at("hex_asc", 16) == b"0123456789abcdef"
    assert found.address("_start") == kallsyms.LINK_BASE
    assert found.address("swapper_pg_dir") % 4096 == 0
    assert found.address("_stext") < found.address("start_kernel") < found.address("_end")


def test_a_region_between_two_of_its_symbols(image: Path, tmp_path: Path) -> None:
    ended = run(
        [
            *("run", "--kernel", image, "--append", "console=ttyS0 no4lvl"),
            *("--backend", "plugin", "--model", "lsp", "--json"),
            *("--from", "start_kernel", "--to", "sched_init"),
        ],
        Home(tmp_path / "home").environment(),
    )
    assert ended.status == 0, ended.stderr
    result = ended.document
    # Both were reached: the region ended before the kernel, which has no init, could panic.
    assert result["region"]["to"] == "sched_init"
    assert 1_000_000 < result["region"]["instructions"] < 1_000_000_000
    assert result["events"]["pte_write"] > 0
    assert result["illegal_translations"] == []
