"""R11: the manifests for KubeRay name what exists, and the application that they import serves."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.waiting import wait_until

pytest.importorskip("ray")
yaml: Any = pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parents[2] / "deploy" / "ray"


def manifest(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_r11_ray_serve_reads_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    monkeypatch.setenv("RERANKD_API_KEY", "test-key")
    config = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(config)
    assert config.keys() <= ServeDeploySchema.model_fields.keys()  # the schema ignores unknown ones
    [application] = schema.applications
    assert config["applications"][0].keys() <= ServeApplicationSchema.model_fields.keys()
    module, _, name = application.import_path.partition(":")
    bound = getattr(import_module(module), name)(application.args)
    assert bound._bound_deployment.name == "Front"
    assert bound._bound_deployment.num_replicas == 2
    [replica] = bound._bound_deployment.init_args
    assert replica._bound_deployment.num_replicas == 4
    assert replica._bound_deployment.ray_actor_options["num_gpus"] == 1


@pytest.mark.parametrize("name", ["rayservice.yaml", "rayjob.yaml"])
def test_r11_the_version_is_the_tested_one(name: str) -> None:
    import ray

    spec = manifest(name)["spec"]
    cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__


def test_r11_the_application_answers_behind_the_proxy_of_ray_serve(cluster: Any, tiny_checkpoint: Path) -> None:
    import ray
    from ray import serve

    from rerankd.cluster.app import build

    url = f"http://127.0.0.1:{free_port()}"
    arguments = {"model": str(tiny_checkpoint), "dtype": "float32", "skip_self_test": True, "api_key": "test-key"}
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(url.rpartition(":")[2])})
        serve.run(build({**arguments, "replicas": 1, "replica_cpus": 1}), name="rerankd")
        body = {"query": "Which bridge?", "documents": ["the old bridge", "a town", "engineers"]}
        with httpx2.Client(base_url=url, timeout=60, headers={"authorization": "Bearer test-key"}) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            answers = [client.post("/v1/rerank", json=body) for _ in range(5)]
            assert {answer.status_code for answer in answers} == {200}
            assert {len(answer.json()["results"]) for answer in answers} == {3}
            assert client.post("/v1/rerank", json={"query": "q"}).status_code == 400
            assert client.post("/v1/rerank", json=body, headers={"authorization": "Bearer other"}).status_code == 401
            assert 'rerankd_replicas{model="' in client.get("/metrics").text
    finally:
        serve.shutdown()
        ray.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_r11_a_public_service_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rerankd.cluster.app import build
    from rerankd.errors import SettingsError

    with pytest.raises(SettingsError, match="no key is set"):
        build({"model": "embedded"})
    with pytest.raises(SettingsError, match="Bad settings"):
        build({"replicas": "many", "api_key": "k"})
    with pytest.raises(SettingsError, match="one model"):
        build({"model": ["embedded", "auto"], "api_key": "k"})
    with pytest.raises(SettingsError, match="fronts"):
        build({"fronts": 0, "api_key": "k"})
