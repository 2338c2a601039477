"""Jina: every documented field, the two shapes of its errors, and the numbers as it writes them."""

from __future__ import annotations

from typing import Any

import pytest

from support.server import Server
from support.surfaces import DOCUMENTS, JINA, QUERY, RERANK


def reply(server: Server, *texts: Any, **options: Any) -> Any:
    response = server.post(JINA.path, JINA.body(*texts, **options))
    assert response.status_code == 200, response.text[:1000]
    return response.json()


def refused(server: Server, **change: Any) -> Any:
    response = server.post(JINA.path, {**JINA.body(), **change})
    JINA.error(response, 422)
    return response.json()


def test_the_reply(qwen_server: Server) -> None:
    expected = qwen_server.post(RERANK.path, RERANK.body()).json()
    body = reply(qwen_server)
    assert list(body) == ["model", "object", "usage", "results"]
    assert body["model"] == "qwen3-rerank" and body["object"] == "list"
    assert body["usage"] == {"total_tokens": expected["usage"]["total_tokens"]}
    assert body["results"] == [
        {
            "index": row["index"],
            "relevance_score": pytest.approx(row["relevance_score"], abs=1e-6),
            "document": row["document"],
        }
        for row in expected["results"]
    ]


def test_scores_have_8_decimals(qwen_server: Server) -> None:
    for row in reply(qwen_server)["results"]:
        assert row["relevance_score"] == round(row["relevance_score"], 8)


def test_documents_are_returned_unless_they_are_not_wanted(qwen_server: Server) -> None:
    documents = [{"text": "one", "id": 1}, "two"]
    for asked in (None, True):
        rows = reply(qwen_server, QUERY, documents, return_documents=asked)["results"]
        assert {row["index"]: row["document"] for row in rows} == {0: {"text": "one", "id": 1}, 1: {"text": "two"}}
    assert all("document" not in row for row in reply(qwen_server, return_documents=False)["results"])


def test_the_query_may_be_an_object(qwen_server: Server) -> None:
    assert reply(qwen_server, {"text": QUERY})["results"] == reply(qwen_server)["results"]
    assert refused(qwen_server, query={"image": "https://example.org/a.png"})["errors"][0]["field"] == "body -> query"


def test_top_k_is_an_alias(qwen_server: Server) -> None:
    assert reply(qwen_server, top_k=1) == reply(qwen_server, top_n=1)
    response = qwen_server.post(JINA.path, JINA.body(top_n=1, top_k=2))
    assert len(response.json()["results"]) == 1
    assert response.headers["x-rerankd-warning"] == "top_k ignored: top_n says something else"


@pytest.mark.parametrize("name", ["max_doc_length", "max_tokens_per_doc"])
def test_long_documents_are_cut_with_a_warning(name: str, qwen_server: Server) -> None:
    response = qwen_server.post(JINA.path, JINA.body(QUERY, [" the" * 20, "A"], **{name: 5}))
    assert response.headers["x-rerankd-warning"] == "document 0 truncated from 20 to 5 tokens"
    scores = dict(JINA.scores(response))
    assert scores == dict(JINA.scores(qwen_server.post(JINA.path, JINA.body(QUERY, [" the" * 5, "A"]))))


def test_fields_of_others_are_ignored_with_a_warning(qwen_server: Server) -> None:
    response = qwen_server.post(JINA.path, JINA.body(truncation=True, priority=1, user="u", return_embeddings=False))
    assert response.headers["x-rerankd-warning"] == (
        "fields ignored: 'truncation', 'priority', 'user', 'return_embeddings'"
    )
    assert JINA.scores(response) == JINA.scores(qwen_server.post(JINA.path, JINA.body()))


