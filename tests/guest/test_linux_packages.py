"""Which of Debian's packages hold the kernel that is asked for, in the layouts of its suites."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import pytest

import guest
from cosim import cli
from cosim.errors import EnvironmentFault, UsageError
from guest import apt, linux, spec
from guest.linux import packages
from guest.linux.packages import Kernel


class _Index(apt.Apt):
    """An index of these packages: the name, and what it depends on."""

    def __init__(self, depends: dict[str, str]) -> None:
        self._depends = depends

    def names(self, pattern: str) -> list[str]:
        return [name for name in self._depends if re.search(pattern, name)]

    def package(self, name: str) -> apt.Package:
        if name not in self._depends:
            raise EnvironmentFault(f"no package {name}")
        return apt.Package(name, "1", "0" * 64, 1, self._depends[name])


def _older(*releases: str) -> dict[str, str]:
    images = {f"linux-image-{release}": "kmod, linux-base (>= 4.3~)" for release in releases}
    dbg = {f"{name}-dbg": "" for name in images}
    meta = {"linux-image-riscv64": f"linux-image-{releases[-1]} (= 6.12.117-1)"}
    return images | dbg | meta


def _newer(release: str) -> dict[str, str]:
    own = "(= 7.2.13-1)"
    return {
        "linux-image-riscv64": f"linux-base-riscv64 {own}, linux-image-{release} {own}",
        f"linux-image-{release}": (
            "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, "
            f"linux-base-{release} {own}, linux-binary-{release} {own}, "
            f"linux-modules-{release} {own}"
        ),
        f"linux-binary-{release}": f"linux-base-{release} {own}",
        f"linux-modules-{release}": f"kmod, linux-base-{release} {own}",
    }


OLDER = _older("6.1.20+deb13-riscv64", "6.12.107+deb13-riscv64", "6.12.117+deb13-riscv64")


def _names(index: dict[str, str], version: str = "") -> dict[str, str]:
    found = packages.kernel_packages(_Index(index), Kernel("suite", version))
    return {key: package.name for key, package in found.items()}


def test_one_package_until_6_12() -> None:
    assert _names(OLDER) == {"kernel": "linux-image-6.12.117+deb13-riscv64"}


def test_image_and_modules_apart_in_newer_suites() -> None:
    release = "7.2.13+deb14-riscv64"
    wanted = {"kernel": f"linux-binary-{release}", "modules": f"linux-modules-{release}"}
    assert _names(_newer(release)) == wanted
    assert _names(_newer(release), "7.2") == wanted
    assert _names(_newer(release), release) == wanted


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("6.12.107", "6.12.107+deb13"),
        ("6.12.107+deb13-riscv64", "6.12.107+deb13"),
        ("6.12", "6.12.117+deb13"),
        ("6", "6.12.117+deb13"),
        ("6.1", "6.1.20+deb13"),
    ],
)
def test_the_newest_whose_version_begins_so(version: str, release: str) -> None:
    assert _names(OLDER, version) == {"kernel": f"linux-image-{release}-riscv64"}


@pytest.mark.parametrize("version", ["6.13", "6.12.10", "12", ".*", "riscv64"])
def test_a_version_that_the_suite_does_not_have(version: str) -> None:
    with pytest.raises(UsageError) as refused:
        _names(OLDER, version)
    assert str(refused.value) == (
        f"Debian suite has no kernel {version} for riscv64; it has 6.1.20+deb13-riscv64, "
        "6.12.107+deb13-riscv64, 6.12.117+deb13-riscv64; give another --kernel-version or --suite"
    )
    with pytest.raises(UsageError, match="for riscv64; it has none; give another"):
        _names({}, version)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("./boot/vmlinux-6.12.117+deb13-riscv64", "Image"),
        ("./boot/vmlinuz-6.12.117+deb13-riscv64", "Image"),
        ("./usr/lib/modules/7.2.13+deb14-riscv64/vmlinuz", "Image"),
        ("./lib/modules/7.2.13+deb14-riscv64/vmlinuz", "Image"),
        ("./boot/System.map-6.12.117+deb13-riscv64", None),
        ("./usr/share/doc/vmlinuz", None),
        ("./usr/lib/modules/7.2/kernel/fs/ext4/ext4.ko.xz", "modules/ext4.ko.xz"),
        ("./usr/lib/modules/7.2/kernel/fs/ext4/ext4.txt", None),
        ("./usr/lib/modules/7.2/kernel/fs/btrfs/btrfs.ko.xz", None),
    ],
)
def test_where_a_file_goes(path: str, place: str | None) -> None:
    assert packages.kernel_place(PurePosixPath(path)) == place


def test_a_record_says_what_was_asked_for(tmp_path: Path) -> None:
    package = apt.Package("p", "1", "0" * 64, 1, "")
    record = tmp_path / "packages.json"
    asked = Kernel("sid", "7.2")
    record.write_text(json.dumps({"asked": asdict(asked), "packages": {"kernel": asdict(package)}}))
    assert packages.fetched(tmp_path) == packages.Fetched(asked, {"kernel": package})
    # As it was written before there was a choice.
    record.write_text(json.dumps({"kernel": asdict(package)}))
    assert packages.fetched(tmp_path) == packages.Fetched(Kernel(), {"kernel": package})
    for damage in ("", "[]", "{}x", '{"packages": {}}', '{"packages": 1, "asked": {}}', "null"):
        record.write_text(damage)
        assert packages.fetched(tmp_path) is None


def test_a_choice_holds_until_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path))
    monkeypatch.setattr("guest.linux.recipe.entries", list)
    fetches: list[Kernel] = []

    def fetch(folder: Path, kernel: Kernel, step: object) -> packages.Fetched:
        fetches.append(kernel)
        folder.mkdir(exist_ok=True)
        (folder / "Image").write_text(kernel.suite)
        package = apt.Package(f"linux-{kernel.suite}", "1", "0" * 64, 1, "")
        made = packages.Fetched(kernel, {"kernel": package})
        record = {"asked": asdict(kernel), "packages": {"kernel": asdict(package)}}
        (folder / "packages.json").write_text(json.dumps(record))
        return made

    monkeypatch.setattr(packages, "fetch", fetch)

    def ensure(kernel: Kernel | None, *, force: bool = False) -> str:
        made = guest.ensure("linux", lambda *_: None, force=force, kernel=kernel)
        assert made == guest.load("linux")
        assert made.checksums["kernel"] == spec.checksum(made.kernel)
        return made.kernel.read_text()

    assert ensure(None) == "trixie"
    assert ensure(Kernel("sid")) == "sid"
    assert ensure(Kernel("sid")) == ensure(None) == "sid"
    assert fetches == [Kernel(), Kernel("sid")]
    assert ensure(None, force=True) == "sid"
    assert ensure(linux.Kernel()) == "trixie"
    assert fetches[2:] == [Kernel("sid"), Kernel()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["micro", "--suite", "sid"], "choose the kernel of the guest linux; guest micro has none"),
        (["linux", "--suite", ""], "--suite is empty; give a value, or leave it out"),
        (["linux", "--kernel-version", ""], "--kernel-version is empty; give a value"),
        (["linux", "--suite", "a b"], "'a b' is not the name of a Debian suite"),
        (["linux", "--suite", "sid\ndeb x"], "'sid\\ndeb x' is not the name of a Debian suite"),
        (["linux", "--suite", "../x"], "'../x' is not the name of a Debian suite"),
    ],
)
@pytest.mark.system
def test_a_wrong_choice_is_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main(["guest", "fetch", *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert said in printed.err
