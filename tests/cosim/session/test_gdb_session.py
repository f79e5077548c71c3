"""What of a session through gdb needs neither gdb nor a guest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cosim.errors import StorageError
from cosim.session import gdb_session


def test_packets_are_logged_to_a_file(tmp_path: Path) -> None:
    logger = logging.getLogger(gdb_session.RSP_LOGGER)
    level = logger.level
    file = tmp_path / "rsp.log"
    with gdb_session._logged(file):
        logger.debug("-> %s", "vCont;c")
    logger.warning("behind it")
    assert logger.level == level
    (line,) = file.read_text().splitlines()
    assert line.endswith(" -> vCont;c")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    refused = pytest.raises(StorageError, match=r"cannot write .*nowhere/log: No such file")
    with refused, gdb_session._logged(tmp_path / "nowhere" / "log"):
        pytest.fail("it must not get here")
    with gdb_session._logged(None):
        pass
