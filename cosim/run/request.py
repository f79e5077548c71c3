"""From what a user asked for, key by key, to a :class:`~cosim.run.run_spec.RunSpec`.

The command line and run files both come here.  The keys are those of a run file (see
:mod:`cosim.run.run_file`) and those of the backends (:mod:`cosim.run.backend_options`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import guest
from cosim.errors import UsageError
from cosim.kernel import bootable
from cosim.kernel.images import PHYSICAL_LIMIT, inspect_kernel, is_flat
from cosim.machine.configuration import RAM_BASE, parse_memory
from cosim.models import model_options
from cosim.run import checks, device_options
from cosim.run.backend_options import (
    BackendOptions,
    Backends,
    Problem,
    all_options,
    find,
    owners,
)
from cosim.run.checks import Check
from cosim.run.names import Names
from cosim.run.presets import PRESETS
from cosim.run.run_spec import MOST_HARTS, MOST_RUNS, Exchange, RunSpec
from guest.micro import scenarios
from hypervisor_model.policies import MachineModel


def _guest(value: Any, folder: Path) -> str:
    if value not in guest.NAMES:
        raise ValueError(f"is {value!r}; the guests are {', '.join(guest.NAMES)}")
    return checks.text(value, folder)


def _kernel(value: Any, folder: Path) -> Path:
    path = checks.file(value, folder)
    # A flat binary needs another option; see _together.
    if not is_flat(path):
        inspect_kernel(bootable.kernel(path), given=path)
    return path


def _load_address(value: Any, folder: Path) -> int:
    try:
        address = value if isinstance(value, int) else int(checks.text(value, folder), 0)
    except ValueError:
        address = -1
    if isinstance(value, bool) or not RAM_BASE <= address < PHYSICAL_LIMIT or address % 2:
        raise ValueError(
            f"is {value!r}, not an address where RAM can be (an even number from {RAM_BASE:#x} on)"
        )
    return address


def _bios(value: Any, folder: Path) -> str:
    if value == "none":
        return "none"
    path = checks.file(value, folder)
    # These two names mean something else to us and to QEMU.
    return str(path.absolute() if str(path) in ("none", "default") else path)


def _memory(value: Any, folder: Path) -> str:
    parse_memory(checks.text(value, folder))
    return str(value)


def _like(value: Any, folder: Path) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise ValueError(f"is {value!r}; it can be {', '.join(PRESETS)}")
    return str(value)


def _each(check_one: Check) -> Check:
    """Return a check of one value or a list of them, as options that can be repeated have it."""

    def check(value: Any, folder: Path) -> tuple[Any, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(check_one(one, folder) for one in values)

    return check


def _models(value: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f'is {value!r}, not a list of models such as ["shadow", "lsp"]')
    # Which models and options there are does not depend on the machine.
    model_options.make_models(value, MachineModel())
    return tuple(value)


def _machine(value: Any, folder: Path) -> dict[str, Any]:
    try:
        return model_options.parse_machine(checks.text(value, folder), "")
    except UsageError as error:
        # Whoever asks puts the option's name before it.
        raise UsageError(str(error).removeprefix(": ").strip()) from None


def _console(value: Any, folder: Path) -> tuple[Exchange, ...]:
    if not isinstance(value, list):
        raise ValueError("must be tables [[console]] with expect, send, within")
    return tuple(_exchange(number, item, folder) for number, item in enumerate(value))


def _exchange(number: int, item: Any, folder: Path) -> Exchange:
    where = f"step {number + 1}"
    if not isinstance(item, dict) or "expect" not in item:
        raise ValueError(f"{where} has no expect")
    unknown = set(item) - {"expect", "send", "within"}
    if unknown:
        raise ValueError(f"{where} has the unknown key {min(unknown)!r}")
    try:
        expect = checks.pattern(item["expect"], folder)
        within = checks.seconds(item.get("within", Exchange.within), folder)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    send = item.get("send", "")
    if not isinstance(send, str):
        raise ValueError(f"{where}: send is {send!r}, not a text")
    return Exchange(expect, send, within)


def _harts(value: Any, folder: Path) -> int:
    if type(value) is not int or not 1 <= value <= MOST_HARTS:
        raise ValueError(f"is {value!r}, not a number of harts from 1 to {MOST_HARTS}")
    return value


def _runs(value: Any, folder: Path) -> int:
    if type(value) is not int or not 1 <= value <= MOST_RUNS:
        raise ValueError(f"is {value!r}, not a number of runs from 1 to {MOST_RUNS}")
    return value


_CHECKS: dict[str, Check] = {
    "guest": _guest,
    "kernel": _kernel,
    "load_address": _load_address,
    "initrd": checks.file,
    "append": checks.text,
    "bios": _bios,
    "memory": _memory,
    "cpu": checks.text,
    "smp": _harts,
    "runs": _runs,
    "disk": _each(device_options.disk),
    "disk_write": checks.switch,
    "disk_limit": device_options.size,
    "net": device_options.network,
    "share": _each(device_options.share),
    "board": device_options.board,
    "dtb": device_options.device_tree,
    "pflash": device_options.flash,
    "initrd_add": _each(device_options.addition),
    "qemu": device_options.qemu_arguments,
    "like": _like,
    "from_snapshot": checks.file,
    "backend": checks.text,
    "from": checks.edge,
    "to": checks.edge,
    "workload": checks.text,
    "console": _console,
    "models": _models,
    "stop_on_divergence": checks.switch,
    "time_limit": checks.seconds,
    "trace": checks.switch,
}
_ONLY_TYPED: dict[str, Check] = {"live": checks.switch, "machine": _machine}
"""Options of the command line that run files cannot have, or write as a table (``machine``)."""

_FIELDS = {
    "from": "region_from",
    "to": "region_to",
    "smp": "harts",
    "disk": "disks",
    "share": "shares",
    "from_snapshot": "snapshot",
}
"""Fields of RunSpec that are not called as the option is."""
UNSAVED = ("disk", "net", "share", "smp")
"""Options for what a snapshot does not hold: what is outside of the machine, and several harts."""


def file_keys(backends: Backends) -> tuple[str, ...]:
    """Return every key that a run in a run file can have, besides its tables."""
    declared = all_options(backends)
    return (*_CHECKS, *(key for key, option in declared.items() if option.in_files))


def check(key: str, value: Any, folder: Path, backends: Backends) -> Any:
    """Return the checked value of option ``key``; relative paths start at ``folder``.

    :raises ValueError: when the value is malformed; the text follows the option's name.
    :raises CosimError: when it names something that cannot be used; the text stands alone.
    """
    if key == "backend":
        kind = find(backends, checks.text(value, folder))
        if kind is None:
            raise ValueError(f"is {value!r}; the backends are {', '.join(backends)}")
        return kind.name
    known = {**_CHECKS, **_ONLY_TYPED}
    if key in known:
        return known[key](value, folder)
    return all_options(backends)[key].check(value, folder)


def make_spec(
    name: str,
    fields: Mapping[str, Any],
    *,
    default: str,
    backends: Backends,
    names: Names,
    machine: Mapping[str, Any] | None = None,
) -> RunSpec | Problem:
    """Return the run that the checked ``fields`` describe, or what is wrong with them together.

    :param fields: only what the user set.
    :param default: the backend of the command.
    :param names: how the user spells options.
    :param machine: what the user set of the modelled machine.
    """
    wrong = _together(fields, names)
    if wrong is not None:
        return wrong
    declared = all_options(backends)
    kind = backends[fields.get("backend") or _default(fields, default, backends)]
    own = {key: value for key, value in fields.items() if key in declared}
    for key in own:
        if key not in kind.options():
            of = " or ".join(owners(backends, key))
            return Problem(key, f"works only with the {of} backend; this run uses {kind.name}")
    if fields.get("live") and not kind.live:
        of = " or ".join(name for name, one in backends.items() if one.live)
        return Problem("live", f"works only with the {of} backend; this run uses {kind.name}")
    if fields.get("smp", 1) > 1 and not kind.several_harts:
        of = " or ".join(name for name, one in backends.items() if one.several_harts)
        return Problem(
            "smp",
            f"works only with the {of} backend; this run uses {kind.name}, which follows a "
            "recording, and QEMU does not record several harts",
        )
    backend = kind(**own)
    wrong = backend.problem(names) or _not_again(fields, backend, names)
    if wrong is not None:
        return wrong
    common = {
        _FIELDS.get(key, key): value
        for key, value in fields.items()
        if key not in declared and key != "backend"
    }
    return RunSpec(name=name, backend=backend, names=names, machine=dict(machine or {}), **common)


def _default(fields: Mapping[str, Any], default: str, backends: Backends) -> str:
    """Return the backend of a run that names none."""
    if fields.get("smp", 1) > 1 and not backends[default].several_harts:
        default = next(name for name, kind in backends.items() if kind.several_harts)
    if fields.get("live") and not backends[default].live:
        default = next(name for name, kind in backends.items() if kind.live)
    for key, option in all_options(backends).items():
        if key in fields and option.selects and key not in backends[default].options():
            return owners(backends, key)[0]
    return default


def _together(fields: Mapping[str, Any], names: Names) -> Problem | None:
    """Return what is wrong with the options that all backends share; None if nothing is."""
    flat = _flat(fields, names)
    if flat is not None:
        return flat
    firmware = fields.get("bios", "none") != "none" or "pflash" in fields
    if "guest" not in fields and "kernel" not in fields and not firmware:
        return Problem("guest", f"is missing; name a guest or give {names.option('kernel')}")
    for key in ("append", "initrd"):
        if key in fields and "guest" not in fields and "kernel" not in fields:
            return Problem(key, f"needs {names.option('kernel')}, which takes it")
    if "initrd" in fields and "guest" in fields:
        return Problem(
            "initrd", f"needs {names.option('kernel')}; a named guest has its own initrd"
        )
    if "workload" in fields and "guest" not in fields:
        return Problem(
            "workload",
            "works only with a guest that cosim makes; "
            f"use {names.option('append')} or {names.option('console')} with your own kernel",
        )
    if "from_snapshot" in fields:
        unfit = _with_snapshot(fields, names)
        if unfit is not None:
            return unfit
    if fields.get("runs", 1) > 1 and fields.get("smp", 1) == 1:
        return Problem(
            "runs",
            f"needs {names.option('smp')} with more than one hart: a recorded run always gives the "
            "same counts",
        )
    if fields.get("runs", 1) > 1:
        for key in ("live", "trace", "gdb", "stop_on_divergence"):
            if fields.get(key):
                return Problem("runs", f"cannot be used together with {names.option(key)}")
    for key in ("disk_write", "disk_limit"):
        if fields.get(key) and "disk" not in fields:
            return Problem(key, f"needs {names.option('disk')}")
    if fields.get("disk_write") and "disk_limit" in fields:
        written = names.option("disk_write")
        return Problem("disk_limit", f"has no effect with {written}, which needs no overlay")
    if "console" in fields and fields.get("live"):
        live = names.option("live")
        return Problem("console", f"cannot be used together with {live}; there you type yourself")
    if fields.get("guest") in scenarios.GUESTS:
        for word in fields.get("workload", "").split():
            key, _, value = word.partition("=")
            if key != "scenario":
                continue
            wrong = scenarios.problem(value)
            if wrong is not None:
                return Problem("workload", f"{word}: {wrong}")
            harts = scenarios.harts_for(value)
            if harts > fields.get("smp", 1):
                smp = names.setting("smp", harts)
                return Problem("workload", f"{word} needs {harts} harts; use {smp}")
    begin = fields.get("from")
    if begin is not None and begin == fields.get("to") and not begin.startswith("console:"):
        return Problem("to", f"is the same place as {names.option('from')}; the region is empty")
    if begin == "power-off":
        return Problem("from", f"cannot be power-off; only {names.option('to')} can")
    if fields.get("to") == "boot":
        return Problem("to", f"cannot be boot; only {names.option('from')} can")
    return None


def _with_snapshot(fields: Mapping[str, Any], names: Names) -> Problem | None:
    """Return what does not go together with a snapshot; None if all does."""
    option = names.option("from_snapshot")
    for key in ("workload", "append", "initrd", "initrd_add", "dtb"):
        if key in fields:
            typed = names.option("console")
            return Problem(
                key, f"has no effect with {option}: the guest has booted; type into it with {typed}"
            )
    for key in UNSAVED:
        if fields.get(key) not in (None, 1, "none"):
            return Problem(key, f"cannot be used together with {option}, which does not hold it")
    if fields.get("live"):
        return Problem(
            "live",
            f"cannot be used together with {option}: a snapshot's guest takes its time from the "
            "instructions that it executes, and a live one from this machine",
        )
    if fields.get("gdb"):
        return Problem(
            "gdb",
            f"cannot be used together with {option}: cosim itself needs QEMU's stub, to set the "
            "guest's timers",
        )
    return None


def _flat(fields: Mapping[str, Any], names: Names) -> Problem | None:
    """Return what is wrong with the place of a flat binary; None if nothing is."""
    place = names.option("load_address")
    if "kernel" not in fields:
        needs = f"needs {names.option('kernel')} with a flat binary"
        return Problem("load_address", needs) if "load_address" in fields else None
    flat = is_flat(fields["kernel"])
    if flat and "load_address" not in fields:
        return Problem(
            "kernel",
            f"names {fields['kernel']}, which is neither an ELF file nor a Linux Image; for a "
            f"flat binary give {place}, too",
        )
    if not flat and "load_address" in fields:
        return Problem(
            "load_address", "is for a flat binary; this kernel says itself where it is loaded"
        )
    return None


def _not_again(fields: Mapping[str, Any], backend: BackendOptions, names: Names) -> Problem | None:
    """Return what the backend's session cannot do to the guest twice; None if there is nothing."""
    if fields.get("live") or fields.get("smp", 1) > 1:
        return None
    once = f"use {names.setting('backend', 'plugin')}"
    if backend.runs_again and fields.get("disk_write"):
        return Problem(
            "disk_write",
            f"cannot be used with the {backend.name} backend, which runs the guest again from its "
            f"recording and needs the disk as it was; {once}",
        )
    if backend.runs_again and "share" in fields:
        return Problem(
            "share",
            f"cannot be used with the {backend.name} backend, because QEMU's recordings do not "
            f"hold what a guest reads from a shared folder; {once}",
        )
    found = device_options.unrecorded(fields.get("qemu", ()))
    if found is not None:
        return Problem(
            "qemu",
            f"has {found[0]}, which QEMU's recordings do not cover; {found[1]}, or run with --live",
        )
    return None
