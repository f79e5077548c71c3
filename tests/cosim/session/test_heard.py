"""What the plugin says of a recording, if there is no room for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cosim.capture.plugin.source import PluginSource
from cosim.errors import StorageError
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan
from cosim.session.both_sources import Heard
from hypervisor_model import events


def test_a_full_disk_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 would tell again when the file is dropped, for it would try to write the rest."""
    closed: list[bool] = []
    plugin = SimpleNamespace(
        qemu_args=list,
        pass_fds=(),
        summary=None,
        started=lambda: None,
        # It fits the file's buffer, so the disk is found full at the end.
        batches=lambda: [events.empty(1)],
        close=lambda: closed.append(True),
    )
    full = Path("/dev/full").open("wb")  # noqa: SIM115 - it cannot be closed in order
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full)
    monkeypatch.setattr("cosim.session.both_sources.request_edges", lambda *_: False)
    heard = Heard(cast(Plan, None), cast(PluginSource, plugin), Path("logs"))
    machine = cast(Machine, SimpleNamespace(console=None))
    said = "no space for the plugin's events in logs"
    with pytest.raises(StorageError, match=said), heard.listen(machine):
        pass
    assert closed and full.closed
