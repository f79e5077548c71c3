"""Findings that a user knows and accepts, with the reason for each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.errors import UsageError

_KEYS = ("kind", "store", "reason")


@dataclass
class Suppression:
    """Accepts the findings of a store site."""

    reason: str
    kind: str | None = None
    """The kind of finding; None for every kind."""
    store: str | None = None
    """A symbol (without the offset) or an address; None for every site."""
    used: bool = False

    def accepts(self, finding: dict[str, Any]) -> bool:
        """Return True if ``finding`` is one of those meant."""
        if self.kind is not None and self.kind != finding["kind"]:
            return False
        if self.store is None:
            return True
        symbol = finding["store_symbol"] or ""
        return self.store in (symbol, symbol.partition("+")[0], f"{finding['store_pc']:#x}")

    def text(self) -> str:
        """Return what is accepted, as one line."""
        return " at ".join(part for part in (self.kind or "any kind", self.store) if part)


def read(path: Path, kinds: tuple[str, ...]) -> list[Suppression]:
    """Return the suppressions in a TOML file.

    ::

        [[suppress]]
        kind = "svade-ad"
        store = "folio_referenced_one"
        reason = "clearing A without a fence only makes aging less exact"

    :param kinds: the kinds of findings that there are.
    :raises UsageError: when the file cannot be read, or an entry is malformed or gives no reason.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--suppress: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--suppress: {path} is not a TOML file ({error})") from None
    entries = document.get("suppress")
    if set(document) - {"suppress"} or not isinstance(entries, list):
        raise UsageError(f"--suppress: {path} must hold [[suppress]] tables and nothing else")
    found = []
    for number, entry in enumerate(entries, 1):
        where = f"--suppress: {path}: entry {number}"
        if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
            raise UsageError(f"{where} is not a table of texts")
        unknown = sorted(set(entry) - set(_KEYS))
        if unknown:
            raise UsageError(f"{where} has the unknown key {unknown[0]}; keys: {', '.join(_KEYS)}")
        if not entry.get("reason", "").strip():
            raise UsageError(f"{where} gives no reason; write why the finding is accepted")
        if "kind" not in entry and "store" not in entry:
            raise UsageError(f"{where} would accept every finding; give a kind or a store")
        if entry.get("kind", kinds[0]) not in kinds:
            raise UsageError(
                f"{where} names the unknown kind {entry['kind']}; kinds: {', '.join(kinds)}"
            )
        found.append(Suppression(entry["reason"].strip(), entry.get("kind"), entry.get("store")))
    return found
