"""QEMU's arguments for what a user adds to the board."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.machine.configuration import MachineConfig, Timing, arguments
from cosim.machine.devices import Devices, Disk, Share, mmio_devices

RECORD = Timing("record", Path("log"))
QEMU = Path("/usr/bin/qemu")
DISK = Disk(Path("/d/a,b.img"), "raw", "mmio")


def _text(devices: Devices, timing: Timing = RECORD) -> str:
    return " ".join(arguments(QEMU, MachineConfig(Path("k"), devices=devices), timing))


def test_a_machine_without_devices_has_no_word_of_them() -> None:
    text = _text(Devices())
    assert "-drive" not in text and "virtio" not in text and "-device" not in text
    assert "sleep=off" in text


def test_a_recorded_disk_has_an_overlay_and_blkreplay() -> None:
    text = _text(Devices((DISK,)))
    assert "if=none,id=disk0-image,format=raw,snapshot=on,file=/d/a,,b.img" in text
    assert "-drive driver=blkreplay,if=none,image=disk0-image,id=disk0 " in text
    assert "-device virtio-blk-device,bus=virtio-mmio-bus.0,drive=disk0" in text
    # Without this, the guest would never be given what it reads.
    assert "sleep=on" in text


def test_a_live_disk_is_not_recorded_but_has_its_overlay() -> None:
    text = _text(Devices((DISK,)), Timing("live"))
    assert "blkreplay" not in text
    assert "if=none,id=disk0,format=raw,snapshot=on," in text


def test_only_a_writable_disk_is_written() -> None:
    text = _text(Devices((Disk(Path("w"), "qcow2", "pci", writable=True),)))
    assert "format=qcow2,snapshot=off,file=w" in text
    assert "-device virtio-blk-pci,drive=disk0" in text


@pytest.mark.parametrize(("bus", "modern"), [("mmio", True), ("mmio-legacy", False)])
def test_the_board_has_one_kind_of_virtio_mmio(bus: str, modern: bool) -> None:
    disk = Disk(Path("d"), "raw", bus)  # type: ignore[arg-type]
    assert ("virtio-mmio.force-legacy=false" in _text(Devices((disk,)))) is modern


def test_places_are_given_out_from_the_first_on() -> None:
    devices = Devices((DISK, DISK), network=True, bus="mmio")
    text = _text(devices)
    places = [f"{kind},bus=virtio-mmio-bus.{n}" for n, kind in enumerate(("device", "device"))]
    assert all(f"virtio-blk-{place}" in text for place in places)
    assert "virtio-net-device,bus=virtio-mmio-bus.2,netdev=net0" in text
    assert mmio_devices(devices) == 3
    assert mmio_devices(Devices((Disk(Path("d"), "raw", "pci"),), network=True)) == 0


def test_a_recorded_network_is_filtered() -> None:
    assert "filter-replay,id=net0-replay,netdev=net0" in _text(Devices(network=True))
    assert "filter-replay" not in _text(Devices(network=True), Timing("live"))


def test_a_shared_folder_is_read_only_unless_it_is_said() -> None:
    text = _text(Devices(shares=(Share(Path("/s"), "files"), Share(Path("/w"), "out", True))))
    assert "local,id=share0,path=/s,security_model=none,readonly=on" in text
    assert "local,id=share1,path=/w,security_model=none -device" in text
    assert "sleep=on" in text, "the guest would wait for ever"
    assert "virtio-9p-pci,fsdev=share0,mount_tag=files" in text


def test_flash_is_never_written() -> None:
    text = _text(Devices(flash=(Path("code"), Path("vars"))))
    assert "if=pflash,unit=0,format=raw,readonly=on,file=code" in text
    assert "if=pflash,unit=1,format=raw,snapshot=on,file=vars" in text


def test_board_and_device_tree() -> None:
    config = MachineConfig(Path("k"), board="aia=aplic", dtb=Path("b.dtb"))
    text = " ".join(arguments(QEMU, config, Timing("live")))
    assert "-machine virt,memory-backend=ram,aia=aplic -smp" in text
    assert "-dtb b.dtb" in text


def test_a_colon_in_a_name_is_no_protocol() -> None:
    words = Devices(disks=(Disk(Path("nbd:host:1")),), flash=(Path("fat:a"),)).arguments(
        repeats=False
    )
    assert [word.rpartition("file=")[2] for word in words if "file=" in word] == [
        "./fat:a",
        "./nbd:host:1",
    ]
