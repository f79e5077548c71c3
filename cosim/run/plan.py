"""From a run as the user described it to what a session does.

Everything is checked here, before QEMU starts.  Nothing below a plan asks what the user wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import guest
from cosim.capture import marks
from cosim.capture.decode import CBO_BLOCK
from cosim.capture.paging import Paging
from cosim.errors import UsageError
from cosim.kernel import bootable, symbols
from cosim.kernel.images import KernelImage, inspect_firmware, inspect_kernel
from cosim.kernel.initrd import inspect_initrd
from cosim.kernel.symbols import Symbols
from cosim.machine import disk_checksums, disk_images, snapshot, tools
from cosim.machine.configuration import (
    FLASH_BASE,
    FLASH_BYTES,
    RAM_BASE,
    MachineConfig,
    Timing,
    arguments,
    parse_memory,
)
from cosim.machine.devices import MMIO_SLOTS, Bus, Devices, Disk, mmio_devices
from cosim.machine.waits import Linked
from cosim.run import region
from cosim.run.backend_options import BackendOptions
from cosim.run.initrd_additions import extended
from cosim.run.names import Names
from cosim.run.presets import NO_PRESET, PRESETS
from cosim.run.region import Edge
from cosim.run.run_spec import Exchange, RunSpec
from cosim.run.task_layout import Naming, naming_of
from guest.spec import GuestSpec, checksum
from hypervisor_model.events import ENVCFG_ADUE, ENVCFG_PBMTE
from hypervisor_model.policies import MachineModel

DEFAULT_TIME_LIMIT = 600.0
TOOL_BYTES = 512 << 20
"""About how much memory a run needs beside guest RAM: QEMU, gdb, this process, and the tables that
its models keep.  Measured with ``linux``, both sources and all policies (480 MiB).  What a model
reserves for the rest of guest RAM is never touched."""
SNAPSHOT_QEMU = (8, 2)
"""The first version of QEMU that writes a machine's state to a file by itself."""
_CPU_PROPERTIES = ("svade", "svadu", "svpbmt", "svnapot", "svvptc", "cboz_blocksize")
"""Properties that sessions need.  All are read at once, because each question starts a QEMU."""
_FIRMWARE = (RAM_BASE, 2 << 20)
"""Where QEMU puts its own OpenSBI.  A kernel starts behind it."""
_LINUX = 0xFFFF_FFFF_8000_0000
"""Where Linux maps itself; a flat Image does not say."""
_COMMAND_LINE_BYTES = 1023
"""The longest command line that a guest takes.  riscv64 Linux has COMMAND_LINE_SIZE = 1024 with the
NUL at its end, and so has ``micro``.  Both cut the rest off silently."""