MISTAKES: tuple[tuple[dict[str, Any], str, str, Any], ...] = (
    ({"top_n": 0}, "body -> top_n", "greater_than_equal", 0),
    ({"top_n": -3}, "body -> top_n", "greater_than_equal", -3),
    ({"top_n": "many"}, "body -> top_n", "int_parsing", "many"),
    ({"top_k": 0}, "body -> top_k", "greater_than_equal", 0),
    ({"documents": []}, "body -> documents", "too_short", None),
    ({"documents": ["a", 3]}, "body -> documents -> 1", "string_type", 3),
    ({"documents": None}, "body -> documents", "list_type", None),
    ({"documents": [{"title": "a"}]}, "body -> documents -> 0", "value_error", None),
    ({"return_documents": "perhaps"}, "body -> return_documents", "bool_parsing", "perhaps"),
    ({"max_doc_length": 0}, "body -> max_doc_length", "greater_than_equal", 0),
    ({"max_doc_length": 8193}, "body -> max_doc_length", "less_than_equal", 8193),
    ({"top_n": "x" * 1_000_000}, "body -> top_n", "int_parsing", "x" * 100),
)


def test_422_names_the_field_the_kind_and_the_input(qwen_server: Server, subtests: pytest.Subtests) -> None:
    for change, field, kind, given in MISTAKES:
        with subtests.test(f"{field}: {str(change)[:50]}"):
            body = refused(qwen_server, **change)
            mistake = next(one for one in body["errors"] if one["type"] == kind)
            assert mistake["field"] == field and mistake["input"] == given and mistake["message"]
            first = body["errors"][0]
            assert body["detail"] == f"Validation error: '{first['field']}' {first['message']}"


def test_422_lists_every_mistake(qwen_server: Server) -> None:
    body = qwen_server.post(JINA.path, {"docs": ["a"]}).json()
    assert [(one["field"], one["type"]) for one in body["errors"]] == [
        ("body -> query", "missing"),
        ("body -> documents", "missing"),
        ("body -> docs", "extra_forbidden"),
    ]


def test_422_for_a_number_that_is_infinite(qwen_server: Server) -> None:
    content = b'{"query": "q", "documents": ["a"], "top_n": 1e999}'
    response = qwen_server.post(JINA.path, content=content, headers={"content-type": "application/json"})
    JINA.error(response, 422)
    assert response.json()["errors"][0]["input"] is None


def test_422_for_what_is_no_json(qwen_server: Server) -> None:
    response = qwen_server.post(JINA.path, content=b"{", headers={"content-type": "application/json"})
    [mistake] = response.json()["errors"]
    assert (mistake["field"], mistake["type"]) == ("body", "json_invalid")


def test_400_is_nested(qwen_server: Server) -> None:
    unknown = qwen_server.post(JINA.path, JINA.body(model="xyz"))
    assert unknown.status_code == 400
    assert unknown.json()["detail"]["code"] == "INPUT_MODEL_NOT_FOUND"
    too_long = qwen_server.post(JINA.path, JINA.body(instruct=" the" * 9000))
    assert too_long.status_code == 400
    assert too_long.json()["detail"]["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"


def test_401_is_flat(qwen_server: Server) -> None:
    missing = qwen_server.post(JINA.path, JINA.body(), headers={"authorization": ""}).json()
    assert missing["code"] == "AUTH_MISSING_API_KEY"
    assert missing["detail"].startswith("Authentication required")
    wrong = qwen_server.post(JINA.path, JINA.body(), key="wrong").json()
    assert (wrong["code"], wrong["detail"]) == ("AUTH_INVALID_API_KEY", "Invalid API key")


def test_request_ids_have_32_digits_or_are_the_callers(qwen_server: Server) -> None:
    ours = qwen_server.post(JINA.path, {})
    assert ours.json()["request_id"] == ours.headers["x-request-id"].replace("-", "")
    theirs = qwen_server.post(JINA.path, {}, headers={"x-request-id": "my-request"})
    assert theirs.json()["request_id"] == theirs.headers["x-request-id"] == "my-request"


def test_one_document(qwen_server: Server) -> None:
    assert [row["index"] for row in reply(qwen_server, QUERY, [DOCUMENTS[0]])["results"]] == [0]
