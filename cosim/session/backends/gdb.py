"""The ``gdb`` backend: gdb stops the guest at every event.

The guest is recorded first.  gdb then works on the re-execution of the recording, so that stops do
not change what the guest does.  Accesses are seen only for instructions that are single-stepped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cosim.machine import tools
from cosim.run import checks
from cosim.run.backend_options import OPTION, Option
from cosim.session.protocol import Backend, Session, Watchers

if TYPE_CHECKING:
    from cosim.models.pipeline import Pipeline
    from cosim.run.plan import Plan
    from hypervisor_model.policies import Stream

_RUN = frozenset({"run"})


@dataclass(frozen=True)
class Gdb(Backend):
    """The gdb backend with its options."""

    name: ClassVar[str] = "gdb"
    aliases: ClassVar[tuple[str, ...]] = ("mi",)
    runs_again: ClassVar[bool] = True

    step: int = field(
        default=0,
        metadata={
            OPTION: Option(
                checks.count,
                "Step N instructions after each event (not with --backend plugin).",
                metavar="N",
                kind=int,
                selects=True,
            )
        },
    )
    """Instructions to single-step after every fence and table write."""
    step_all: bool = field(
        default=False,
        metadata={
            OPTION: Option(
                checks.switch,
                "Step the whole region (not with --backend plugin; small guests only).",
                commands=_RUN,
                in_files=False,
            )
        },
    )
    """Single-step the whole region, so that every access is seen."""
    mi_log: Path | None = field(
        default=None,
        metadata={
            OPTION: Option(
                checks.output_file,
                "Write what gdb and cosim say to each other here (not with --backend plugin).",
                metavar="FILE",
                kind=Path,
                commands=_RUN,
                in_files=False,
            )
        },
    )
    """Receives gdb's MI transcript."""
    rsp_log: Path | None = field(
        default=None,
        metadata={
            OPTION: Option(
                checks.output_file,
                "Write the packets to and from QEMU's gdb stub here (not with --backend plugin).",
                metavar="FILE",
                kind=Path,
                commands=_RUN,
                in_files=False,
            )
        },
    )
    """Receives the remote protocol's packets in both directions."""
    recording: Path | None = None
    """Re-execute this recording of the plan's machine instead of making one."""

    def stream(self) -> Stream:
        """Return that accesses are there as far as the guest is stepped."""
        from hypervisor_model.policies import Accesses, Stream

        accesses: Accesses = "all" if self.step_all else "partial" if self.step else "none"
        return Stream(accesses=accesses, page_faults=self.step_all)

    def sees_virtual_machines(self) -> bool:
        """Return False: only some events of virtual machines stop the guest."""
        return False

    def missing(self) -> str | None:
        """Return None: nothing can stand in for gdb.

        :raises MissingTool: when there is no gdb that knows RISC-V.
        """
        tools.gdb()
        return None

    def open(self, plan: Plan, folder: Path, pipeline: Pipeline, watchers: Watchers) -> Session:
        """Return a session through gdb."""
        from cosim.session.gdb_session import GdbSession

        return GdbSession(plan, self, folder, pipeline, watchers)


BACKEND = Gdb
