"""A real SLURM on this machine: its daemons, in a folder, as the user who runs the tests.

One node with four slots, one partition.  The daemons listen on free ports and on a socket in the
folder; they know each other by a key that is made for them.  Nothing of a SLURM that may be
installed on this machine is used but its programs.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.system.batch_system import QUEUE, BatchSystem, Daemons, free_ports, program

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


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[BatchSystem]:
    """Yield a SLURM that is ready for jobs; its jobs and daemons end with the context.

    :param folder: does not exist yet; its path must be short, as it holds a socket.
    """
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    controller, node = free_ports(2)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            host=host,
            user=getpass.getuser(),
            controller=controller,
            node=node,
            partition=QUEUE,
        )
    )
    # SLURM would look for cgroups otherwise, which only root may use, and which a root folder or a
    # container need not have.
    plugin = "disabled" if _version() >= 23 else "cgroup/v1"
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
    found = BatchSystem(
        kind="slurm",
        environment={"SLURM_CONF": str(configuration)},
        listing=_jobs,
        hold="--hold",
        cancel='scancel "$SLURM_JOB_ID"',
        logs="*.err",
        refusal="Invalid partition name",
    )
    with Daemons(folder, found.environment) as daemons:
        munge = folder / "munge"
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words = [f"--{option}={munge / name}" for option, name in files.items()]
        daemons.start("munged", "--foreground", "--force", f"--key-file={key}", *words)
        daemons.until((munge / "socket").is_socket)
        daemons.start("slurmctld", "-D")
        daemons.start("slurmd", "-D", "-N", host)
        daemons.until(lambda: _ready(found))
        try:
            yield found
        finally:
            found.empty("scancel", "--user", getpass.getuser())


def _jobs(found: BatchSystem) -> list[str]:
    states = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"
    return found.ask("squeue", "--noheader", states, "--format=%i").split()


def _version() -> int:
    """Return the first number of SLURM's version, which is its year."""
    words = [program("slurmctld"), "-V"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(text.split()[-1].partition(".")[0])


def _ready(found: BatchSystem) -> bool:
    try:
        return found.ask("sinfo", "--noheader", "--format=%t").strip() == "idle"
    except subprocess.CalledProcessError:
        return False
