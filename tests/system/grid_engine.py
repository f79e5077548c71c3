"""A real Grid Engine (SGE) on this machine: its daemons, in a folder, as the tests' user.

One host with four slots, one queue.  Its programs are those which ``scripts/setup --tests`` has
unpacked; the daemons listen on free ports.  Grid Engine insists on names of hosts that it can look
up in both directions, and a machine need not have one.  So all its programs are told, by a library
that is made for tests, that this machine is called ``localhost``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.system.batch_system import QUEUE, BatchSystem, Daemons, free_ports, program

_UNPACKED = Path(sys.prefix) / "gridengine/usr"
_PROGRAMS = _UNPACKED / "lib/gridengine"
_DEFAULTS = _UNPACKED / "share/gridengine"
_COMMANDS = ("qconf", "qdel", "qstat", "qsub")
_DAEMONS = ("sge_execd", "sge_qmaster")
_MAKERS = ("spoolinit", "spooldefaults.bin")
_WRAPPER = "libnss_wrapper.so"
_BOOTSTRAP = """\
admin_user {user}
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {folder}/cell/common;{folder}/qmaster
binary_path {programs}
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""


@contextlib.contextmanager
def grid_engine(folder: Path) -> Iterator[BatchSystem]:
    """Yield a Grid Engine that is ready for jobs; its jobs and daemons end with the context.

    :param folder: does not exist yet.
    """
    common = folder / "cell/common"
    for part in (common, folder / "qmaster", folder / "execd", folder / "bin"):
        part.mkdir(parents=True)
    user = getpass.getuser()
    (common / "bootstrap").write_text(
        _BOOTSTRAP.format(user=user, folder=folder, programs=_PROGRAMS)
    )
    (common / "act_qmaster").write_text("localhost\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    master, node = free_ports(2)
    environment = {
        "SGE_ROOT": str(folder),
        "SGE_CELL": "cell",
        "SGE_QMASTER_PORT": str(master),
        "SGE_EXECD_PORT": str(node),
        # Daemons stay in the foreground.
        "SGE_ND": "1",
        "LD_LIBRARY_PATH": str(_PROGRAMS),
        "LD_PRELOAD": _WRAPPER,
        "NSS_WRAPPER_HOSTS": str(folder / "hosts"),
        "NSS_WRAPPER_HOSTNAME": "localhost",
    }
    _write_commands(folder / "bin", environment)
    found = BatchSystem(
        kind="sge",
        environment={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        listing=_jobs,
        hold="-h",
        cancel=f'{shlex.quote(str(folder / "bin/qdel"))} "$JOB_ID"',
        logs="*.o*",
        refusal='unknown queue "nowhere"',
    )
    _spool(folder, found)
    with Daemons(folder, {}) as daemons:
        daemons.start(str(folder / "bin/sge_qmaster"))
        daemons.until(lambda: _answers(found))
        _configure(folder, found)
        daemons.start(str(folder / "bin/sge_execd"))
        daemons.until(lambda: "lx-" in found.ask("qstat", "-f"))
        try:
            yield found
        finally:
            found.empty("qdel", "-u", user)


def _write_commands(folder: Path, environment: dict[str, str]) -> None:
    """Write a command for each program that a test or a sweep runs."""
    preload = "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in environment.items()
    )
    for name in (*_DAEMONS, *_MAKERS, *_COMMANDS):
        command = folder / name
        command.write_text(f'#!/bin/sh\n{preload}\nexec {program(str(_PROGRAMS / name))} "$@"\n')
        command.chmod(0o755)


def _spool(folder: Path, found: BatchSystem) -> None:
    """Write what the master reads when it starts."""
    places = f"{folder}/cell/common;{folder}/qmaster"
    found.ask("spoolinit", "classic", "libspoolc", places, "init")
    configuration = folder / "configuration"
    configuration.write_text(
        _changed(
            (_DEFAULTS / "default-configuration").read_text(),
            execd_spool_dir=f"{folder}/execd",
            mailer="/bin/true",
            # Root may run jobs too.
            min_uid="0",
            min_gid="0",
        )
    )
    resources = _DEFAULTS / "util/resources"
    found.ask("spooldefaults.bin", "configuration", str(configuration))
    found.ask("spooldefaults.bin", "complexes", str(resources / "centry"))
    found.ask("spooldefaults.bin", "usersets", str(resources / "usersets"))
    found.ask("spooldefaults.bin", "managers", getpass.getuser())


def _configure(folder: Path, found: BatchSystem) -> None:
    """Let this machine submit jobs, look at the queue every second, and make the queue."""
    found.ask("qconf", "-as", "localhost")
    file = folder / "attributes"
    # A job starts at once, no matter how busy this machine is.
    scheduler = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
    file.write_text(_changed(found.ask("qconf", "-ssconf"), **scheduler))
    found.ask("qconf", "-Msconf", str(file))
    queue = {"qname": QUEUE, "hostlist": "localhost", "slots": "4", "pe_list": "NONE"}
    file.write_text(
        _changed(found.ask("qconf", "-sq"), **queue, load_thresholds="NONE", shell="/bin/sh")
    )
    found.ask("qconf", "-Aq", str(file))


def _changed(text: str, **values: str) -> str:
    """Return a list of attributes, one in a line, with other values for some."""
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip(" #")]
    assert values.keys() <= {name for name, _ in pairs}
    return "".join(f"{name} {values.get(name, old)}\n" for name, old in pairs)


def _answers(found: BatchSystem) -> bool:
    try:
        found.ask("qconf", "-sh")
    except subprocess.CalledProcessError:
        return False
    return True


def _jobs(found: BatchSystem) -> list[str]:
    lines = [line.split() for line in found.ask("qstat", "-u", getpass.getuser()).splitlines()]
    return [line[0] for line in lines if line[0].isdecimal() and "d" not in line[4]]
