"""The settings files of docs/upstreams.md and of the chart start a server, but for addresses, keys and tokenizers."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from rerankd.accounts.store import open_store
from rerankd.cli.served import make_models
from rerankd.config import ServerSettings, read_settings
from rerankd.server.served_pool import ServedPool
from rerankd.types import sigmoid
from rerankd.upstreams.settings import ModelSettings, UpstreamSettings
from support.dialect_replies import logit_of
from support.serving import serving_model
from support.upstream_server import UpstreamServer
from support.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "upstreams.md"
FILES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
VALUES = Path(__file__).parents[2] / "deploy" / "helm" / "values"

QUERY = "Which planet has rings?"
DOCUMENTS = ["Saturn has rings.", "Mars is red.", "Venus is bright."]


@contextmanager
def started(
    text: str, folder: Path, tokenizer: Path, **replaced: str
) -> Iterator[tuple[httpx2.Client, ServedPool, Any]]:
    """A server with a settings file, and its only model. replaced: texts of the file by what stands for them here."""
    text = re.sub(r'tokenizer = "[^"]*"', f'tokenizer = "{tokenizer}"', text)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "rerankd.toml"
    path.write_text(text)
    settings = read_settings(ServerSettings, {"config": path}, {})
    store = open_store(settings.require_database()) if settings.accounts else None
    models = make_models(settings)
    [served] = models
    assert isinstance(served, ServedPool)
    options: dict[str, Any] = {"accounts": settings.accounts, "database": settings.database, "config": path}
    with serving_model(models, store=store, **options) as client:
        yield client, served, store


def state_of(served: ServedPool, name: str) -> str:
    return served.pool.member(name).state(served.pool.clock())


def rerank(client: httpx2.Client, model: str, **headers: str) -> httpx2.Response:
    body = {"model": model, "query": QUERY, "documents": DOCUMENTS}
    response = client.post("/v1/rerank", json=body, headers=headers)
    assert response.status_code == 200, response.text
    scores = {one["index"]: one["relevance_score"] for one in response.json()["results"]}
    assert scores == {index: sigmoid(logit_of(QUERY, text)) for index, text in enumerate(DOCUMENTS)}
    return response


def test_two_vllm_servers_with_a_hosted_reserve(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_KEY", "key-of-vllm")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "key-of-dashscope")
    with ExitStack() as stack:
        gpus = [stack.enter_context(UpstreamServer("vllm", key="key-of-vllm")) for _ in range(2)]
        hosted = stack.enter_context(UpstreamServer("dashscope", key="key-of-dashscope"))
        replaced = {"http://gpu-1:8000": gpus[0].url, "http://gpu-2:8000": gpus[1].url}
        replaced['https://dashscope-intl.aliyuncs.com"'] = f'{hosted.url}"\ndialect = "dashscope"'
        client, served, _ = stack.enter_context(started(FILES[0], tmp_path, tiny_checkpoint, **replaced))
        wait_until(lambda: all(state_of(served, name) == "closed" for name in ("gpu-1", "gpu-2", "dashscope")))
        assert {rerank(client, "qwen3-rerank").headers["x-rerankd-upstream"] for _ in range(3)} <= {"gpu-1", "gpu-2"}
        for gpu in gpus:
            gpu.kill()
        response = rerank(client, "qwen3-rerank")
        assert response.headers["x-rerankd-upstream"] == "dashscope"


def test_tei_behind_accounts(tmp_path: Path, tiny_checkpoint: Path) -> None:
    secret = tmp_path / "tei-key"
    secret.write_text("key-of-tei\n")
    with UpstreamServer("tei", key="key-of-tei") as tei, ExitStack() as stack:
        replaced = {"http://tei:8080": tei.url, "/run/secrets/tei": str(secret)}
        replaced["sqlite:///rerankd.db"] = f"sqlite:///{tmp_path / 'rerankd.db'}"
        client, served, store = stack.enter_context(started(FILES[1], tmp_path, tiny_checkpoint, **replaced))
        wait_until(lambda: state_of(served, "tei") == "closed")
        assert client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).status_code == 401
        account = store.accounts.create("ada@example.org")
        store.ledger.add_credits(account.id, 1_000_000, "start", None)
        _, key = store.keys.create(account.id, "search page")
        response = rerank(client, "BAAI/bge-reranker-v2-m3", authorization=f"Bearer {key}")
        charged = 1_000_000 - store.accounts.by_id(account.id).balance
        assert charged == int(response.headers["x-rerankd-cost"]) > 0
        assert all(asked.headers["authorization"] == "Bearer key-of-tei" for asked in tei.asked)


def test_a_router_in_front_of_three_workers(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The workers are localhost here: one address answers; another one, if there is any, harms nobody."""
    found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    with UpstreamServer() as server, ExitStack() as stack:
        port = server.url.rpartition(":")[2]
        replaced = {"http://workers:8000": f"http://localhost:{port}"}
        client, served, _ = stack.enter_context(started(FILES[2], tmp_path, tiny_checkpoint, **replaced))
        assert {one.name for one in served.pool.members} == {f"workers@{address[0]}" for *_, address in found}
        wait_until(lambda: state_of(served, "workers@127.0.0.1") == "closed")
        for _ in range(3):
            assert rerank(client, "qwen3-rerank").headers["x-rerankd-upstream"] == "workers@127.0.0.1"
        assert {asked.headers["host"] for asked in server.asked} == {f"127.0.0.1:{port}"}


@pytest.mark.parametrize("kind", [ModelSettings, UpstreamSettings], ids=lambda kind: kind.__name__)
def test_every_key_is_explained(kind: Any) -> None:
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.M))))
    assert kind.model_fields.keys() - {"upstreams"} <= explained


def test_there_are_three_files() -> None:
    assert len(FILES) == 3


def test_the_router_of_the_chart(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load((VALUES / "router.yaml").read_text())
    [variable] = [one["name"] for one in values["extraEnv"]]
    monkeypatch.setenv(variable, "key-of-dashscope")
    secret = tmp_path / "api-key"
    secret.write_text("key-of-callers\n")
    with ExitStack() as stack:
        workers = stack.enter_context(UpstreamServer(key="key-of-callers"))
        hosted = stack.enter_context(UpstreamServer("dashscope", key="key-of-dashscope"))
        replaced = {"http://workers": workers.url, "/run/secrets/rerankd/api-key": str(secret)}
        replaced['https://dashscope-intl.aliyuncs.com"'] = f'{hosted.url}"\ndialect = "dashscope"'
        client, served, _ = stack.enter_context(started(values["settings"], tmp_path, tiny_checkpoint, **replaced))
        wait_until(lambda: all(state_of(served, name) == "closed" for name in ("workers", "dashscope")))
        assert rerank(client, "qwen3-rerank").headers["x-rerankd-upstream"] == "workers"
        workers.kill()
        assert rerank(client, "qwen3-rerank").headers["x-rerankd-upstream"] == "dashscope"


@pytest.mark.parametrize("values", sorted(VALUES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_the_chart_are_settings(values: Path, tmp_path: Path) -> None:
    chart = yaml.safe_load((VALUES.parent / "rerankd" / "values.yaml").read_text())
    path = tmp_path / "rerankd.toml"
    path.write_text({**chart, **yaml.safe_load(values.read_text())}["settings"])
    assert read_settings(ServerSettings, {"config": path}, {}).config == path
