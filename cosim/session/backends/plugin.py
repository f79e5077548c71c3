"""The ``plugin`` backend: a TCG plugin inside QEMU sees every event at QEMU's speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cosim.capture.plugin.limits import FILTER_LARGEST, FILTER_SLOTS
from cosim.errors import MissingTool
from cosim.run import checks
from cosim.run.backend_options import OPTION, Option, Problem
from cosim.run.names import Names
from cosim.session.backends.gdb import Gdb
from cosim.session.protocol import Backend, Session, Watchers

if TYPE_CHECKING:
    from cosim.machine.configuration import Timing
    from cosim.models.pipeline import Pipeline
    from cosim.run.plan import Plan
    from hypervisor_model.policies import Stream


def _slots(value: Any, folder: Path) -> int:
    slots = checks.count(value, folder)
    if not 1 <= slots <= FILTER_LARGEST or slots & (slots - 1):
        raise ValueError(f"is {slots}, not a power of two from 1 to {FILTER_LARGEST}")
    return slots


def _socket(value: Any, folder: Path) -> Path:
    return Path(checks.text(value, folder)).absolute()


@cache
def _why_not(emulator: Path) -> str | None:
    from cosim.capture.plugin import build

    try:
        build.check_loads(emulator, build.build())
    except MissingTool as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Plugin(Backend):
    """The plugin backend with its options."""

    name: ClassVar[str] = "plugin"
    several_harts: ClassVar[bool] = True

    accesses: bool | None = field(
        default=None,
        metadata={
            OPTION: Option(
                checks.switch,
                "Capture only tables, fences and satp: smaller, faster (not with --backend gdb).",
                spelling="--no-accesses",
                flag=False,
                commands=frozenset({"capture"}),
            )
        },
    )
    """False: no accesses.  True: accesses, so that gdb cannot stand in.  None: accesses if they can
    be had."""
    filter: int | None = field(
        default=None,
        metadata={
            OPTION: Option(
                _slots,
                "Access-filter slots (not with --backend gdb); 1 drops the fewest accesses.",
                metavar="SLOTS",
                kind=int,
            )
        },
    )
    """Slots of the filter that drops repeated accesses; None for :data:`FILTER_SLOTS`."""
    gdb: Path | None = field(
        default=None,
        metadata={
            OPTION: Option(
                _socket,
                "The guest waits for your gdb at this socket (only with --backend plugin).",
                metavar="SOCKET",
                commands=frozenset({"run"}),
                in_files=False,
            )
        },
    )
    """A Unix socket to make for the user's gdb.  The guest waits until that gdb lets it run."""
    timing: Timing | None = None
    """How the guest's time runs; None: a recording is made, or for ``live`` real time.  Counting
    instructions alone does not repeat a run: two boots of Linux drift apart."""

    @property
    def slots(self) -> int:
        """Slots of the access filter."""
        return self.filter or FILTER_SLOTS

    def problem(self, names: Names) -> Problem | None:
        """Return that a filter is of no use without accesses."""
        if self.filter is not None and self.accesses is False:
            return Problem("filter", f"has no effect with {names.setting('accesses', False)}")
        return None

    @property
    def waits_for_user(self) -> bool:
        """True if the user's gdb is in charge."""
        return self.gdb is not None

    def stream(self) -> Stream:
        """Return that every access is there, behind the filter, unless none is wanted."""
        from hypervisor_model.policies import Stream

        if self.accesses is False:
            return Stream(accesses="none")
        return Stream(filter=self.slots)

    def open(self, plan: Plan, folder: Path, pipeline: Pipeline, watchers: Watchers) -> Session:
        """Return a session through the plugin."""
        from cosim.session.plugin_session import PluginSession

        return PluginSession(plan, self, folder, pipeline, watchers)

    def missing(self) -> str | None:
        """Return why the plugin does not compile or QEMU does not load it; None if it does.

        :raises MissingTool: when there is no QEMU.
        """
        from cosim.machine import tools

        return _why_not(tools.qemu().path)

    def stand_in(self, names: Names) -> tuple[Backend, str]:
        """Return the gdb backend.

        :raises MissingTool: when the options ask for accesses, a filter or a gdb of the user's.
        """
        asked = {
            "filter": self.filter is not None,
            "accesses": bool(self.accesses),
            "gdb": self.gdb is not None,
        }
        for key, wanted in asked.items():
            if wanted:
                raise MissingTool(
                    f"gdb cannot stand in for it: {names.option(key)} needs the plugin"
                )
        return (
            Gdb(),
            "using gdb instead, which is about a hundred times slower and sees no accesses",
        )


BACKEND = Plugin
