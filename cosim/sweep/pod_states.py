"""What the states of pods say, as Kubernetes gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons for which a container waits that are no trouble by themselves."""
_SHOWN = 300
"""Characters that are shown of what Kubernetes says."""
_BEGINNING = 100
"""Those of its beginning, if it is longer."""


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
            return shortened(f"{reason}: {waiting.get('message', container.get('image'))}")
    if status.get("phase") == "Failed":
        return shortened(f"{status.get('reason', 'Failed')}: {status.get('message', '')}")
    return None


def waits_for_place(pod: Mapping[str, Any]) -> str | None:
    """Return why no node takes ``pod`` yet; None if one has it."""
    for one in pod.get("status", {}).get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return shortened(one.get("message", one.get("reason", "")))
    return None


def no_pods(deployment: Mapping[str, Any]) -> str | None:
    """Return why ``deployment`` cannot make its pod; None if it can."""
    for one in deployment.get("status", {}).get("conditions", []):
        if one["type"] == "ReplicaFailure" and one["status"] == "True":
            return shortened(one.get("message", one.get("reason", "")))
    return None


def shortened(text: str) -> str:
    """Return ``text`` as one line.

    Its middle is left out if it is long.  What names several faults, as in ``A: B: C``, begins with
    the outermost and ends with their cause.
    """
    line = " ".join(text.split())
    if len(line) <= _SHOWN:
        return line
    return f"{line[:_BEGINNING]} ... {line[_BEGINNING - _SHOWN :]}"
