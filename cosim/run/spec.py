"""One run, fully described: what `cosim run` and `cosim capture` need to know.

A :class:`RunSpec` is plain data: it compares, goes to JSON and back, and holds no open thing, so
that a batch can tell whether a run was done already.  Its fields are the keys of a run file (see
:mod:`cosim.run.run_file`), and their checks are here, shared with whoever else builds one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Backend = Literal["mi", "plugin"]

MODELLED = (
    "setup",
    "tlb",
    "walk_cache_ways",
    "gstage_mode",
    "gstage_page",
    "footprint_data",
    "footprint_code",
)
"""The fields of ``MachineModel`` that are the user's choice; the others are the guest's."""

LABEL_BYTES = 32
"""Longest label of a mark (docs/architecture.md, "Marks")."""


@dataclass(frozen=True)
class Exchange:
    """One step of a dialogue with the guest's console."""

    expect: str
    """A regular expression to wait for."""
    send: str = ""
    """What to type then; a newline is not added."""
    within: float = 60.0
    """Seconds to wait for ``expect`` before the run fails."""


@dataclass(frozen=True)
class RunSpec:
    """A run.  None stands for the default of the guest or of the session."""

    name: str
    """Names the run in a batch and its folder of results."""
    guest: str | None = None
    """A guest that the tool makes itself; else ``kernel`` is given."""
    kernel: Path | None = None
    initrd: Path | None = None
    append: str | None = None
    """The kernel's command line; with ``guest``, more of it."""
    bios: str | None = None
    """A firmware file, or ``none`` to start in M-mode."""
    memory: str | None = None
    cpu: str | None = None
    backend: Backend | None = None
    """None: gdb (``mi``)."""
    region_from: str | None = None
    """Where the region of interest begins, as ``--from`` takes it; so for ``region_to``."""
    region_to: str | None = None
    workload: str | None = None
    """What the guest's own init runs; only guests that the tool makes have one."""
    console: tuple[Exchange, ...] = ()
    step: int | None = None
    """Instructions to single-step after every fence and table write (gdb backend)."""
    accesses: bool | None = None
    """Whether accesses are captured (plugin backend)."""
    filter: int | None = None
    """Slots of the filter that drops repeated accesses (plugin backend)."""
    models: tuple[str, ...] = ()
    """Models with their options, as ``--model`` takes them; empty for the default models."""
    machine: dict[str, Any] = field(default_factory=dict)
    """The modelled hardware and hypervisor: fields of ``MachineModel`` in :data:`MODELLED`."""
    stop_on_divergence: bool = False
    time_limit: float | None = None
    """Seconds of real time that the run may take."""
    trace: bool = False
    """Keep the events as a trace in the run's folder."""

    def to_json(self) -> dict[str, Any]:
        """The run as JSON; equal runs give equal documents."""
        document = asdict(self)
        for key in ("kernel", "initrd"):
            document[key] = None if document[key] is None else str(document[key])
        return document


def check(key: str, value: Any, folder: Path) -> Any:
    """The value of field ``key`` from ``value`` as a run file holds it.

    Relative paths start at ``folder``.  Raises ValueError, saying what is wrong, and KeyError for
    an unknown key.
    """
    return _CHECKS[key](value, folder)


def default_backend(fields: Mapping[str, Any], backend: Backend) -> Backend:
    """The backend of a run that names none, where ``backend`` is that of the command."""
    return "mi" if "step" in fields else backend


