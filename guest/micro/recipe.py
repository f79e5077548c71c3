"""Builds ``micro`` and ``micro-m``: our bare kernel, with firmware and without."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cosim.output import Step
from guest import compiler, spec
from guest.spec import GuestSpec

_SOURCE = Path(__file__).resolve().parent
_MARK = _SOURCE.parent / "mark.S"
_SHIM = _SOURCE / "machine.S"


class Recipe:
    """How one of the two is made; see :class:`guest.making.Recipe`."""

    verb = "build"

    def __init__(self, name: Literal["micro", "micro-m"]) -> None:
        self.name = name
        self._machine = name == "micro-m"
        self.summary = "our bare kernel with small paging scenarios" + (
            ", starting in M-mode" if self._machine else ""
        )

    def sources(self) -> str:
        """Return a digest of the kernel's files and of the recipe."""
        headers = sorted(_SOURCE.glob("*.h"))
        return spec.digest(
            [*self._files(), *headers, self._script, Path(__file__), Path(compiler.__file__)]
        )

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Cross-compile the kernel.

        :raises EnvironmentFault: when there is no cross compiler, or it refuses the sources.
        """
        step(0, None, f"build {self.name}")
        kernel = spec.folder(self.name) / f"{self.name}.elf"
        part = kernel.with_suffix(".part")
        compiler.build(part, self._files(), self._script)
        part.replace(kernel)
        made = GuestSpec(
            name=self.name,
            kernel=kernel,
            bios="none" if self._machine else None,
            append="scenario=all",
            memory="128M",
            extensions="svinval=on",
            region_from="mark:begin",
            region_to="mark:end",
            sources=self.sources(),
            checksums={"kernel": spec.checksum(kernel)},
        )
        spec.write(made)
        return made

    @property
    def _script(self) -> Path:
        return _SOURCE / "micro.ld"

    def _files(self) -> list[Path]:
        files = [path for path in sorted(_SOURCE.glob("*.[cS]")) if path != _SHIM]
        return [*files, _MARK, *([_SHIM] if self._machine else [])]
