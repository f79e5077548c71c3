"""One session for a command: its logs, what it prints, its exit status."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from cosim import output
from cosim.commands.logs import folder_for
from cosim.errors import CosimError
from cosim.machine import interrupts
from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument, has_finding
from cosim.report import from_result
from cosim.report.renderers import terminal
from cosim.run.plan import Plan, resolve
from cosim.run.spec import RunSpec
from cosim.session import workload
from cosim.session.execution import available, capture, execute, load_models
from cosim.session.protocol import Outcome, Watchers
from cosim.session.terminal import LiveTerminal
from cosim.session.view import live_view

_INTERRUPTED = 130


@cache
def note_once(text: str) -> None:
    """Write a line that holds for all runs of this process to stderr."""
    output.note(text)


def _models(plan: Plan) -> Pipeline:
    with output.progress("loading the models (the first time compiles them: a minute)"):
        return load_models(plan)


def document(spec: RunSpec, folder: Path) -> ResultDocument:
    """Run one session of a batch with its files in ``folder``; return its result.

    :raises CosimError: when something cut the session short.
    """
    plan = resolve(available(spec, note_once))
    pipeline = _models(plan)
    trace = folder / "trace" if spec.trace else None
    with live_view() as view:
        watchers = Watchers(view=view, note=output.note)
        outcome = execute(plan, folder, pipeline, trace=trace, watchers=watchers)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.document is not None
    failed = workload.failure(folder)
    if failed is not None:
        output.note(f"cosim: {spec.name}: {failed}")
    return outcome.document


def capture_and_print(
    spec: RunSpec, trace: Path, *, as_json: bool, logs: Path | None = None
) -> int:
    """Capture one session as a trace, print what it holds, return the exit status.

    :param logs: where logs are kept; None: they are kept only if the session failed.
    """
    return _run_and_print(spec, as_json=as_json, logs=logs, trace=trace)


def run_and_print(spec: RunSpec, *, as_json: bool, logs: Path | None = None) -> int:
    """Run one session with its models, print its result, return the exit status.

    :param logs: where logs are kept; None: they are kept only if the session failed.
    """
    return _run_and_print(spec, as_json=as_json, logs=logs, trace=None)


def _run_and_print(spec: RunSpec, *, as_json: bool, logs: Path | None, trace: Path | None) -> int:
    spec = available(spec, note_once)
    with folder_for(logs) as folder:
        return _run_in(folder, spec, as_json=as_json, keep=logs is not None, trace=trace)


def _run_in(folder: Path, spec: RunSpec, *, as_json: bool, keep: bool, trace: Path | None) -> int:
    """Run one session with its logs in ``folder``.

    :param keep: keep the logs of a session that went through, too.
    """
    outcome = failed = None
    try:
        outcome = _run(spec, folder, trace)
        # The user of a live guest reads its console anyway.
        if outcome.error is None and not spec.live:
            failed = workload.failure(folder)
    finally:
        # The console's log says why a workload failed.
        went_through = outcome is None or (outcome.error is None and failed is None)
        if not keep and (went_through or not any(folder.iterdir())):
            shutil.rmtree(folder, ignore_errors=True)
    if outcome.document is not None:
        if as_json:
            output.print_json(outcome.document)
        else:
            output.print_table(terminal.render(from_result.build(outcome.document)))
    if failed is not None:
        output.note(f"cosim: {failed}")
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


def _run(spec: RunSpec, folder: Path, trace: Path | None) -> Outcome:
    if trace is not None:
        with live_view() as view:
            return capture(spec, folder, trace, Watchers(view=view, note=output.note))
    plan = resolve(spec)
    pipeline = _models(plan)
    if spec.live:
        terminal = LiveTerminal()
        watchers = Watchers(view=terminal.view, attach=terminal.attached, note=output.note)
        return execute(plan, folder, pipeline, watchers=watchers)
    with live_view() as view:
        return execute(plan, folder, pipeline, watchers=Watchers(view=view, note=output.note))