@dataclass(frozen=True)
class Plan:
    """One session, resolved: files inspected, tools found, region edges turned into addresses."""

    name: str
    machine: MachineConfig
    kernel: Path
    """The kernel as the user gave it, or the firmware if there is no kernel."""
    image: KernelImage
    """What is loaded of it."""
    symbols: Symbols
    qemu: tools.Tool
    begin: Edge
    end: Edge
    mark_at: int
    """Virtual address of the mark instruction."""
    backend: BackendOptions
    console: tuple[Exchange, ...]
    """The dialogue with the guest."""
    models: tuple[str, ...]
    """Empty for the default models."""
    modelled: Mapping[str, Any]
    """What the user chose of the modelled machine."""
    stop_on_divergence: bool
    live: bool
    """The guest runs in real time and is not recorded: the user is at its console, or it has
    several harts."""
    time_limit: float | None
    """Seconds; None for no limit."""
    versions: dict[str, str]
    """Versions of what the guest is made from."""
    cpu_properties: Mapping[str, bool | int]
    """What QEMU says of the CPU: those of :data:`_CPU_PROPERTIES` that it has."""
    names: Names
    """How messages spell the user's options."""

    @property
    def machine_mode(self) -> bool:
        """True if the guest does not use QEMU's OpenSBI.

        Other firmware, or a kernel without any, may write page tables in M-mode or move itself.
        """
        return self.machine.bios is not None

    @property
    def firmware_ranges(self) -> list[tuple[int, int]]:
        """Physical ranges that may hold M-mode code, as (first, bytes)."""
        return [(RAM_BASE, self.machine.memory)] if self.machine_mode else [_FIRMWARE]

    @property
    def kernel_ranges(self) -> list[tuple[int, int]]:
        """Physical ranges that may hold the kernel's text, as (first, bytes).

        The flags in the file are no reason to leave one out: without paging nothing obeys them.
        """
        return [(part.start, part.size) for part in self.image.ranges]

    @property
    def cbo_block(self) -> int:
        """Bytes that ``cbo.zero`` of the CPU clears."""
        return int(self.cpu_properties.get("cboz_blocksize", CBO_BLOCK))

    @property
    def paging(self) -> Paging:
        """What the CPU has of the paging features that a guest can switch."""
        cpu = self.cpu_properties
        memory_types = ENVCFG_PBMTE if cpu.get("svpbmt") else 0
        return Paging(
            switches=(ENVCFG_ADUE if cpu.get("svadu") else 0) | memory_types,
            features=(0 if cpu.get("svade") else ENVCFG_ADUE) | memory_types,
        )

    @cached_property
    def naming(self) -> Naming:
        """How the guest's Linux keeps its processes, so that they can be named."""
        return naming_of(self.machine.kernel, self.symbols)

    @property
    def memory_needed(self) -> int:
        """How many bytes of this machine's memory the run needs if the guest uses all its RAM."""
        return self.machine.memory + TOOL_BYTES

    @property
    def typed(self) -> bool:
        """True if something is typed into the guest."""
        return bool(self.console)

    def edge(self, *, end: bool) -> str:
        """Return an edge of the region as the user would write it, for messages."""
        edge = self.end if end else self.begin
        return self.names.setting("to" if end else "from", edge.text)

    def machine_model(self) -> MachineModel:
        """Return the guest's machine as the models see it, with the paging features of its CPU."""
        cpu = self.cpu_properties
        fields = {
            "ram_base": RAM_BASE,
            "ram_size": self.machine.memory,
            "harts": self.machine.harts,
            # QEMU's MMU sets A and D, with Svadu or without, unless the CPU has Svade.  A CPU with
            # both leaves them to software until menvcfg.ADUE is set, which is an event.
            "svadu": not cpu.get("svade", False),
            **{name: bool(cpu.get(name, False)) for name in ("svpbmt", "svnapot", "svvptc")},
        }
        return MachineModel.from_json({**fields, **self.modelled})

    def describe(self) -> dict[str, object]:
        """Return the ``guest`` part of the result document."""
        machine = self.machine
        bios = None if machine.bios in (None, "none") else Path(str(machine.bios))
        # A recording has one name in results, wherever it lies.
        recorded = Timing("record", Path("recording.bin"), typed=self.typed)
        timing = Timing("live") if self.live else recorded
        return {
            "name": self.name,
            "kernel": str(self.kernel),
            "initrd": None if machine.initrd is None else str(machine.initrd),
            "command_line": machine.append,
            "bios": machine.bios,
            "memory": machine.memory,
            "needs": {"memory": self.memory_needed},
            "cpu": machine.cpu,
            "qemu": ".".join(map(str, self.qemu.version)),
            "versions": self.versions,
            "sha256": {
                "kernel": checksum(self.kernel),
                "initrd": machine.initrd and checksum(machine.initrd),
                "bios": bios and checksum(bios),
                **({"dtb": checksum(machine.dtb)} if machine.dtb else {}),
            },
            **self._describe_devices(),
            **self._describe_snapshot(),
            **({"repeats": False} if self.live else {}),
            "arguments": arguments(self.qemu.path, machine, timing),
        }

    def made_from(self) -> dict[str, str]:
        """Return what a snapshot of the machine can be used with, by names that users know."""
        machine = self.machine
        bios = machine.bios
        return {
            "QEMU": ".".join(map(str, self.qemu.version)),
            "kernel": checksum(self.kernel),
            "firmware": checksum(Path(bios)) if bios not in (None, "none") else str(bios),
            "memory": f"{machine.memory >> 10}K",
            "cpu": machine.cpu,
            "board": machine.board or "virt",
            "flash": ",".join(map(checksum, machine.devices.flash)),
            "arguments for QEMU": " ".join(machine.extra),
        }

    def check_can_save(self, what: str) -> None:
        """Check that this machine can be saved, and started from what was saved.

        :param what: what the user asked for, for the message.
        :raises UsageError: when it cannot.
        """
        if self.qemu.version < SNAPSHOT_QEMU:
            wanted = ".".join(map(str, SNAPSHOT_QEMU))
            raise UsageError(
                f"{what} needs QEMU {wanted} or newer, which writes its state to a file; this is "
                f"{'.'.join(map(str, self.qemu.version))}"
            )
        if self.machine.devices.disks:
            raise UsageError(f"{what}: {self.name} has a disk, and a snapshot does not hold disks")
        if "aclint=on" in self.machine.board:
            raise UsageError(
                f"{what}: --board aclint=on has its timer elsewhere, and a snapshot would lose it"
            )

    def check_snapshot(self, path: Path) -> None:
        """Check that the snapshot ``path`` can be used with this machine.

        :raises UsageError: when the file is no snapshot, or one of another machine.
        :raises StorageError: when it cannot be read.
        """
        option = self.names.option("from_snapshot")
        self.check_can_save(option)
        theirs, ours = snapshot.read_head(path).machine, self.made_from()
        for name in ours:
            if theirs.get(name) != ours[name]:
                was, now = (_short(side.get(name, "")) for side in (theirs, ours))
                raise UsageError(
                    f"{option}: {path} was made with another {name} ({was}) than this run has "
                    f"({now}); give the run the same, or make the snapshot again"
                )

    def _describe_devices(self) -> dict[str, object]:
        """Return what the user added to the board; nothing if that is nothing."""
        devices = self.machine.devices
        found: dict[str, object] = {}
        if devices.disks:
            found["disks"] = [
                {
                    "file": str(disk.path),
                    "format": disk.format,
                    "bus": disk.bus,
                    "written": disk.writable,
                    "sha256": {
                        str(file): disk_checksums.sha256(file) for file in disk_images.files(disk)
                    },
                }
                for disk in devices.disks
            ]
        if devices.network:
            found["network"] = "user"
        if devices.shares:
            found["shares"] = [
                {"folder": str(share.path), "tag": share.tag, "written": share.writable}
                for share in devices.shares
            ]
        if devices.flash:
            found["flash"] = [
                {"file": str(path), "sha256": checksum(path)} for path in devices.flash
            ]
        return found

    def _describe_snapshot(self) -> dict[str, object]:
        """Return where the guest started from; nothing if it started from reset."""
        path = self.machine.snapshot
        if path is None:
            return {}
        head = snapshot.read_head(path)
        return {
            "snapshot": {"file": str(path), "sha256": snapshot.checksum(path), "at": head.at},
        }


