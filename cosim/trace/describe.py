"""Events in words, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosim.trace.schema import KIND_NAMES
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_MXR,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    Fence,
    Kind,
    Priv,
    PteOp,
    Satp,
)
from hypervisor_model.jit import unsigned

FENCE_NAMES = {
    int(Fence.SFENCE_VMA): "sfence.vma",
    int(Fence.SINVAL_VMA): "sinval.vma",
    int(Fence.HFENCE_VVMA): "hfence.vvma",
    int(Fence.HFENCE_GVMA): "hfence.gvma",
    int(Fence.HINVAL_VVMA): "hinval.vvma",
    int(Fence.HINVAL_GVMA): "hinval.gvma",
}
"""The instruction of a FENCE, by its ``sub`` without the form."""

_FLAGS = {FLAG_CONT: "continued", FLAG_SUM: "SUM", FLAG_MXR: "MXR", FLAG_STOP: "sample"}


def kind_name(number: int) -> str:
    """The name of a kind of event."""
    return KIND_NAMES.get(number, f"kind {number}")


def priv_name(priv: int) -> str:
    """``U``, ``S``, ``M``, ``VU`` or ``VS``."""
    base = priv & ~Priv.VIRT
    name = Priv(base).name if base in (Priv.U, Priv.S, Priv.M) else f"?{base}"
    return f"V{name}" if priv & Priv.VIRT else name


def hexadecimal(value: int) -> str:
    """The int64 ``value`` as the unsigned hexadecimal number it stands for."""
    return f"{unsigned(value):#x}"


def details(event: Any, labels: Mapping[int, str]) -> str:
    """What happened in the record ``event`` besides its kind, pc and instruction count."""
    a, b, c, sub = (int(event[name]) for name in ("a", "b", "c", "sub"))
    match int(event["kind"]):
        case Kind.TABLE_ADD:
            text = f"{hexadecimal(a)} level {b}{' root' if sub else ''}"
        case Kind.TABLE_ENTRY:
            text = f"{hexadecimal(a)} = {hexadecimal(c)}"
        case Kind.TABLE_DROP:
            text = hexadecimal(a)
        case Kind.PTE_WRITE:
            op = _name(PteOp, sub)
            text = f"{hexadecimal(a)}: {hexadecimal(b)} -> {hexadecimal(c)} {op} {event['size']} B"
        case Kind.FENCE:
            text = FENCE_NAMES.get(sub & ~Fence.FORM, f"fence {sub}")
            text += f" va {hexadecimal(a)}" if sub & Fence.VA else ""
            text += f" asid {b}" if sub & Fence.ASID else ""
        case Kind.SATP_WRITE:
            text = f"{_name(Satp, sub)} {hexadecimal(a)} -> {hexadecimal(b)}"
        case Kind.ACCESS:
            answer = f"fault {-1 - b}" if b < 0 else hexadecimal(b)
            text = f"{_name(Access, sub)} {hexadecimal(a)} -> {answer}"
        case Kind.PAGE_FAULT:
            text = f"cause {b} tval {hexadecimal(a)}"
        case Kind.MARK:
            text = f"{labels.get(a, '?')} ({a})"
        case _:
            text = f"{hexadecimal(a)} {hexadecimal(b)} {hexadecimal(c)}"
    flags = [name for flag, name in _FLAGS.items() if int(event["flags"]) & flag]
    return " ".join([text, *flags])


def _name(enumeration: type[PteOp | Satp | Access], number: int) -> str:
    try:
        return enumeration(number).name.lower().replace("_", ".")
    except ValueError:
        return f"sub {number}"
