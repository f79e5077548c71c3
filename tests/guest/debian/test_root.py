"""A file system is made of packages that the test builds, and read back with debugfs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cosim.errors import EnvironmentFault, MissingTool
from guest.debian import root
from guest.debian.root import File

pytestmark = pytest.mark.system


def _nothing(done: float, total: float | None = None, text: str | None = None) -> None:
    pass


def package(folder: Path, name: str, files: dict[str, bytes], links: dict[str, str]) -> Path:
    """Build a .deb whose files can be executed; its doc folder belongs to user 1, group 2."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1-{name}\nArchitecture: all\nMaintainer: n <n@n>\n"
        "Description: a package\n of two lines\n"
    )
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
        (tree / path).chmod(0o755)
    for path, target in links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    deb = folder / f"{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    return deb


def _ask(image: Path, request: str) -> str:
    answer = subprocess.run(
        [root._tool("debugfs"), "-R", request, str(image)],
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


def _inode(image: Path, path: str) -> tuple[str, str, str, str]:
    """The type, mode, user and group of a file in the image."""
    text = _ask(image, f"stat {path}")
    found = re.search(r"Type: (\w+)\s+Mode:\s+(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+)", text, re.S)
    assert found is not None, text
    return found[1], found[2], found[3], found[4]


@pytest.mark.parametrize("user", [0, 1000])
def test_the_file_system_has_what_the_packages_have(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debs = [
        package(
            tmp_path,
            "first",
            {"usr/bin/mawk": b"program", "usr/share/doc/first/x": b"text"},
            {"bin": "usr/bin"},
        ),
        package(tmp_path, "second", {"usr/share/base-passwd/passwd.master": b"root:*:0\n"}, {}),
    ]
    image, tree = tmp_path / "disk", tmp_path / "scratch"
    tree.mkdir()
    unpack = root._unpack

    def with_an_owner(deb: Path, into: Path, owners: dict[str, tuple[int, int]]) -> list[str]:
        paths = unpack(deb, into, owners)
        owners.update({path.strip("/"): (1, 2) for path in paths if path.endswith("/mawk")})
        if user:
            for path in into.rglob("*"):
                os.chown(path, user, user, follow_symlinks=False)
        return paths

    monkeypatch.setattr(root, "_unpack", with_an_owner)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    extra = {"etc/hostname": File(b"debian\n"), "usr/sbin/init": File(b"#!/bin/sh\n", 0o755)}
    made = root.make(image, debs, extra, tree, _nothing)
    assert made == {"first": "1-first", "second": "1-second"}
    assert _ask(image, "cat /usr/bin/mawk") == "program"
    assert _inode(image, "/usr/bin/mawk") == ("regular", "0755", "1", "2")
    assert _inode(image, "/usr/sbin/init") == ("regular", "0755", "0", "0")
    assert _inode(image, "/etc/hostname") == ("regular", "0644", "0", "0")
    assert _inode(image, "/tmp") == ("directory", "01777", "0", "0")
    assert _inode(image, "/bin")[0] == _inode(image, "/usr/bin/awk")[0] == "symlink"
    assert "File not found" not in _ask(image, "stat /etc/passwd")
    assert _ask(image, "cat /etc/passwd") == "root:*:0\n"
    assert "base-passwd" in _ask(image, "ls /usr/share")
    assert "first" not in _ask(image, "ls /usr/share/doc")
    status = _ask(image, "cat /var/lib/dpkg/status")
    assert "Package: first\nStatus: install ok unpacked\n" in status
    assert "\n\nPackage: second\n" in status and " of two lines\n" in status
    assert "/usr/bin/mawk" in _ask(image, "cat /var/lib/dpkg/info/first.list").split("\n")
    check = [root._tool("e2fsck"), "-fn", str(image)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_what_is_no_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"no archive")
    (tmp_path / "tree").mkdir()
    with pytest.raises(EnvironmentFault, match=r"cannot read x\.deb: "):
        root.make(tmp_path / "disk", [tmp_path / "x.deb"], {}, tmp_path / "tree", _nothing)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_ADMIN", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTool, match=r"mke2fs is missing.*e2fsprogs"):
        root.make(tmp_path / "disk", [], {}, tmp_path, _nothing)
