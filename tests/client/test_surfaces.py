"""The clients against the real server, on every surface that it has."""

from __future__ import annotations

from typing import Any

import pytest

from rerankd import Ranking, Reranker
from rerankd.client.dialects import DIALECTS, DialectName
from rerankd.client.errors import RemoteRefused, RemoteUnauthorized, RemoteUnreachable
from rerankd.errors import InvalidRequest, SettingsError
from support.fake_server import BOTH, DOCUMENTS, QUERY, Ask, ask_sync
from support.server import Server

# (what the client speaks, where): a new surface is a line.
SURFACES: tuple[tuple[DialectName, str], ...] = (
    ("vllm", ""),
    ("vllm", "/v1"),
    ("vllm", "/api/v1"),
    ("vllm", "/rerank"),
    ("dashscope", ""),
    ("dashscope", "/api/v1"),
    ("dashscope-compatible", ""),
    ("dashscope-compatible", "/v1"),
    ("cohere", ""),
    ("cohere", "/cohere"),
    ("cohere", "/cohere/v1/rerank"),
    ("jina", ""),
    ("jina", "/jina"),
    ("voyage", ""),
    ("voyage", "/voyage"),
    ("tei", ""),
    ("tei", "/tei"),
    ("infinity", ""),
    ("infinity", "/infinity"),
    ("sglang", ""),
    ("sglang", "/sglang"),
    ("llamacpp", ""),
    ("llamacpp", "/llamacpp"),
    ("mixedbread", ""),
    ("mixedbread", "/mixedbread"),
    ("xinference", ""),
    ("xinference", "/xinference"),
    ("nim", ""),
    ("nim", "/nim"),
    ("rerankd", ""),
    ("rerankd", "/v1"),
)
on_every_surface = pytest.mark.parametrize(
    ("dialect", "path"), SURFACES, ids=lambda part: str(part).strip("/").replace("/", "-") or "root"
)
MODEL = "qwen3-rerank"
COUNTS_NOTHING = {"sglang", "xinference"}
TAKES_ANY_NAME = {"tei", "infinity", "sglang", "llamacpp"}


@pytest.fixture(scope="module")
def local() -> list[float]:
    """The logit of each document, computed in this process."""
    with Reranker("embedded") as reranker:
        logits = [score.logit for score in reranker.rank(QUERY, DOCUMENTS).scores]
    return [logit for logit in logits if logit is not None]


@on_every_surface
@pytest.mark.parametrize("ask", BOTH)
def test_a_surface_gives_the_scores_of_the_model(
    ask: Ask, dialect: DialectName, path: str, embedded_server: Server, local: list[float]
) -> None:
    ranking = ask(embedded_server.url + path, embedded_server.key, {"dialect": dialect, "model": MODEL})
    assert [result.index for result in ranking.ranked] == sorted(range(3), key=lambda index: -local[index])
    for result in ranking.ranked:
        assert result.logit == pytest.approx(local[result.index], abs=1e-4)
        assert 0 <= result.score <= 1
        assert result.document == DOCUMENTS[result.index]
    assert ranking.model == "embedded-multilingual"
    assert (ranking.usage.total_tokens or 0) > 20 or dialect in COUNTS_NOTHING
    assert ranking.warnings == ()
    assert len(ranking.request_ids) == 1


@pytest.mark.parametrize("ask", BOTH)
def test_rerankd_is_asked_for_logits_to_the_bit(ask: Ask, qwen_server: Server) -> None:
    ranking = ask(qwen_server.url, qwen_server.key, {"dialect": "rerankd", "model": MODEL})
    body = {"model": MODEL, "query": QUERY, "documents": list(DOCUMENTS), "explain": True}
    results = qwen_server.post("/v1/rerank", body).json()["results"]
    assert [one.logit for one in ranking] == [result["explain"]["logit"] for result in results]


@on_every_surface
@pytest.mark.parametrize("ask", BOTH)
def test_top_n_instruct_and_documents_are_as_asked(
    ask: Ask, dialect: DialectName, path: str, embedded_server: Server
) -> None:
    client = {"dialect": dialect, "model": MODEL}
    options = {"top_n": 2, "instruct": "Find lies.", "return_documents": False}
    ranking = ask(embedded_server.url + path, embedded_server.key, client, **options)
    assert len(ranking.ranked) == 2
    assert ranking.ranked[0].index == 1
    assert [result.document for result in ranking.ranked] == [None, None]
    [warning] = ranking.warnings
    assert "instruct ignored" in warning  # by the embedded model: so it was sent and read


