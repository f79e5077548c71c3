"""One session for a command: its logs, what it prints, its exit status."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import guest
from cosim import output
from cosim.commands.logs import folder_for
from cosim.errors import CosimError, GuestImageError
from cosim.machine import disk_checksums, disk_images, interrupts
from cosim.models.pipeline import Pipeline
from cosim.models.result import ResultDocument, has_finding
from cosim.models.spread import combine
from cosim.report import from_result
from cosim.report.renderers import terminal
from cosim.run.plan import Plan, resolve
from cosim.run.run_spec import RunSpec
from cosim.session import workload
from cosim.session.execution import available, capture, execute, load_models
from cosim.session.live_terminal import LiveTerminal
from cosim.session.protocol import Outcome, Watchers
from cosim.session.view import live_view
from cosim.trace.location import Location

_INTERRUPTED = 130
_LARGE = 1 << 30
"""Disks of more bytes are read with a progress bar."""


@cache
def note_once(text: str) -> None:
    """Write a line that holds for all runs of this process to stderr."""
    output.note(text)


def make_guest(spec: RunSpec, *, offline: bool) -> None:
    """Make the guest of ``spec`` if its files are missing or out of date.

    :param offline: do not: neither the network nor a compiler is to be used.
    :raises GuestImageError: when it would have to be made, and ``offline`` is true.
    :raises EnvironmentFault: when something that is needed to make it is missing or fails.
    """
    name = spec.guest
    if name is None:
        return
    state = guest.status(name)
    if state == "ready":
        return
    verb = guest.recipe(name).verb
    if offline:
        word = "out of date" if state == "outdated" else "not there yet"
        raise GuestImageError(
            f"guest {name} is {word}, and with --offline it is not made; "
            f"type `cosim guest {verb} {name}`"
        )
    with output.progress(f"{verb} {name}") as step:
        guest.ensure(name, step)


def prepare(spec: RunSpec, *, offline: bool) -> None:
    """Make the guest of ``spec``, and read its disks if that takes long; parameters and errors as
    for :func:`make_guest`."""
    make_guest(spec, offline=offline)
    _read_disks(spec)


def _read_disks(spec: RunSpec) -> None:
    """Read large disks for their checksums, which every session has, and show how far that is."""
    files: list[Path] = []
    for disk in spec.disks:
        # If a disk cannot be used, the plan says so.
        with contextlib.suppress(CosimError, OSError):
            files += disk_images.files(disk)
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    total = sum(sizes.values())
    if total < _LARGE:
        return
    with output.progress(f"reading {total / 1e9:.1f} GB of disks for their SHA-256") as step:
        before = 0
        for file, size in sizes.items():
            with contextlib.suppress(OSError):
                disk_checksums.sha256(file, _from(before, total, step))
            before += size


def _from(before: int, total: int, step: output.Step) -> disk_checksums.Read:
    return lambda done: step(before + done, total)


def _models(plan: Plan) -> Pipeline:
    with output.progress("loading the models (the first time compiles them: half a minute)"):
        return load_models(plan)


def document(spec: RunSpec, folder: Path, *, offline: bool = False) -> ResultDocument:
    """Run one session of a batch with its files in ``folder``; return its result.

    :param offline: fail if the guest has to be made first.
    :raises CosimError: when something cut the session short.
    """
    prepare(spec, offline=offline)
    plan = resolve(available(spec, note_once))
    trace = folder / "trace" if spec.trace else None
    outcome = _repeated(plan, folder, spec.runs, trace)
    return _of_batch(outcome, spec, folder)


def _of_batch(outcome: Outcome, spec: RunSpec, folder: Path) -> ResultDocument:
    """Return the result of one session of a batch, and say if its workload failed.

    :raises CosimError: when something cut the session short.
    """
    if outcome.error is not None:
        raise outcome.error
    assert outcome.document is not None
    failed = workload.failure(folder)
    if failed is not None:
        output.note(f"cosim: {spec.name}: {failed}")
    return outcome.document


def capture_only(spec: RunSpec, folder: Path, *, offline: bool = False) -> ResultDocument:
    """Capture one session of a sweep as a trace in ``folder``; return its result without models.

    :param offline: fail if the guest has to be made first.
    :raises CosimError: when something cut the session short.
    """
    prepare(spec, offline=offline)
    with live_view() as view:
        watchers = Watchers(view=view, note=output.note)
        outcome = capture(available(spec, note_once), folder, folder / "trace", watchers)
    return _of_batch(outcome, spec, folder)


def capture_and_print(
    spec: RunSpec,
    trace: Path | Location,
    *,
    as_json: bool,
    logs: Path | None = None,
    offline: bool = False,
) -> int:
    """Capture one session as a trace, print what it holds, return the exit status.

    :param logs: where logs are kept; None: they are kept only if the session failed.
    :param offline: fail if the guest has to be made first.
    """
    prepare(spec, offline=offline)
    return _run_and_print(spec, as_json=as_json, logs=logs, trace=trace)


def run_and_print(
    spec: RunSpec,
    *,
    as_json: bool,
    logs: Path | None = None,
    offline: bool = False,
    verbose: bool = False,
) -> int:
    """Run one session with its models, print its result, return the exit status.

    :param logs: where logs are kept; None: they are kept only if the session failed.
    :param offline: fail if the guest has to be made first.
    :param verbose: print every counter.
    """
    prepare(spec, offline=offline)
    return _run_and_print(spec, as_json=as_json, logs=logs, trace=None, verbose=verbose)


def _run_and_print(
    spec: RunSpec,
    *,
    as_json: bool,
    logs: Path | None,
    trace: Path | Location | None,
    verbose: bool = False,
) -> int:
    spec = available(spec, note_once)
    with folder_for(logs) as folder:
        keep = logs is not None
        return _run_in(folder, spec, as_json=as_json, keep=keep, trace=trace, verbose=verbose)


def _run_in(
    folder: Path,
    spec: RunSpec,
    *,
    as_json: bool,
    keep: bool,
    trace: Path | Location | None,
    verbose: bool,
) -> int:
    """Run one session with its logs in ``folder``.

    :param keep: keep the logs of a session that went through, too.
    :param verbose: print every counter.
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
            report = from_result.build(outcome.document)
            output.print_table(terminal.render(report, everything=verbose))
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


