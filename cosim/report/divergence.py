"""An illegal translation in words: the answer, and both walks level by level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cosim.models.result import Json
from hypervisor_model.mmu import letters


def describe(illegal: Json) -> str:
    """Return the lines that show one element of a result's ``illegal_translations``."""
    return "\n".join(_lines(illegal))


def _lines(illegal: Json) -> Iterator[str]:
    # Results of older versions have neither.
    known = ": ".join(filter(None, (illegal.get("symbol"), illegal.get("instruction"))))
    place = f"{illegal['pc']:#x} ({known})" if known else f"{illegal['pc']:#x}"
    where = f"event {illegal['event']:,}, pc {place}, hart {illegal['hart']}"
    if illegal["icount"] is not None:
        where += f", {illegal['icount']:,} instructions in"
    yield f"illegal translation by {illegal['party']} ({where})"
    rights = " ".join([illegal["privilege"], *illegal["flags"]])
    yield f"  {illegal['access']} {illegal['va']:#x} as {rights}, satp {illegal['satp']:#x}"
    yield f"  the guest's tables say {_answer(illegal['today'])}:"
    yield from map(_step, illegal["walk"])
    answer = f"  {illegal['party']} says {_answer(illegal['answer'])}"
    if not illegal["origin"]:
        yield f"{answer}, which these tables never said, as far back as is kept"
        return
    yield f"{answer}, which these tables said once; a fence since has made that illegal:"
    yield from map(_step, illegal["origin"])


def _answer(answer: Json) -> str:
    return f"pa {answer['pa']:#x}" if "pa" in answer else f"{answer['name']} ({answer['cause']})"


def _step(step: dict[str, Any]) -> str:
    until = step.get("until")
    replaced = "" if until is None else f"  replaced by event {until:,}"
    return (
        f"    level {step['level']}  {step['address']:#016x}  {step['entry']:#018x}"
        f"  {letters(step['entry'])}{replaced}"
    )