def problem(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the checked ``fields`` of one run together: (key, text); None if nothing.

    Only keys that the run sets are in ``fields``, and ``backend``.
    """
    if "guest" in fields and "kernel" in fields:
        return "kernel", "cannot be given together with guest"
    if "guest" not in fields and "kernel" not in fields:
        return "guest", "is missing: name a guest, or a kernel file"
    if "initrd" in fields and "kernel" not in fields:
        return "initrd", "belongs to kernel; a named guest has its own"
    if "workload" in fields and "kernel" in fields:
        return (
            "workload",
            "needs a guest that the tool makes; use console with a kernel of your own",
        )
    if "step" in fields and fields["backend"] == "plugin":
        return "step", "is for the gdb backend; the plugin takes accesses = true"
    if "accesses" in fields and fields["backend"] == "mi":
        return "accesses", "is for the plugin; the gdb backend takes step = N"
    begin = fields.get("from")
    if begin is not None and begin == fields.get("to") and not begin.startswith("console:"):
        return "to", "is where the region begins, so that nothing would be in it"
    if begin == "power-off":
        return "from", "is power-off, which only to can be"
    if fields.get("to") == "boot":
        return "to", "is boot, which only from can be"
    if "filter" in fields and fields["backend"] == "mi":
        return "filter", "is for the plugin, which sees every access"
    if "filter" in fields and fields.get("accesses") is False:
        return "filter", "is of accesses, and this run captures none"
    return None


def _text(value: Any, folder: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"is {value!r}, not a text")
    return value


def _guest(value: Any, folder: Path) -> str:
    import guest

    if value not in guest.NAMES:
        raise ValueError(f"is {value!r}; the guests are {', '.join(guest.NAMES)}")
    return _text(value, folder)


def _file(value: Any, folder: Path) -> Path:
    path = folder / _text(value, folder)
    if not path.is_file():
        raise ValueError(f"names {path}, which is no file")
    return path


def _kernel(value: Any, folder: Path) -> Path:
    from cosim.kernel.images import inspect_kernel

    path = _file(value, folder)
    inspect_kernel(path)
    return path


def _bios(value: Any, folder: Path) -> str:
    return value if value == "none" else str(_file(value, folder))


def _memory(value: Any, folder: Path) -> str:
    from cosim.machine.configuration import parse_memory

    parse_memory(_text(value, folder))
    return str(value)


def _backend(value: Any, folder: Path) -> str:
    if value not in ("mi", "plugin"):
        raise ValueError(f"is {value!r}, neither mi nor plugin")
    return str(value)


def _region(value: Any, folder: Path) -> str:
    text = _text(value, folder)
    form, colon, rest = text.partition(":")
    if colon and form == "mark" and not (rest.isascii() and 0 < len(rest) <= LABEL_BYTES):
        raise ValueError(f"is {text!r}; a label is 1..{LABEL_BYTES} ASCII characters")
    if colon and form == "console":
        _pattern(rest)
    return text


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"is {value!r}, not a pattern")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is {value!r}, no regular expression ({error})") from error
    return value


def _models(value: Any, folder: Path) -> tuple[str, ...]:
    from cosim.models import choices as modelling
    from hypervisor_model.policies import MachineModel

    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f'is {value!r}, not a list of models such as ["shadow", "lsp"]')
    # Which models and options there are does not depend on the machine.
    modelling.make_models(value, MachineModel())
    return tuple(value)


def _console(value: Any, folder: Path) -> tuple[Exchange, ...]:
    if not isinstance(value, list):
        raise ValueError("must be tables [[console]] with expect, send, within")
    return tuple(_exchange(number, item) for number, item in enumerate(value))


def _exchange(number: int, item: Any) -> Exchange:
    where = f"step {number + 1}"
    if not isinstance(item, dict) or "expect" not in item:
        raise ValueError(f"{where} has no expect")
    unknown = set(item) - {"expect", "send", "within"}
    if unknown:
        raise ValueError(f"{where} has the unknown key {min(unknown)!r}")
    try:
        expect = _pattern(item["expect"])
        within = _seconds(item.get("within", Exchange.within), Path())
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    send = item.get("send", "")
    if not isinstance(send, str):
        raise ValueError(f"{where}: send is {send!r}, not a text")
    return Exchange(expect, send, within)


def _seconds(value: Any, folder: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"is {value!r}, not a number of seconds above 0")
    return float(value)


def _count(value: Any, folder: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"is {value!r}, not a whole number from 0 on")
    return value


def _slots(value: Any, folder: Path) -> int:
    from cosim.capture.plugin.source import FILTER_LARGEST

    slots = _count(value, folder)
    if not 1 <= slots <= FILTER_LARGEST or slots & (slots - 1):
        raise ValueError(f"is {slots}, not a power of two from 1 to {FILTER_LARGEST}")
    return slots


def _switch(value: Any, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {value!r}, neither true nor false")
    return value


_CHECKS = {
    "guest": _guest,
    "kernel": _kernel,
    "initrd": _file,
    "append": _text,
    "bios": _bios,
    "memory": _memory,
    "cpu": _text,
    "backend": _backend,
    "from": _region,
    "to": _region,
    "workload": _text,
    "console": _console,
    "models": _models,
    "step": _count,
    "accesses": _switch,
    "filter": _slots,
    "stop_on_divergence": _switch,
    "time_limit": _seconds,
    "trace": _switch,
}

KEYS = tuple(_CHECKS)
"""Every key that :func:`check` knows."""
