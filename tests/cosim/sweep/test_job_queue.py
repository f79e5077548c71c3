"""The jobs of a batch system: tables that are wrong, refusals, and jobs that end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cosim.errors import ClusterError, MissingTool, UsageError
from cosim.sweep import cluster, job_queue
from cosim.sweep.job_queue import JobQueue, reason

_SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the commands of all batch systems, the only one in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*_SUBMIT.values(), "squeue", "qselect", "bjobs", "qstat"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("kind", _SUBMIT)
def test_a_table_for_each_kind_is_accepted(kind: str, commands: Path) -> None:
    table = {"kind": kind, "workers": 20, "queue": "short", "cores": 2, "memory": "8GB"}
    table |= {"walltime": "02:00", "log_directory": "/nowhere", "scheduler_options": {}}
    table |= {"job_script_prologue": ["module load python"], "interface": "ib0"}
    cluster.check_table(table)


@pytest.mark.parametrize("kind", _SUBMIT)
def test_a_wrong_table_is_named_before_a_job_is_submitted(kind: str, commands: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("[cluster]: memory is missing")):
        cluster.check_table({"kind": kind})
    with pytest.raises(UsageError, match=r"^\[cluster\]: qeue is no key of \w+Cluster$"):
        cluster.check_table({"kind": kind, "memory": "1GB", "qeue": "short"})
    with pytest.raises(UsageError, match=r"^\[cluster\]: [^\n]*lots"):
        cluster.check_table({"kind": kind, "memory": "lots"})


@pytest.mark.parametrize(("kind", "command"), _SUBMIT.items())
def test_a_machine_that_cannot_submit_jobs_is_named(
    kind: str, command: str, commands: Path
) -> None:
    (commands / command).unlink()
    with pytest.raises(MissingTool, match=f"needs the command {command}, which is not in PATH"):
        cluster.check_table({"kind": kind, "memory": "1GB"})


def test_no_encryption_is_not_silent(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match="pip install cryptography"):
        cluster.check_table({"kind": "slurm", "memory": "1GB"})
    cluster.check_table({"kind": "slurm", "memory": "1GB", "security": False})


def test_the_import_of_a_library_changes_no_signal(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "changes_signals.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    job_queue.library("changes_signals", "any", "slurm")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(MissingTool, match="pip install any"):
        job_queue.library("is_not_there", "any", "slurm")


def test_what_a_command_said_is_the_reason() -> None:
    text = "Command exited with non-zero exit code.\nstdout:\n\nstderr:\nqsub: no\n qsub: why\n\n"
    assert reason(RuntimeError(text)) == "qsub: no; qsub: why"
    assert reason(FileNotFoundError(2, "No such file", "qsub")) == "[Errno 2] No such file: 'qsub'"


class Jobs:
    """The library's cluster, made up: jobs by name, and how often new ones were asked for."""

    def __init__(self) -> None:
        self.worker_spec: dict[str, None] = {}
        self.workers: dict[str, SimpleNamespace] = {}
        self.submitted = 0
        self.refusal = ""
        """Why further jobs are refused."""

    def scale(self, count: int) -> None:
        for name in map(str, range(count)):
            self.worker_spec[name] = None
            if name not in self.workers:
                self.submitted += 1
                number = None if self.refusal else str(self.submitted)
                self.workers[name] = SimpleNamespace(
                    job_id=number, refusal=self.refusal, close=_no, submitted=time.monotonic()
                )

    def sync(self, call: Callable[..., Any], *arguments: object) -> None:
        with pytest.raises(StopIteration):
            call(*arguments).send(None)


async def _no() -> None:
    pass


