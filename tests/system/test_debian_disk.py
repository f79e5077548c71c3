"""A disk as the guest ``debian`` has it boots: initramfs, modules, init, command, power-off.

The packages of the real guest take most of a minute to fetch, so one package with busybox stands in
for them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import guest
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing
from cosim.machine.devices import Devices, Disk
from cosim.machine.qemu import Machine
from guest import cpio, debian, linux, spec
from guest.debian import recipe, root
from tests.guest.debian.test_root import package

pytestmark = pytest.mark.system

COMMAND = "cat /etc/hostname; mount | sed -n 's/ ext4.*//p'"
APPLETS = "sh mount umount mkdir hostname sed poweroff cat ls"


def test_the_disk_boots_to_its_command_and_powers_off(tmp_path: Path) -> None:
    made = guest.ensure(linux.NAME, lambda *_: None)
    fetched = spec.folder(linux.NAME) / "debian"
    busybox = {"usr/bin/busybox": (fetched / "busybox").read_bytes()}
    links = {"bin": "usr/bin", "sbin": "usr/sbin"}
    links |= {f"usr/bin/{name}": "busybox" for name in APPLETS.split()}
    disk, initrd = tmp_path / "disk.img", tmp_path / "initrd"
    with tempfile.TemporaryDirectory(dir=tmp_path) as tree:
        deb = package(tmp_path, "busybox", busybox, links)
        root.make(disk, [deb], recipe.files(), Path(tree), lambda *_: None)
    initrd.write_bytes(cpio.archive(recipe.entries(fetched)))
    before = spec.checksum(disk)
    emulator = tools.qemu()
    config = MachineConfig(
        kernel=made.kernel,
        initrd=initrd,
        append=f'{recipe.APPEND} cosim.run="{COMMAND}"',
        cpu=tools.default_cpu(emulator),
        devices=Devices((Disk(disk, "raw", "pci"),)),
    )
    with Machine(emulator.path, config, folder=tmp_path, timing=Timing("live")) as machine:
        machine.resume()
        assert machine.wait(100), machine.console_log.read_text(errors="replace")[-2000:]
        assert machine.end_reason() == "guest-shutdown"
        text = machine.console_log.read_text(errors="replace").replace("\r", "")
    assert f"\n{debian.NAME}\n/dev/vda on / type\ncosim: done, exit status 0\n" in text
    assert spec.checksum(disk) == before
