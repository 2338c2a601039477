"""Mixedbread: every documented field, and the bodies of its errors."""

from __future__ import annotations

from typing import Any

import pytest

from support.server import Server
from support.surfaces import DOCUMENTS, MIXEDBREAD, QUERY, RERANK


def reply(server: Server, *texts: Any, **options: Any) -> Any:
    response = server.post(MIXEDBREAD.path, MIXEDBREAD.body(*texts, **options))
    assert response.status_code == 200, response.text[:1000]
    return response.json()


def test_the_reply(qwen_server: Server) -> None:
    expected = qwen_server.post(RERANK.path, RERANK.body()).json()
    body = reply(qwen_server, top_n=1)
    [best] = body.pop("data")
    assert best == {
        "index": expected["results"][0]["index"],
        "score": pytest.approx(expected["results"][0]["relevance_score"], abs=1e-6),
        "input": None,
        "object": "rank_result",
    }
    assert body == {
        "model": "qwen3-rerank",
        "object": "list",
        "usage": {name: expected["usage"][name] for name in ("prompt_tokens", "total_tokens")},
        "top_k": 1,
        "return_input": False,
    }


def test_inputs_are_returned_untouched_when_asked_for(qwen_server: Server) -> None:
    inputs = [{"title": "t", "text": "one"}, "two", {"content": [{"type": "text", "text": "three"}]}]
    body = reply(qwen_server, QUERY, inputs, return_documents=True)
    assert {row["index"]: row["input"] for row in body["data"]} == dict(enumerate(inputs))
    assert body["return_input"] is True


def test_rank_fields_say_what_is_scored(qwen_server: Server) -> None:
    inputs = [{"title": "Beijing", "body": "The capital of China."}, {"title": "Gravity", "body": "A force."}]
    told = reply(qwen_server, QUERY, inputs, rank_fields=["title", "body"], return_documents=True)
    lines = ["title: Beijing\nbody: The capital of China.", "title: Gravity\nbody: A force."]
    plain = reply(qwen_server, QUERY, lines)
    assert [(row["index"], row["score"]) for row in told["data"]] == [
        (row["index"], pytest.approx(row["score"], abs=1e-6)) for row in plain["data"]
    ]
    assert {row["index"]: row["input"] for row in told["data"]} == dict(enumerate(inputs))


@pytest.mark.parametrize(("top_k", "expected"), [(None, 3), (-1, 3), (2, 2), (7, 3)])
def test_top_k(top_k: int | None, expected: int, qwen_server: Server) -> None:
    body = reply(qwen_server, top_n=top_k)
    assert len(body["data"]) == body["top_k"] == expected


def test_the_query_is_not_rewritten_and_this_is_told(qwen_server: Server) -> None:
    response = qwen_server.post(MIXEDBREAD.path, MIXEDBREAD.body(rewrite_query=True))
    assert response.headers["x-rerankd-warning"] == "rewrite_query ignored: the query is scored as it is"
    asked_for = qwen_server.post(MIXEDBREAD.path, MIXEDBREAD.body(rewrite_query=False))
    assert "x-rerankd-warning" not in asked_for.headers
    assert MIXEDBREAD.scores(response) == MIXEDBREAD.scores(asked_for)


def test_the_query_may_be_an_object(qwen_server: Server) -> None:
    """As the older client sends it."""
    assert reply(qwen_server, {"text": QUERY})["data"] == reply(qwen_server)["data"]


@pytest.mark.parametrize(
    ("change", "field", "kind"),
    [
        ({"input": []}, "input", "too_short"),
        ({"input": ["a", 3]}, "input.1", "string_type"),
        ({"input": [{"title": "a"}]}, "input.0", "value_error"),
        ({"top_k": 0}, "top_k", "greater_than_equal"),
        ({"top_k": "many"}, "top_k", "int_parsing"),
        ({"rank_fields": []}, "rank_fields", "too_short"),
        ({"query": None}, "query", "string_type"),
    ],
)
def test_mistakes_are_listed(change: dict[str, Any], field: str, kind: str, qwen_server: Server) -> None:
    response = qwen_server.post(MIXEDBREAD.path, {**MIXEDBREAD.body(), **change})
    message = MIXEDBREAD.error(response, 422)
    details = response.json()["details"]
    assert (field, kind) in [(one["field"], one["type"]) for one in details]
    assert f"{field}: " in message


def test_other_errors_have_no_details(qwen_server: Server) -> None:
    response = qwen_server.post(MIXEDBREAD.path, MIXEDBREAD.body(model="xyz"))
    assert "xyz" in MIXEDBREAD.error(response, 404)
    assert response.json()["details"] is None


def test_one_input(qwen_server: Server) -> None:
    assert [row["index"] for row in reply(qwen_server, QUERY, [DOCUMENTS[0]])["data"]] == [0]
