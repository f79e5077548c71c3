"""Options that give a guest devices: what they mean, and what is refused with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cosim.machine.devices import Disk, Share
from cosim.run import device_options as options
from cosim.run.initrd_additions import Added


def _refused(check: Callable[[Any, Path], Any], value: Any, why: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=why) as error:
        check(value, folder)
    assert "\n" not in str(error.value)


def test_a_disk_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "a,b").touch()
    (tmp_path / "d").touch()
    assert options.disk("d", tmp_path) == Disk(tmp_path / "d")
    given = options.disk("a,,b,format=qcow2,bus=mmio", tmp_path)
    assert given == Disk(tmp_path / "a,b", "qcow2", "mmio")
    for value, why in {
        "d,size=3": "has 'size=3'; known: format=.., bus=..",
        "d,format=vmdk": "has format=vmdk; known: raw, qcow2",
        "d,bus=ide": "has bus=ide; known: pci, mmio, mmio-legacy",
        "d,bus=pci,bus=mmio": "has bus twice",
        "e": "which is not a file",
    }.items():
        _refused(options.disk, value, re.escape(why), tmp_path)


def test_a_shared_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    _refused(options.share, str(folder), "has the tag 'my files'", tmp_path)
    assert options.share(f"{folder},tag=f,write=on", tmp_path) == Share(folder, "f", True)
    assert options.share(f"{folder},tag=f", tmp_path) == Share(folder, "f")
    _refused(options.share, "nowhere", "which is not a folder", tmp_path)


def test_a_file_for_the_initramfs(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    assert options.addition("tool", tmp_path) == Added(tmp_path / "tool", "tool")
    assert options.addition("tool,to=/usr/bin/t", tmp_path) == Added(tmp_path / "tool", "usr/bin/t")
    _refused(options.addition, "gone", "neither a file nor a folder", tmp_path)
    _refused(options.addition, "tool,to=../x", "no path in the guest", tmp_path)


def test_flash_board_network_and_device_tree(tmp_path: Path) -> None:
    for name in ("code", "vars"):
        (tmp_path / name).write_bytes(b"x")
    assert options.flash("code,vars", tmp_path) == (tmp_path / "code", tmp_path / "vars")
    _refused(options.flash, "code,vars,more", "has two flash chips", tmp_path)
    (tmp_path / "a,b").write_bytes(b"x")
    assert options.flash("a,,b,code", tmp_path) == (tmp_path / "a,b", tmp_path / "code")
    assert options.board("virt,aia=aplic,acpi=off", tmp_path) == "aia=aplic,acpi=off"
    _refused(options.board, "memory-backend=m", "cannot have memory-backend: cosim", tmp_path)
    _refused(options.board, "smp.cpus=2", "cannot have smp.cpus: use --smp", tmp_path)
    _refused(options.board, "memory.size=1G", "cannot have memory.size: use --memory", tmp_path)
    _refused(options.board, "aia", "has 'aia'; write options of the board", tmp_path)
    _refused(options.network, "tap", "it can be user or none", tmp_path)
    _refused(options.device_tree, "code", "not a compiled device tree", tmp_path)
    (tmp_path / "b.dtb").write_bytes(b"\xd0\x0d\xfe\xed")
    assert options.device_tree("b.dtb", tmp_path) == tmp_path / "b.dtb"


@pytest.mark.parametrize(
    "option",
    [
        *("-S", "-s", "-gdb", "-icount", "-plugin", "-monitor", "-qmp", "-smp", "-accel", "--smp"),
        *("-M", "-set", "-qtest"),
    ],
)
def test_what_would_break_a_session_is_refused_with_the_reason(option: str) -> None:
    _refused(
        options.qemu_arguments, f"-d guest_errors {option} x", f"cannot have {option}: ", Path()
    )


def test_other_arguments_of_qemu_are_split_like_a_shell_does() -> None:
    words = options.qemu_arguments("-global 'a b=c' -device virtio-rng-pci", Path())
    assert words == ("-global", "a b=c", "-device", "virtio-rng-pci")
    _refused(options.qemu_arguments, "-global 'a", "cannot be split into words", Path())
    _refused(options.qemu_arguments, "virt", "QEMU's options begin with -", Path())


@pytest.mark.parametrize("text", ["-device help", "-device virtio-blk-pci,help", "-object ?"])
def test_help_of_qemu_runs_no_guest(text: str) -> None:
    _refused(options.qemu_arguments, text, "QEMU prints its help and runs no guest", Path())


def test_what_a_recording_does_not_cover() -> None:
    assert options.unrecorded(("-device", "virtio-rng-pci")) is None
    assert options.unrecorded(("-drive", "file=x")) == ("-drive", "use --disk")
    assert options.unrecorded(("-drive", "driver=blkreplay,image=x")) is None
    assert options.unrecorded(("-netdev", "user,id=n")) == ("-netdev", "use --net user")
    filtered = ("-netdev", "user,id=n", "-object", "filter-replay,id=f,netdev=n")
    assert options.unrecorded(filtered) is None


def test_a_name_that_the_host_does_not_take(tmp_path: Path) -> None:
    for check in (options.disk, options.share, options.addition, options.device_tree):
        _refused(check, "n" * 300, "which cannot be read: File name too long", tmp_path)


def test_a_size_in_bytes(tmp_path: Path) -> None:
    assert options.size(4096, tmp_path) == 4096
    assert options.size("1K", tmp_path) == 1024
    for value in (True, 0, -5):
        _refused(options.size, value, "not a number of bytes above 0", tmp_path)