@pytest.fixture
def jobs(commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Jobs of a batch system whose queue is the file ``queue``."""
    monkeypatch.setattr(job_queue, "_LOOK", 0.0)
    for command in ("squeue", "qselect", "bjobs", "qstat"):
        (commands / command).write_text(
            f'#!/bin/sh\nwhile read -r line; do echo "$line"; done <{tmp_path / "queue"}\n'
        )
    return Jobs()


def queue_of(
    jobs: Jobs, tmp_path: Path, count: int, notes: list[str], kind: str = "slurm"
) -> JobQueue:
    made = JobQueue.__new__(JobQueue)
    made.dask = jobs
    made.logs = str(tmp_path / "logs")
    vars(made).update(
        _kind=kind, _count=count, _note=notes.append, _noted=False, _next_look=0.0,
        _finished=0, _ended=0,
    )  # fmt: skip
    return made


def listed(tmp_path: Path, *numbers: int) -> None:
    (tmp_path / "queue").write_text(" ".join(map(str, numbers)) + "\n")


def test_a_job_that_is_not_in_the_queue_any_more_is_replaced(jobs: Jobs, tmp_path: Path) -> None:
    queue = queue_of(jobs, tmp_path, 3, [])
    listed(tmp_path, 1, 2, 3)
    queue.renew(0)
    assert jobs.submitted == 3
    listed(tmp_path, 1, 3)
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["1", "3", "4"]
    # If the queue cannot be seen, nothing is known of the jobs.
    (tmp_path / "queue").unlink()
    (tmp_path / "bin/squeue").write_text("#!/bin/sh\nexit 1\n")
    queue.renew(0)
    assert jobs.submitted == 4


_QSTAT = """\
job-ID  prior   name       user         state submit/start at     queue                 slots
---------------------------------------------------------------------------------------------
      3 0.50000 dask-worke tester       r     11/28/2026 21:34:41 short@localhost           1
      1 0.50000 dask-worke tester       {state} 11/28/2026 21:34:41                           1
      2 0.00000 dask-worke tester       hqw   11/28/2026 21:34:41                           1
"""
"""What a real SGE 8.1.9 printed of three jobs, besides the user."""


def test_a_job_of_sge_that_has_failed_to_start_is_replaced(jobs: Jobs, tmp_path: Path) -> None:
    queue = queue_of(jobs, tmp_path, 3, [], "sge")
    (tmp_path / "queue").write_text(_QSTAT.format(state="qw "))
    queue.renew(0)
    queue.renew(0)
    assert jobs.submitted == 3
    (tmp_path / "queue").write_text(_QSTAT.format(state="Eqw"))
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["2", "3", "4"]
    # It prints nothing if there are no jobs.
    (tmp_path / "queue").write_text("")
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["5", "6", "7"]


def test_a_job_of_pbs_that_has_ended_is_replaced(jobs: Jobs, tmp_path: Path) -> None:
    queue = queue_of(jobs, tmp_path, 3, [], "pbs")
    # Of a real OpenPBS 23.06, which names its server.
    (tmp_path / "queue").write_text("1.vm\n2.vm\n3.vm\n")
    queue.renew(0)
    queue.renew(0)
    assert jobs.submitted == 3
    (tmp_path / "queue").write_text("1.vm\n3.vm\n21.vm\n")
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["1", "3", "4"]


_BJOBS = """\
JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME
1       root    RUN   short      vm          vm          dask-worker Nov 29 08:08
3       root    PEND  short      vm          -           dask-worker Nov 29 08:08
"""
"""What a real OpenLava 4.0 printed of two jobs."""


def test_a_job_of_lsf_that_has_ended_is_replaced(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_of(jobs, tmp_path, 3, [], "lsf")
    monkeypatch.setattr(job_queue, "_LATE", {})
    (tmp_path / "queue").write_text(_BJOBS.replace("3  ", "2  ") + _BJOBS)
    queue.renew(0)
    queue.renew(0)
    assert jobs.submitted == 3
    (tmp_path / "queue").write_text(_BJOBS)
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["1", "3", "4"]
    # Nothing is known while it does not answer.
    command = tmp_path / "bin/bjobs"
    command.write_text("#!/bin/sh\necho 'batch daemon is down' >&2\nexit 255\n")
    queue.renew(0)
    assert jobs.submitted == 4
    # It fails if there are no jobs.
    command.write_text("#!/bin/sh\necho 'No unfinished job found' >&2\nexit 255\n")
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["5", "6", "7"]


def test_a_new_job_that_lsf_does_not_list_yet_is_kept(jobs: Jobs, tmp_path: Path) -> None:
    queue = queue_of(jobs, tmp_path, 3, [], "lsf")
    (tmp_path / "queue").write_text(_BJOBS)
    queue.renew(0)
    queue.renew(0)
    assert jobs.submitted == 3
    jobs.workers["1"].submitted -= 60
    queue.renew(0)
    assert sorted(job.job_id for job in jobs.workers.values()) == ["1", "3", "4"]


def test_why_lsf_refuses_a_job_is_kept(commands: Path) -> None:
    from dask_jobqueue.lsf import LSFJob

    async def started() -> Any:
        job = job_queue._telling(LSFJob)("tcp://127.0.0.1:1", name="0", cores=1, memory="1GB")
        await job.start()
        return job

    bsub = commands / "bsub"
    bsub.write_text("#!/bin/sh\necho 'nowhere: No such queue. Job not submitted.' >&2\nexit 255\n")
    assert asyncio.run(started()).refusal == "nowhere: No such queue. Job not submitted."
    # The job's script is what the command reads.
    bsub.write_text(
        '#!/bin/sh\nread -r line\n[ "$line" = "#!/usr/bin/env bash" ] || exit 1\n'
        "echo 'Job <101> is submitted to queue <short>.'\n"
    )
    before = time.monotonic()
    job = asyncio.run(started())
    assert (job.job_id, job.refusal) == ("101", "")
    assert before <= job.submitted <= time.monotonic()


def test_a_folder_that_the_script_of_a_job_cannot_name_is_refused(tmp_path: Path) -> None:
    table = {"memory": "1GB"}
    with pytest.raises(UsageError, match=r"a b/jobs' has a space, .* with -o$"):
        JobQueue("slurm", table, 1, tmp_path / "a b", print)
    with pytest.raises(UsageError, match=r"'/c d' has a space, .* with log_directory$"):
        JobQueue("slurm", table | {"log_directory": "/c d"}, 1, tmp_path, print)


@pytest.mark.parametrize("log", ["dask-worker-1.err", "dask-worker.o1"])
def test_jobs_that_end_in_vain_end_the_sweep_and_their_log_is_cited(
    log: str, jobs: Jobs, tmp_path: Path
) -> None:
    queue = queue_of(jobs, tmp_path, 2, [])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / log).write_text("first\nbash: /no/python: not found\n\n")
    # LSF's word comes last.
    report = tmp_path / "logs/dask-worker-1.out"
    report.write_text("Read file <dask-worker-1.err> for stderr output of this job.\n")
    os.utime(report, (time.time() + 60,) * 2)
    listed(tmp_path)
    for finished in range(20):
        queue.renew(finished)
    queue.renew(19)
    with pytest.raises(ClusterError, match=r"6 jobs have ended .*: bash: /no/python: not found"):
        queue.renew(19)


def test_refused_jobs_are_tried_again_one_at_a_time(jobs: Jobs, tmp_path: Path) -> None:
    notes: list[str] = []
    queue = queue_of(jobs, tmp_path, 2, notes)
    listed(tmp_path, 1, 2)
    queue.renew(0)
    queue = queue_of(jobs, tmp_path, 5, notes)
    jobs.refusal = "the limit is two"
    queue.renew(0)
    queue.renew(0)
    assert notes == ["cosim: 3 of 5 jobs were refused: the limit is two"]
    assert jobs.submitted == 5 + 2
    jobs.workers.clear()
    with pytest.raises(ClusterError, match="slurm accepts no job: the limit is two"):
        queue.renew(0)