def _run(spec: RunSpec, folder: Path, trace: Path | Location | None) -> Outcome:
    if trace is not None:
        with live_view() as view:
            return capture(spec, folder, trace, Watchers(view=view, note=output.note))
    plan = resolve(spec)
    if spec.live:
        pipeline = _models(plan)
        terminal = LiveTerminal()
        watchers = Watchers(view=terminal.view, attach=terminal.attached, note=output.note)
        return execute(plan, folder, pipeline, watchers=watchers)
    return _repeated(plan, folder, spec.runs, None)


def _repeated(plan: Plan, folder: Path, runs: int, trace: Path | None) -> Outcome:
    """Run the session ``runs`` times.  If there are several, return all of them as one.

    :param folder: for the logs; several runs have a folder each in it.
    :return: the first session that was cut short, if there is one.
    """
    results = []
    for number in range(1, runs + 1):
        pipeline = _models(plan)
        place = folder if runs == 1 else folder / f"run-{number}"
        place.mkdir(exist_ok=True)
        if runs > 1:
            output.note(f"cosim: run {number} of {runs}")
        with live_view() as view:
            watchers = Watchers(view=view, note=output.note)
            outcome = execute(plan, place, pipeline, trace=trace, watchers=watchers)
        if outcome.error is not None or outcome.document is None or runs == 1:
            return outcome
        results.append(outcome.document)
    return replace(outcome, document=combine(results))
