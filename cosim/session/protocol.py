"""What a session is: one guest run whose events reach the models, whatever the backend.

A backend (:class:`Backend`) opens sessions (:class:`Session`).  A session tells its
:class:`Watchers` how far it is, and returns an :class:`Outcome`.

This module and :mod:`cosim.session.backends` import nothing that takes time, because the command
line needs the backends' options even for ``--help``.  So a backend imports its session only when it
opens one.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cosim.errors import CosimError
from cosim.run.backend_options import BackendOptions

if TYPE_CHECKING:
    from cosim.capture.processes import Process
    from cosim.machine.console import Console
    from cosim.models.pipeline import Pipeline
    from cosim.models.result import Ending, ResultDocument
    from cosim.run.names import Names
    from cosim.run.plan import Plan
    from hypervisor_model.events import EventBatch
    from hypervisor_model.policies import Stream


@dataclass(frozen=True)
class Progress:
    """Where a session is, for the live view."""

    phase: str
    """``recording``, ``to the region`` or ``in the region``."""
    seconds: float
    events: int
    place: str
    """Where the guest was when it was last looked at."""
    exits: dict[str, int]
    of: int | None = None
    """How many events there are, if that is known."""
    left: float | None = None
    """About how many seconds the phase will still take, if that is known."""
    remark: str = ""
    """Why ``left`` is not known, if that is worth saying."""


@dataclass(frozen=True)
class QemuCounts:
    """How QEMU's own count of instructions follows from the plugin's, which is of those that
    retired."""

    before: int
    """How many more QEMU had counted where the region began."""
    calls: Sequence[int]
    """How many instructions had retired at each one since that QEMU counted and that did not."""

    def of(self, retired: int) -> int:
        """Return QEMU's count where ``retired`` instructions have retired; a lower bound."""
        return retired + self.before + bisect_right(self.calls, retired)


@dataclass(frozen=True)
class Outcome:
    """How a session ended: what was measured, and what cut it short, if anything did."""

    document: ResultDocument | None
    """None if the region was not reached."""
    error: CosimError | KeyboardInterrupt | None = None
    ending: Ending | None = None
    counts: QemuCounts | None = None
    """None if the source does not say."""


View = Callable[[Progress], None]
"""Is told about progress a few times a second."""
Keep = Callable[["EventBatch"], None]
"""Takes every batch besides the models, for example to write a trace."""
Attach = Callable[["Console"], AbstractContextManager[None]]
"""Is entered with the guest's console for as long as the guest can be talked to."""
Note = Callable[[str], None]
"""Takes a line for people."""


def _not_attached(console: Console) -> AbstractContextManager[None]:
    return nullcontext()


def _nobody(_: object) -> None:
    pass


@dataclass(frozen=True)
class Watchers:
    """Who follows a session; by default nobody."""

    keep: Keep = _nobody
    view: View = _nobody
    attach: Attach = _not_attached
    note: Note = _nobody


class Session(Protocol):
    """One run of one guest."""

    def run(self) -> Outcome:
        """Do all of it.  Does not raise for what a user can do something about.

        The outcome has a document as soon as the region was reached, whatever happened then.
        """
        ...

    @property
    def labels(self) -> list[str]:
        """Labels of the marks met, by their number in MARK events."""
        ...

    @property
    def processes(self) -> Mapping[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        ...


@dataclass(frozen=True)
class Backend(BackendOptions):
    """A backend: its options, what its stream knows, and how to open its session.

    A subclass in a module of :mod:`cosim.session.backends` is all that a new backend needs.
    """

    @abstractmethod
    def stream(self) -> Stream:
        """Return how complete the events are with these options."""

    def sees_virtual_machines(self) -> bool:
        """Return True if the stream has every event of virtual machines that the guest runs."""
        return True

    @abstractmethod
    def open(self, plan: Plan, folder: Path, pipeline: Pipeline, watchers: Watchers) -> Session:
        """Return a session that has not started.

        :param plan: what to run; its backend is this one.
        :param folder: an empty folder for logs and recordings.
        :param pipeline: the models.
        :param watchers: who follows it.
        """

    def missing(self) -> str | None:
        """Return why this machine does not have the backend; None if it does.

        :raises MissingTool: when something is missing without which no other backend can stand in.
        """
        return None

    def stand_in(self, names: Names) -> tuple[Backend, str] | None:
        """Return the backend to use if this one is missing, and what is different then.

        None, as here, if no other backend can stand in.

        :raises MissingTool: when these options need this backend.
        """
        return None


STOPPED = "stopped at the first illegal translation (--stop-on-divergence)"
"""Why a session that was to stop at a divergence is not complete."""


def ended_by(error: CosimError | KeyboardInterrupt | None) -> str | None:
    """Return why a session that ``error`` cut short is not complete."""
    return None if error is None else str(error) or "interrupted"
