"""A real SLURM on this machine: its daemons, in a folder, as the user who runs the tests.

One node with four slots, one partition named ``short``.  The daemons listen on free ports and on a
socket in the folder; they know each other by a key that is made for them.  Nothing of a SLURM that
may be installed on this machine is used but its programs.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PARTITION = "short"
_PATIENCE = 60.0
"""Seconds in which the daemons must be ready, on a busy machine."""

_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
KillWait=1
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A SLURM that runs."""

    folder: Path
    environment: dict[str, str]
    """Of the commands that are to use it."""

    def ask(self, *words: str) -> str:
        """Run a command of SLURM; return what it prints."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that wait or run, without those that are being ended."""
        states = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"
        return self.ask("squeue", "--noheader", states, "--format=%i").split()


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Yield a SLURM that is ready for jobs; its jobs and daemons end with the context.

    :param folder: does not exist yet; its path must be short, as it holds a socket.
    """
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    controller, node = _free_ports(2)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            host=host,
            user=getpass.getuser(),
            controller=controller,
            node=node,
            partition=PARTITION,
        )
    )
    if _version() >= 23:
        # It would use cgroups otherwise, which only root may do.  Older versions do not know this.
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    found = Slurm(folder, environment)
    with contextlib.ExitStack() as stack:
        munge = folder / "munge"
        words = ["munged", "--foreground", "--force", f"--key-file={key}"]
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words += [f"--{option}={munge / name}" for option, name in files.items()]
        daemons = [_daemon(stack, words, found)]
        _until(daemons, found, (munge / "socket").is_socket)
        daemons.append(_daemon(stack, ["slurmctld", "-D"], found))
        daemons.append(_daemon(stack, ["slurmd", "-D", "-N", host], found))
        _until(daemons, found, lambda: _ready(found))
        stack.callback(_empty, found)
        yield found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _daemon(
    stack: contextlib.ExitStack, words: Sequence[str], made: Slurm
) -> subprocess.Popen[bytes]:
    """Start a daemon, which ends with ``stack``."""
    program = _program(words[0])
    with (made.folder / f"{words[0]}.out").open("wb") as log:
        daemon = subprocess.Popen(
            [program, *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=made.environment, start_new_session=True,
        )  # fmt: skip

    def end() -> None:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    stack.callback(end)
    return daemon


def _program(name: str) -> str:
    # An ordinary user has no /usr/sbin in PATH.
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, f"{name} is missing; run scripts/setup --tests"
    return program


def _version() -> int:
    """Return the first number of SLURM's version, which is its year."""
    words = [_program("slurmctld"), "-V"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(text.split()[-1].partition(".")[0])


def _ready(made: Slurm) -> bool:
    try:
        return made.ask("sinfo", "--noheader", "--format=%t").strip() == "idle"
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False


def _until(daemons: list[subprocess.Popen[bytes]], made: Slurm, reached: object) -> None:
    limit = time.monotonic() + _PATIENCE
    assert callable(reached)
    while not reached():
        alive = all(daemon.poll() is None for daemon in daemons)
        if not alive or time.monotonic() > limit:
            logs = [log.read_text(errors="replace") for log in made.folder.glob("*.out")]
            raise AssertionError("SLURM does not start:\n" + "\n".join(logs))
        time.sleep(0.05)


def _empty(made: Slurm) -> None:
    """End all jobs, so that none outlives the daemons."""
    with contextlib.suppress(subprocess.CalledProcessError):
        made.ask("scancel", "--user", getpass.getuser())
    limit = time.monotonic() + 20
    while made.jobs() and time.monotonic() < limit:
        time.sleep(0.05)
