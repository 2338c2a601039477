"""What a single call may ask at most, on every surface: documents, fields, urgency, lengths, and words in the log."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from rerankd.apis.base import ApiSettings
from rerankd.apis.vllm import Body, VLLMRerank
from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from support.fakes import NumberedModel, scorer_of
from support.server import Server, StartServer
from support.surfaces import ALL, COHERE_V1, COHERE_V2, MIXEDBREAD, NATIVE, RERANK, SCORE, VLLM, VOYAGE, Surface

SMALL = 3
FIELDS = pytest.mark.parametrize("surface", [RERANK, COHERE_V1, MIXEDBREAD], ids=str)


@pytest.fixture(scope="module")
def small_server(start_server: StartServer, tiny_checkpoint: Path) -> Server:
    options = ("--max-call-documents", str(SMALL), "--max-documents", str(SMALL), "--any-model", "--truncate-overlong")
    model = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")
    return start_server(*model, *options, "--refuse-long-texts", key="test-key")


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_documents_are_bounded_on_every_surface(surface: Surface, small_server: Server) -> None:
    assert len(surface.scores(small_server.post(surface.path, surface.body(documents=["a"] * SMALL)))) == SMALL
    response = small_server.post(surface.path, surface.body(documents=["a"] * (SMALL + 1)))
    told = surface.error(response, surface.wrong)
    assert (str(SMALL + 1) in told and str(SMALL) in told) or "larger than 3" in told
    assert "several requests" in told


@pytest.mark.parametrize("surface", [*VLLM, COHERE_V1], ids=str)
def test_ten_thousand_documents_are_the_default(surface: Surface, embedded_server: Server) -> None:
    response = embedded_server.post(surface.path, surface.body(documents=["same"] * 10_001))
    assert "10001" in surface.error(response, 400) or "100010" in response.text
    told = surface.error(embedded_server.post(surface.path, surface.body(documents=["same"] * 100_001)), 400)
    assert "100001" in told and "several requests" in told


@FIELDS
def test_a_rank_field_named_again_is_scored_once(surface: Surface, qwen_server: Server) -> None:
    documents = [{"a": "Beijing is a capital."}, {"a": "Bread is baked.", "b": "Slowly."}]
    once = surface.body(documents=documents, rank_fields=["a", "b"])
    often = surface.body(documents=documents, rank_fields=["a", "b"] * 50)
    scored = surface.scores(qwen_server.post(surface.path, once))
    assert surface.scores(qwen_server.post(surface.path, often)) == scored


@FIELDS
def test_rank_fields_are_bounded(surface: Surface, qwen_server: Server) -> None:
    body = surface.body(documents=[{"a": "x" * 1000}] * 600, rank_fields=["a"] * 100_000)
    told = surface.error(qwen_server.post(surface.path, body), 422 if surface is MIXEDBREAD else 400)
    assert "100" in told  # 60 GB otherwise


@FIELDS
def test_a_message_names_few_of_the_rank_fields(surface: Surface, qwen_server: Server) -> None:
    body = surface.body(documents=[{"text": "x"}], rank_fields=[str(n) * 500 for n in range(100)])
    told = surface.error(qwen_server.post(surface.path, body), 422 if surface is MIXEDBREAD else 400)
    assert "rank_fields" in told and len(told) < 2000


def test_a_rank_field_nested_deeply_is_no_error_of_the_server(qwen_server: Server) -> None:
    nested: Any = "x"
    for _ in range(900):
        nested = [nested]
    response = qwen_server.post(RERANK.path, RERANK.body(documents=[{"a": nested}], rank_fields=["a"]))
    assert response.status_code in (200, 400)


def parsed(query: str, **options: Any) -> Any:
    body = Body(query=query, documents=["d"])
    return VLLMRerank(ApiSettings(**options)).parse(body)


@pytest.mark.parametrize("filling", ["\n", " \n", "\n\t ", "\r\n", "a\n", "\nQuery", " "])
def test_lifting_an_instruct_takes_time_in_proportion(filling: str) -> None:
    query = "Instruct: a" + filling * 200_000
    assert parsed(query).queries[0] == query  # it took hours


@pytest.mark.parametrize(
    ("query", "instruct", "bare"),
    [
        ("Instruct: Find it\nQuery: where", "Find it", "where"),
        (" \n Instruct:\tFind it \n\n  Query:where\nelse", "Find it", "where\nelse"),
        ("Instruct: one\ntwo\n \nQuery: ", "one\ntwo", ""),
        ("Instruct: one\nQuery: a\nQuery: b", "one", "a\nQuery: b"),
    ],
)
def test_what_is_lifted(query: str, instruct: str, bare: str) -> None:
    call = parsed(query)
    assert (call.instruct, call.queries[0]) == (instruct, bare)
    assert call.warnings == (
        f"instruction of {len(instruct)} characters lifted out of the query; send it as `instruction`",
    )


@pytest.mark.parametrize(
    "query", ["Instruct:\nQuery: a", "Instruct: Query: a", "x Instruct: a\nQuery: b", "Instruct: "]
)
def test_what_is_not_lifted(query: str) -> None:
    assert parsed(query).queries[0] == query


@pytest.mark.parametrize(
    ("asked", "heard", "trusted"),
    [(None, 0, 0), (0, 0, 0), (7, 7, 7), (-1, 0, -1), (-(10**30), 0, -999), (10**30, 999, 999)],
)
def test_who_may_overtake(asked: int | None, heard: int, trusted: int) -> None:
    for trust, expected in ((False, heard), (True, trusted)):
        call = VLLMRerank(ApiSettings(trust_priority=trust)).parse(Body(query="q", documents=["d"], priority=asked))
        assert call.priority == expected
        assert bool(call.warnings) == (asked is not None and asked != expected)


@pytest.mark.parametrize("limit", [None, 8000, 40_000, 10**9])
def test_a_limit_over_the_context_reads_no_more(limit: int | None, qwen_server: Server) -> None:
    """All but the beginning of 4 MB of digits stays unread: all of it takes gigabytes, and half a minute."""
    options = {} if limit is None else {"max_tokens_per_doc": limit}
    response = qwen_server.post(COHERE_V2.path, COHERE_V2.body(documents=["1" * 4_000_000], **options))
    assert response.status_code == 200
    assert "document 0 truncated from more than " in response.headers["x-rerankd-warning"]


def test_many_cuts_are_one_warning(qwen_server: Server) -> None:
    documents = ["word " * (10 + index % 50) for index in range(500)]
    response = qwen_server.post(RERANK.path, RERANK.body(documents=documents, max_tokens_per_doc=20))
    told = response.json()["meta"]["warnings"]
    assert len(told) == 1 and told[0].startswith("400 of 500 documents were truncated (longest: document 49, from ")
    assert response.headers["x-rerankd-warning"] == told[0]


def test_names_of_the_callers_are_bounded(qwen_server: Server) -> None:
    kwargs = {"k" * 1_000_000: 1, **{f"x{n}": n for n in range(2000)}}
    fields = {f"f{n}" * 100: n for n in range(2000)}
    response = qwen_server.post(RERANK.path, RERANK.body(chat_template_kwargs=kwargs, **fields))
    told = response.json()["meta"]["warnings"]
    assert len(str(told)) < 3000 and len(response.headers["x-rerankd-warning"]) < 1100
    assert "1996 more keys of chat_template_kwargs ignored" in told and any("and 1990 more" in one for one in told)


def test_nothing_that_a_caller_wrote_is_logged(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--truncate-overlong", key="test-key")
    secret = "passport-123-45-6789"
    query = f"Instruct: find {secret}\nQuery: hello {secret}"
    options = {secret: 1, "chat_template_kwargs": {secret: secret}, "instruct": None}
    for body in (
        RERANK.body(query=query, documents=[f"{secret} word " * 9000], **options),
        RERANK.body(query=query, documents=[{secret: secret}], rank_fields=[secret]),
        RERANK.body(model=secret),
        RERANK.body(documents=[secret, 5]),
    ):
        server.post(RERANK.path, body)
    assert server.post(NATIVE.path, NATIVE.body(documents=["word " * 9000] * 3)).status_code == 200
    assert secret not in "".join(server.log) and len("".join(server.log)) < 5000


@pytest.mark.parametrize("surface", [RERANK, SCORE], ids=str)
def test_an_overlong_text_is_cut_where_the_operator_says_so(
    surface: Surface, small_server: Server, qwen_server: Server
) -> None:
    body = surface.body(documents=["word " * 20_000, "short"])
    assert "--truncate-overlong" in surface.error(qwen_server.post(surface.path, body), 400)
    response = small_server.post(surface.path, body)
    assert len(surface.scores(response)) == 2 and "document 0 truncated" in surface.warnings(response)


@pytest.mark.parametrize("long", [{"query": " the" * 4001}, {"documents": ["short", " the" * 4001]}], ids=list)
def test_a_text_over_dashscopes_limit_is_refused_where_the_operator_says_so(
    long: dict[str, Any], small_server: Server
) -> None:
    told = NATIVE.error(small_server.post(NATIVE.path, NATIVE.body(**long)), 400)
    assert "4001" in told and "4000" in told


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_any_model(surface: Surface, small_server: Server) -> None:
    for name in ("rerank-v3.5", "rerank-2", "jina-reranker-v2-base-multilingual"):
        response = small_server.post(surface.path, surface.body(model=name))
        assert surface.scores(response)
        if surface.api != "tei":  # it has no models
            assert f"model substituted: {name} was asked for" in response.headers["x-rerankd-warning"]


@pytest.mark.parametrize("surface", [RERANK, SCORE, VOYAGE], ids=str)
def test_one_mistake_is_told_once(surface: Surface, qwen_server: Server) -> None:
    response: httpx2.Response = qwen_server.post(surface.path, surface.body(documents=["a", 5]))
    told = surface.error(response, 400)
    assert told.count("documents.1") == 1 and "Input should be a valid string or a valid dictionary" in told


def test_an_empty_query_is_told(qwen_server: Server) -> None:
    response = qwen_server.post(RERANK.path, RERANK.body(query=" \n"))
    assert "the query is empty" in RERANK.warnings(response)


def test_a_long_query_is_read_once_for_all_documents(qwen_server: Server) -> None:
    body = VOYAGE.body(query="word " * 200_000, documents=["a"] * 1000)
    assert qwen_server.post(VOYAGE.path, body).status_code in (200, 400)


def test_documents_are_counted_before_each_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("100,000 documents were read to be refused")

    monkeypatch.setattr(VLLMRerank, "parse", fail)
    app = create_app(ServerSettings(), Models(ServedModel(lambda _: scorer_of(NumberedModel()))))
    with TestClient(app) as client:
        response = client.post("/v1/rerank", json={"query": "a", "documents": [1] * 100_000})
    assert response.status_code == 400 and "There are 100000 documents" in response.json()["error"]["message"]


def test_replies_of_many_documents_are_written_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[int, str] = {}
    write = VLLMRerank.reply

    def watched(self: VLLMRerank, answer: Any) -> Any:
        threads[len(answer.ranking.scores)] = threading.current_thread().name
        return write(self, answer)

    monkeypatch.setattr(VLLMRerank, "reply", watched)
    app = create_app(ServerSettings(), Models(ServedModel(lambda _: scorer_of(NumberedModel()))))
    with TestClient(app) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        for count in (3, 2000):
            body = {"query": "a", "documents": ["1"] * count, "explain": True}
            assert len(client.post("/v1/rerank", json=body).json()["results"]) == count
    assert threads[2000].startswith("rerankd-large") and not threads[3].startswith("rerankd-large")


def test_small_calls_are_read_in_the_loop_and_others_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[int, list[str]] = {}
    read, write = VLLMRerank.read, VLLMRerank.reply

    def watched_read(self: VLLMRerank, body: Body) -> Any:
        threads[len(body.documents)] = [threading.current_thread().name]
        return read(self, body)

    def watched_reply(self: VLLMRerank, answer: Any) -> Any:  # in the loop
        threads[len(answer.ranking.scores)].append(threading.current_thread().name)
        return write(self, answer)

    monkeypatch.setattr(VLLMRerank, "read", watched_read)
    monkeypatch.setattr(VLLMRerank, "reply", watched_reply)
    app = create_app(ServerSettings(), Models(ServedModel(lambda _: scorer_of(NumberedModel()))))
    with TestClient(app) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        for count in (20, 900):
            body = {"query": "a" * 4000 if count == 900 else "a", "documents": ["1"] * count}
            assert len(client.post("/v1/rerank", json=body).json()["results"]) == count
    assert threads[20][0] == threads[20][1] and threads[900][0] != threads[900][1]
