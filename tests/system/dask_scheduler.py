"""A scheduler of Dask with one worker, for sweeps that use what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import LocalCluster


@contextmanager
def dask_scheduler() -> Iterator[str]:
    """Yield the address of a scheduler with one worker, both in this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1",
        dashboard_address=None, worker_dashboard_address=None,
    ) as local:  # fmt: skip
        yield local.scheduler_address
