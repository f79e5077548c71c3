"""Stores to live tables with `hsv`, which no virtual address of the hart shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

_STORES, _FENCES = 14, 2


def test_each_hsv_to_a_live_table_is_an_event_in_both_sources(tmp_path: Path) -> None:
    kernel = bare_kernel.build("hsv", tmp_path, bare_kernel.M_MODE)
    words = ["run", "--kernel", str(kernel), "--bios", "none", "--memory", "128M", "--json"]
    words += ["--cpu", "rv64,svade=on,h=on", "--model", "native", *bare_kernel.REGION]
    ended = run(words, Home(tmp_path / "home").environment())
    assert ended.status == 0, ended.stdout + ended.stderr
    events, audit, agreement = (ended.document[key] for key in ("events", "audit", "agreement"))
    assert events["pte_write"] == _STORES and events["fence"]["all"] == _FENCES
    assert audit["missed_writes"] == 0
    # gdb saw each of the plugin's; beside them are writes of vsatp and hgatp, and their fences.
    assert agreement["difference"] is None
    assert agreement["equal"] == agreement["events"] >= _STORES + _FENCES
