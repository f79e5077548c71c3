"""The ``gdb+plugin`` backend: one run, seen by both sources.

The plugin hears the recording of the guest, so that every access is there.  gdb stops the
re-execution of the same run at every event.  Each event of one source must be one of the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cosim.capture.plugin.limits import FILTER_SLOTS
from cosim.errors import MissingTool
from cosim.run.backend_options import Problem, same_option
from cosim.run.names import Names
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from cosim.session.protocol import Backend, Session, Watchers

if TYPE_CHECKING:
    from cosim.models.pipeline import Pipeline
    from cosim.run.plan import Plan
    from cosim.session.both_sources import Heard
    from hypervisor_model.policies import Stream


@dataclass(frozen=True)
class Both(Gdb):
    """Both sources with their options, except for a gdb of the user's."""

    name: ClassVar[str] = "gdb+plugin"
    aliases: ClassVar[tuple[str, ...]] = ()
    live: ClassVar[bool] = False

    accesses: bool | None = same_option(Plugin, "accesses")
    """False: no accesses.  True: accesses, so that gdb alone cannot stand in."""
    filter: int | None = same_option(Plugin, "filter")
    """Slots of the filter that drops repeated accesses; None for :data:`FILTER_SLOTS`."""
    heard: Heard | None = field(default=None, compare=False)
    """What the plugin said of ``recording``, if that is given."""

    @property
    def slots(self) -> int:
        """Slots of the access filter."""
        return self.filter or FILTER_SLOTS

    @property
    def _plugin(self) -> Plugin:
        return Plugin(accesses=self.accesses, filter=self.filter)

    def problem(self, names: Names) -> Problem | None:
        """Return what is wrong with the plugin's options."""
        return self._plugin.problem(names)

    def stream(self) -> Stream:
        """Return that the accesses are the plugin's."""
        return self._plugin.stream()

    def sees_virtual_machines(self) -> bool:
        """Return True: the plugin sees every event of virtual machines."""
        return True

    def open(self, plan: Plan, folder: Path, pipeline: Pipeline, watchers: Watchers) -> Session:
        """Return a session with both sources."""
        from cosim.session.both_sources import BothSources

        return BothSources(plan, self, folder, pipeline, watchers)

    def missing(self) -> str | None:
        """Return why the plugin does not compile or QEMU does not load it; None if it does.

        :raises MissingTool: when there is no QEMU, or only the plugin and no gdb.
        """
        return self._plugin.missing() or super().missing()

    def stand_in(self, names: Names) -> tuple[Backend, str]:
        """Return gdb alone, with the same options.

        :raises MissingTool: when the options ask for accesses or a filter.
        """
        try:
            self._plugin.stand_in(names)
        except MissingTool as error:
            raise MissingTool(str(error).replace("gdb cannot", "gdb alone cannot")) from None
        alone = Gdb(
            step=self.step, step_all=self.step_all, mi_log=self.mi_log, rsp_log=self.rsp_log
        )
        return alone, "using gdb alone, which sees accesses only of instructions that it steps"


BACKEND = Both