def resolve(spec: RunSpec) -> Plan:
    """Check ``spec`` whole and find what it names.

    :raises UsageError: when the request is malformed, or a file is missing or of the wrong kind.
        Its ``key`` is the key of a run file that is wrong.
    :raises MissingTool: when QEMU is missing or too old.
    """
    emulator = tools.qemu()
    names = spec.names
    preset = PRESETS[spec.like] if spec.like else NO_PRESET
    known = None if spec.guest is None else guest.load(spec.guest)
    if known is not None:
        kernel: Path | None = spec.kernel or known.kernel
        initrd = known.initrd
        if spec.kernel is not None and initrd is None:
            with about("kernel"):
                raise UsageError(
                    f"{names.option('kernel')} cannot be used with {known.name}, which has no "
                    "initramfs that another kernel could use"
                )
        bios = spec.bios or preset.bios or known.bios
        with about("workload"):
            append = _command_line(spec, known.append)
        memory = spec.memory or preset.memory or known.memory
        cpu = spec.cpu or preset.cpu or known.cpu
        extensions = known.extensions
    else:
        if spec.kernel is None and spec.bios in (None, "none") and not spec.pflash:
            raise UsageError(
                f"name a guest (`cosim guest list`) or give {names.option('kernel')} FILE"
            )
        kernel, initrd, bios = spec.kernel, spec.initrd, spec.bios or preset.bios
        append = spec.append or ""
        memory, cpu = spec.memory or preset.memory or "512M", spec.cpu or preset.cpu
        extensions = ""
    # Each question starts a QEMU.
    model = _ask_of_cpu(emulator, cpu, bios, extensions, named=known is not None)
    with about("append" if spec.workload is None else "workload"):
        _check_fits(append, spec)
    with about("pflash"):
        _check_flash(spec)
    where = "kernel" if known is None or spec.kernel is not None else "guest"
    code = _code(kernel, bios, spec, where)
    image = code.image
    if initrd is not None:
        with about("guest" if known else "initrd"):
            kind = inspect_initrd(initrd, linux=image.kind == "image")
    if spec.initrd_add:
        with about("initrd_add"):
            if initrd is None or kind == "raw":
                raise UsageError(
                    f"{names.option('initrd_add')} needs a guest with an initramfs, or "
                    f"{names.option('initrd')} with a cpio archive"
                )
            initrd = extended(initrd, spec.initrd_add)
    with about("from"):
        own = "boot" if known is None or spec.snapshot else known.region_from
        begin = region.parse(spec.region_from or own, code.symbols, end=False)
        if spec.snapshot is not None and begin.form == "boot":
            begin = replace(begin, text="snapshot")
    with about("to"):
        end = region.parse(_end(spec, known), code.symbols, end=True)
    with about("memory"):
        size = parse_memory(memory)
    with about("load_address"):
        _check_load_address(spec, size)
    with about("cpu"):
        cpu, properties = model.result()
    unhurried = spec.live or spec.backend.waits_for_user
    plan = Plan(
        name=spec.guest or code.given.name,
        machine=MachineConfig(
            kernel=code.loaded,
            initrd=initrd,
            append=append,
            bios=code.bios,
            memory=size,
            cpu=cpu,
            harts=spec.harts,
            linked=_linked(image),
            devices=_devices(
                spec, known.disk if known else None, preset.bus or _bus(image, code.symbols)
            ),
            board=spec.board or "",
            dtb=spec.dtb,
            extra=spec.qemu,
            snapshot=spec.snapshot,
        ),
        kernel=code.given,
        image=image,
        symbols=code.symbols,
        qemu=emulator,
        begin=begin,
        end=end,
        mark_at=(
            code.symbols.address(marks.SYMBOL) if marks.SYMBOL in code.symbols else marks.USER_MARK
        ),
        backend=spec.backend,
        console=spec.console,
        models=spec.models,
        modelled=spec.machine,
        stop_on_divergence=spec.stop_on_divergence,
        live=spec.live or spec.harts > 1,
        time_limit=spec.time_limit or (None if unhurried else DEFAULT_TIME_LIMIT),
        # A kernel of the user's is not the one in the guest's packages.
        versions=dict(known.versions) if known and spec.kernel is None else {},
        cpu_properties=properties,
        names=names,
    )
    if spec.snapshot is not None:
        with about("from_snapshot"):
            plan.check_snapshot(spec.snapshot)
    return plan


