"""The clients against the real server, on every surface that it has."""

from __future__ import annotations

from typing import Any

import pytest
from stand_in import BOTH, DOCUMENTS, QUERY, Ask, ask_sync

from conftest import Server
from rerankd import RemoteRanking, Reranker
from rerankd.client.dialects import DIALECTS, DialectName, endpoint
from rerankd.errors import (
    InvalidRequest,
    RemoteRefused,
    RemoteUnauthorized,
    RemoteUnreachable,
    SettingsError,
)

# (what the client speaks, where): a new surface is a line.
SURFACES: tuple[tuple[DialectName, str], ...] = (
    ("vllm", ""),
    ("vllm", "/v1"),
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
        return [score.logit for score in reranker.rank(QUERY, DOCUMENTS).scores]


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
    assert ranking.model == "all-MiniLM-L6-v2"
    assert (ranking.usage.total_tokens or 0) > 20 or dialect in COUNTS_NOTHING
    assert ranking.warnings == ()
    assert len(ranking.request_ids) == 1


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
        with pytest.raises(RemoteRefused, match=r"answered 40[04]: .*no-such-model") as refused:
            ask(url, embedded_server.key, {"dialect": dialect}, model="no-such-model")
        assert refused.value.status in (400, 404)


@on_every_surface
def test_an_instruct_is_read_everywhere(dialect: DialectName, path: str, qwen_server: Server) -> None:
    def logits(dialect: DialectName, path: str, instruct: str) -> list[float | None]:
        client = {"dialect": dialect, "model": MODEL}
        ranking = ask_sync(qwen_server.url + path, qwen_server.key, client, instruct=instruct)
        return [result.logit for result in sorted(ranking.ranked, key=lambda result: result.index)]

    asked = logits(dialect, path, "Find lies.")
    assert asked == pytest.approx(logits("vllm", "", "Find lies."), abs=1e-4)
    assert asked != pytest.approx(logits("vllm", "", "Find the truth."), abs=1e-4)


ADDRESSES = {
    "http://localhost:8000": ("vllm", "http://localhost:8000/v1/rerank"),
    "http://localhost:8000/": ("vllm", "http://localhost:8000/v1/rerank"),
    "http://localhost:8000/v1": ("vllm", "http://localhost:8000/v1/rerank"),
    "http://localhost:8000/v1/rerank/": ("vllm", "http://localhost:8000/v1/rerank"),
    "http://localhost:7997/rerank": ("vllm", "http://localhost:7997/rerank"),
    "https://proxy.example/models/v1?version=2": ("vllm", "https://proxy.example/models/v1/rerank?version=2"),
    "https://openrouter.ai/api/v1": ("vllm", "https://openrouter.ai/api/v1/rerank"),
    "http://localhost:8000/api/v1": (
        "dashscope",
        "http://localhost:8000/api/v1/services/rerank/text-rerank/text-rerank",
    ),
    "https://dashscope-intl.aliyuncs.com": (
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank",
    ),
    "https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank": (
        "dashscope",
        "https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank",
    ),
    "https://dashscope.aliyuncs.com/compatible-api/v1": (
        "dashscope-compatible",
        "https://dashscope.aliyuncs.com/compatible-api/v1/reranks",
    ),
    "http://localhost:8000/v1/reranks": ("dashscope-compatible", "http://localhost:8000/v1/reranks"),
    "https://api.cohere.com": ("cohere", "https://api.cohere.com/v2/rerank"),
    "http://localhost:8000/v2/rerank": ("cohere", "http://localhost:8000/v2/rerank"),
    "https://api.jina.ai/v1": ("jina", "https://api.jina.ai/v1/rerank"),
    "https://api.voyageai.com/v1": ("voyage", "https://api.voyageai.com/v1/rerank"),
    "https://api.mixedbread.com": ("mixedbread", "https://api.mixedbread.com/v1/reranking"),
    "http://localhost:8000/tei": ("tei", "http://localhost:8000/tei/rerank"),
    "http://localhost:8000/jina/v1": ("jina", "http://localhost:8000/jina/v1/rerank"),
    "http://localhost:8000/cohere": ("cohere", "http://localhost:8000/cohere/v2/rerank"),
    "http://localhost:8000/reranking": ("llamacpp", "http://localhost:8000/reranking"),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_auto_tells_the_dialect_by_the_address(address: str) -> None:
    name, url = endpoint(address, "auto")
    assert (name, str(url)) == ADDRESSES[address]


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
    ],
)
def test_bad_arguments_are_refused_at_once(ask: Ask, url: str, options: dict[str, Any], message: str) -> None:
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
        ({"documents": []}, "There are no documents"),
        ({"documents": "Beijing"}, "send a list of strings"),
        ({"top_n": 0}, "top_n must be at least 1"),
        ({"documents": ["half a character: \ud800"]}, "lone surrogate"),
    ],
)
def test_calls_that_make_no_sense_are_not_sent(ask: Ask, call: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ask("http://127.0.0.1:9", **call)


@pytest.mark.parametrize("ask", BOTH)
def test_no_secret_of_the_address_is_told(ask: Ask) -> None:
    with pytest.raises(RemoteUnreachable, match=r"http://127\.0\.0\.1:9/v1/rerank cannot be reached") as refused:
        ask("http://user:secret@127.0.0.1:9?token=secret", client={"max_retries": 0})
    assert "secret" not in str(refused.value)


def test_a_client_keeps_its_model_and_a_call_may_name_another(embedded_server: Server) -> None:
    def ask(**call: str) -> RemoteRanking:
        return ask_sync(embedded_server.url, embedded_server.key, {"model": "no-such-model"}, **call)

    with pytest.raises(RemoteRefused, match="no-such-model"):
        ask()
    assert len(ask(model=MODEL).ranked) == 3
