"""What ``--like NAME`` stands for: the machine that a well-known teaching kernel is run on.

A preset gives values to options that the user did not give.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosim.machine.devices import Bus


@dataclass(frozen=True)
class Preset:
    """Values for options; None leaves an option alone."""

    bios: str | None = None
    memory: str | None = None
    cpu: str | None = None
    bus: Bus | None = None


PRESETS = {
    # As QEMUOPTS in its Makefile: M-mode, 128 MiB, a modern virtio disk in the first place.  Its
    # kernel leaves accessed and dirty bits to the hardware, so the CPU must not have Svade.
    "xv6": Preset(bios="none", memory="128M", cpu="rv64", bus="mmio"),
}
NO_PRESET = Preset()
