"""R11: the manifests for KubeRay, by their structure: no package has its schemas. make test-ray tests more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "ray"
FILES = {"rayservice.yaml": "RayService", "rayjob.yaml": "RayJob"}


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def cluster_of(name: str) -> dict[str, Any]:
    spec = manifest(name)["spec"]
    found: dict[str, Any] = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
    return found


def pods(name: str) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(name)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_every_file_is_known() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_r11_kinds_and_groups(name: str) -> None:
    found = manifest(name)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", FILES[name])
    cluster = cluster_of(name)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", FILES)
def test_r11_every_container_is_hardened(name: str) -> None:
    for pod in pods(name):
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 65532
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert all("value" in one and "KEY" not in one["value"] for one in container["env"])


def test_r11_a_service_has_the_time_of_a_drain() -> None:
    assert all(pod["terminationGracePeriodSeconds"] >= 120 + 30 for pod in pods("rayservice.yaml"))
    assert manifest("rayservice.yaml")["spec"]["rayClusterDeletionDelaySeconds"] >= 120


def test_r11_replicas_fit_the_workers() -> None:
    config = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])
    arguments = config["applications"][0]["args"]
    [group] = cluster_of("rayservice.yaml")["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    cpus = int(container["resources"]["requests"]["cpu"])
    fronts_on_one = -(-arguments["fronts"] // group["replicas"])
    assert group["replicas"] == arguments["replicas"] and cpus >= arguments["replica_cpus"] + fronts_on_one
    words = manifest("rayjob.yaml")["spec"]["entrypoint"].split()
    assert int(words[words.index("--replicas") + 1]) == cluster_of("rayjob.yaml")["workerGroupSpecs"][0]["replicas"]
