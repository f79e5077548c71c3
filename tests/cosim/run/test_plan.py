"""What a request becomes before QEMU starts: the guest's command line, and what it cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cosim.errors import UsageError
from cosim.kernel.images import KernelImage
from cosim.kernel.symbols import Symbols
from cosim.machine import tools
from cosim.machine.devices import Bus, Disk
from cosim.run import plan
from cosim.run.names import IN_FILE
from cosim.run.run_spec import Exchange, RunSpec
from cosim.session.backends.gdb import Gdb
from guest.spec import GuestSpec
from tests.cosim.kernel.test_images import elf, image

OWN = "console=ttyS0 panic=-1"


def spec(workload: str | None = None, append: str | None = None) -> RunSpec:
    return RunSpec(name="test", backend=Gdb(), guest="linux", workload=workload, append=append)


def test_a_workload_is_quoted_for_linux_and_alone_for_a_bare_guest() -> None:
    assert plan._command_line(spec("echo a; ls", "quiet"), OWN) == (
        f'{OWN} cosim.run="echo a; ls" quiet'
    )
    assert plan._command_line(spec("scenario=map"), "scenario=all") == "scenario=map"
    assert plan._command_line(spec(), OWN) == OWN


def test_a_workload_with_a_quote_is_refused() -> None:
    with pytest.raises(UsageError, match='--workload cannot contain a "') as refused:
        plan._command_line(spec('echo "hello  world"'), OWN)
    assert "\n" not in str(refused.value)
    plan._command_line(spec("echo 'hello  world'"), OWN)


def test_a_command_line_that_the_kernel_would_cut_is_refused() -> None:
    plan._check_fits("a" * 1023, spec("a"))
    with pytest.raises(UsageError, match=r"--workload makes .* 1024 bytes long; .* at most 1023"):
        plan._check_fits("a" * 1024, spec("a"))
    with pytest.raises(UsageError, match=r"--append makes .* 1026 bytes"):
        plan._check_fits("\u00e9" * 513, spec(append="a"))


def test_messages_name_the_key_of_a_run_file() -> None:
    with pytest.raises(UsageError, match=r"^append makes the guest's command line 1024 bytes"):
        plan._check_fits("a" * 1024, replace(spec(append="a"), names=IN_FILE))


def _image(kind: Literal["elf", "image"]) -> KernelImage:
    return KernelImage(Path("k"), kind, 0x8020_0000, ())


def test_devices_are_where_the_kernel_looks_for_them() -> None:
    nothing = Symbols(np.array([], np.uint64), [])
    linux = Symbols(np.array([0x8020_0000], np.uint64), ["linux_banner"])
    assert plan._bus(_image("image"), nothing) == "pci"
    assert plan._bus(_image("elf"), linux) == "pci"
    assert plan._bus(_image("elf"), nothing) == "mmio"


def _disk(tmp_path: Path, bus: Bus | None = None) -> Disk:
    (tmp_path / "d").write_bytes(bytes(512))
    return Disk(tmp_path / "d", bus=bus)


def test_every_question_about_a_disk_is_answered(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(512))
    disks = (_disk(tmp_path), Disk(tmp_path / "other", bus="pci"))
    asked = replace(spec(), disks=disks, disk_write=True)
    first, second = plan._devices(asked, None, "mmio").disks
    assert (first.bus, first.format, first.writable) == ("mmio", "raw", True)
    assert (second.bus, second.format) == ("pci", "raw")


def test_places_on_the_board_are_limited(tmp_path: Path) -> None:
    disk = _disk(tmp_path)
    full = replace(spec(), disks=(disk,) * 7, net="user")
    plan._devices(full, None, "mmio")
    with pytest.raises(UsageError, match="has 8 places for virtio-mmio") as refused:
        plan._devices(replace(full, disks=(disk,) * 8), None, "mmio")
    assert refused.value.key == "disk"
    mixed = (_disk(tmp_path, "mmio"), _disk(tmp_path, "mmio-legacy"))
    with pytest.raises(UsageError, match="all legacy or none"):
        plan._devices(replace(spec(), disks=mixed), None, "pci")


def test_a_file_that_is_written_is_one_disk(tmp_path: Path) -> None:
    disk = _disk(tmp_path)
    (tmp_path / "same").symlink_to(tmp_path / "d")
    twice = replace(spec(), disks=(disk, Disk(tmp_path / "same")))
    assert len(plan._devices(twice, None, "pci").disks) == 2
    with pytest.raises(UsageError, match="twice, and with --disk-write both") as refused:
        plan._devices(replace(twice, disk_write=True), None, "pci")
    assert refused.value.key == "disk"


def test_a_flat_binary_is_loaded_into_ram(tmp_path: Path) -> None:
    kernel = tmp_path / "k.bin"
    kernel.write_bytes(bytes(4096))
    fits = replace(spec(), kernel=kernel, load_address=0x87FF_F000)
    plan._check_load_address(fits, 128 << 20)
    for address in (0x87FF_F002, 0x4_0000_0000):
        with pytest.raises(UsageError, match="but RAM ends at 0x88000000; choose a lower address"):
            plan._check_load_address(replace(fits, load_address=address), 128 << 20)


def test_a_flat_kernel_is_behind_the_whole_firmware(tmp_path: Path) -> None:
    kernel, firmware = tmp_path / "Image", tmp_path / "fw.bin"
    kernel.write_bytes(image())
    firmware.write_bytes(b"\x13\0\0\0" * (5 << 18))  # 5 MiB
    for bios, base in ((None, 0x8020_0000), ("none", 0x8000_0000), (firmware, 0x8060_0000)):
        code = plan._code(kernel, None if bios is None else str(bios), spec(), "kernel")
        assert code.image.entry == base
        assert (code.loaded, code.bios) == (kernel, None if bios is None else str(bios))


def test_a_kernel_without_firmware_gets_the_cpu_that_its_makefile_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator = tools.Tool(Path("qemu"), (10, 0), "10.0")
    monkeypatch.setattr(tools, "qemu_has_cpu_option", lambda path, option: True)
    assert plan._default_cpu(emulator, "none", named=False) == "rv64"
    for bios, named in (("none", True), (None, False), ("fw.bin", False)):
        assert plan._default_cpu(emulator, bios, named=named) == "rv64,svade=on"


def test_firmware_may_be_all_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    firmware = tmp_path / "fw.elf"
    firmware.write_bytes(elf())
    code = plan._code(None, str(firmware), spec(), "kernel")
    assert (code.given, code.loaded, code.bios) == (firmware, None, str(firmware))
    assert code.image.ranges[0].start == 0x8000_0000
    firmware.write_bytes(elf(segments=[(1, 5, 0, 0, b"code", 4)], entry=0, kind=3))
    code = plan._code(None, str(firmware), spec(), "kernel")
    assert code.given == firmware and code.bios is not None
    assert Path(code.bios).read_bytes() == b"code"
    assert len(code.symbols) == 0


def test_the_region_goes_on_if_someone_types_into_a_guest_with_a_shell() -> None:
    known = GuestSpec(
        name="debian",
        kernel=Path("Image"),
        append="",
        region_from="mark:init",
        region_to="mark:done",
        typed_to="power-off",
        sources="",
    )
    talk = replace(spec(), console=(Exchange("# ", "ls"),))
    assert plan._end(spec(), known) == "mark:done"
    assert plan._end(talk, known) == plan._end(replace(spec(), live=True), known) == "power-off"
    assert plan._end(replace(talk, region_to="mark:x"), known) == "mark:x"
    assert plan._end(talk, replace(known, typed_to=None)) == "mark:done"
    assert plan._end(spec(), None) == "power-off"


def test_a_file_that_does_not_fill_its_flash_chip_is_refused(tmp_path: Path) -> None:
    chip = tmp_path / "code.fd"
    with chip.open("wb") as file:
        file.truncate(32 << 20)
    plan._check_flash(replace(spec(), pflash=(chip,)))
    chip.write_bytes(b"x" * 1000)
    with pytest.raises(
        UsageError, match=r"--pflash: .*code\.fd has 1,000 bytes, .* 33,554,432; pad"
    ):
        plan._check_flash(replace(spec(), pflash=(chip,)))
