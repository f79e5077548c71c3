"""The table ``[cluster]`` of Kubernetes, and the ``DaskCluster`` that it describes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from cosim.errors import UsageError
from cosim.sweep.job_queue import library, worker_environment

VERSION = "kubernetes.dask.org/v1"
"""Of the resource."""
SCHEDULER_PORT, PAGE_PORT = 8786, 8787
"""The ports of the scheduler: for tasks, and for its dashboard."""
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
_PORTS = {"tcp-comm": SCHEDULER_PORT, "http-dashboard": PAGE_PORT}
_WORKER = ("dask", "worker", "--nthreads", "1")
_GRACE = 5
"""Seconds that a pod has to end.  A process that has just started ignores that it is told to (as
process 1 it has no default for a signal), and a task that is cut off does no harm (ours)."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 53
"""Characters of a name; the operator adds words to it."""


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
    pod = {
        "volumes": table.get("volumes", []),
        "terminationGracePeriodSeconds": _GRACE,
    }
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    service_ports = [
        {"name": key, "protocol": "TCP", "port": port, "targetPort": key}
        for key, port in _PORTS.items()
    ]
    return {
        "apiVersion": VERSION,
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
