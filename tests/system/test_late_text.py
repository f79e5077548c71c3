"""Code that a guest writes into a writable and executable mapping: not missed in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel import symbols
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


@pytest.mark.parametrize("backend", ["gdb", "gdb+plugin"])
def test_code_that_appears_in_the_region(backend: str, tmp_path: Path) -> None:
    """It is a finding through gdb alone.  The plugin knows which of it was executed."""
    kernel = bare_kernel.build("late_text", tmp_path)
    home = Home(tmp_path / "home")
    command = ["run", "--kernel", str(kernel), "--memory", "128M", "--model", "native"]
    command += ["--from", "mark:begin", "--to", "mark:end", "--backend", backend, "--json"]
    ended = run(command, home.environment())
    document, audit = ended.document, ended.document["audit"]
    assert document["complete"]
    # From the new root on the models know the truth again: its store was seen.
    assert document["events"]["satp_write"] == 1
    assert document["events"]["pte_write"] == 2
    assert audit["missed_writes"] == 0
    if backend == "gdb":
        assert ended.status == 1, ended.stderr
        assert audit["missed_satp_writes"] == 1
        routine, unused = map(symbols.load(kernel).address, ("routine", "unused"))
        sites = [f"{site:#x}" for site in (routine, routine + 4, unused)]
        assert (audit["late_sites"], audit["late_site_addresses"]) == (3, sites)
    else:
        assert ended.status == 0, ended.stderr
        assert (audit["missed_satp_writes"], audit["late_sites"]) == (0, 0)
        agreement = document["agreement"]
        # The plugin saw two of them executed, so gdb stopped there, and the third one never.
        assert agreement["late_sites"] == 3
        assert agreement["late"] == agreement["not_reached"] == 0
        assert document["events"]["fence"]["all"] == 1


def test_what_opensbi_keeps_of_emulated_instructions_is_no_finding(tmp_path: Path) -> None:
    """This CPU lacks Svinval, so OpenSBI hears of each `sinval.vma` and keeps it in its stack."""
    home = Home(tmp_path / "home", "micro")
    command = ["run", "micro", "--workload", "scenario=svinval", "--cpu", "rv64"]
    ended = run([*command, "--backend", "gdb", "--model", "native", "--json"], home.environment())
    assert ended.status == 0, ended.stderr
    assert ended.document["complete"]
    assert ended.document["audit"]["late_sites"] == 0
