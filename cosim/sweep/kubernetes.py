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
import os
import re
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from cosim.errors import ClusterError, UsageError
from cosim.machine import interrupts
from cosim.sweep.job_queue import library, worker_environment

if TYPE_CHECKING:
    from distributed import Client

KEYS: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "namespace": str,
    "image": str,
    "resources": dict,
    "env": (dict, list),
    "worker_command": (list, str),
    "volumes": list,
    "volume_mounts": list,
    "custom_cluster_spec": (dict, str),
    "resource_timeout": int,
}
"""The keys of the table ``[cluster]``, and the types of their values."""
_OF_CONTAINERS = ("image", "resources", "env", "worker_command", "volumes", "volume_mounts", "name")
"""Keys that have no effect beside ``custom_cluster_spec``."""
_VERSION = "kubernetes.dask.org/v1"
_PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
_WORKER = ("dask", "worker", "--nthreads", "1")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 53
"""Characters of a name; the operator adds words to it."""
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
_LAST = 5.0
"""Seconds in which the resource itself may be gone after them."""
_STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons for which a container waits that are no trouble by themselves."""
_SHOWN = 300
"""Characters that are shown of what Kubernetes says."""


def check_table(table: Mapping[str, Any]) -> None:
    """Check the table ``[cluster]`` of Kubernetes, as far as that needs no cluster.

    :raises MissingTool: when kr8s is not installed.
    :raises UsageError: when a key is unknown or missing, or its value cannot be used.
    """
    library("kr8s", "kr8s", "kubernetes")
    given = {key: value for key, value in table.items() if key not in ("kind", "workers")}
    for key, value in given.items():
        if key not in KEYS:
            raise UsageError(
                f"[cluster]: {key} is no key of kubernetes; the keys are {', '.join(KEYS)}"
            )
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise UsageError(f"[cluster]: {key} is {value!r}, which has the wrong type")
    if "custom_cluster_spec" in given:
        useless = [key for key in _OF_CONTAINERS if key in given]
        if useless:
            raise UsageError(
                f"[cluster]: {useless[0]} has no effect beside custom_cluster_spec; say it there"
            )
    elif "image" not in given:
        raise UsageError(
            "[cluster]: image is missing; name one that has the same version of this tool, as in "
            'image = "registry/cosim:1"'
        )
    resource(given, 1)


def resource(table: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Return the ``DaskCluster`` that ``table`` describes.

    :param table: ``[cluster]`` without ``kind`` and ``workers``.
    :param workers: how many pods of workers it gets.
    :raises UsageError: when a name cannot be one, or ``custom_cluster_spec`` cannot be used.
    """
    if "custom_cluster_spec" in table:
        made = _read(table["custom_cluster_spec"])
    else:
        made = _made(table)
    try:
        name = made["metadata"]["name"]
        made["spec"]["worker"]["replicas"] = workers
        for part in ("scheduler", "worker"):
            _set_environment(made["spec"][part]["spec"]["containers"][0])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(
            f"[cluster]: custom_cluster_spec is no DaskCluster: {type(error).__name__}: {error}; "
            "it needs metadata.name, and spec.scheduler and spec.worker with their containers"
        ) from None
    if not isinstance(name, str) or len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise UsageError(
            f"[cluster]: name is {name!r}; it may have small letters, digits and -, at most "
            f"{_LONGEST} of them"
        )
    return made