def _short(text: str) -> str:
    """Return ``text``, or the first digits of a checksum."""
    return f"{text[:12]}..." if len(text) == 64 else text or "none"


def _ask_of_cpu(
    emulator: tools.Tool, given: str | None, bios: str | None, extensions: str, *, named: bool
) -> Future[tuple[str, Mapping[str, bool | int]]]:
    """Ask the emulator, beside what else there is to do, which CPU a guest gets.

    :param given: what the user asks for.
    :param extensions: what the guest needs besides the default.
    :param named: the guest is one that the tool made.
    :return: the CPU as QEMU takes it, and its properties, later.
    """

    def ask() -> tuple[str, Mapping[str, bool | int]]:
        cpu = given
        if not cpu:
            default = _default_cpu(emulator, bios, named=named)
            cpu = ",".join(filter(None, (default, extensions)))
        return cpu, tools.qemu_cpu_properties(emulator.path, cpu, _CPU_PROPERTIES)

    thread = ThreadPoolExecutor(1)
    answer = thread.submit(ask)
    thread.shutdown(wait=False)
    return answer


def _default_cpu(emulator: tools.Tool, bios: str | None, *, named: bool) -> str:
    """Return the CPU of a guest that names none.

    A kernel of the user's that runs without firmware gets QEMU's own default, without Svade: its
    Makefile names no CPU either, and nobody tells it that it must set A and D itself.
    """
    return "rv64" if bios == "none" and not named else tools.default_cpu(emulator)


