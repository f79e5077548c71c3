"""scripts/setup on a PATH of impostors: what it asks apt and pip for, and when it asks nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cosim.models.model_options import DEFAULT_MODELS
from hypervisor_model import precompile

_SETUP = Path(__file__).parents[2] / "scripts" / "setup"
_UNIX = (
    "bash sh env sed cut sha256sum mktemp cat rm dirname head tail grep sleep flock cp chmod mkdir "
    "setpriv mv sort"
)


class Sandbox:
    """A checkout with its own PATH; every impostor notes how it was called."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.bin = root / "bin"
        self.log = root / "log"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        self.log.touch()
        shutil.copy(_SETUP, self.root / "scripts" / "setup")
        (self.root / "scripts" / "requirements.txt").write_text("click==8\n")
        (self.root / "scripts" / "requirements-test.txt").write_text("pytest==9\n")
        (self.root / "pyproject.toml").write_text("")
        (self.root / "hypervisor_model" / "policies").mkdir(parents=True)
        for module in ("walk.py", "policies/lsp.py"):
            (self.root / "hypervisor_model" / module).write_text("")
        for name in _UNIX.split():
            path = shutil.which(name)
            assert path is not None, name
            (self.bin / name).symlink_to(path)
        share = root / "share"
        share.mkdir()
        (share / "opensbi-riscv64-generic-fw_dynamic.bin").touch()
        self.add("id", "echo 0")
        self.add("gdb-multiarch")
        self.add("riscv64-linux-gnu-gcc")
        self.add("gcc")
        self.add(
            "qemu-system-riscv64",
            f'case $1 in -L) echo {share};; *) echo "QEMU emulator version 10.0.2";; esac',
        )
        # `python3 -m venv DIR` makes one more impostor; pip is `DIR/bin/python -m pip`.
        self.add(
            "python3",
            'if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi',
        )
        self.add("apt-get", "case $* in *download*) : >one.deb;; esac")
        self.add(
            "dpkg-deb",
            "if [ $1 = --field ]; then echo 'libb3t64 (>= 2) | other, liba2, perl'; else"
            " mkdir -p usr/lib/gridengine;"
            " for name in sge_qmaster spoolinit spooldefaults.bin; do"
            " printf '/usr/lib/gridengine/%%s%%s\\0' >usr/lib/gridengine/$name; done; fi",
        )
        self.add("apt-cache", "true")

    def add(self, name: str, script: str = "true") -> None:
        """Put an impostor on the PATH."""
        file = self.bin / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script}\n')
        file.chmod(0o755)

    def run(self, *arguments: str) -> tuple[int, str, list[str]]:
        """Exit status, stderr and the calls of one run."""
        self.log.write_text("")
        answer = subprocess.run(
            [str(self.root / "scripts" / "setup"), *arguments],
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert answer.stdout == "", "stdout belongs to what runs after the set-up"
        return answer.returncode, answer.stderr, self.log.read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def _calls(calls: list[str], name: str) -> list[str]:
    return [call for call in calls if call.startswith(f"{name} ")]


def test_with_everything_there_only_python_packages_are_installed_once(box: Sandbox) -> None:
    status, _, calls = box.run()
    assert status == 0
    assert not _calls(calls, "apt-get")
    pip = [call for call in calls if "-m pip" in call]
    assert len(pip) == 2
    assert "scripts/requirements.txt" in pip[0] and "-e" in pip[1].split()

    status, said, calls = box.run()
    assert (status, said) == (0, "")
    assert not _calls(calls, "apt-get") and not any("-m pip" in call for call in calls)


def test_models_are_compiled_again_only_when_they_changed(box: Sandbox) -> None:
    def compiled(calls: list[str]) -> int:
        return sum("hypervisor_model.precompile" in call for call in calls)

    assert compiled(box.run()[2]) == 1
    assert compiled(box.run()[2]) == 0
    (box.root / "hypervisor_model" / "policies" / "lsp.py").write_text("# changed\n")
    assert compiled(box.run()[2]) == 1


def test_what_a_first_run_needs_is_compiled_and_all_only_for_tests(box: Sandbox) -> None:
    def compiled(*arguments: str) -> list[str]:
        _, _, calls = box.run(*arguments)
        return [call.partition("precompile")[2].strip() for call in calls if "precompile" in call]

    assert compiled("--no-models") == []
    assert compiled() == ["--first"]
    assert compiled("--no-models") == compiled() == []
    assert compiled("--tests") == [""]
    assert compiled("--tests") == compiled() == []
    (box.root / "hypervisor_model" / "policies" / "lsp.py").write_text("# changed\n")
    assert compiled("--tests") == [""]
    assert compiled() == []


def test_the_first_run_needs_the_default_models() -> None:
    assert set(precompile.FIRST) == {*DEFAULT_MODELS, precompile.LEGALITY}


def test_changed_requirements_are_installed_again(box: Sandbox) -> None:
    box.run()
    (box.root / "scripts" / "requirements.txt").write_text("click==9\n")
    status, _, calls = box.run()
    assert status == 0
    assert sum("-m pip" in call for call in calls) == 2
    assert not any("-m venv" in call for call in calls)


def _requirements(calls: list[str]) -> list[str]:
    """The names of the requirements files that pip was given, in order."""
    return [
        Path(word).name for call in calls for word in call.split() if "scripts/requirements" in word
    ]


def test_the_tools_of_tests_and_documentation_are_not_for_the_demo(box: Sandbox) -> None:
    assert _requirements(box.run()[2]) == ["requirements.txt"]
    assert _requirements(box.run("--docs")[2]) == ["requirements-test.txt"]
    assert _requirements(box.run("--tests")[2]) == []
    assert _requirements(box.run()[2]) == []

    (box.root / "scripts" / "requirements-test.txt").write_text("pytest==10\n")
    assert _requirements(box.run()[2]) == []
    assert _requirements(box.run("--tests")[2]) == ["requirements-test.txt"]


def test_a_fresh_set_up_for_tests_installs_both_at_once(box: Sandbox) -> None:
    calls = box.run("--tests")[2]
    assert _requirements(calls) == ["requirements.txt", "requirements-test.txt"]
    assert sum("-m pip" in call for call in calls) == 2


def test_the_documentation_needs_no_more_system_packages(box: Sandbox) -> None:
    assert not _calls(box.run("--docs")[2], "apt-get")


def test_only_missing_packages_are_installed(box: Sandbox) -> None:
    (box.bin / "gdb-multiarch").unlink()
    status, _, calls = box.run()
    assert status == 0
    update, install = _calls(calls, "apt-get")
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends gdb-multiarch")


def test_what_ties_guests_to_the_tool_is_installed(box: Sandbox) -> None:
    (box.bin / "setpriv").unlink()
    assert _calls(box.run()[2], "apt-get")[-1].endswith(" util-linux")


def test_tests_need_more(box: Sandbox) -> None:
    status, _, calls = box.run("--tests")
    assert status == 0
    (packages,) = [call for call in _calls(calls, "apt-get") if " cpio " in call]
    wanted = " cpio chromium slurmctld slurmd slurm-client munge"
    assert packages.removesuffix(" libnss-wrapper").endswith(wanted)


def test_only_the_programs_of_grid_engine_are_taken_once(box: Sandbox) -> None:
    calls = box.run("--tests")[2]
    downloads = [call for call in _calls(calls, "apt-get") if " download " in call]
    assert len(downloads) == 1
    installs = [call for call in _calls(calls, "apt-get") if " install " in call]
    assert not any("gridengine" in call for call in installs)
    assert installs[-1].endswith(" liba2 libb3t64")
    assert len(_calls(calls, "apt-get")) == 1 + len(downloads) + len(installs)
    programs = box.root / ".venv/gridengine/usr/lib/gridengine"
    for name in ("sge_qmaster", "spoolinit", "spooldefaults.bin"):
        assert (programs / name).read_bytes() == b"%s%s" + 20 * b"\0" + b"\0"
    calls = box.run("--tests")[2]
    assert not any("download" in call for call in calls)


def test_a_grid_engine_that_cannot_be_had_is_named(box: Sandbox) -> None:
    box.add("apt-get", 'case $* in *download*) echo "E: no gridengine" >&2; exit 100;; esac')
    status, said, _ = box.run("--tests")
    assert status == 3
    assert "E: no gridengine\nsetup: Grid Engine could not be unpacked" in said
    assert not (box.root / ".venv/gridengine").exists()


def test_a_qemu_below_7_2_counts_as_missing(box: Sandbox) -> None:
    box.add("qemu-system-riscv64", 'echo "QEMU emulator version 7.1.0"')
    status, said, calls = box.run()
    assert status == 3
    assert "qemu-system-riscv" in _calls(calls, "apt-get")[-1]
    assert "QEMU 7.2 or newer could not be installed" in said


def test_an_own_qemu_7_2_is_taken_as_it_is(box: Sandbox) -> None:
    share = box.bin.parent / "share"
    box.add(
        "qemu-system-riscv64",
        f'case $1 in -L) echo {share};; *) echo "QEMU emulator version 7.2.22";; esac',
    )
    status, _, calls = box.run()
    assert status == 0
    assert not _calls(calls, "apt-get")


def test_without_root_sudo_is_used(box: Sandbox) -> None:
    (box.bin / "gdb-multiarch").unlink()
    box.add("id", "echo 1000")
    box.add("sudo", 'exec "$@"')
    status, _, calls = box.run()
    assert status == 0
    assert len(_calls(calls, "sudo")) == len(_calls(calls, "apt-get")) == 2


def test_without_root_and_sudo_it_says_what_to_run(box: Sandbox) -> None:
    (box.bin / "gdb-multiarch").unlink()
    box.add("id", "echo 1000")
    status, said, calls = box.run()
    assert status == 3
    assert "as root, run: apt-get" in said
    assert "gdb-multiarch" in said
    assert not _calls(calls, "apt-get")


def test_without_apt_it_names_what_is_missing(box: Sandbox) -> None:
    (box.bin / "gdb-multiarch").unlink()
    (box.bin / "apt-get").unlink()
    status, said, _ = box.run()
    assert status == 3
    assert "gdb-multiarch" in said


def test_a_failed_installation_says_what_apt_said(box: Sandbox) -> None:
    (box.bin / "gdb-multiarch").unlink()
    box.add("apt-get", 'case "$*" in *install*) echo "E: No space left"; exit 100;; esac')
    status, said, _ = box.run()
    assert status == 3
    assert "E: No space left" in said


def test_an_unknown_option_is_a_usage_error(box: Sandbox) -> None:
    assert box.run("--frobnicate")[0] == 2
