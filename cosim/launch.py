"""Running one session for a command: logs, live view, result, exit status."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from cosim import modelling, output, paths, plan, session
from cosim.errors import CosimError, StorageError
from cosim.plugin_session import PluginSession
from cosim.report import table
from cosim.result import ResultDocument, has_finding
from cosim.runspec import RunSpec
from cosim.session import Outcome, Session
from cosim.terminal import attached
from cosim.view import live_view

_INTERRUPTED = 130


def execute(
    spec: RunSpec, folder: Path, *, step_all: bool = False, **session_options: Any
) -> Outcome:
    """Run one session with its logs in ``folder``; the live view is on stderr.

    :param session_options: what :class:`Session` takes besides (gdb backend only).
    :raise CosimError: when it cannot start.
    """
    resolved = plan.resolve(spec, step_all=step_all)
    pipeline = modelling.make_pipeline(session.origin(resolved), resolved.models)
    with live_view() as view:
        if spec.backend == "plugin":
            return PluginSession(resolved, folder, pipeline, view=view).run()
        return Session(resolved, folder, pipeline, view=view, **session_options).run()


def document(spec: RunSpec, folder: Path) -> ResultDocument:
    """As :func:`execute`, for a batch: the document of a session that went through.

    :raise CosimError: what cut it short.
    """
    outcome = execute(spec, folder)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.document is not None
    return outcome.document


def run_and_print(
    spec: RunSpec,
    *,
    as_json: bool,
    step_all: bool = False,
    live: bool = False,
    logs: Path | None = None,
    mi_log: Path | None = None,
) -> int:
    """Run one session, print its result, return the exit status.

    Logs are kept where ``logs`` says, else only when something went wrong.
    """
    folder = _logs_folder(logs)
    attach = attached if live else None
    keep_logs = logs is not None
    try:
        outcome = execute(spec, folder, step_all=step_all, live=live, mi_log=mi_log, attach=attach)
        keep_logs |= outcome.error is not None
    except CosimError as error:
        keep_logs |= error.log is not None
        raise
    finally:
        if not keep_logs:
            shutil.rmtree(folder, ignore_errors=True)
    if outcome.document is not None:
        if as_json:
            output.print_json(outcome.document)
        else:
            output.print_table(table.render(outcome.document))
    if isinstance(outcome.error, KeyboardInterrupt):
        output.note("cosim: interrupted")
        return _INTERRUPTED
    if outcome.error is not None:
        raise outcome.error
    return int(outcome.document is not None and has_finding(outcome.document))


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
