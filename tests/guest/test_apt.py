"""The private apt: a download that is cut off and resumed, with the real apt and a server of ours.

That it reads Debian's signed index is part of making the linux guest, which every run of the
system tests does.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlunsplit

import pytest

from cosim.errors import EnvironmentFault, StorageError
from guest import apt

_MODIFIED = "Sat, 01 Aug 2026 10:00:00 GMT"
_EPOCH = 1785578400
_BODY = random.Random(1).randbytes(300_000)
_SHA256 = hashlib.sha256(_BODY).hexdigest()


class _Mirror(BaseHTTPRequestHandler):
    """Serves one file, the rest of it where a range is asked for."""

    protocol_version = "HTTP/1.1"
    ranges: ClassVar[list[str | None]]

    def do_GET(self) -> None:
        if self.path != "/file":
            self.send_error(404)
            return
        asked = self.headers["Range"]
        self.ranges.append(asked)
        start = 0
        if asked and self.headers["If-Range"] == _MODIFIED:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Last-Modified", _MODIFIED)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(_BODY) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(_BODY) - 1}/{len(_BODY)}")
        self.end_headers()
        self.wfile.write(_BODY[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[tuple[str, list[str | None]]]:
    class Mirror(_Mirror):
        ranges: ClassVar[list[str | None]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield (
            urlunsplit(("http", f"127.0.0.1:{server.server_port}", "/file", "", "")),
            Mirror.ranges,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> apt.Apt:
    # A proxy of the machine's cannot reach this server.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "apt").mkdir()
    return apt.Apt(tmp_path / "apt")


def _nothing(done: float, total: float | None = None, text: str | None = None) -> None:
    pass


@pytest.mark.system
def test_a_cut_off_download_is_resumed(
    private: apt.Apt, mirror: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    address, ranges = mirror
    file = tmp_path / "file"
    file.write_bytes(_BODY[:100_000])
    # As apt leaves it behind: with the time that the server gave.
    os.utime(file, (_EPOCH, _EPOCH))
    steps: list[float] = []
    private.fetch(address, _SHA256, file, lambda done, *_: steps.append(done), "file")
    assert file.read_bytes() == _BODY
    assert ranges == ["bytes=100000-"]
    assert steps and steps[-1] == 100


@pytest.mark.system
def test_damage_in_what_was_there_starts_again(
    private: apt.Apt, mirror: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    address, ranges = mirror
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    os.utime(file, (_EPOCH, _EPOCH))
    private.fetch(address, _SHA256, file, _nothing, "file")
    assert file.read_bytes() == _BODY
    assert ranges[0] == "bytes=100000-" and ranges[-1] is None


@pytest.mark.system
def test_a_wrong_check_sum_is_refused(
    private: apt.Apt, mirror: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot download thing: .*[Hh]ash"):
        private.fetch(mirror[0], "0" * 64, tmp_path / "file", _nothing, "thing")


@pytest.mark.system
def test_a_file_that_is_gone_from_the_mirror(
    private: apt.Apt, mirror: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot download thing: .*404"):
        private.fetch(mirror[0] + "s", "0" * 64, tmp_path / "file", _nothing, "thing")


@pytest.mark.system
def test_no_room(private: apt.Apt) -> None:
    package = apt.Package("huge", "1", "0" * 64, 1 << 60, "")
    with pytest.raises(StorageError, match="huge needs"):
        private.download(package, _nothing)


@pytest.mark.system
def test_unpack_takes_only_what_has_a_place(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: n <n@n>\nDescription: d\n"
    )
    for path, text in (("usr/bin/busybox", "b"), ("usr/share/doc/x", "x")):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    deb = tmp_path / "p.deb"
    subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
    into = tmp_path / "into"
    into.mkdir()
    apt.unpack(deb, lambda path: "bb" if path.name == "busybox" else None, into)
    assert [(path.name, path.read_text()) for path in into.iterdir()] == [("bb", "b")]


@pytest.mark.system
def test_unpack_refuses_what_is_no_package(tmp_path: Path) -> None:
    deb = tmp_path / "p.deb"
    with tarfile.open(deb, "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(EnvironmentFault, match=r"cannot unpack p\.deb"):
        apt.unpack(deb, lambda path: None, tmp_path)


_RELEASE = "http://mirror.example/debian/dists/sid/InRelease"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            f"E: Release file for {_RELEASE} is expired (invalid since 22d 4h 24min 19s). "
            "Updates for this repository will not be applied.",
            f"{_RELEASE} is expired since 22d 4h 24min 19s, so the mirror is out of date or this "
            "machine's clock is wrong; use another mirror, or accept old indexes by the line "
            '`Acquire::Check-Valid-Until "false";` in a file of /etc/apt/apt.conf.d',
        ),
        (
            f"E: Release file for {_RELEASE} is not valid yet (invalid for another 5h 1min 2s). "
            "Updates for this repository will not be applied.",
            f"{_RELEASE} is not valid for another 5h 1min 2s: set this machine's clock",
        ),
        (
            "E: Failed to fetch http://mirror.example/Packages.xz  File has unexpected size "
            "(248120 != 255624). Mirror sync in progress? [IP: 192.0.2.1 80]\n"
            "   Hashes of expected file:\nE: Some index files failed to download.",
            "the mirror's files do not belong together, so it is probably being updated; try "
            "again later, or use another mirror",
        ),
    ],
)
def test_what_to_do_about_a_mirror(
    said: str, meant: str, private: apt.Apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt's own words, as apt 2.6 and 3.0 print them."""
    monkeypatch.setattr(private, "_run", lambda *_: (100, f"Reading package lists...\n{said}\n"))
    monkeypatch.setattr(apt, "_mirrors", lambda: ["http://mirror.example/debian"])
    monkeypatch.setattr(apt, "keyring", lambda: Path("/keys"))
    with pytest.raises(EnvironmentFault) as caught:
        private.update(_nothing)
    assert str(caught.value) == f"apt cannot read the package index of {apt.SUITE}: {meant}"


@pytest.mark.system
def test_a_package_comes_with_what_it_depends_on_and_nothing_that_it_recommends(
    tmp_path: Path, private: apt.Apt
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    index = []
    for name, relation in (("a", "Depends: b\nRecommends: c\n"), ("b", ""), ("c", "")):
        tree = tmp_path / name
        (tree / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: n <n@n>\n"
            f"{relation}Description: d\n"
        )
        (tree / "DEBIAN" / "control").write_text(control)
        deb = mirror / f"{name}_1_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        place = f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        index.append(control + place)
    (mirror / "Packages").write_text("\n".join(index))
    folder = tmp_path / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [trusted=yes] copy:{mirror} ./\n")
    assert private._run("apt-get", ["update"])[0] == 0
    # An older version, left by a call that was interrupted before the mirror changed.
    (folder / "cache" / "archives" / "b_0_all.deb").write_bytes(
        (mirror / "b_1_all.deb").read_bytes()
    )
    found = private.closure(["a"], _nothing)
    assert [path.name for path in found] == ["a_1_all.deb", "b_1_all.deb"]
    with pytest.raises(EnvironmentFault, match=r"cannot download packages: Unable to locate .* d"):
        private.closure(["d"], _nothing)
