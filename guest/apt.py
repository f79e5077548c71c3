"""Packages of another architecture and release, without touching the machine's apt state.

A private apt has its lists, its cache and its (empty) dpkg status in our folder.  It uses the
machine's proxy, authentication and mirror settings.  apt itself checks signatures against Debian's
archive keyring, and resumes downloads that were cut off.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosim.errors import EnvironmentFault, MissingTool, StorageError, UsageError
from cosim.machine import process
from cosim.output import Step

SUITE = "trixie"
"""The suite of the guests' packages, unless another is asked for: Debian 13."""

ARCHITECTURE = "riscv64"
"""Debian's name of the guests' architecture."""

_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
)
_HELPER = "/usr/lib/apt/apt-helper"
"""A part of apt that downloads one file; `apt-get download` cannot resume."""
_TIMEOUT = 1800.0
"""Seconds after which a call of apt counts as hung."""


@dataclass(frozen=True)
class Package:
    """One version of one package, as in the signed index; ``size`` is in bytes."""

    name: str
    version: str
    sha256: str
    size: int
    depends: str


class Apt:
    """A private apt.

    :param folder: for its files; made when needed.
    :param architecture: of the packages.
    :param suite: of the packages, as Debian's archive names it: trixie, trixie-backports, sid ...
    :raises UsageError: when ``suite`` cannot be the name of a suite.
    :raises MissingTool: when a program of apt or dpkg is missing.
    """

    def __init__(self, folder: Path, architecture: str = ARCHITECTURE, suite: str = SUITE) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", suite):
            raise UsageError(
                f"{suite!r} is not the name of a Debian suite; give one such as trixie or sid"
            )
        self._folder = folder
        self._architecture = architecture
        self._suite = suite
        for tool in ("apt-get", "apt-cache", _HELPER, "dpkg-deb"):
            if shutil.which(tool) is None:
                raise MissingTool(
                    f"{tool} is missing, and the guest's packages come from a Debian mirror; "
                    "run on Debian, or use your own kernel with `cosim run --kernel FILE`"
                )

    def update(self, step: Step) -> None:
        """Fetch the package index and check its signature.

        :raises EnvironmentFault: when no mirror is known, none answers, or the signature is bad.
        :raises MissingTool: when Debian's archive keys are missing.
        :raises StorageError: when the folder cannot be written.
        """
        try:
            for sub in ("lists/partial", "cache/archives/partial"):
                (self._folder / sub).mkdir(parents=True, exist_ok=True)
            (self._folder / "status").touch()
        except OSError as error:
            raise StorageError(f"cannot write {self._folder}: {error.strerror}") from None
        keys = keyring()
        if keys is None:
            raise MissingTool(
                "Debian's archive keys are missing: install them with `apt-get install "
                "debian-archive-keyring`"
            )
        reasons = []
        for mirror in _mirrors():
            source = (
                f"deb [arch={self._architecture} signed-by={keys}] {mirror} {self._suite} main\n"
            )
            (self._folder / "sources.list").write_text(source)
            status, text = self._run("apt-get", ["update", "--error-on=any"], step, "package index")
            if status == 0:
                return
            reasons.append(_reason(text, self._suite))
        why = "; ".join(reasons)
        raise EnvironmentFault(f"apt cannot read the package index of {self._suite}: {why}")

    def names(self, pattern: str) -> list[str]:
        """Return the names of the packages that match ``pattern``, a regular expression.

        :raises EnvironmentFault: when the index cannot be read.
        """
        status, text = self._run("apt-cache", ["search", "--names-only", pattern])
        if status != 0:
            raise EnvironmentFault(f"apt cannot search {self._suite}: {_reason(text, self._suite)}")
        return [line.partition(" ")[0] for line in text.splitlines() if " - " in line]

    def package(self, name: str) -> Package:
        """Return what the index says about the newest version of ``name``.

        :raises EnvironmentFault: when the index does not have it.
        """
        status, text = self._run("apt-cache", ["show", "--no-all-versions", name])
        fields = dict(
            line.split(": ", 1)
            for line in text.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if status != 0 or "Version" not in fields:
            raise EnvironmentFault(
                f"Debian {self._suite} has no package {name} for {self._architecture}"
            )
        return Package(
            name,
            fields["Version"],
            fields["SHA256"],
            int(fields["Size"]),
            fields.get("Depends", ""),
        )

    def download(self, package: Package, step: Step) -> Path:
        """Download ``package``, or the rest of it; return the path of the .deb file.

        :raises EnvironmentFault: when the download fails or its check sum is wrong.
        :raises StorageError: when there is no room for it.
        """
        into = self._folder / "debs"
        try:
            into.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {into}: {error.strerror}") from None
        free = shutil.disk_usage(into).free
        if free < 2 * package.size:
            raise StorageError(
                f"{into} has {free >> 20} MiB free, but {package.name} needs "
                f"{2 * package.size >> 20} MiB; free some space, or set COSIM_CACHE"
            )
        wanted = f"{package.name}={package.version}"
        _, text = self._run("apt-get", ["download", "--print-uris", wanted])
        match = re.search(r"^'(\S+)' \S+ \d+ SHA256:[0-9a-f]{64}$", text, re.MULTILINE)
        if match is None:
            raise EnvironmentFault(
                f"apt knows no address of {package.name}: {_reason(text, self._suite)}"
            )
        deb = into / f"{package.name}_{package.sha256[:16]}.deb"
        self.fetch(match[1], package.sha256, deb, step, package.name)
        return deb

    def closure(self, names: Sequence[str], step: Step) -> list[Path]:
        """Download the packages ``names`` and all that they depend on; return their .deb files.

        Recommended packages are left out.  Packages that are there already are used again.

        :raises EnvironmentFault: when a package is not known, or a download fails.
        """
        words = ["install", "--download-only", "--yes", "--no-install-recommends", *names]
        status, text = self._run("apt-get", words, step, "packages")
        if status != 0:
            raise EnvironmentFault(f"apt cannot download packages: {_reason(text, self._suite)}")
        return sorted((self._folder / "cache" / "archives").glob("*.deb"))

    def fetch(self, address: str, sha256: str, file: Path, step: Step, title: str) -> None:
        """Download ``address`` to ``file``, or only the rest if a part is there already.

        apt asks only for the rest if the server can tell that the file has not changed.

        :raises EnvironmentFault: when the download fails or its check sum is wrong.
        """
        resumed = file.exists()
        arguments = ["download-file", address, str(file), f"SHA256:{sha256}"]
        status, text = self._run(_HELPER, arguments, step, title)
        if status != 0 and resumed:
            # The part that was there may be damaged, so start again.
            file.unlink(missing_ok=True)
            status, text = self._run(_HELPER, arguments, step, title)
        if status != 0:
            raise EnvironmentFault(f"apt cannot download {title}: {_reason(text, self._suite)}")

    def clean(self) -> None:
        """Delete index and packages, when everything has been unpacked."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _options(self) -> list[str]:
        folder = str(self._folder)
        settings = {
            "Dir::State": folder,
            "Dir::State::Lists": f"{folder}/lists",
            "Dir::State::status": f"{folder}/status",
            "Dir::Cache": f"{folder}/cache",
            # Container images switch these off, and then each call parses the index again.
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::SourceList": f"{folder}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            # Our folder may lie in a home that the sandbox user cannot enter.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def _run(
        self,
        tool: str,
        arguments: list[str],
        step: Step | None = None,
        title: str = "",
    ) -> tuple[int, str]:
        """Run apt and pass its percentages to ``step``; return its exit status and output."""
        reader, writer = os.pipe()
        options = [*self._options(), "-q", "-o", f"APT::Status-Fd={writer}"]
        log = self._folder / "apt.log"
        with log.open("wb") as output:
            apt = process.spawn(
                ["env", "LC_ALL=C.UTF-8", tool, *options, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
            )
            deadline = threading.Timer(_TIMEOUT, apt.terminate)
            deadline.start()
            try:
                os.close(writer)
                with os.fdopen(reader, encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        # dlstatus:COUNT:PERCENT:TEXT
                        fields = line.split(":")
                        if step is not None and len(fields) > 2 and fields[0] == "dlstatus":
                            step(float(fields[2]), 100.0, title)
                status = apt.wait()
            finally:
                deadline.cancel()
                # apt keeps a partial download if it is terminated.
                process.end(apt, grace=0.1)
        return status, log.read_text(errors="replace")


def unpack(deb: Path, place: Callable[[PurePosixPath], str | None], into: Path) -> None:
    """Unpack the regular files of ``deb`` that ``place`` chooses.

    :param place: takes the path of a file in the package; returns its path below ``into``, in a
        folder that exists, or None to leave it out.
    :raises EnvironmentFault: when ``deb`` is not a Debian package.
    """
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg:
        assert dpkg.stdout is not None
        try:
            with tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
                for member in tar:
                    target = place(PurePosixPath(member.name))
                    source = tar.extractfile(member) if target and member.isreg() else None
                    if target and source is not None:
                        with (into / target).open("wb") as file:
                            shutil.copyfileobj(source, file)
        except tarfile.TarError as error:
            dpkg.kill()
            raise EnvironmentFault(f"cannot unpack {deb.name}: {error}") from None


def _mirrors() -> list[str]:
    """Return the addresses of the machine's Debian mirrors, the most certain first.

    :raises EnvironmentFault: when apt knows none.
    """
    answer = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    known, unsure = [], []
    for line in answer.stdout.splitlines():
        label, release, component, address = line.split("|", 3)
        if component != "main" or "security" in release:
            continue
        if label == "Debian":
            known.append(address)
        elif label.startswith("$("):
            # The index was never fetched, so it has no label, and this may be Debian's.
            unsure.append(address)
    mirrors = list(dict.fromkeys(known + unsure))
    if not mirrors:
        raise EnvironmentFault(
            "apt knows no Debian mirror: add one to /etc/apt/sources.list and run `apt-get update`"
        )
    return mirrors


def keyring() -> Path | None:
    """Return the file with Debian's archive keys, or None."""
    return next((path for path in map(Path, _KEYRINGS) if path.exists()), None)


def _reason(text: str, suite: str) -> str:
    """Return the line of apt's output that says what went wrong, and what to do if we know it."""
    if "NO_PUBKEY" in text or "no-pubkey" in text.lower() or "Missing key" in text:
        return (
            f"this machine's Debian keyring has no key of {suite}; update it with "
            "`apt-get install debian-archive-keyring`"
        )
    if "does not have a Release file" in text:
        return "the mirror has no such suite"
    expired = re.search(r"Release file for (\S+) is expired \(invalid since ([^)]*)\)", text)
    if expired is not None:
        return (
            f"{expired[1]} is expired since {expired[2]}, so the mirror is out of date or this "
            "machine's clock is wrong; use another mirror, or accept old indexes by the line "
            '`Acquire::Check-Valid-Until "false";` in a file of /etc/apt/apt.conf.d'
        )
    early = re.search(
        r"Release file for (\S+) is not valid yet \(invalid for another ([^)]*)\)", text
    )
    if early is not None:
        return f"{early[1]} is not valid for another {early[2]}: set this machine's clock"
    if "Mirror sync in progress" in text:
        return (
            "the mirror's files do not belong together, so it is probably being updated; try again "
            "later, or use another mirror"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for start in ("E: ", "Err:"):
        for number, line in enumerate(lines):
            if line.startswith(start):
                # The line after an address says what is wrong with it.
                return " ".join(lines[number : number + 2]) if start == "Err:" else line[3:]
    return lines[-1] if lines else "apt said nothing"