def _end(spec: RunSpec, known: GuestSpec | None) -> str:
    """Return where the region ends, as the user would write it."""
    if spec.region_to is not None or known is None:
        return spec.region_to or "power-off"
    typed = spec.live or bool(spec.console)
    return (known.typed_to if typed else None) or known.region_to


class _Code(NamedTuple):
    """What the guest executes first, and what QEMU is given for it."""

    given: Path
    """The kernel as the user gave it, or the firmware."""
    loaded: Path | None
    """What QEMU loads as the kernel."""
    bios: str | None
    """What QEMU loads as the firmware."""
    image: KernelImage
    symbols: Symbols


def _code(kernel: Path | None, bios: str | None, spec: RunSpec, key: str) -> _Code:
    """Return the kernel behind its firmware; without a kernel, the firmware or what is in flash.

    :param key: of the run, which the kernel comes from.
    :raises GuestImageError: when one of them cannot be read, or not be started by a riscv64 board.
    """
    firmware = None
    base = RAM_BASE if bios == "none" else sum(_FIRMWARE)
    if bios not in (None, "none"):
        given = Path(str(bios))
        with about("bios"):
            loaded = bootable.firmware(given)
            firmware = inspect_firmware(loaded, given=given)
        if kernel is None and not spec.pflash:
            # If it was made to run at 0, its symbols are not where it runs.
            names = symbols.load(given) if loaded == given else symbols.none()
            return _Code(given, None, str(loaded), firmware, names)
        # QEMU puts a flat kernel at the next 2 MiB boundary.
        bios, base = str(loaded), firmware.end + -firmware.end % _FIRMWARE[1]
    if kernel is None:
        code = spec.pflash[0]
        with about("pflash"):
            image = inspect_firmware(code, base=FLASH_BASE)
        return _Code(code, None, bios, image, symbols.none())
    with about(key):
        booted = bootable.kernel(kernel, spec.load_address)
        image = inspect_kernel(booted, image_base=base, given=kernel)
        return _Code(kernel, booted, bios, image, symbols.load(kernel))


def _bus(image: KernelImage, names: Symbols) -> Bus:
    """Return where devices are that name no bus: where the kernel is likely to look for them.

    Linux drives PCI.  Teaching kernels drive the board's ``virtio-mmio`` places.
    """
    linux = image.kind == "image" or "linux_banner" in names
    return "pci" if linux else "mmio"


