"""Carrying out a run: its backend's session, its models, its trace."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cosim.capture.processes import Process
from cosim.errors import EnvironmentFault, MissingTool
from cosim.models import model_options
from cosim.models.pipeline import Pipeline
from cosim.models.result import Origin
from cosim.run.plan import Plan, resolve
from cosim.run.run_spec import RunSpec
from cosim.session.needs import check_memory
from cosim.session.origin import backend_of, origin
from cosim.session.protocol import Backend, Note, Outcome, Session, Watchers
from cosim.trace.folder import location
from cosim.trace.location import Location
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch


def available(spec: RunSpec, note: Note) -> RunSpec:
    """Return ``spec`` with a backend that this machine has.

    :param note: is told if that is another backend than the one asked for.
    :raises MissingTool: when there is no QEMU, ``spec`` needs the backend that is missing, or what
        would stand in is missing, too.
    """
    backend = spec.backend
    if not isinstance(backend, Backend):
        return spec
    reason = backend.missing()
    if reason is None:
        return spec
    try:
        found = backend.stand_in(spec.names)
        if found is not None:
            found[0].missing()
    except MissingTool as error:
        raise MissingTool(f"{reason}; {error}") from None
    if found is None:
        raise MissingTool(reason)
    other, difference = found
    if spec.harts > 1 and not other.several_harts:
        smp = spec.names.option("smp")
        raise MissingTool(f"{reason}; {other.name} cannot stand in for it: {smp} needs the plugin")
    note(f"cosim: {reason}; {difference}")
    return replace(spec, backend=other)


def check(spec: RunSpec) -> None:
    """Check everything about ``spec`` that can be checked without starting the guest.

    :raises UsageError: when it cannot be run; its ``key`` says which key is wrong.
    :raises EnvironmentFault: when QEMU is missing, or memory is short.
    """
    plan = resolve(spec)
    with _memory_for(plan):
        model_options.make_pipeline(origin(plan), plan.models)


def load_models(plan: Plan) -> Pipeline:
    """Return the plan's models, compiled.  Compiling them the first time takes half a minute.

    :raises UsageError: when there is no such model.
    :raises EnvironmentFault: when memory is short.
    """
    about = origin(plan)
    with _memory_for(plan):
        model_options.compile_models(about, plan.models)
        return model_options.make_pipeline(about, plan.models)


def execute(
    plan: Plan,
    folder: Path,
    pipeline: Pipeline,
    *,
    trace: Path | Location | None = None,
    watchers: Watchers | None = None,
) -> Outcome:
    """Run one session.

    :param folder: an empty folder for logs.
    :param pipeline: takes the events (:func:`load_models`).
    :param trace: keep the events as a trace there.
    :param watchers: who follows the session.
    :raises CosimError: when the session cannot start, or there is too little memory for it.
    """
    watchers = watchers or Watchers()
    short = check_memory(plan)
    if short is not None:
        watchers.note(f"cosim: {short}")
    backend = backend_of(plan)
    pipeline.symbols = lambda: plan.symbols
    with ExitStack() as stack:
        pipeline.labels = lambda: dict(enumerate(session.labels))
        pipeline.processes = lambda: session.processes
        if trace is None:
            session = backend.open(plan, folder, pipeline, watchers)
            return session.run()
        keeper = _TraceKeeper(trace, pipeline.origin, stack, lambda: session)
        first = watchers.keep

        def keep(batch: EventBatch) -> None:
            keeper.keep(batch)
            first(batch)

        session = backend.open(plan, folder, pipeline, replace(watchers, keep=keep))
        outcome = session.run()
        if keeper.writer is not None and outcome.ending is not None:
            keeper.name_processes()
            keeper.writer.close(outcome.ending)
    return outcome


def capture(spec: RunSpec, folder: Path, trace: Path | Location, watchers: Watchers) -> Outcome:
    """Run one session without models and keep its events; parameters as for :func:`execute`.

    :raises CosimError: when the session cannot start.
    """
    plan = resolve(spec)
    only_counts = Pipeline(origin(plan), {})
    # The first batch loads what judges it, beside the guest.
    with _memory_for(plan):
        return execute(plan, folder, only_counts, trace=trace, watchers=watchers)


@contextmanager
def _memory_for(plan: Plan) -> Iterator[None]:
    """Say what to do if there is not enough memory, for the run or for the models.

    :raises EnvironmentFault: when there is not.
    """
    check_memory(plan)
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise EnvironmentFault(
            f"not enough memory to model {plan.machine.memory >> 20} MiB of guest RAM "
            f"({error}); give the guest less with {plan.names.option('memory')}"
        ) from None


class _TraceKeeper:
    """Writes every batch to a trace.  The first batch makes it: without a region, no trace."""

    def __init__(
        self,
        place: Path | Location,
        origin: Origin,
        stack: ExitStack,
        session: Callable[[], Session],
    ) -> None:
        self._place = location(place)
        self._place.check_unused()
        self._origin = origin
        self._stack = stack
        self._session = session
        self._labelled = 0
        self._named: dict[int, Process] = {}
        self.writer: TraceWriter | None = None

    def keep(self, batch: EventBatch) -> None:
        """Write ``batch``, after the labels of its marks."""
        if self.writer is None:
            self.writer = self._stack.enter_context(TraceWriter(self._place, self._origin))
        labels = self._session().labels
        for number, text in enumerate(labels[self._labelled :], self._labelled):
            self.writer.label(number, text)
            self._labelled += 1
        self.name_processes()
        self.writer.write(batch)

    def name_processes(self) -> None:
        """Write which processes were found, and which have another name by now."""
        assert self.writer is not None
        known = self._session().processes.items() - self._named.items()
        fresh = dict(sorted(known))
        if fresh:
            self.writer.name(fresh)
            self._named |= fresh
