"""What a machine is and how its time runs, as typed values and as QEMU's arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cosim.errors import UsageError
from cosim.machine.devices import NO_DEVICES, Devices
from cosim.machine.option_text import option_value
from cosim.machine.waits import Linked

RAM_BASE = 0x8000_0000
"""Physical address of RAM on QEMU's ``virt`` board."""

FLASH_BASE = 0x2000_0000
"""Physical address of the first flash chip of the board."""
FLASH_BYTES = 32 << 20
"""The size of each of the two."""

OFF_SWITCH = 0x10_0000
"""Physical address of the device that switches the board off or resets it."""


_TICK = 2
"""Milliseconds of guest time.  A guest that runs instruction by instruction needs about a second
for so much, and QEMU hears nobody meanwhile.  For Linux's boot so many ticks cost nothing that can
be measured."""


def ticks(milliseconds: float) -> list[str]:
    """Return the arguments for a timer inside QEMU that the guest does not see.

    QEMU's main loop runs only when the guest reaches the next timer.  A recording that executes
    2^31 instructions without one aborts in replay_advance_current_icount.  Many guests set no timer
    after they have switched the machine off and spin.  Without these ticks they could be neither
    stopped nor recorded.  A guest that waits for input without a timer, such as U-Boot, takes one
    character per tick.

    :param milliseconds: of guest time between two ticks.
    """
    timer = f"filter-buffer,id=ticks,netdev=nowhere,interval={1000 * milliseconds:.0f}"
    return ["-netdev", "hubport,id=nowhere,hubid=0", "-object", timer]


@dataclass(frozen=True)
class MachineConfig:
    """The guest and the board it runs on: everything that makes two runs the same.

    ``kernel`` is None if firmware is all that runs, or if it finds a kernel itself.  ``memory`` is
    in bytes.  ``bios`` is None for QEMU's own OpenSBI, ``"none"`` to start the kernel in M-mode, or
    a firmware file.  ``linked`` says where the kernel runs beside its physical addresses.
    ``board`` holds options of QEMU's ``virt`` board (``aia=aplic-imsic``), ``dtb`` a device tree to
    give to the guest instead of QEMU's own.  ``extra`` holds further QEMU arguments.
    """

    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    bios: str | None = None
    memory: int = 512 << 20
    cpu: str = "rv64"
    harts: int = 1
    """Several take turns in one thread of QEMU, so that all that they do has one order."""
    linked: tuple[Linked, ...] = ()
    devices: Devices = NO_DEVICES
    board: str = ""
    dtb: Path | None = None
    extra: tuple[str, ...] = ()
    snapshot: Path | None = None
    """Where the guest starts from, instead of from reset (:mod:`cosim.machine.snapshot`)."""

    @property
    def has_dma(self) -> bool:
        """True if a device may write to RAM that the guest did not get from QEMU's board."""
        return self.devices.has_dma or "-device" in self.extra


@dataclass(frozen=True)
class Timing:
    """How the guest's time runs.

    ``live``: wall clock.  ``icount``: deterministic, by instruction count.  ``record`` and
    ``replay``: deterministic, and written to ``log`` or read from it.  These two are named after
    QEMU's option ``rr=record|replay``: the whole machine is replayed, not a trace of events.
    """

    mode: Literal["live", "icount", "record", "replay"] = "icount"
    log: Path | None = None
    typed: bool = False
    """True if a user types into the guest while QEMU records it.

    The guest then waits in real time when it is idle, because otherwise QEMU never takes the
    input.  Two such recordings differ.  A re-execution repeats its recording exactly.
    """
    split: frozenset[int] | None = None
    """Odd addresses in the pages to run instruction by instruction (see
    :mod:`cosim.machine.waits`).  None: all pages that hold a ``wfi`` when the machine starts.  A
    re-execution needs those of its recording."""

    @property
    def takes_input(self) -> bool:
        """True if the guest's console can be typed into."""
        return self.typed or not self.repeats

    @property
    def repeats(self) -> bool:
        """True for a recording and for its re-execution."""
        return self.mode in ("record", "replay")

    def arguments(self, *, asynchronous: bool = False) -> list[str]:
        """Return the QEMU arguments of this mode.

        :param asynchronous: the guest waits for devices, such as disks.  Then it waits in real time
            as if a user typed, because otherwise QEMU never completes their requests.
        :raises UsageError: when a recording or its re-execution has no log file.
        """
        if self.mode == "live":
            return []
        waits = self.typed or asynchronous
        icount = f"shift=0,sleep={'on' if waits else 'off'}"
        ticking: list[str] = []
        if self.mode != "icount":
            if self.log is None:
                raise UsageError(f"timing mode {self.mode} needs a log file")
            icount += f",rr={self.mode},rrfile={option_value(self.log)}"
            ticking = ticks(1 if waits else _TICK)
        return [
            *("-icount", icount, "-seed", "1"),
            *("-rtc", "base=2024-01-01T00:00:00,clock=vm"),
            *ticking,
        ]


def arguments(qemu: Path, config: MachineConfig, timing: Timing) -> list[str]:
    """Return QEMU's command line, without what connects one process to us.

    Two runs with equal command lines run the same guest in the same way.

    :raises UsageError: when a recording or its re-execution has no log file.
    """
    words = [
        *(str(qemu), "-nodefaults", "-display", "none", "-no-reboot", "-net", "none"),
        *("-machine", ",".join(filter(None, ("virt,memory-backend=ram", config.board)))),
        *("-smp", str(config.harts)),
        *("-cpu", config.cpu, "-m", f"{config.memory >> 10}K"),
    ]
    if config.kernel:
        words += ["-kernel", str(config.kernel)]
    if config.initrd:
        words += ["-initrd", str(config.initrd)]
    if config.append:
        words += ["-append", config.append]
    if config.bios:
        words += ["-bios", config.bios]
    if config.dtb:
        words += ["-dtb", str(config.dtb)]
    if config.harts > 1:
        words += ["-accel", "tcg,thread=single"]
    return [
        *words,
        *timing.arguments(asynchronous=config.devices.asynchronous),
        *config.devices.arguments(repeats=timing.repeats),
        *config.extra,
        *(("-incoming", "defer") if config.snapshot else ()),
    ]


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as ``512M`` or ``2G``; a bare number is in MiB, as in QEMU.

    :raises UsageError: when ``text`` is not a size.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip().upper())
    if not match or int(match[1]) == 0:
        raise UsageError(f"{text!r} is not a memory size; write for example 512M or 2G")
    return int(match[1]) << {"K": 10, "": 20, "M": 20, "G": 30}[match[2]]
