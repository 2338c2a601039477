"""Who gets in, what the server is told at start, and which names its model answers to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx2
import pytest

from support.server import Server, StartServer, refusal
from support.surfaces import INFINITY, LLAMA_CPP, NATIVE, ONE_EACH, RERANK, SGLANG, SHARED, TEI, Surface

PUBLIC = ("--host", "0.0.0.0", "--model", "embedded")


# Nobody in by accident.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_public_address_without_a_key_is_refused(host: str) -> None:
    told = refusal("--model", "embedded", "--host", host)
    assert "--api-key" in told and "--no-auth" in told and "RERANKD_API_KEY" in told
    assert "Listening" not in told


@pytest.mark.parametrize("way", ["a key", "--no-auth"])
def test_a_public_address_is_served_when_told_so(way: str, start_server: StartServer) -> None:
    options = (*PUBLIC, "--no-auth") if way == "--no-auth" else PUBLIC
    server = start_server(*options, key="" if way == "--no-auth" else "some-key", wait=False)
    assert "0.0.0.0" in server.url
    server.process.terminate()
    server.process.wait(60)


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_an_empty_key_is_refused(key: str) -> None:
    """An unset variable in a script must not open the door, nor lock everybody out."""
    assert "key is empty" in refusal("--model", "embedded", "--api-key", key)
    assert "no key is set" in refusal(*PUBLIC, env={"RERANKD_API_KEY": key})


def test_what_needs_a_key(embedded_server: Server) -> None:
    for path in ("/health", "/version", "/docs", "/openapi.json"):
        assert httpx2.get(embedded_server.url + path).status_code == 200
    for headers in ({}, {"authorization": "Bearer nope"}):
        response = httpx2.get(embedded_server.url + "/v1/models", headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    good = {"authorization": f"Bearer {embedded_server.key}"}
    assert httpx2.get(embedded_server.url + "/v1/models", headers=good).status_code == 200


def test_the_scheme_may_be_written_in_any_case(embedded_server: Server) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        headers = {"authorization": f"{scheme} {embedded_server.key}"}
        assert httpx2.post(embedded_server.url + RERANK.path, json=RERANK.body(), headers=headers).status_code == 200


def test_no_key_is_ever_logged(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", key="sesame-4711")
    for key in ("sesame-4711", "guess-0815"):
        for surface in ONE_EACH:
            server.post(surface.path, surface.body(), key=key)
            server.post(surface.path, {"query": 3}, key=key)
            server.post(surface.path, content=b"{", key=key)
        httpx2.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {key}"})
    server.wait_until(lambda: "".join(server.log).count("path=/v1/models") == 2)  # what was asked last
    log = "".join(server.log)
    assert RERANK.path in log
    assert "sesame-4711" not in log and "guess-0815" not in log


@pytest.fixture(scope="module")
def served_by_environment(start_server: StartServer) -> Server:
    """Told by variables only, with a key as it comes out of a file; and an option that wins over its variable."""
    env = {
        **os.environ,
        "RERANKD_API_KEY": "schlüssel\n",
        "RERANKD_MODEL": "/no/such/folder",
        "RERANKD_ALIAS": "first-name, second-name",
        "RERANKD_MAX_DOCUMENTS": "2",
    }
    server = start_server("--model", "embedded", env=env)
    server.key = "schlüssel"
    return server


def _post(server: Server, surface: Surface, key: str, **options: object) -> httpx2.Response:
    headers = {b"authorization": f"Bearer {key}".encode()}
    return httpx2.post(server.url + surface.path, json=surface.body(**options), headers=headers)


def test_a_key_from_the_environment(served_by_environment: Server) -> None:
    assert _post(served_by_environment, RERANK, "schlüssel").status_code == 200
    assert _post(served_by_environment, RERANK, "schlussel").status_code == 401
    RERANK.error(httpx2.post(served_by_environment.url + RERANK.path, json=RERANK.body()), 401)


def test_variables_are_read_and_options_win(served_by_environment: Server) -> None:
    assert httpx2.get(f"{served_by_environment.url}/health").json()["model"] == "embedded-multilingual"
    for name in ("first-name", "second-name"):
        assert _post(served_by_environment, RERANK, "schlüssel", model=name).json()["model"] == name
    message = NATIVE.error(_post(served_by_environment, NATIVE, "schlüssel"), 400)  # three documents
    assert "larger than 2" in message


def test_a_key_option_wins_over_the_environment(start_server: StartServer) -> None:
    env = {**os.environ, "RERANKD_API_KEY": "from-the-environment"}
    server = start_server("--model", "embedded", key="from-the-option", env=env)
    assert server.post(RERANK.path, RERANK.body()).status_code == 200
    assert server.post(RERANK.path, RERANK.body(), key="from-the-environment").status_code == 401


# Settings that mean nothing.


def test_an_unknown_variable_is_refused() -> None:
    told = refusal("--model", "embedded", env={"RERANKD_APIKEY": "secret-0815"})
    assert "RERANKD_APIKEY" in told and "RERANKD_API_KEY" in told
    assert "secret-0815" not in told


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "http"),
        ("--port", "-1"),
        ("--port", "65536"),
        ("--port", "80.5"),
        ("--dtype", "int4"),
        ("--max-queue", "0"),
        ("--max-body-mb", "0"),
        ("--max-context", "100000"),
        ("--max-documents", "many"),
        ("--device", "cuda:99"),
        ("--device", "toaster"),
        ("--no-such-option", "1"),
    ],
)
def test_a_malformed_option_is_named(option: str, value: str) -> None:
    told = refusal("--model", "embedded", option, value)
    name = option.removeprefix("--")
    assert name in told or name.replace("-", "_") in told or value in told


@pytest.mark.parametrize(
    ("variable", "value"), [("RERANKD_MAX_CONTEXT", "8k"), ("RERANKD_NO_AUTH", "perhaps"), ("RERANKD_MAX_QUEUE", "1e3")]
)
def test_a_malformed_variable_is_named(variable: str, value: str) -> None:
    told = refusal("--model", "embedded", env={variable: value})
    assert variable.removeprefix("RERANKD_").lower() in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_que = 1", "unknown setting max_que"),
        ("max_queue = 0", "max_queue"),
        ('[rates."qwen3-rerank"]\ninput_price = "cheap"', "rates.qwen3-rerank.input_price"),
        ("", "contains no settings"),
    ],
)
def test_a_mistake_in_the_settings_file_stops_the_start(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    for message in (
        refusal("--model", "embedded", "--config", str(path)),
        refusal("--model", "embedded", env={"RERANKD_CONFIG": str(path)}),
    ):
        assert str(path) in message and told in message


def test_redis_and_accounts_are_checked_at_start() -> None:
    assert "redis" in refusal("--model", "embedded", "--redis", "localhost:6379")
    assert "--api-key" in refusal("--model", "embedded", "--accounts", "--api-key", "x")
    assert "--accounts" in refusal("--model", "embedded", "--sign-up", "open")


# The model's names.


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_the_asked_name_is_echoed_and_the_real_one_told(surface: Surface, embedded_server: Server) -> None:
    """Infinity echoes the real one; native DashScope, TEI and SGLang echo none."""
    names = ("qwen3-rerank", "gte-rerank", "gte-rerank-v2", "Qwen/Qwen3-Reranker-4B", "embedded-multilingual")
    for name in names:
        response = embedded_server.post(surface.path, surface.body(model=name))
        assert len(surface.scores(response)) == 3
        assert response.headers["x-rerankd-model"] == "embedded-multilingual"
        if surface.api not in ("dashscope-native", "tei", "sglang"):
            assert response.json()["model"] == ("embedded-multilingual" if surface.api == "infinity" else name)


UNKNOWN = ("bge-reranker-v2-m3", "Qwen/Qwen3-Reranker-8B", "QWEN3-RERANK")


@pytest.mark.parametrize("surface", [surface for surface in SHARED if surface.tells_names], ids=str)
def test_an_unknown_name_is_told_with_the_served_ones(surface: Surface, embedded_server: Server) -> None:
    # An explicit --model never stands in for another, so even Qwen's own names are unknown here.
    for name in UNKNOWN:
        message = surface.error(embedded_server.post(surface.path, surface.body(model=name)), 404)
        assert name in message
        assert all(served in message for served in ("qwen3-rerank", "embedded-multilingual", "Qwen/Qwen3-Reranker-4B"))


@pytest.mark.parametrize("surface", [INFINITY, SGLANG, LLAMA_CPP], ids=str)
def test_where_any_name_is_answered_an_unknown_one_is_told(surface: Surface, embedded_server: Server) -> None:
    for name in UNKNOWN:
        response = embedded_server.post(surface.path, surface.body(model=name))
        assert len(surface.scores(response)) == 3
        assert f"model substituted: {name} was asked for, embedded-multilingual scored" in surface.warnings(response)


def test_without_a_name_the_real_one_is_told(embedded_server: Server) -> None:
    for body in (RERANK.body(), RERANK.body(model=None), RERANK.body(model="")):
        assert embedded_server.post(RERANK.path, body).json()["model"] == "embedded-multilingual"


def test_the_list_of_models(embedded_server: Server) -> None:
    headers = {"authorization": f"Bearer {embedded_server.key}"}
    listed = httpx2.get(f"{embedded_server.url}/v1/models", headers=headers).json()
    assert listed["object"] == "list"
    assert listed["data"][0]["id"] == "embedded-multilingual"
    assert {card["id"] for card in listed["data"]} >= {"qwen3-rerank", "Qwen/Qwen3-Reranker-4B"}
    for card in listed["data"]:
        assert card["object"] == "model" and card["root"] == "embedded-multilingual"
        assert isinstance(card["created"], int) and card["max_model_len"] > 0
        # Every listed name is answered.
        assert embedded_server.post(RERANK.path, RERANK.body(model=card["id"])).status_code == 200


def test_a_folder_named_in_another_script(start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "重排序 模型")
    server = start_server("--model", str(folder), "--skip-self-test", "--alias", "我的模型")
    for surface in ONE_EACH:
        response = server.post(surface.path, surface.body(model="我的模型"), key="x")
        assert len(surface.scores(response)) == 3
        assert response.headers["x-rerankd-model"]
    assert "重排序 模型" in RERANK.error(server.post(RERANK.path, RERANK.body(model="other"), key="x"), 404)


# What stands in for Qwen3-Reranker-0.6B where it cannot be had.


@pytest.fixture(scope="module")
def fallback_server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """`rerankd serve` with no flags on a machine without a hub and with an empty cache."""
    nowhere = tmp_path_factory.mktemp("empty")
    caches = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_ENDPOINT")
    env = {name: value for name, value in os.environ.items() if name not in caches}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(nowhere)
        return start_server(env={**env, "HF_HOME": str(nowhere / "hf"), "HF_HUB_OFFLINE": "1"})


def test_the_fallback_is_said_everywhere(fallback_server: Server) -> None:
    health = httpx2.get(f"{fallback_server.url}/health").json()
    assert health["model"] == "embedded-multilingual"
    notice = health["warning"]
    assert "Qwen3-Reranker-0.6B" in notice and "16 languages" in notice
    cards = httpx2.get(f"{fallback_server.url}/v1/models").json()["data"]
    assert all(card["warning"] == notice and card["root"] == "embedded-multilingual" for card in cards)
    assert notice in "".join(fallback_server.log)
    for surface in SHARED:
        response = fallback_server.post(surface.path, surface.body(), key="x")
        assert notice in surface.warnings(response)
        assert response.headers["x-rerankd-model"] == "embedded-multilingual"


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_a_substituted_model_is_told(surface: Surface, fallback_server: Server) -> None:
    for size in ("0.6B", "4B", "8B"):
        name = f"Qwen/Qwen3-Reranker-{size}"
        response = fallback_server.post(surface.path, surface.body(model=name), key="x")
        assert len(surface.scores(response)) == 3
        substituted = f"model substituted: {name} was asked for, embedded-multilingual scored"
        assert ("fields ignored: 'model'" if surface is TEI else substituted) in surface.warnings(response)
    if surface.tells_names:
        surface.error(fallback_server.post(surface.path, surface.body(model="bge-reranker"), key="x"), 404)


def test_an_explicit_model_never_falls_back(tmp_path: Path) -> None:
    told = refusal("--model", "Qwen/Qwen3-Reranker-0.6B", env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert "Qwen/Qwen3-Reranker-0.6B" in told and "Ready" not in told
