"""Events in words, for people, by the description in :mod:`hypervisor_model.events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosim.capture.processes import Process
from cosim.trace.schema import KIND_NAMES
from hypervisor_model.events import EVENT, KINDS, Form, Kind, Value
from hypervisor_model.jit import unsigned

_NONE: Mapping[int, Process] = {}


def kind_name(number: int) -> str:
    """Return the name of a kind of event."""
    return KIND_NAMES.get(number, f"kind {number}")


def hexadecimal(value: int) -> str:
    """Return the int64 ``value`` as the unsigned hexadecimal number it stands for."""
    return f"{unsigned(value):#x}"


def details(event: Any, labels: Mapping[int, str], processes: Mapping[int, Process] = _NONE) -> str:
    """Return what happened in the record ``event`` besides its kind, pc and instruction count.

    :param labels: the text of each mark, by its number.
    :param processes: the processes, by the numbers in ``satp_write`` events.
    """
    number = int(event["kind"])
    if number not in KINDS:
        rest = [name for name in EVENT.names or () if EVENT[name].itemsize == 8]
        return " ".join(f"{name} {hexadecimal(int(event[name]))}" for name in rest)
    values = KINDS[Kind(number)].values
    parts = [_text(value, event, labels, processes) for value in values]
    return " ".join(part for part in parts if part)


def _text(
    value: Value, event: Any, labels: Mapping[int, str], processes: Mapping[int, Process]
) -> str:
    """Return ``value`` as people read it; empty if it is absent, false or not to be shown."""
    stored = int(event[value.field])
    if value.mask is not None:
        stored &= value.mask
    if value.needs and not int(event["sub"]) & value.needs:
        return ""
    match value.form:
        case Form.WORD:
            shown = hexadecimal(stored)
        case Form.NUMBER:
            shown = str(stored)
        case Form.TRUTH:
            return (value.name if value.text is None else value.text) if stored else ""
        case Form.NAME:
            shown = value.names.get(stored, f"{value.field} {stored}")
        case Form.LABEL:
            shown = f"{labels.get(stored, '?')} ({stored})"
        case Form.PROCESS | Form.PID if stored not in processes:
            return ""
        case Form.PROCESS:
            shown = processes[stored].name
        case Form.PID:
            shown = str(processes[stored].pid)
        case Form.PA | Form.CAUSE if (stored < 0) != (value.form is Form.CAUSE):
            return ""
        case Form.PA:
            shown = hexadecimal(stored)
        case Form.CAUSE:
            shown = str(-1 - stored)
    return (f"{value.name} {{}}" if value.text is None else value.text).format(shown)
