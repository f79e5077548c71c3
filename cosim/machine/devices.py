"""Devices that a user gives a guest, and what connects them: disks, flash, network, folders.

A recording holds no data of a disk: its re-execution reads the disk again.  QEMU's ``blkreplay``
only fixes at which instruction a request is complete.  So each run works on its own overlay, which
QEMU deletes, and the image stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cosim.machine.option_text import image_name, option_value

Bus = Literal["pci", "mmio", "mmio-legacy"]
"""How a device is connected.  ``mmio`` is virtio 1.0; ``mmio-legacy`` is virtio before that."""
BUSES: tuple[Bus, ...] = ("pci", "mmio", "mmio-legacy")
Format = Literal["raw", "qcow2"]
FORMATS: tuple[Format, ...] = ("raw", "qcow2")
MMIO_SLOTS = 8
"""Places for ``virtio-mmio`` devices on QEMU's ``virt`` board."""


@dataclass(frozen=True)
class Disk:
    """A disk image that the guest sees as a virtio disk.  None: to be found out by the plan."""

    path: Path
    format: Format | None = None
    bus: Bus | None = None
    writable: bool = False
    """The guest's writes go to the image itself and not to an overlay."""


@dataclass(frozen=True)
class Share:
    """A folder of the host that the guest mounts by its tag (9p)."""

    path: Path
    tag: str
    writable: bool = False


@dataclass(frozen=True)
class Devices:
    """Everything that a user adds to the board."""

    disks: tuple[Disk, ...] = ()
    network: bool = False
    """A virtio network card behind QEMU's own router (``-netdev user``)."""
    shares: tuple[Share, ...] = ()
    flash: tuple[Path, ...] = ()
    """Contents of the board's two flash chips: code and variables.  They are never written."""
    limit: int | None = None
    """How many bytes the overlays of all disks may take."""
    bus: Bus = "pci"
    """Where the network card and the folders are, and disks that name no bus."""

    @property
    def asynchronous(self) -> bool:
        """True if a device completes requests at times that QEMU must record."""
        return bool(self.disks or self.network or self.shares)

    @property
    def has_dma(self) -> bool:
        """True if a device may write to the guest's RAM."""
        return bool(self.disks or self.network or self.shares)

    def arguments(self, *, repeats: bool) -> list[str]:
        """Return QEMU's arguments for the devices.

        :param repeats: for a recording or its re-execution.
        """
        slots = _Slots()
        words: list[str] = []
        buses = {disk.bus or self.bus for disk in self.disks}
        if self.network or self.shares:
            buses.add(self.bus)
        if "mmio" in buses:
            words += ["-global", "virtio-mmio.force-legacy=false"]
        for number, path in enumerate(self.flash):
            # The first chip holds code; the second one's writes go to an overlay.
            keep = "readonly=on" if number == 0 else "snapshot=on"
            words += [
                "-drive",
                f"if=pflash,unit={number},format=raw,{keep},file={image_name(path)}",
            ]
        for number, disk in enumerate(self.disks):
            words += _disk(number, disk, slots.place(disk.bus or self.bus), repeats)
        if self.network:
            words += ["-netdev", "user,id=net0"]
            # Nobody boots from the network, and QEMU may lack the ROM for that.
            rom = ",romfile=" if self.bus == "pci" else ""
            words += ["-device", f"virtio-net{slots.place(self.bus)},netdev=net0{rom}"]
            if repeats:
                words += ["-object", "filter-replay,id=net0-replay,netdev=net0"]
        for number, share in enumerate(self.shares):
            words += _share(number, share, slots.place(self.bus))
        return words


NO_DEVICES = Devices()


class _Slots:
    """Gives out the places for ``virtio-mmio`` devices, from the first on.

    QEMU itself would begin with the last.  Teaching kernels know only the first.
    """

    def __init__(self) -> None:
        self._used = 0

    def place(self, bus: Bus) -> str:
        """Return the rest of a device's name behind ``virtio-blk``, with its place."""
        if bus == "pci":
            return "-pci"
        self._used += 1
        return f"-device,bus=virtio-mmio-bus.{self._used - 1}"


def _disk(number: int, disk: Disk, place: str, repeats: bool) -> list[str]:
    name = f"disk{number}"
    image = f"{name}-image" if repeats else name
    overlay = "off" if disk.writable else "on"
    drive = f"if=none,id={image},format={disk.format or 'raw'},snapshot={overlay}"
    words = ["-drive", f"{drive},file={image_name(disk.path)}"]
    if repeats:
        words += ["-drive", f"driver=blkreplay,if=none,image={image},id={name}"]
    # By default, QEMU stops a guest whose disk is full, and nobody would hear of it.
    return [*words, "-device", f"virtio-blk{place},drive={name},werror=report,rerror=report"]


def _share(number: int, share: Share, place: str) -> list[str]:
    name = f"share{number}"
    access = "" if share.writable else ",readonly=on"
    return [
        "-fsdev",
        f"local,id={name},path={option_value(share.path)},security_model=none{access}",
        "-device",
        f"virtio-9p{place},fsdev={name},mount_tag={share.tag}",
    ]


def mmio_devices(devices: Devices) -> int:
    """Return how many of the board's ``virtio-mmio`` places the devices take."""
    buses: Sequence[Bus] = [
        *(disk.bus or devices.bus for disk in devices.disks),
        *([devices.bus] if devices.network else []),
        *(devices.bus for _ in devices.shares),
    ]
    return sum(bus != "pci" for bus in buses)
