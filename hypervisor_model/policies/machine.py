"""The machine that a guest's event stream came from, and the hardware that the policies run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from hypervisor_model.errors import ModelError
from hypervisor_model.isa.atp import Mode
from hypervisor_model.tlb import Replacement, TlbConfig
from hypervisor_model.walk import ADUE, NO_SVNAPOT, PBMTE

SetUp = Literal["base", "h"]

MODELLED = (
    "setup",
    "tlb",
    "walk_cache_ways",
    "gstage_mode",
    "gstage_page",
    "footprint_data",
    "footprint_code",
)
"""The fields of :class:`MachineModel` that are the user's choice; the others are the guest's."""

_MOST = 1 << 16
"""Pages of a footprint, or ways of a walk cache (ours: more than anything has)."""


@dataclass(frozen=True)
class MachineModel:
    """Everything that is the same for all policies of a run.

    The first group describes the guest's machine (known to the source of the events), the second
    the modelled hardware and hypervisor (a choice of the user).

    :raises ModelError: when no machine can have one of the values; the message names the field.
    """

    ram_base: int = 0x8000_0000
    """PA of the first byte of guest RAM; a multiple of 4 KiB."""
    ram_size: int = 512 << 20
    """Bytes of guest RAM; a multiple of 4 KiB."""
    harts: int = 1
    svadu: bool = False
    """The guest's machine sets A and D itself (Svadu), so a hypervisor must emulate it
    (``dirty_fill``).  False: Svade, a clear A or D faults in the guest."""
    svpbmt: bool = False
    svnapot: bool = True
    svvptc: bool = False
    """Svvptc: an entry made valid is seen without a fence, so "faults" is never stale."""

    setup: SetUp = "h"
    """``h``: the guest kernel runs in VS-mode.  ``base``: no H extension, it runs deprivileged in
    U-mode, so that a shadow table exists once per privilege view (paging-models section 2)."""
    tlb: TlbConfig = field(default_factory=TlbConfig)
    """Of each hart."""
    walk_cache_ways: int = 0
    """Page-walk cache entries per stage and level, 0 = none."""
    gstage_mode: Mode = Mode.SV39
    """Format of the G-stage tables of ``nested``: Sv39 stands for Sv39x4 and so on."""
    gstage_page: int = 4096
    """Bytes that one G-stage mapping covers (ours: 4 KiB; or 2 MiB)."""
    footprint_data: int = 8
    """``exit_footprint``: data pages that the hypervisor touches at an exit (ours: 8)."""
    footprint_code: int = 4
    """``exit_footprint``: code pages that the hypervisor touches at an exit (ours: 4)."""

    def __post_init__(self) -> None:
        if self.ram_base % 4096 or self.ram_base < 0:
            raise ModelError(f"machine: ram_base {self.ram_base:#x} is no page address")
        if self.ram_size % 4096 or self.ram_size <= 0:
            raise ModelError(f"machine: ram_size {self.ram_size:#x} is no number of 4 KiB pages")
        if self.ram_size > 1 << 40:
            raise ModelError(f"machine: ram_size {self.ram_size:#x} is more than 1 TiB")
        if not 1 <= self.harts <= 64:
            raise ModelError(f"machine: harts {self.harts} is not in 1..64")
        if self.setup not in ("base", "h"):
            raise ModelError(f"machine: setup {self.setup!r} is neither base nor h")
        if self.gstage_mode == Mode.BARE:
            raise ModelError("machine: gstage_mode is bare; choose sv39, sv48 or sv57")
        if self.gstage_page not in (4096, 2 << 20):
            raise ModelError(f"machine: gstage_page {self.gstage_page} is neither 4096 nor 2097152")
        for name in ("footprint_data", "footprint_code", "walk_cache_ways"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise ModelError(f"machine: {name} {getattr(self, name)} is not in 0..{_MOST}")

    @property
    def walk_flags(self) -> int:
        """Flags for :mod:`hypervisor_model.walk` of the guest's own walk."""
        return (
            (ADUE if self.svadu else 0)
            | (PBMTE if self.svpbmt else 0)
            | (0 if self.svnapot else NO_SVNAPOT)
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON that :meth:`from_json` reads."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["gstage_mode"] = self.gstage_mode.name.lower()
        tlb = {f.name: getattr(self.tlb, f.name) for f in fields(self.tlb)}
        data["tlb"] = tlb | {"replacement": self.tlb.replacement.name.lower()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MachineModel:
        """Return the machine in ``data``; fields left out have their defaults.

        :raises ModelError: when a field is unknown, or its value has the wrong type or range.
        """
        return replace_fields(cls(), data)


def replace_fields(machine: MachineModel, data: Mapping[str, Any]) -> MachineModel:
    """``machine`` with the fields that ``data`` (as from JSON) names replaced.

    Of ``tlb``, too, only those that are named are replaced.

    :raises ModelError: when a field is unknown, or its value has the wrong type or range.
    """
    changes: dict[str, Any] = {}
    for key, value in data.items():
        changes[key] = _field(machine, key, value)
    return replace(machine, **changes)


_KINDS = {int: "a whole number", bool: "true or false", str: "a text"}
"""What the type of a field is called in messages."""
_WORDS = {
    "gstage_mode": "sv39, sv48 or sv57",
    "gstage_page": "4K or 2M (4096 or 2097152 bytes)",
}
"""What a field can be, if it has few values."""


def _field(machine: MachineModel, key: str, value: Any) -> Any:
    known = {f.name: type(getattr(machine, f.name)) for f in fields(machine)}
    if key not in known:
        raise ModelError(f"machine: unknown field {key!r}; known: {', '.join(known)}")
    if key == "tlb":
        return _tlb(machine.tlb, value)
    if key == "gstage_mode" and str(value).upper() in Mode.__members__:
        return Mode[str(value).upper()]
    if key == "gstage_mode" or type(value) is not known[key]:
        wants = _WORDS.get(key) or _KINDS[known[key]]
        raise ModelError(f"machine: {key} cannot be {value!r}, it is {wants}")
    return value


def _tlb(tlb: TlbConfig, data: Any) -> TlbConfig:
    known = [f.name for f in fields(TlbConfig)]
    if not isinstance(data, Mapping):
        raise ModelError(f"machine: tlb cannot be {data!r}, it has {', '.join(known)}")
    changes: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise ModelError(f"machine: tlb has no {key!r}; known: {', '.join(known)}")
        changes[key] = _tlb_field(key, value)
    try:
        return replace(tlb, **changes)
    except ModelError as error:
        raise ModelError(f"machine: tlb: {error}") from None


def _tlb_field(key: str, value: Any) -> Any:
    if key == "replacement":
        words = [word.name.lower() for word in Replacement]
        if value in words:
            return Replacement[value.upper()]
        wants = " or ".join(words)
    elif key in ("seed", "superpages"):
        kind = bool if key == "superpages" else int
        if type(value) is kind:
            return value
        wants = _KINDS[kind]
    else:
        if value is None and key != "data":
            return None
        whole = isinstance(value, list | tuple) and all(type(part) is int for part in value)
        if whole and len(value) == 2:
            return tuple(value)
        wants = '[SETS, WAYS] or "SETSxWAYS"' + ("" if key == "data" else ' or "none"')
    raise ModelError(f"machine: tlb.{key} cannot be {value!r}, it is {wants}")