def _devices(spec: RunSpec, own: Path | None, bus: Bus) -> Devices:
    """Return the devices that ``spec`` adds to the board, with every question about them answered.

    :param own: the disk that a named guest has anyway.
    :raises UsageError: when a disk or a flash image cannot be used, or there is no place for one.
    """
    with about("disk"):
        disks = tuple(
            disk_images.inspect(replace(disk, bus=disk.bus or bus, writable=spec.disk_write))
            for disk in spec.disks
        )
        if spec.disk_write:
            _check_written_once(disks, spec)
        if own is not None:
            disks = (Disk(own, "raw", "pci"), *disks)
        if {"mmio", "mmio-legacy"} <= {disk.bus for disk in disks}:
            raise UsageError(
                f"{spec.names.option('disk')}: the board's virtio-mmio devices are all legacy or "
                "none; give all disks the same bus"
            )
        devices = Devices(disks, spec.net == "user", spec.shares, spec.pflash, spec.disk_limit, bus)
        if mmio_devices(devices) > MMIO_SLOTS:
            raise UsageError(
                f"{spec.names.option('disk')}: the board has {MMIO_SLOTS} places for virtio-mmio "
                "devices; give some disks bus=pci"
            )
    return devices


def _check_written_once(disks: tuple[Disk, ...], spec: RunSpec) -> None:
    """Check that no file that is written belongs to two disks.

    :raises UsageError: when one does.
    """
    seen: set[Path] = set()
    for disk in disks:
        found = disk.path.resolve()
        if found in seen:
            raise UsageError(
                f"{spec.names.option('disk')} names {disk.path} twice, and with "
                f"{spec.names.option('disk_write')} both disks would write to it; give the guest "
                "a copy"
            )
        seen.add(found)


def _check_load_address(spec: RunSpec, size: int) -> None:
    """Check that a flat binary is loaded where there is RAM.

    :raises UsageError: when its first or last byte is beyond RAM.
    """
    first, path = spec.load_address, spec.kernel
    if first is None or path is None:
        return
    end, limit = first + path.stat().st_size, RAM_BASE + size
    if end > limit:
        raise UsageError(
            f"{spec.names.option('load_address')} puts {path.name} at {first:#x} to {end:#x}, but "
            f"RAM ends at {limit:#x}; choose a lower address, or give the guest more with "
            f"{spec.names.option('memory')}"
        )


def _check_flash(spec: RunSpec) -> None:
    """Check that the files for the flash chips are as large as the chips.

    :raises UsageError: when one is not.
    """
    for chip in spec.pflash:
        size = chip.stat().st_size
        if size != FLASH_BYTES:
            raise UsageError(
                f"{spec.names.option('pflash')}: {chip} has {size:,} bytes, but a flash chip of "
                f"the board has {FLASH_BYTES:,}; pad a smaller one with `truncate -s 32M`"
            )


def _linked(image: KernelImage) -> tuple[Linked, ...]:
    """Return where the kernel runs once it has switched paging on."""
    first = image.ranges[0].start
    return tuple(
        Linked(
            part.start,
            part.size,
            _LINUX + part.start - first if part.virtual is None else part.virtual,
        )
        for part in image.ranges
    )


@contextmanager
def about(key: str) -> Iterator[None]:
    """Note in a UsageError from this part that it is about ``key`` of the run."""
    try:
        yield
    except UsageError as error:
        error.key = error.key or key
        raise


def _command_line(spec: RunSpec, own: str) -> str:
    """Return the guest's own command line with the workload and what the user appends.

    The init of ``linux`` takes what it runs from ``cosim.run=``.  The command line of a bare guest
    is its workload.
    """
    if spec.workload is not None and "console=" in own:
        if '"' in spec.workload:
            raise UsageError(
                f'{spec.names.option("workload")} cannot contain a ", which would end it on the '
                "guest kernel's command line; quote with ' instead"
            )
        own = f'{own} cosim.run="{spec.workload}"'
    elif spec.workload is not None:
        own = spec.workload
    return f"{own} {spec.append}" if spec.append else own


def _check_fits(append: str, spec: RunSpec) -> None:
    """Check that the guest takes the whole command line.

    :raises UsageError: when it is too long.
    """
    size = len(append.encode(errors="surrogateescape"))
    if size <= _COMMAND_LINE_BYTES:
        return
    what = spec.names.option("append" if spec.workload is None else "workload")
    raise UsageError(
        f"{what} makes the guest's command line {size} bytes long; a guest takes at most "
        f"{_COMMAND_LINE_BYTES}"
    )