def _read(spec: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the resource that a file, or the table itself, holds.

    :raises UsageError: when it cannot be read.
    """
    import yaml

    try:
        text = Path(spec).read_text() if isinstance(spec, str) else yaml.safe_dump(dict(spec))
        # A copy, as it is changed.
        made = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UsageError(f"[cluster]: custom_cluster_spec cannot be read: {spec}: {why}") from None
    if not isinstance(made, dict) or made.get("kind") != "DaskCluster":
        raise UsageError("[cluster]: custom_cluster_spec is no DaskCluster")
    return made


def _made(table: Mapping[str, Any]) -> dict[str, Any]:
    name = table.get("name") or f"cosim-{uuid4().hex[:8]}"
    command = table.get("worker_command", _WORKER)
    command = command.split() if isinstance(command, str) else list(command)
    container = {
        "image": table["image"],
        "env": _pairs(table.get("env", {})),
        "resources": table.get("resources", {}),
        "volumeMounts": table.get("volume_mounts", []),
    }
    ports = [{"name": key, "containerPort": port} for key, port in _PORTS.items()]
    scheduler = {
        **container,
        "name": "scheduler",
        "args": ["dask", "scheduler", "--host", "0.0.0.0"],
        "ports": ports,
        "readinessProbe": {
            "httpGet": {"port": "http-dashboard", "path": "/health"},
            "periodSeconds": 1,
            "timeoutSeconds": 300,
        },
        "livenessProbe": {
            "httpGet": {"port": "http-dashboard", "path": "/health"},
            "initialDelaySeconds": 15,
            "periodSeconds": 20,
            "timeoutSeconds": 10,
        },
    }
    worker = {
        **container,
        "name": "worker",
        # The operator sets this variable.
        "args": [*command, "--name", "$(DASK_WORKER_NAME)"],
    }
    pod = {"volumes": table.get("volumes", [])}
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    service_ports = [
        {"name": key, "protocol": "TCP", "port": port, "targetPort": key}
        for key, port in _PORTS.items()
    ]
    return {
        "apiVersion": _VERSION,
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "scheduler": {
                "spec": {**pod, "containers": [scheduler]},
                "service": {"type": "ClusterIP", "selector": selector, "ports": service_ports},
            },
            "worker": {"spec": {**pod, "containers": [worker]}},
        },
    }


def _pairs(env: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    """Return variables as Kubernetes takes them: a list, and each value a text."""
    if isinstance(env, Mapping):
        return [{"name": name, "value": str(value)} for name, value in env.items()]
    return list(env)


def _set_environment(container: dict[str, Any]) -> None:
    """Add the variables that a sweep needs; those that are there already stay."""
    there = list(container.get("env") or [])
    names = {variable["name"] for variable in there}
    container["env"] = there + [
        {"name": name, "value": value}
        for name, value in worker_environment().items()
        if name not in names
    ]


class Pods:
    """The pods of one sweep.

    :param table: ``[cluster]`` without ``kind`` and ``workers``.
    :param count: how many workers are wanted.
    :param note: writes a line for the user.
    :raises UsageError: when the table cannot be used.
    :raises ClusterError: when the API server cannot be reached.
    """

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
        kind = self._kr8s.objects.new_class("DaskCluster", _VERSION, asyncio=False)
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
            why = "Dask's operator is not installed there"
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
                            return f"; its log ends with: {said[-1].strip()[:_SHOWN]}"
        return ""

    def _reach(self) -> str:
        """Return the address of the scheduler for this process.

        :raises ClusterError: when the ports of the scheduler cannot be forwarded.
        """
        host = f"{self._name}-scheduler"
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            inside = f"{host}.{self._namespace}"
            self.dashboard = f"http://{inside}:{_PORTS['http-dashboard']}/status"
            return f"tcp://{inside}:{_PORTS['tcp-comm']}"
        with _reported(f"the ports of service {host} cannot be forwarded"):
            # This one has no time limit, as its connections last.
            api = self._kr8s.api(namespace=self._namespace)
            service = self._kr8s.objects.Service.get(host, namespace=self._namespace, api=api)
            ports = [
                self._stack.enter_context(service.portforward(port, local_port="auto"))
                for port in _PORTS.values()
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
            limit = time.monotonic() + _END
            while self._list("pods"):
                if time.monotonic() > limit:
                    self._note(
                        f"cosim: pods of {self._name} have not ended after {_END:.0f} s; "
                        "Kubernetes was told to end them"
                    )
                    return
                time.sleep(_LOOK / 8)
            # The resource itself goes last.  Kubernetes takes a minute for that at times.
            limit = time.monotonic() + _LAST
            while self._resource.exists() and time.monotonic() < limit:
                time.sleep(_LOOK / 8)
        except self._kr8s.NotFoundError:
            return
        except Exception as error:
            # The library has no common class for its errors, nor have those below it.
            self._note(f"cosim: {self._name} is not deleted: {_line(error)}; type `{kubectl}`")


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
    return " ".join((str(error) or type(error).__name__).split())[:_SHOWN]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return True if ``pod`` answers."""
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in pod.get("status", {}).get("conditions", [])
    )


def trouble(pod: Mapping[str, Any], *, is_silent: bool = False) -> str | None:
    """Return why ``pod`` does not run, if that is more than a matter of time; else None.

    :param is_silent: True if nobody has heard of its worker.  A container that has ended once is in
        trouble then, even if it seems ready between two attempts.
    """
    status = pod.get("status", {})
    containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    if is_ready(pod) and not (is_silent and any(one.get("lastState") for one in containers)):
        return None
    for container in containers:
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason")
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get(
            "terminated"
        )
        if ended and container.get("restartCount", 0) + bool(waiting) > 0:
            code = f"status {ended.get('exitCode')}"
            return f"its container ends again and again ({ended.get('reason', 'Error')}, {code})"
        if reason and reason not in _STARTING:
            return _short(f"{reason}: {waiting.get('message', container.get('image'))}")
    if status.get("phase") == "Failed":
        return _short(f"{status.get('reason', 'Failed')}: {status.get('message', '')}")
    return None


def waits_for_place(pod: Mapping[str, Any]) -> str | None:
    """Return why no node takes ``pod`` yet; None if one has it."""
    for one in pod.get("status", {}).get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return _short(one.get("message", one.get("reason", "")))
    return None


def no_pods(deployment: Mapping[str, Any]) -> str | None:
    """Return why ``deployment`` cannot make its pod; None if it can."""
    for one in deployment.get("status", {}).get("conditions", []):
        if one["type"] == "ReplicaFailure" and one["status"] == "True":
            return _short(one.get("message", one.get("reason", "")))
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
