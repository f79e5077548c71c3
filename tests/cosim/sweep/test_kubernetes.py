"""What ``[cluster]`` of Kubernetes becomes, and what is said of pods.

No Kubernetes runs here.  The states of pods are as a real one (1.36) gave them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cosim.errors import MissingTool, UsageError
from cosim.sweep import cluster, kubernetes_table
from cosim.sweep.job_queue import worker_environment
from cosim.sweep.kubernetes_table import resource
from cosim.sweep.pod_states import no_pods, shortened, trouble, waits_for_place

IMAGE = {"image": "registry/cosim:1"}


@pytest.fixture
def with_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables can be checked as if kr8s was installed."""
    monkeypatch.setattr(kubernetes_table, "library", lambda *_: None)


def container(made: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"][part]["spec"]["containers"][0]
    return found


def variables(made: dict[str, Any], part: str) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container(made, part)["env"]}


def check(**table: Any) -> None:
    cluster.check_table({"kind": "kubernetes", **table})


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kr8s", None)
    with pytest.raises(MissingTool, match="pip install kr8s"):
        check(**IMAGE)


@pytest.mark.usefixtures("with_library")
@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "image is missing"),
        ({**IMAGE, "imge": "x"}, "imge is no key of kubernetes"),
        ({**IMAGE, "n_workers": 2}, "n_workers is no key of kubernetes"),
        ({"image": 1}, "image is 1, which has the wrong type"),
        ({**IMAGE, "resource_timeout": True}, "resource_timeout is True, which has the wrong type"),
        ({**IMAGE, "name": "My_Sweep"}, "name is 'My_Sweep'"),
        ({**IMAGE, "custom_cluster_spec": {}}, "image has no effect beside custom_cluster_spec"),
        ({"custom_cluster_spec": {}}, "custom_cluster_spec is no DaskCluster"),
        ({"custom_cluster_spec": {"kind": "DaskCluster"}}, "is no DaskCluster: KeyError"),
        ({"custom_cluster_spec": "/nowhere.yaml"}, "cannot be read: /nowhere.yaml: No such file"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=re.escape("[cluster]: ") + ".*" + re.escape(why)):
        check(**table)


@pytest.mark.usefixtures("with_library")
def test_a_table_becomes_pods_with_its_volumes() -> None:
    table = {
        **IMAGE,
        "name": "tlbs",
        "env": {"AWS_REGION": "x", "NUMBER": 3},
        "resources": {"limits": {"memory": "4G"}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volume_mounts": [{"name": "data", "mountPath": "/data"}],
    }
    check(workers=2, **table)
    made = resource(table, 7)
    assert made["metadata"]["name"] == "tlbs"
    assert made["spec"]["worker"]["replicas"] == 7
    for part in ("scheduler", "worker"):
        assert made["spec"][part]["spec"]["volumes"] == table["volumes"]
        assert container(made, part)["volumeMounts"] == table["volume_mounts"]
        assert container(made, part)["resources"] == table["resources"]
        assert variables(made, part) == {"AWS_REGION": "x", "NUMBER": "3", **worker_environment()}
    assert container(made, "scheduler")["args"][:2] == ["dask", "scheduler"]
    assert container(made, "worker")["args"][:4] == ["dask", "worker", "--nthreads", "1"]
    assert made["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == "tlbs"


def test_two_sweeps_have_two_names() -> None:
    names = {resource(IMAGE, 1)["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5


def test_a_spec_of_ones_own_is_kept(tmp_path: Path) -> None:
    own = resource({**IMAGE, "name": "mine", "env": {"MALLOC_TRIM_THRESHOLD_": 1}}, 1)
    container(own, "worker")["args"] = ["special"]
    container(own, "scheduler")["env"] = None
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own))
    for given in (own, str(file)):
        made = resource({"custom_cluster_spec": given}, 3)
        assert made["spec"]["worker"]["replicas"] == 3
        assert container(made, "worker")["args"] == ["special"]
        assert variables(made, "worker")["MALLOC_TRIM_THRESHOLD_"] == "1"
        assert variables(made, "scheduler") == worker_environment()
    assert own["spec"]["worker"]["replicas"] == 1


ENDED = {"terminated": {"exitCode": 2, "reason": "Error"}}
NO_IMAGE = {"reason": "ErrImagePull", "message": "failed to pull and unpack image"}
BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
OUT_OF_MEMORY = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("state", "last", "restarts", "ready", "why"),
    [
        ({"running": {}}, {}, 0, False, None),
        ({"waiting": {"reason": "ContainerCreating"}}, {}, 0, False, None),
        ({"waiting": NO_IMAGE}, {}, 0, False, "ErrImagePull: failed to pull and unpack image"),
        ({"waiting": BACK_OFF}, ENDED, 1, False, "ends again and again (Error, status 2)"),
        (ENDED, ENDED, 1, False, "ends again and again (Error, status 2)"),
        (OUT_OF_MEMORY, OUT_OF_MEMORY, 2, False, "(OOMKilled, status 137)"),
        ({"running": {}}, ENDED, 1, True, None),
    ],
)
def test_what_is_said_of_a_container(
    state: dict[str, Any], last: dict[str, Any], restarts: int, ready: bool, why: str | None
) -> None:
    pod = {
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {"image": "x", "state": state, "lastState": last, "restartCount": restarts}
            ],
        }
    }
    said = trouble(pod)
    assert said is None if why is None else why in str(said)
    # Between two attempts it seems ready, as nothing asks it.
    assert (trouble(pod, is_silent=True) is not None) == (why is not None or bool(last))


def test_a_long_reason_keeps_its_cause() -> None:
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/some-team/cosim:1"
    said = (
        f'Back-off pulling image "{image}": ErrImagePull: failed to pull and unpack image '
        f'"{image}": failed to resolve reference "{image}":\n  no basic auth credentials'
    )
    short = shortened(said)
    assert short.startswith("Back-off pulling image ")
    assert short.endswith(f'resolve reference "{image}": no basic auth credentials')
    assert len(short) <= 300 + len(" ... ")
    assert shortened(said[:200]) == said[:200]


def test_a_pod_without_a_place_is_in_no_trouble() -> None:
    said = "0/1 nodes are available: 1 Insufficient cpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = {"status": {"phase": "Pending", "conditions": [{**condition, "message": said}]}}
    assert waits_for_place(pod) == said
    assert trouble(pod) is None
    assert waits_for_place({"status": {}}) is None


def test_a_deployment_that_may_make_no_pod_is_named() -> None:
    said = 'pods "x" is forbidden: exceeded quota: small'
    condition = {"type": "ReplicaFailure", "status": "True", "message": said}
    assert no_pods({"status": {"conditions": [condition]}}) == said
    assert no_pods({"status": {}}) is None
