"""What the models hold, and what has changed, asked through a real gdb on a recorded guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.cosim_process import Home
from tests.system.test_debug import Gdb, debugging

pytestmark = pytest.mark.system

_VA = 0x9_0000_0000
"""The page that scenario ``bug-unmap`` unmaps."""


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gdb]:
    """The guest stands before the load that depends on the missing fence."""
    home = Home(tmp_path_factory.mktemp("models"), "micro")
    with debugging(home, "micro", "--scenario", "bug-unmap") as gdb:
        # The first time, the checker and the models are compiled.
        gdb.terminal.timeout = 280
        gdb("paging snapshot start")
        gdb(f"paging watch {_VA:#x}")
        for _ in range(4):
            gdb("continue")
        gdb("paging break-on finding")
        gdb("continue")
        yield gdb
        assert gdb.quit() == 0
    assert not home.leftovers()


def test_a_stale_translation_is_in_the_tlb_of_each_policy(landed: Gdb) -> None:
    # The store has unmapped the page, and no fence has told anybody.
    for name in ("native", "nested", "lsp"):
        shown = landed(f"paging tlb {_VA:#x} --policy {name}")
        assert f"va {_VA:#018x}" in shown
        assert "stale" in shown
    assert "entries" in landed("paging tlb")
    stale = landed.python(f"[e['stale'] for e in paging('tlb', {_VA:#x})['lsp']]")
    assert set(stale.strip("[]").split(", ")) == {"True"}


def test_the_shadow_of_lsp_is_stale_and_that_of_shadow_is_not(landed: Gdb) -> None:
    lsp = landed(f"paging shadow {_VA:#x} --policy lsp")
    assert "stale" in lsp and "in step" in lsp
    shadow = landed(f"paging shadow {_VA:#x} --policy shadow")
    assert "stale" not in shadow and "empty" in shadow
    assert "VS" in landed(f"paging shadow {_VA:#x} --policy nested")
    assert "no tables of a hypervisor" in landed(f"paging shadow {_VA:#x} --policy native")
    assert "there is no policy 'none'" in landed(f"paging shadow {_VA:#x} --policy none")


def test_exits_are_counted_since_the_last_stop(landed: Gdb) -> None:
    shown = landed("paging exits")
    for name in ("native", "nested", "shadow", "lsp"):
        assert name in shown
    counts = landed.python(
        "[paging('exits')[k]['shadow'] for k in ('exits', 'exits_since_the_beginning')]"
    )
    since, whole = (int(n) for n in counts.strip("[]").split(", "))
    assert 0 <= since < whole


def test_maps_shows_what_has_changed(landed: Gdb) -> None:
    # Since the last stop: the store before which it was has unmapped the page.
    shown = landed("paging maps --diff")
    assert f"-  {_VA:#018x}" in shown
    assert "1 change" in shown
    # Since the beginning, it was mapped and unmapped.
    assert "0 changes" in landed("paging maps --since start")
    assert "there is no snapshot 'x'" in landed("paging maps --since x")
    assert "cannot be used together" in landed("paging maps --since start --diff")