@on_every_surface
@pytest.mark.parametrize("ask", BOTH)
def test_errors_say_what_the_server_says(ask: Ask, dialect: DialectName, path: str, embedded_server: Server) -> None:
    url = embedded_server.url + path
    with pytest.raises(RemoteUnauthorized, match=r"(?i)answered 401: .*(key|token|unauthorized)") as refused:
        ask(url, "wrong", {"dialect": dialect, "model": MODEL})
    assert refused.value.status == 401
    assert refused.value.request_id
    if dialect not in TAKES_ANY_NAME:
        with pytest.raises(RemoteRefused, match=r"answered 40[04]: .*no-such-model") as unknown:
            ask(url, embedded_server.key, {"dialect": dialect}, model="no-such-model")
        assert unknown.value.status in (400, 404)


@on_every_surface
def test_an_instruct_is_read_everywhere(dialect: DialectName, path: str, qwen_server: Server) -> None:
    def logits(dialect: DialectName, path: str, instruct: str) -> list[float | None]:
        client = {"dialect": dialect, "model": MODEL}
        ranking = ask_sync(qwen_server.url + path, qwen_server.key, client, instruct=instruct)
        return [result.logit for result in sorted(ranking.ranked, key=lambda result: result.index)]

    asked = logits(dialect, path, "Find lies.")
    assert asked == pytest.approx(logits("vllm", "", "Find lies."), abs=1e-4)
    assert asked != pytest.approx(logits("vllm", "", "Find the truth."), abs=1e-4)


def test_every_dialect_has_a_name_in_the_type() -> None:
    assert set(DialectName.__args__) == {"auto", *DIALECTS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("ask", BOTH)
@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8000", {}, "begin with http:// or https://"),
        ("", {}, "begin with http:// or https://"),
        ("http://", {}, "is not an address"),
        ("http://[::1", {}, "is not an address"),
        ("http://localhost", {"dialect": "cohre"}, "no dialect 'cohre'. Known are: auto, vllm"),
        ("http://localhost", {"max_documents": 0}, "max_documents must be at least 1"),
        ("http://localhost", {"max_documents": "9"}, "max_documents is of type str; it should be int or None"),
        ("http://localhost", {"max_retries": -1}, "max_retries must be at least 0"),
        ("http://localhost", {"timeout": 0}, "timeout must be more than 0"),
        ("http://localhost", {"timeout": "9"}, "timeout is of type str"),
        ("http://localhost", {"headers": ["a"]}, "headers is of type list"),
        ("http://localhost", {"headers": {"a b": "c"}}, "'a b' is not the name of a header"),
        ("http://localhost", {"headers": {"a": "\n\u20ac"}}, "header 'a' holds characters"),
        ("http://localhost", {"model": 7}, "model is of type int"),
        ("https://localhost", {"verify": 7}, "verify is of type int"),
        ("https://localhost", {"verify": "/nowhere.pem"}, "verify=/nowhere.pem cannot be used: No such file"),
        (8000, {}, "base_url is of type int"),
        ("unix:", {}, "the file of the socket is missing"),
        ("http://user:secret@[::1", {}, r"'http://\*\*\*@\[::1' is not an address"),
    ],
)
def test_bad_arguments_are_refused_at_once(ask: Ask, url: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ask(url, client=options)


@pytest.mark.parametrize("ask", BOTH)
def test_a_key_that_no_header_carries_is_refused_at_once(ask: Ask) -> None:
    with pytest.raises(SettingsError, match="API key"):
        ask("http://localhost", "schlüssel")


@pytest.mark.parametrize("ask", BOTH)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"documents": "Beijing"}, "send a list of strings"),
        ({"top_n": 0}, "top_n must be at least 1"),
        ({"documents": ["a", None]}, "Document 1 is None"),
        ({"documents": ["a", float("nan")]}, "Document 1 is NaN"),
        ({"documents": [{"title": "a"}]}, "without 'text'"),
        ({"query": None}, "The query is None"),
    ],
)
def test_calls_that_make_no_sense_are_not_sent(ask: Ask, call: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ask("http://127.0.0.1:9", **call)


@pytest.mark.parametrize("ask", BOTH)
def test_no_secret_of_the_address_is_shown(ask: Ask) -> None:
    with pytest.raises(RemoteUnreachable, match=r"http://127\.0\.0\.1:9/v1/rerank cannot be reached") as refused:
        ask("http://user:secret@127.0.0.1:9?token=secret", client={"max_retries": 0})
    assert "secret" not in str(refused.value)


def test_a_client_keeps_its_model_and_a_call_may_name_another(embedded_server: Server) -> None:
    def ask(**call: str) -> Ranking:
        return ask_sync(embedded_server.url, embedded_server.key, {"model": "no-such-model"}, **call)

    with pytest.raises(RemoteRefused, match="no-such-model"):
        ask()
    assert len(ask(model=MODEL).ranked) == 3
