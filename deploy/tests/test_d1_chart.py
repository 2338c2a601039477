"""D1: the chart renders valid, hardened manifests for every set of values, and refuses what cannot work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[1]
CHART = DEPLOY / "helm" / "rerankd"
VALUES = sorted((DEPLOY / "helm" / "values").glob("*.yaml"))
KUBERNETES = ("1.30", "1.34", "1.37")
BIN = Path(sys.executable).parent
CUSTOM = {"ServiceMonitor", "ScaledObject"}  # no schema is included: their fields are asserted below


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "helm", *arguments], capture_output=True, text=True, timeout=120)


def rendered(values: Path, *more: str) -> list[dict[str, Any]]:
    done = helm("template", "ranker", CHART, "--namespace", "search", "--values", values, *more)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def refused(*settings: str) -> str:
    options = [word for setting in settings for word in ("--set", setting)]
    done = helm("template", "ranker", CHART, *options)
    assert done.returncode != 0
    return done.stderr


def kind(manifests: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [one for one in manifests if one["kind"] == name]
    return found


def pods(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in manifests:
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] == "Deployment":
            yield one["spec"]["template"]["spec"]


def test_there_are_seven_sets_of_values() -> None:
    assert [path.stem for path in VALUES] == ["accounts", "autoscaled", "default", "everything", "gpu", "ray", "router"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_lint(values: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_manifests_fit_the_schemas_of_kubernetes(values: Path, version: str, tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all([one for one in rendered(values) if one["kind"] not in CUSTOM]))
    command = [BIN / "kubernetes-validate", "--strict", "--kubernetes-version", version, file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "WARN" not in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_container_is_hardened(values: Path) -> None:
    for pod in pods(rendered(values)):
        assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_probes_and_the_end_of_a_pod(values: Path) -> None:
    pod = kind(rendered(values), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert not any("initialDelaySeconds" in container[name] for name in paths)
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, "a first start downloads the model"
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(next(one["value"] for one in container["env"] if one["name"] == "RERANKD_DRAIN_S"))
    assert pod["terminationGracePeriodSeconds"] >= delay + drain + 10


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_no_secret_is_in_a_manifest(values: Path) -> None:
    manifests = rendered(values)
    assert not [one for one in manifests if one["kind"] == "Secret"]
    for pod in pods(manifests):
        for variable in (one for container in pod["containers"] for one in container.get("env", ())):
            if any(word in variable["name"] for word in ("KEY", "DATABASE", "REDIS", "PASSWORD")):
                assert "valueFrom" in variable or variable["value"].startswith("/run/secrets/"), variable


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_number_of_replicas_has_one_owner(values: Path) -> None:
    manifests = rendered(values)
    scaled = bool({"HorizontalPodAutoscaler", "ScaledObject"} & {one["kind"] for one in manifests})
    assert ("replicas" in kind(manifests, "Deployment")["spec"]) is not scaled
    several = scaled or kind(manifests, "Deployment")["spec"]["replicas"] > 1
    assert ("PodDisruptionBudget" in {one["kind"] for one in manifests}) is several


def test_selectors_find_the_pods() -> None:
    for values in VALUES:
        manifests = rendered(values)
        labels = kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        selectors = [one["spec"]["selector"] for one in manifests if one["kind"] == "Service"]
        selectors += [
            one["spec"]["selector"]["matchLabels"]
            for one in manifests
            if one["kind"] in ("Deployment", "PodDisruptionBudget")
        ]
        assert all(selector.items() <= labels.items() for selector in selectors)


def test_keda_counts_calls_and_an_empty_result_as_none() -> None:
    spec = kind(rendered(DEPLOY / "helm/values/autoscaled.yaml"), "ScaledObject")["spec"]
    [trigger] = spec["triggers"]
    query = trigger["metadata"]["query"]
    assert query.endswith("or vector(0)") and "rerankd_requests_waiting" in query and 'namespace="search"' in query
    assert spec["fallback"]["replicas"] == 2 and spec["scaleTargetRef"] == {"name": "ranker"}


def test_prometheus_scrapes_the_service() -> None:
    manifests = rendered(DEPLOY / "helm/values/everything.yaml")
    monitor, service = kind(manifests, "ServiceMonitor"), kind(manifests, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"] == "http"
    assert monitor["spec"]["endpoints"][0]["path"] == "/metrics"


def test_the_dashboard_is_the_documented_one() -> None:
    [dashboard] = [
        one for one in rendered(DEPLOY / "helm/values/everything.yaml") if one["metadata"]["name"].endswith("dashboard")
    ]
    assert dashboard["data"]["rerankd.json"] == (DEPLOY.parent / "docs" / "grafana.json").read_text()


def test_a_gpu_is_asked_for_once() -> None:
    [container] = kind(rendered(DEPLOY / "helm/values/gpu.yaml"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1" and container["image"].endswith("-cuda")


def test_replicas_on_ray_share_a_pod() -> None:
    deployment = kind(rendered(DEPLOY / "helm/values/ray.yaml"), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    values = {one["name"]: one["value"] for one in container["env"]}
    assert (values["RERANKD_REPLICAS"], values["RERANKD_REPLICA_CPUS"], values["RERANKD_DEVICE"]) == ("4", "2", "cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert deployment["spec"]["replicas"] == 1, "of pods: each of them has four engines"
    [shm] = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    for pod in pods(rendered(DEPLOY / "helm/values/default.yaml")):
        assert not any("REPLICA" in one["name"] for container in pod["containers"] for one in container.get("env", ()))


def test_every_variable_of_the_chart_is_a_setting() -> None:
    settings = (DEPLOY.parent / "docs" / "reference" / "settings.md").read_text()
    for values in VALUES:
        containers = [container for pod in pods(rendered(values)) for container in pod["containers"]]
        names = {one["name"] for container in containers for one in container.get("env", ())}
        for name in (name for name in names if name.startswith("RERANKD_")):
            assert f"`{name.removesuffix('_FILE')}`" in settings, name


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((), "Callers need a key"),
        (("accounts=true",), "set database.existingSecret"),
        (
            ("accounts=true", "database.existingSecret=d", "apiKey.existingSecret=k"),
            "leave apiKey.existingSecret out",
        ),
        (
            ("publicWithoutKey=true", "autoscaling.enabled=true", "keda.enabled=true"),
            "enable one of them",
        ),
        (("publicWithoutKey=true", "mode=router", "gpu=1"), "A router computes nothing"),
        (("publicWithoutKey=true", "gpu=2"), "set ray.replicas to the number of GPUs"),
        (("publicWithoutKey=true", "ray.replicas=2"), "needs an image with Ray"),
        (("publicWithoutKey=true", "ray.replicas=2", "image.tag=t", "gpu=1"), "must be equal"),
        (("publicWithoutKey=true", "ray.replicas=2", "image.tag=t", "mode=router"), "ray.replicas must be 0"),
        (("publicWithoutKey=true", "mode=both"), "mode"),
        (("publicWithoutKey=true", "replica=2"), "replica"),
    ],
)
def test_what_cannot_work_is_refused(settings: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(*settings)


def test_the_notes_warn_of_limits_that_are_counted_apart() -> None:
    values = ("--set", "apiKey.existingSecret=k", "--set", "replicas=2")
    notes = helm("install", "ranker", CHART, "--dry-run=client", *values).stdout
    assert "each replica counts rate limits on its own" in notes
