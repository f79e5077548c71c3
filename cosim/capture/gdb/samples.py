"""What was translated: the ACCESS events of a stop.

Each is a sample (``FLAG_STOP``) unless the instruction is stepped for its accesses.  Where sp
points is always a sample: the instruction may not touch it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosim.capture.gdb.classify import Part
from cosim.capture.gdb.effects import FAULTING, Executed
from cosim.capture.log import EventLog
from hypervisor_model.events import FLAG_MXR, FLAG_STOP, FLAG_SUM, Kind, Priv, fault_pa

_SSTATUS_SUM = 1 << 18
_SSTATUS_MXR = 1 << 19


def record(executed: Executed, stepped: bool, log: EventLog) -> None:
    """Write the ACCESS events of one step.

    :param stepped: the instruction is stepped for its accesses.
    """
    state, fault = executed.stop.state, executed.fault
    if state.priv == Priv.M:
        # Not translated.
        return
    flags = 0 if stepped else FLAG_STOP
    if state.sstatus & _SSTATUS_SUM and state.priv != Priv.U:
        flags |= FLAG_SUM
    if state.sstatus & _SSTATUS_MXR:
        flags |= FLAG_MXR
    _record_parts(executed.fetches, flags, log)
    _record_parts([executed.stop.stack], flags | FLAG_STOP, log)
    _record_parts(executed.operands, flags, log)
    if fault is not None:
        if fault.priv != Priv.S:
            flags &= ~FLAG_SUM
        kind = FAULTING[fault.cause]
        log.add(
            Kind.ACCESS, fault.va, fault_pa(fault.cause), sub=kind, flags=flags, priv=fault.priv
        )


def _record_parts(parts: Sequence[Part], flags: int, log: EventLog) -> None:
    for part in parts:
        # QEMU's debug walk asks for read permission, so it fails for an execute-only page and for
        # an entry without A, though the access succeeds.  Then there is no reference.
        if part.pa is not None:
            log.add(Kind.ACCESS, part.va, part.pa, sub=part.kind, flags=flags, size=part.size)
