"""Running one session for a command: logs, live view, result, exit status."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cosim import output, paths
from cosim.capture.plugin import build
from cosim.errors import CosimError, EnvironmentFault, MissingTool, StorageError, UsageError
from cosim.machine import interrupts, tools
from cosim.models import choices as modelling
from cosim.models.pipeline import Pipeline
from cosim.models.result import Origin, ResultDocument, has_finding
from cosim.report import from_result
from cosim.report.renderers import terminal
from cosim.run import plan
from cosim.run.plan import Plan
from cosim.run.spec import RunSpec
from cosim.session import gdb as session
from cosim.session import plugin as plugin_session
from cosim.session.gdb import Outcome, Session, View
from cosim.session.plugin import PluginSession
from cosim.session.terminal import LiveTerminal
from cosim.session.view import live_view
from cosim.trace import manifest
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch

_INTERRUPTED = 130
_WORKLOAD_ENDED = re.compile(rb"^cosim: done, exit status (\d+)\r?$", re.MULTILINE)
"""What the init of the ``linux`` guest prints last (guest/linux/init.c)."""
_END_OF_LOG = 64 << 10


def possible(spec: RunSpec, *, gdb: bool = False) -> RunSpec:
    """``spec`` through gdb where it asks for the plugin and that cannot be had; says so, once.

    :param gdb: whether a gdb of the user's is to be beside the plugin.
    :raise MissingTool: there is no QEMU; or no plugin, and ``spec`` wants what only that does.
    """
    reason = _why_no_plugin(tools.qemu().path) if spec.backend == "plugin" else None
    if reason is None:
        return spec
    asked = {"filter": spec.filter is not None, "accesses": bool(spec.accesses), "--gdb": gdb}
    only = [what for what, wanted in asked.items() if wanted]
    if only:
        raise MissingTool(
            f"{reason}; gdb cannot stand in for it: {only[0]} is for the plugin alone"
        )
    _note_once(
        f"cosim: {reason}; through gdb instead: about a hundred times slower, and without accesses"
    )
    return replace(spec, backend="mi", accesses=None)


@cache
def _why_no_plugin(emulator: Path) -> str | None:
    """Why the plugin does not compile or ``emulator`` does not load it; None where they do."""
    try:
        build.check_loads(emulator, build.build())
    except MissingTool as error:
        return str(error)
    return None


@cache
def _note_once(text: str) -> None:
    """Write a line that holds for all runs of this process to stderr."""
    output.note(text)


def check(spec: RunSpec) -> None:
    """Refuse what :func:`execute` would refuse of ``spec`` itself; starts nothing.

    :raise UsageError: its ``key`` says what of ``spec`` is wrong.
    :raise EnvironmentFault: QEMU is missing, or memory is short.
    """
    resolved = plan.resolve(spec)
    origin = _origin(resolved)
    with _memory_for(resolved):
        modelling.make_pipeline(origin, resolved.models)


def execute(
    spec: RunSpec,
    folder: Path,
    *,
    trace: Path | None = None,
    models: bool = True,
    step_all: bool = False,
    view: View | None = None,
    **session_options: Any,
) -> Outcome:
    """Run one session with its logs in ``folder``; ``view``, else a line on stderr, shows it.

    :param trace: keep the events as a trace in this folder.
    :param models: False: no policies, only the trace and the counts of events.
    :param session_options: what the backend's session takes besides.
    :raise CosimError: when it cannot start.
    """
    resolved = plan.resolve(spec, step_all=step_all)
    origin = _origin(resolved, live=session_options.get("live", False))
    if models:
        with _memory_for(resolved):
            with output.progress("loading the models (the first time compiles them: a minute)"):
                modelling.compile_models(origin, resolved.models)
            pipeline = modelling.make_pipeline(origin, resolved.models)
    else:
        pipeline = Pipeline(origin, {})
    live: PluginSession | Session
    with live_view() if view is None else nullcontext(view) as shown, ExitStack() as stack:
        keeper = None if trace is None else _Keeper(trace, origin, stack, lambda: live.labels)
        if spec.backend == "plugin":
            session_class: type[PluginSession | Session] = PluginSession
        else:
            session_class = Session
        live = session_class(resolved, folder, pipeline, keep=keeper, view=shown, **session_options)
        outcome = live.run()
        if keeper is not None and keeper.writer is not None and outcome.ending is not None:
            keeper.writer.close(outcome.ending)
    return outcome


def _origin(resolved: Plan, *, live: bool = False) -> Origin:
    # Of what the machine is made of here, only the size of its RAM is not checked yet.
    with plan.about("memory"):
        return session.origin(resolved, live=live)


@contextmanager
def _memory_for(resolved: Plan) -> Iterator[None]:
    """Say what to do where there is not enough memory for the models."""
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise EnvironmentFault(
            f"not enough memory to model {resolved.machine.memory >> 20} MiB of guest RAM "
            f"({error}); give the guest less with --memory"
        ) from None


class _Keeper:
    """Writes every batch to a trace, which is made at the first: no region, no trace."""

    def __init__(
        self, folder: Path, origin: Origin, stack: ExitStack, labels: Callable[[], list[str]]
    ) -> None:
        if (folder / manifest.NAME).exists():
            raise UsageError(f"{folder} holds a trace already; name another folder")
        self._folder = folder
        self._origin = origin
        self._stack = stack
        self._labels = labels
        self._labelled = 0
        self.writer: TraceWriter | None = None

    def __call__(self, batch: EventBatch) -> None:
        if self.writer is None:
            self.writer = self._stack.enter_context(TraceWriter(self._folder, self._origin))
        for number, text in enumerate(self._labels()[self._labelled :], self._labelled):
            self.writer.label(number, text)
            self._labelled += 1
        self.writer.write(batch)


def document(spec: RunSpec, folder: Path) -> ResultDocument:
    """As :func:`execute`, for a batch: the document of a session that went through.

    :raise CosimError: what cut it short.
    """
    outcome = execute(possible(spec), folder, trace=folder / "trace" if spec.trace else None)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.document is not None
    failure = workload_failure(folder)
    if failure is not None:
        output.note(f"cosim: {spec.name}: {failure}")
    return outcome.document


def capture_and_print(spec: RunSpec, trace: Path, *, as_json: bool) -> int:
    """Capture one session as a trace, print what it holds, return the exit status."""
    return _run_and_print(possible(spec), as_json=as_json, logs=None, trace=trace, models=False)


def run_and_print(
    spec: RunSpec,
    *,
    as_json: bool,
    step_all: bool = False,
    live: bool = False,
    logs: Path | None = None,
    mi_log: Path | None = None,
    gdb: Path | None = None,
) -> int:
    """Run one session with its models, print its result, return the exit status.

    Logs are kept where ``logs`` says, else only when the session did not go through.
    """
    if spec.backend == "plugin" and (step_all or mi_log is not None):
        raise UsageError("--step-all and --mi-log are for gdb; leave --backend plugin out")
    if spec.backend != "plugin" and gdb is not None:
        raise UsageError("--gdb is for --backend plugin; else a gdb of ours has the guest")
    spec = possible(spec, gdb=gdb is not None)
    options: dict[str, Any] = {"live": live}
    options |= {"gdb": gdb} if spec.backend == "plugin" else {"mi_log": mi_log}
    if live:
        terminal = LiveTerminal()
        options |= {"attach": terminal.attached, "view": terminal.view}
    return _run_and_print(spec, as_json=as_json, logs=logs, step_all=step_all, **options)


def _run_and_print(spec: RunSpec, *, as_json: bool, logs: Path | None, **options: Any) -> int:
    folder = _logs_folder(logs)
    outcome = failure = None
    try:
        outcome = execute(spec, folder, **options)
        # Who types into a live guest reads its console anyway.
        if outcome.error is None and not options.get("live"):
            failure = workload_failure(folder)
    finally:
        went_through = outcome is None or outcome.error is None
        if logs is None and failure is not None:
            # The console's log is what tells more; the recording may be large.
            (folder / plugin_session.RECORDING).unlink(missing_ok=True)
        elif logs is None and (went_through or not any(folder.iterdir())):
            shutil.rmtree(folder, ignore_errors=True)
    if outcome.document is not None:
        if as_json:
            output.print_json(outcome.document)
        else:
            output.print_table(terminal.render(from_result.build(outcome.document)))
    if failure is not None:
        output.note(f"cosim: {failure}")
    if isinstance(outcome.error, KeyboardInterrupt):
        interrupts.over()
        when = " before the region began" if outcome.document is None else ""
        logs_in = f" (logs: {folder})" if folder.exists() else ""
        output.note(f"cosim: interrupted{when}{logs_in}")
        return _INTERRUPTED
    if isinstance(outcome.error, CosimError):
        named = outcome.error.log
        if folder.exists() and (named is None or not Path(named).is_relative_to(folder)):
            outcome.error.log = str(folder)
        raise outcome.error
    return int(outcome.document is not None and has_finding(outcome.document))


def workload_failure(folder: Path) -> str | None:
    """What to say of a guest, its console's log in ``folder``, whose workload did not succeed.

    Says nothing of the result: what the guest did until then was measured all the same.
    """
    for log in sorted(folder.glob("*.console.log")):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _END_OF_LOG))
            ended = _WORKLOAD_ENDED.findall(file.read())
        if ended and int(ended[-1]):
            return f"the workload ended with exit status {int(ended[-1])} (console: {log})"
    return None


def _logs_folder(asked: Path | None) -> Path:
    try:
        if asked is not None:
            asked.mkdir(parents=True, exist_ok=True)
            return asked
        parent = paths.cache() / "sessions"
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))
    except OSError as error:
        raise StorageError(
            f"cannot write {asked or paths.cache()}: {error.strerror}; "
            "free space, or choose a folder with --logs or COSIM_CACHE"
        ) from None
