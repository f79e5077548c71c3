"""The registers that a translation depends on, and the address space that they select."""

from __future__ import annotations

from dataclasses import dataclass

from cosim.errors import UsageError
from hypervisor_model.events import ENVCFG_ADUE, ENVCFG_PBMTE, Priv
from hypervisor_model.isa import atp
from hypervisor_model.isa.atp import Mode
from hypervisor_model.jit import plain, signed, unsigned
from hypervisor_model.mmu import Status

MODES = ("U", "S", "VU", "VS", "M")
"""The privileges that a question can be asked for."""

_levels, _mode = plain(atp.levels), plain(atp.mode)
"""For a few calls it takes longer to load the compiled forms."""

_SUM, _MXR = 1 << 18, 1 << 19
"""Bits of ``mstatus``, ``sstatus`` and ``vsstatus``."""


_KERNEL = Status()
"""A guest kernel's, on a machine with Svade and Svnapot."""


@dataclass(frozen=True)
class Space:
    """One address space: its root registers, and the state of the hart that uses it.

    One stage has ``satp``; two stages have ``vsatp`` and ``hgatp``.  Values are unsigned.

    :raises UsageError: when both or neither are given, or a MODE is a reserved one.
    """

    satp: int | None = None
    vsatp: int | None = None
    hgatp: int | None = None
    status: Status = _KERNEL

    def __post_init__(self) -> None:
        given = (self.satp is not None, self.vsatp is not None, self.hgatp is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise UsageError("give either satp, or vsatp and hgatp")
        for name in ("satp", "vsatp", "hgatp"):
            value = getattr(self, name)
            if value is None:
                continue
            if _levels(_mode(signed(value))) < 0:
                raise UsageError(f"{name} {unsigned(value):#x} has a reserved MODE")
            legal = atp.legalise_hgatp(0, value) if name == "hgatp" else signed(value)
            object.__setattr__(self, name, unsigned(legal))

    @property
    def two_stage(self) -> bool:
        """True if the address is translated by ``vsatp`` and then ``hgatp``."""
        return self.satp is None

    @property
    def first(self) -> int:
        """``satp`` or ``vsatp``, as an int64."""
        return signed((self.vsatp if self.satp is None else self.satp) or 0)

    @property
    def second(self) -> int:
        """``hgatp`` as an int64; 0 if there is one stage."""
        return signed(self.hgatp or 0)

    @property
    def levels(self) -> int:
        """Levels of the first stage; 0 for Bare."""
        return _levels(_mode(self.first))

    @property
    def name(self) -> str:
        """The modes of both stages: ``Sv39``, ``Sv48 on Sv39x4``, ``Bare``."""
        mode = _mode(self.second)
        text = Mode(_mode(self.first)).name.capitalize()
        if self.two_stage:
            text += f" on {Mode(mode).name.capitalize()}{'x4' if mode else ''}"
        return text

    def registers_text(self) -> str:
        """Return the root registers for people: ``satp 0x8000000000080001``."""
        names = ("vsatp", "hgatp") if self.two_stage else ("satp",)
        return ", ".join(f"{name} {getattr(self, name):#018x}" for name in names)


@dataclass(frozen=True)
class Registers:
    """What a hart's registers hold at a stop, all unsigned.  Those that are not known are 0."""

    satp: int = 0
    vsatp: int = 0
    hgatp: int = 0
    mstatus: int = 0
    """``mstatus`` or ``sstatus``: SUM and MXR are at the same place."""
    vsstatus: int = 0
    menvcfg: int = 0
    henvcfg: int = 0
    mode: str = "S"
    """The privilege of the hart: one of :data:`MODES`."""

    def space(self, mode: str | None = None, satp: int | None = None) -> Space:
        """Return the address space of an access.

        :param mode: one of :data:`MODES`; None for the hart's own.
        :param satp: used instead of ``satp`` (or ``vsatp``) if given.
        :raises UsageError: when ``mode`` is none of :data:`MODES`, or a register has a reserved
            MODE.
        """
        mode = mode or self.mode
        if mode not in MODES:
            raise UsageError(f"{mode} is not a privilege; give one of {', '.join(MODES)}")
        adue, pbmte = bool(self.menvcfg & ENVCFG_ADUE), bool(self.menvcfg & ENVCFG_PBMTE)
        mxr = bool(self.mstatus & _MXR)
        if mode == "M":
            return Space(satp=0, status=Status(priv=Priv.M))
        if not mode.startswith("V"):
            status = Status(
                priv=Priv[mode],
                sum=bool(self.mstatus & _SUM),
                mxr=mxr,
                adue=adue,
                pbmte=pbmte,
            )
            return Space(satp=self.satp if satp is None else satp, status=status)
        status = Status(
            priv=Priv[mode[1:]],
            sum=bool(self.vsstatus & _SUM),
            mxr=mxr,
            vs_mxr=bool(self.vsstatus & _MXR),
            adue=bool(self.henvcfg & ENVCFG_ADUE),
            g_adue=adue,
            pbmte=bool(self.henvcfg & ENVCFG_PBMTE),
            g_pbmte=pbmte,
        )
        vsatp = self.vsatp if satp is None else satp
        return Space(vsatp=vsatp, hgatp=self.hgatp, status=status)
