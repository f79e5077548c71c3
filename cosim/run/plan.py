"""From what a user asked for to what a session does: everything is checked before QEMU starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import guest
from cosim.capture import marks
from cosim.capture.gdb.stepping import Stepping
from cosim.errors import UsageError
from cosim.kernel import symbols
from cosim.kernel.images import KernelImage, inspect_firmware, inspect_kernel
from cosim.kernel.initrd import inspect_initrd
from cosim.kernel.symbols import Symbols
from cosim.machine import tools
from cosim.machine.configuration import RAM_BASE, MachineConfig, Timing, arguments, parse_memory
from cosim.run import region
from cosim.run.region import Edge
from cosim.run.spec import RunSpec
from guest.spec import checksum

DEFAULT_TIME_LIMIT = 600.0
_CPU_PROPERTIES = ("svade", "svpbmt", "svnapot", "svvptc", "cboz_blocksize")
"""Asked for at once, as each question starts a QEMU."""
_FIRMWARE = (RAM_BASE, 2 << 20)
"""Where QEMU puts its own OpenSBI; a kernel starts behind it."""
_COMMAND_LINE_BYTES = 1023
"""What a guest keeps of its command line: riscv64 Linux has COMMAND_LINE_SIZE = 1024 with the NUL
at its end, and so has ``micro``.  Both cut the rest off without a word."""


@dataclass(frozen=True)
class Plan:
    """One session, resolved: files inspected, tools found, region edges turned into addresses."""

    spec: RunSpec
    name: str
    machine: MachineConfig
    image: KernelImage
    symbols: Symbols
    qemu: tools.Tool
    begin: Edge
    end: Edge
    mark_at: int
    stepping: Stepping
    models: tuple[str, ...]
    time_limit: float
    versions: dict[str, str]
    cpu_properties: Mapping[str, bool | int]
    """What QEMU says of the CPU: those of :data:`_CPU_PROPERTIES` that it has."""

    @property
    def firmware_ranges(self) -> list[tuple[int, int]]:
        """Physical ranges of M-mode code, as (first, bytes)."""
        return self.kernel_ranges if self.machine.bios == "none" else [_FIRMWARE]

    @property
    def kernel_ranges(self) -> list[tuple[int, int]]:
        """Physical ranges of the kernel's text, as (first, bytes)."""
        return [(part.start, part.size) for part in self.image.ranges if part.executable]

    def describe(self, *, live: bool = False) -> dict[str, object]:
        """The ``guest`` part of the result document; ``live``: the session is not recorded."""
        machine = self.machine
        bios = None if machine.bios in (None, "none") else Path(str(machine.bios))
        # Where a recording lies is no part of what was run.
        timing = Timing("record", Path("recording.bin"), typed=bool(self.spec.console))
        return {
            "name": self.name,
            "kernel": str(machine.kernel),
            "initrd": None if machine.initrd is None else str(machine.initrd),
            "command_line": machine.append,
            "bios": machine.bios,
            "memory": machine.memory,
            "cpu": machine.cpu,
            "qemu": ".".join(map(str, self.qemu.version)),
            "versions": self.versions,
            "sha256": {
                "kernel": checksum(machine.kernel),
                "initrd": machine.initrd and checksum(machine.initrd),
                "bios": bios and checksum(bios),
            },
            "arguments": arguments(self.qemu.path, machine, Timing("live") if live else timing),
        }


def resolve(spec: RunSpec, *, step_all: bool = False) -> Plan:
    """Check ``spec`` whole and find what it names.

    :raise UsageError: the request is malformed, or a file is missing or of the wrong kind; its
        ``key`` is the key of a run file that names what is wrong.
    :raise MissingTool: QEMU is missing or too old.
    """
    emulator = tools.qemu()
    known = None if spec.guest is None else guest.load(spec.guest)
    if known is not None:
        kernel, initrd, bios = known.kernel, known.initrd, spec.bios or known.bios
        with about("workload"):
            append = _command_line(spec, known.append)
        memory, cpu = spec.memory or known.memory, spec.cpu or known.cpu
    else:
        if spec.kernel is None:
            raise UsageError("name a guest (`cosim guest list`) or give --kernel FILE")
        kernel, initrd, bios = spec.kernel, spec.initrd, spec.bios
        append = spec.append or ""
        memory, cpu = spec.memory or "512M", spec.cpu
    with about("append" if spec.workload is None else "workload"):
        _check_fits(append, spec)
    base = RAM_BASE if bios == "none" else RAM_BASE + _FIRMWARE[1]
    with about("guest" if known else "kernel"):
        image = inspect_kernel(kernel, image_base=base)
        names = symbols.load(kernel)
    if initrd is not None:
        with about("guest" if known else "initrd"):
            inspect_initrd(initrd, linux=image.kind == "image")
    if bios not in (None, "none"):
        with about("bios"):
            inspect_firmware(str(bios))
    with about("from"):
        begin = region.parse(
            spec.region_from or (known.region_from if known else "boot"), names, end=False
        )
    with about("to"):
        end = region.parse(
            spec.region_to or (known.region_to if known else "power-off"), names, end=True
        )
    with about("memory"):
        size = parse_memory(memory)
    with about("cpu"):
        cpu = cpu or tools.default_cpu(emulator)
        properties = tools.qemu_cpu_properties(emulator.path, cpu, _CPU_PROPERTIES)
    return Plan(
        spec=spec,
        name=spec.guest or kernel.name,
        machine=MachineConfig(
            kernel=Path(kernel),
            initrd=initrd,
            append=append,
            bios=bios,
            memory=size,
            cpu=cpu,
        ),
        image=image,
        symbols=names,
        qemu=emulator,
        begin=begin,
        end=end,
        mark_at=names.address(marks.SYMBOL) if marks.SYMBOL in names else marks.USER_MARK,
        stepping=Stepping(after=spec.step or 0, all=step_all),
        models=spec.models,
        time_limit=spec.time_limit or DEFAULT_TIME_LIMIT,
        versions=dict(known.versions) if known else {},
        cpu_properties=properties,
    )


@contextmanager
def about(key: str) -> Iterator[None]:
    """Say of a UsageError in this part that it is about ``key`` of the run."""
    try:
        yield
    except UsageError as error:
        error.key = error.key or key
        raise


def _command_line(spec: RunSpec, own: str) -> str:
    """The guest's own command line, with more (``append``) and another workload.

    The ``linux`` guest's init takes what it runs from ``cosim.run=``; the bare guests' command
    line is nothing but their workload.
    """
    if spec.workload is not None and "console=" in own:
        if '"' in spec.workload:
            raise UsageError(
                "--workload cannot have a \" in it, which ends it on the guest kernel's command "
                "line; quote with ' instead"
            )
        own = f'{own} cosim.run="{spec.workload}"'
    elif spec.workload is not None:
        own = spec.workload
    return f"{own} {spec.append}" if spec.append else own


def _check_fits(append: str, spec: RunSpec) -> None:
    """Refuse a command line that the guest would cut short."""
    size = len(append.encode(errors="surrogateescape"))
    if size <= _COMMAND_LINE_BYTES:
        return
    what = "--append" if spec.workload is None else "--workload"
    raise UsageError(
        f"{what} makes the guest's command line {size} bytes long, and a guest takes "
        f"{_COMMAND_LINE_BYTES}"
    )
