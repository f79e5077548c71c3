"""Names of programs as a reader sees them: a stand-in is called one wherever it is shown."""

from __future__ import annotations

import re

from guest.workloads import WORKLOADS

_STAND_INS = [name for name, workload in WORKLOADS.items() if workload.stand_in]
_NAMED = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, _STAND_INS))})(?![\w-])")


def described(name: str, stands_for: str | None, *, stand_in: bool) -> str:
    """Return the name with the paper's program that it is, or that it stands for."""
    if stands_for is None:
        return name
    return f"{name} (stand-in for {stands_for})" if stand_in else f"{name} ({stands_for})"


def label(name: str) -> str:
    """Return ``name`` described if it is one of the workloads; any other text as it is."""
    workload = WORKLOADS.get(name)
    if workload is None:
        return name
    return described(name, workload.stands_for, stand_in=workload.stand_in)


def labelled(text: str) -> str:
    """Return ``text`` with each stand-in called one when a paragraph first names it.

    A paragraph that says "stand-in" itself stays as it is.
    """
    return "".join(map(_labelled_paragraph, re.split(r"(\n\s*\n)", text)))


def _labelled_paragraph(text: str) -> str:
    if "stand-in" in text:
        return text
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        name = found[0]
        if name in seen:
            return name
        seen.add(name)
        other = WORKLOADS[name].stands_for
        inside = text[: found.start()].endswith("(") and text[found.end() :].startswith(")")
        return f"{name}, stand-in for {other}" if inside else f"{name} (stand-in for {other})"

    return _NAMED.sub(once, text)
