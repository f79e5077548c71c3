"""Workers that are pods of Kubernetes, started by Dask's operator there.

The command creates one resource, a ``DaskCluster``.  The operator makes the pods of it: a scheduler
and the workers.  The command looks at these pods and says why one does not start, and it deletes
the resource in the end, and with it the pods.

A command outside of the cluster reaches the scheduler through the API server, as ``kubectl
port-forward`` does.  The class ``KubeCluster`` of dask-kubernetes is not used: it waits for ever
for a pod that cannot start, and runs ``dask-scheduler``, which Dask does not have any more.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import math
import os
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cosim.errors import ClusterError
from cosim.machine import interrupts
from cosim.sweep.job_queue import library
from cosim.sweep.kubernetes_table import PAGE_PORT, SCHEDULER_PORT, VERSION, resource
from cosim.sweep.pod_states import is_ready, no_pods, shortened, trouble, waits_for_place

if TYPE_CHECKING:
    from distributed import Client

_TROUBLE = 60
"""Seconds in which pods may recover by themselves, if the file does not say (ours)."""
_IDLE = 120
"""Seconds after which the operator ends a cluster that nobody uses, if the command was killed.  The
operator makes the scheduler end by itself after 300 s, and Kubernetes starts it again then: so it
must be less (dask-kubernetes 2026.3)."""
_LOOK = 2.0
"""Seconds between two looks at the pods."""
_REQUEST = 20.0
"""Seconds in which the API server must answer."""
_ATTEMPTS = 2
"""How often a first connection through the API server is tried (ours)."""
_PAGE = 15.0
"""Seconds in which a page must come through the API server."""
_END = 60.0
"""Seconds in which the pods must be gone at the end."""
_SILENT = 5.0
"""Seconds of them in which nothing is said."""
_LAST = 5.0
"""Seconds in which the resource itself may be gone after them."""


class Pods:
    """The pods of one sweep.

    :param table: ``[cluster]`` without ``kind`` and ``workers``.
    :param count: how many workers are wanted.
    :param note: writes a line for the user.
    :raises UsageError: when the table cannot be used.
    :raises ClusterError: when the API server cannot be reached.
    """

    patience = math.inf
    """New ones may wait for hours."""

    def __init__(self, table: Mapping[str, Any], count: int, note: Callable[[str], None]) -> None:
        self.tasks = count
        """How many tasks all workers do at a time."""
        self.dashboard: str | None = None
        """The address of the scheduler's dashboard, on this machine."""
        self._note = note
        self._noted: set[str] = set()
        self._patience = table.get("resource_timeout", _TROUBLE)
        self._raw = resource(table, count)
        self._name = self._raw["metadata"]["name"]
        self._stack = ExitStack()
        self._trouble: tuple[float, str] | None = None
        self._next_look = 0.0
        self._ends_idle = False
        self._finished = 0
        self._kr8s = library("kr8s", "kr8s", "kubernetes")
        with _reported("Kubernetes cannot be used"):
            # It warns of a Kubernetes that is newer than itself.
            warnings.filterwarnings("ignore", category=UserWarning, module="kr8s")
            self._api = self._kr8s.api()
            # It does not catch the errors of forwarded connections that break.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
            self._api.timeout = _REQUEST
            self._api.version()
            self._namespace: str = table.get("namespace") or self._api.namespace
        kind = self._kr8s.objects.new_class("DaskCluster", VERSION, asyncio=False)
        self._resource = kind(self._raw, namespace=self._namespace, api=self._api)

    def start(self) -> str:
        """Create the resource, and wait for its scheduler; return the address of that.

        :raises ClusterError: when the scheduler does not start.
        """
        with _reported(f"no DaskCluster can be created in namespace {self._namespace}"):
            self._stack.callback(self._delete)
            try:
                self._resource.create()
            except self._kr8s.ServerError as error:
                self._stack.pop_all()
                raise self._refused(error) from None
        limit = time.monotonic() + self._patience
        while not self._acted():
            if time.monotonic() > limit:
                raise ClusterError(
                    f"[cluster]: nothing has acted on DaskCluster {self._name} in namespace "
                    f"{self._namespace} for {self._patience} s; check that Dask's operator runs "
                    "and watches that namespace"
                )
            self._wait()
        while not self._ready("scheduler"):
            self._judge("scheduler")
            self._wait()
        return self._reach()

    def wait(self, client: Client) -> None:
        """Wait for the first worker, which may take hours.

        :raises ClusterError: when the workers cannot start, or the scheduler is gone.
        """
        while True:
            with interrupts.allowed():
                try:
                    client.wait_for_workers(1, timeout=_LOOK)
                    break
                except TimeoutError:
                    pass
                except OSError as error:
                    raise ClusterError(f"the cluster on Kubernetes is gone ({error})") from error
            self._judge("worker", is_silent=True)

    def renew(self, finished: int) -> None:
        """Look at the workers, at most every few seconds.  Kubernetes itself replaces lost ones.

        :param finished: how many tasks have finished so far.
        :raises ClusterError: when all workers are in trouble, and no task has finished meanwhile.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK
        if not self._ends_idle:
            # There are tasks from now on.  Before, a cluster that waits for a place is idle, too.
            self._ends_idle = True
            with contextlib.suppress(Exception):
                self._resource.patch({"spec": {"idleTimeout": _IDLE}})
        if finished != self._finished:
            self._finished, self._trouble = finished, None
        self._judge("worker")

    def close(self) -> None:
        """Delete the resource and its pods, and end the connection."""
        self._stack.close()

    def _refused(self, error: Any) -> ClusterError:
        """Return what to say of the API server's answer to the new resource."""
        status = error.response.status_code if error.response is not None else None
        if status == 404 and "namespaces" not in str(error).partition(" for url")[0]:
            why = "Dask's operator is not installed there; install it, or ask who runs the cluster"
        elif status == 409:
            why = (
                f"a DaskCluster {self._name} is there already; name another one, or delete it: "
                f"kubectl delete daskcluster -n {self._namespace} {self._name}"
            )
        else:
            why = _line(error)
        return ClusterError(f"[cluster]: Kubernetes refuses the DaskCluster: {why}")

    def _wait(self) -> None:
        with interrupts.allowed():
            time.sleep(_LOOK / 4)

    def _acted(self) -> bool:
        """Return True if the operator has begun with the resource."""
        with _reported(f"DaskCluster {self._name} cannot be read"):
            self._resource.refresh()
        return bool(self._resource.raw.get("status", {}).get("phase"))

    def _list(self, kind: str, component: str | None = None) -> list[dict[str, Any]]:
        selector = f"dask.org/cluster-name={self._name}"
        if component is not None:
            selector += f",dask.org/component={component}"
        with _reported(f"the {kind} of {self._name} cannot be listed"):
            found = self._kr8s.get(
                kind, namespace=self._namespace, label_selector=selector, api=self._api
            )
            return [one.raw for one in found]

    def _ready(self, component: str) -> bool:
        return any(is_ready(pod) for pod in self._list("pods", component))

    def _judge(self, component: str, *, is_silent: bool = False) -> None:
        """Look at the pods of ``component``.

        :param is_silent: True if none of them has been heard of.
        :raises ClusterError: when all of them are in trouble, and have been for a while.
        """
        pods = self._list("pods", component)
        troubles = [trouble(pod, is_silent=is_silent) for pod in pods]
        if not pods:
            refused = [no_pods(one) for one in self._list("deployments", component)]
            troubles = [why for why in refused if why is not None]
        for why in {waits_for_place(pod) for pod in pods} - {None} - self._noted:
            self._noted.add(str(why))
            self._note(f"sweep: a {component} waits for a place: {why}")
        if not troubles or None in troubles:
            self._trouble = None
            return
        now = time.monotonic()
        since, _ = self._trouble or (now, "")
        self._trouble = since, str(troubles[0])
        if now - since >= self._patience:
            last = self._last_words(pods)
            raise ClusterError(
                f"[cluster]: no {component} of {self._name} can start: {troubles[0]}{last}"
            )

    def _last_words(self, pods: Sequence[Mapping[str, Any]]) -> str:
        """Return the last line that a container said before it ended, for a message."""
        for raw in pods:
            with contextlib.suppress(Exception):
                pod = self._kr8s.objects.Pod(raw, namespace=self._namespace, api=self._api)
                for previous in (False, True):
                    with contextlib.suppress(self._kr8s.ServerError):
                        said = [line for line in pod.logs(previous=previous) if line.strip()]
                        # The node says so of a container that it has removed.
                        if said and not said[-1].startswith("unable to retrieve container logs"):
                            return f"; its log ends with: {shortened(said[-1])}"
        return ""

    def _reach(self) -> str:
        """Return the address of the scheduler for this process.

        :raises ClusterError: when the ports of the scheduler cannot be forwarded.
        """
        host = f"{self._name}-scheduler"
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            inside = f"{host}.{self._namespace}"
            self.dashboard = f"http://{inside}:{PAGE_PORT}/status"
            return f"tcp://{inside}:{SCHEDULER_PORT}"
        with _reported(f"the ports of service {host} cannot be forwarded"):
            # This one has no time limit, as its connections last.
            api = self._kr8s.api(namespace=self._namespace)
            service = self._kr8s.objects.Service.get(host, namespace=self._namespace, api=api)
            ports = [
                self._stack.enter_context(service.portforward(port, local_port="auto"))
                for port in (SCHEDULER_PORT, PAGE_PORT)
            ]
        # If a connection cannot be forwarded, the library closes it and keeps the reason.
        with interrupts.allowed():
            if not _answers(f"http://127.0.0.1:{ports[1]}/health"):
                raise ClusterError(
                    f"[cluster]: the scheduler of {self._name} cannot be reached through the API "
                    "server; that needs the right to get and create pods/portforward in namespace "
                    f"{self._namespace}"
                )
        self.dashboard = f"http://127.0.0.1:{ports[1]}/status"
        return f"tcp://127.0.0.1:{ports[0]}"

    def _delete(self) -> None:
        kubectl = f"kubectl delete daskcluster -n {self._namespace} {self._name}"
        try:
            self._resource.delete(propagation_policy="Foreground")
            # Kubernetes does the rest, so Ctrl-C ends only the wait.
            with contextlib.suppress(KeyboardInterrupt), interrupts.allowed():
                self._wait_for_end()
        except self._kr8s.NotFoundError:
            return
        except Exception as error:
            # The library has no common class for its errors, nor have those below it.
            self._note(f"cosim: {self._name} is not deleted: {_line(error)}; type `{kubectl}`")

    def _wait_for_end(self) -> None:
        """Wait until the pods are gone, and the resource itself if that is soon."""
        start = time.monotonic()
        told = False
        while self._list("pods"):
            past = time.monotonic() - start
            if past > _END:
                self._note(
                    f"cosim: pods of {self._name} have not ended after {_END:.0f} s; "
                    "Kubernetes was told to end them"
                )
                return
            if past > _SILENT and not told:
                told = True
                self._note(
                    f"sweep: waits for the pods of {self._name} to end; "
                    "Ctrl-C leaves that to Kubernetes"
                )
            time.sleep(_LOOK / 8)
        # The resource itself goes last.  Kubernetes takes a minute for that at times.
        limit = time.monotonic() + _LAST
        while self._resource.exists() and time.monotonic() < limit:
            time.sleep(_LOOK / 8)


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Report any error in this context as one of ours.

    :raises ClusterError: when there is one.
    """
    try:
        yield
    except ClusterError:
        raise
    except Exception as error:
        # The library has no common class for its errors, nor have those below it.
        raise ClusterError(f"[cluster]: {what}: {_line(error)}") from error


def _answers(address: str) -> bool:
    """Return True if a page can be had, at the latest after some attempts."""
    for _ in range(_ATTEMPTS):
        try:
            with urllib.request.urlopen(address, timeout=_PAGE):
                return True
        except (OSError, http.client.HTTPException):
            time.sleep(_LOOK / 2)
    return False


def _line(error: BaseException) -> str:
    return shortened(str(error) or type(error).__name__)
