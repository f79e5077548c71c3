"""One run, fully described: what ``cosim run`` and ``cosim capture`` need to know.

A :class:`RunSpec` is plain data.  It compares, goes to JSON, and holds nothing open, so that a
batch can tell if a run was done already.  :mod:`cosim.run.request` makes one from a user's options.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from cosim.machine.devices import Disk, Share
from cosim.run.backend_options import BackendOptions
from cosim.run.initrd_additions import Added
from cosim.run.names import COMMAND_LINE, Names

MOST_HARTS = 8
"""Harts of a guest (ours): they take turns in one thread, so more only make it slower."""
MOST_RUNS = 1000
"""Repetitions of one run (ours): more are a mistake."""


@dataclass(frozen=True)
class Exchange:
    """One step of a dialogue with the guest's console."""

    expect: str
    """A regular expression to wait for."""
    send: str = ""
    """What to type then; a newline is not added."""
    within: float = 60.0
    """Seconds to wait for ``expect`` before the run fails."""


_ADDITIONS = (
    *(
        "disks",
        "disk_write",
        "disk_limit",
        "net",
        "shares",
        "board",
        "dtb",
        "pflash",
        "initrd_add",
        "qemu",
    ),
    "like",
    "snapshot",
)
"""Fields that a run's document has only if they are set."""


@dataclass(frozen=True)
class RunSpec:
    """A run.  None stands for the default of the guest or of the session."""

    name: str
    """Names the run in a batch and its folder of results."""
    backend: BackendOptions
    """The source of events, with its own options."""
    guest: str | None = None
    """A guest that the tool makes itself; otherwise ``kernel`` is given."""
    kernel: Path | None = None
    """With ``guest``, it runs instead of the guest's own kernel."""
    load_address: int | None = None
    """Physical address of the first byte of a ``kernel`` that is a flat binary."""
    initrd: Path | None = None
    append: str | None = None
    """The kernel's command line.  With ``guest``, it is added to the guest's own."""
    bios: str | None = None
    """A firmware file, or ``none`` to start in M-mode."""
    memory: str | None = None
    cpu: str | None = None
    harts: int = 1
    """Several harts run in real time, without being recorded."""
    runs: int = 1
    """How often the run is done, to see how far its counts spread."""
    disks: tuple[Disk, ...] = ()
    disk_write: bool = False
    """The guest's writes go to the images of ``disks`` themselves."""
    disk_limit: int | None = None
    """How many bytes of the host's disk the guest's writes may take."""
    net: str | None = None
    """``user`` for a network card behind QEMU's own router."""
    shares: tuple[Share, ...] = ()
    """Folders that the guest can mount."""
    board: str | None = None
    """Options of QEMU's ``virt`` board."""
    dtb: Path | None = None
    """A device tree for the guest instead of QEMU's own."""
    pflash: tuple[Path, ...] = ()
    """Contents of the board's flash chips: code, variables."""
    initrd_add: tuple[Added, ...] = ()
    """Files that are added to the initramfs."""
    qemu: tuple[str, ...] = ()
    """Further words of QEMU's command line."""
    like: str | None = None
    """A preset for the options above (:mod:`cosim.run.presets`)."""
    snapshot: Path | None = None
    """Where the guest starts from, instead of from reset."""
    region_from: str | None = None
    """Where the region of interest begins, as ``--from`` takes it."""
    region_to: str | None = None
    """Where it ends, as ``--to`` takes it."""
    workload: str | None = None
    """What the guest's own init runs; only guests that the tool makes have one."""
    console: tuple[Exchange, ...] = ()
    models: tuple[str, ...] = ()
    """Models with their options, as ``--model`` takes them; empty for the default models."""
    machine: dict[str, Any] = field(default_factory=dict)
    """The modelled hardware and hypervisor: the fields of ``MachineModel`` that are
    the user's choice."""
    stop_on_divergence: bool = False
    time_limit: float | None = None
    """Seconds of real time that the run may take."""
    live: bool = False
    """Run the guest in real time, with the user at its console, without recording it."""
    trace: bool = False
    """Keep the events as a trace in the run's folder."""
    names: Names = field(default=COMMAND_LINE, compare=False, repr=False)
    """How messages about the run spell its options."""

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON; equal runs give equal documents."""
        document = {
            key: value
            for key, value in vars(self).items()
            if key not in ("backend", "console", "live", "names")
        }
        for key in ("kernel", "initrd"):
            document[key] = None if document[key] is None else str(document[key])
        for key in _ADDITIONS:
            # A batch that an older version began goes on only if its documents stay equal.
            value = document.pop(key)
            if value not in (None, (), False):
                document[key] = _plain(value)
        document["console"] = [asdict(exchange) for exchange in self.console]
        if self.live:
            document["live"] = True
        return {**document, **self.backend.to_json()}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in vars(value).items()}
    return value
