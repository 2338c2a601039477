"""R11: the manifests for KubeRay name what exists, and the application that they import serves."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

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


def test_r11_a_public_service_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rerankd.cluster.app import build
    from rerankd.errors import SettingsError

    with pytest.raises(SettingsError, match="no key is set"):
        build({"model": "embedded"})
    with pytest.raises(SettingsError, match="Bad settings"):
        build({"replicas": "many", "api_key": "k"})
