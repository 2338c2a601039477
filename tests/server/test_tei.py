"""text-embeddings-inference: `/rerank`, `/predict`, `/info` and `/health`, in their folder and on the shared paths."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from support.faults import FAULTS, small
from support.server import Server
from support.surfaces import DOCUMENTS, QUERY, RERANK, TEI

LONG = "BEGIN " + "the " * 9000 + "END"
PAIRS = [[QUERY, DOCUMENTS[0]], ["Explain gravity", DOCUMENTS[1]]]


@pytest.fixture(scope="module")
def rerank(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts to /tei/rerank."""
    return lambda documents=DOCUMENTS, **options: qwen_server.post(TEI.path, TEI.body(documents=documents, **options))


@pytest.fixture(scope="module")
def predict(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts to /tei/predict."""
    return lambda inputs, **options: qwen_server.post("/tei/predict", {"inputs": inputs, **options})


# Fields of /rerank.


def test_the_same_pairs_have_the_same_scores_as_on_v1_rerank(
    rerank: Callable[..., httpx2.Response], qwen_server: Server
) -> None:
    expected = RERANK.scores(qwen_server.post(RERANK.path, RERANK.body()))
    assert TEI.scores(rerank()) == expected  # no ties among these
    assert len({score for _, score in expected}) == 3


def test_the_reply_is_a_bare_sorted_list_without_texts(rerank: Callable[..., httpx2.Response]) -> None:
    ranks = rerank().json()
    assert all(list(rank) == ["index", "score"] for rank in ranks)
    assert [rank["score"] for rank in ranks] == sorted((rank["score"] for rank in ranks), reverse=True)


@pytest.mark.parametrize(
    ("asked", "there"), [(True, True), ("true", True), (False, False), ("false", False), (None, 0)]
)
def test_return_text(asked: Any, there: bool, rerank: Callable[..., httpx2.Response]) -> None:
    for rank in rerank(return_text=asked).json():
        assert rank.get("text", "absent") == (DOCUMENTS[rank["index"]] if there else "absent")


@pytest.mark.parametrize("asked", [True, "true"])
def test_raw_scores(asked: Any, rerank: Callable[..., httpx2.Response]) -> None:
    scores, logits = TEI.scores(rerank(raw_scores=False)), TEI.scores(rerank(raw_scores=asked))
    assert [index for index, _ in logits] == [index for index, _ in scores]
    for (_, score), (_, logit) in zip(scores, logits, strict=True):
        assert score == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize("asked", [None, True, "true"])
def test_truncate_is_on_by_default_and_visible(asked: Any, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(["short", LONG], truncate=asked)
    assert len(TEI.scores(response)) == 2
    assert "document 1 truncated from" in response.headers["x-rerankd-warning"]


@pytest.mark.parametrize("asked", [False, "false"])
def test_error_too_long_with_truncate_false(asked: Any, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(["short", LONG], truncate=asked)
    assert response.status_code == 422
    assert response.json()["error"].startswith("`inputs` must have less than 8192 tokens: text 1 has more.")
    assert response.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("direction", "kept"),
    [("Left", "END"), ("left", "END"), ("Right", "BEGIN"), ("right", "BEGIN"), ("RIGHT", "BEGIN"), (None, "BEGIN")],
)
def test_truncation_direction(direction: str | None, kept: str, rerank: Callable[..., httpx2.Response]) -> None:
    [rank] = rerank([LONG], truncation_direction=direction, explain={"prompt": 0}).json()
    prompt = rank["explain"]["prompt"]
    assert kept in prompt and ({"BEGIN", "END"} - {kept}).pop() not in prompt
    assert prompt.endswith("</think>\n\n")  # never the template


@pytest.mark.parametrize("direction", ["middle", "", 3])
def test_error_truncation_direction(direction: Any, rerank: Callable[..., httpx2.Response]) -> None:
    assert "truncation_direction" in TEI.error(rerank(truncation_direction=direction), 400)


def test_ties_come_out_reversed(rerank: Callable[..., httpx2.Response]) -> None:
    one, other = DOCUMENTS[:2]
    indexes = [index for index, _ in TEI.scores(rerank([one, other, one, other, one]))]
    assert [index for index in indexes if index % 2 == 0] == [4, 2, 0]
    assert [index for index in indexes if index % 2] == [3, 1]


def test_more_than_32_texts_are_answered(rerank: Callable[..., httpx2.Response]) -> None:
    assert len(TEI.scores(rerank([f"Document {number}" for number in range(100)]))) == 100


@pytest.mark.parametrize(("top_n", "expected"), [(2, 2), ("2", 2), (99, 3), (0, 3), (None, 3)])
def test_top_n_is_taken_where_it_is_sent(top_n: Any, expected: int, rerank: Callable[..., httpx2.Response]) -> None:
    assert TEI.scores(rerank(top_n=top_n)) == TEI.scores(rerank())[:expected]


def test_no_model_is_named_or_needed(rerank: Callable[..., httpx2.Response]) -> None:
    assert "x-rerankd-warning" not in rerank().headers
    assert rerank(model="anything").headers["x-rerankd-warning"] == "fields ignored: 'model'"


@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_the_instruct_has_two_names(name: str, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(**{name: "Find texts about bread"})
    assert TEI.scores(response) != TEI.scores(rerank())
    assert "x-rerankd-warning" not in response.headers


def test_texts_may_be_objects(rerank: Callable[..., httpx2.Response]) -> None:
    objects = [{"text": text, "id": number} for number, text in enumerate(DOCUMENTS)]
    assert TEI.scores(rerank(objects)) == TEI.scores(rerank())


def test_usage_is_in_the_headers_only(rerank: Callable[..., httpx2.Response], embedded_server: Server) -> None:
    response = rerank(explain=True)
    tokens = sum(rank["explain"]["prompt_tokens"] for rank in response.json())
    assert int(response.headers["x-compute-tokens"]) == tokens
    assert int(response.headers["x-compute-characters"]) == 3 * len(QUERY) + sum(map(len, DOCUMENTS))
    assert response.headers["x-compute-type"] == "cpu"
    assert int(response.headers["x-compute-time"]) == int(response.headers["x-total-time"]) >= 0
    assert int(embedded_server.post(TEI.path, TEI.body()).headers["x-compute-tokens"]) > 0


# /predict.


def test_predict_a_two_string_list_is_one_pair(
    predict: Callable[..., httpx2.Response], rerank: Callable[..., httpx2.Response]
) -> None:
    [prediction] = predict([QUERY, DOCUMENTS[0]]).json()
    assert prediction == {"score": TEI.scores(rerank(DOCUMENTS[:1]))[0][1], "label": "LABEL_0"}


def test_predict_a_list_of_pairs_keeps_its_order(predict: Callable[..., httpx2.Response]) -> None:
    alone = [predict(pair).json() for pair in PAIRS]
    assert predict(PAIRS).json() == alone
    assert predict(PAIRS[::-1]).json() == alone[::-1]
    assert predict(PAIRS[:1]).json() == alone[:1]  # a list of one list


def test_predict_raw_scores_and_headers(predict: Callable[..., httpx2.Response]) -> None:
    response = predict(PAIRS[0], raw_scores=True, explain=True)
    [prediction] = response.json()
    assert prediction["score"] == prediction["explain"]["logit"]
    assert int(response.headers["x-compute-tokens"]) == prediction["explain"]["prompt_tokens"]


def test_predict_truncates(predict: Callable[..., httpx2.Response]) -> None:
    cut = predict([QUERY, LONG], truncation_direction="Left", explain={"prompt": 0})
    assert "END" in cut.json()[0]["explain"]["prompt"] and "truncated" in cut.headers["x-rerankd-warning"]
    assert "less than 8192 tokens" in TEI.error(predict([QUERY, LONG], truncate=False), 400)


@pytest.mark.parametrize("inputs", ["a text", ["a text"], [["a"], ["b", "c"]], [["a", "b", "c"]]])
def test_error_predict_needs_pairs(inputs: Any, predict: Callable[..., httpx2.Response]) -> None:
    response = predict(inputs)
    assert response.status_code == 422 and response.json()["error_type"] == "Validation"
    assert "inputs" in response.json()["error"]


def test_error_predict_without_inputs(predict: Callable[..., httpx2.Response], qwen_server: Server) -> None:
    assert predict([]).status_code == 400
    assert predict([]).json() == {"error": "`inputs` cannot be empty", "error_type": "Empty"}
    assert qwen_server.post("/tei/predict", {}).json()["error"].startswith("inputs: Field required")


# Errors.


def test_error_empty_texts(rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank([])
    assert response.status_code == 400
    assert response.json() == {"error": "`texts` cannot be empty", "error_type": "Empty"}


@pytest.mark.parametrize(
    "body", [{"query": "a"}, {"texts": ["a"]}, {"query": 3, "texts": ["a"]}, {"query": "a", "texts": [3]}]
)
def test_error_wrong_types(body: Any, qwen_server: Server) -> None:
    response = qwen_server.post(TEI.path, body)
    assert response.status_code == 422 and response.json()["error_type"] == "Validation"


def test_error_not_json(qwen_server: Server) -> None:
    response = qwen_server.post(TEI.path, content=b"{")
    assert response.status_code == 400 and "not JSON" in response.json()["error"]


@pytest.mark.parametrize("path", ["/tei/rerank", "/tei/predict", "/tei"])
def test_error_wrong_key_has_an_empty_body(path: str, qwen_server: Server) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "wrong"}):
        response = httpx2.post(qwen_server.url + path, json=TEI.body(), headers=headers)
        assert (response.status_code, response.content) == (401, b"")


def test_the_bare_token_is_a_key_too(qwen_server: Server) -> None:
    """As LlamaIndex sends it."""
    response = httpx2.post(qwen_server.url + TEI.path, json=TEI.body(), headers={"authorization": qwen_server.key})
    assert len(TEI.scores(response)) == 3


def test_error_body_too_large() -> None:
    with small() as client:
        response = client.post(TEI.path, content=b" " * 1_000_001)
    assert response.status_code == 413 and response.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [
        ("loading", 503, "Unhealthy"),
        ("busy", 429, "Overloaded"),
        ("rate limit", 429, "Overloaded"),
        ("internal", 424, "Backend"),
    ],
)
def test_error(fault: str, status: int, error_type: str) -> None:
    with FAULTS[fault]() as client:
        for path, body in (("/tei/rerank", TEI.body(documents=["2"])), ("/tei/predict", {"inputs": ["a", "3"]})):
            response = client.post(path, json=body)
            assert response.status_code == status
            assert set(response.json()) == {"error", "error_type"}
            assert response.json()["error_type"] == error_type
            assert "retry-after" in response.headers or status == 424
            assert "secret" not in response.text


# What is asked with GET.


@pytest.mark.parametrize("path", ["/tei", "/tei/health"])
def test_health_has_an_empty_body(path: str, qwen_server: Server) -> None:
    response = httpx2.get(qwen_server.url + path)
    assert (response.status_code, response.content) == (200, b"")


def test_health_while_loading() -> None:
    with FAULTS["loading"]() as client:
        for path in ("/tei", "/tei/health", "/tei/info"):
            response = client.get(path)
            assert response.status_code == 503 and response.json()["error_type"] == "Unhealthy"


@pytest.mark.parametrize("path", ["/info", "/tei/info"])
def test_info(path: str, qwen_server: Server) -> None:
    info = httpx2.get(qwen_server.url + path, headers={"authorization": f"Bearer {qwen_server.key}"}).json()
    assert set(info) == {
        "model_id",
        "model_sha",
        "model_dtype",
        "served_model_name",
        "model_type",
        "max_concurrent_requests",
        "max_input_length",
        "max_batch_tokens",
        "max_batch_requests",
        "max_client_batch_size",
        "auto_truncate",
        "tokenization_workers",
        "version",
        "sha",
        "docker_label",
    }
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (info["model_dtype"], info["max_input_length"], info["auto_truncate"]) == ("float32", 8192, True)
    assert info["max_client_batch_size"] > 1000 and info["max_batch_tokens"] > 0


def test_info_needs_the_key(qwen_server: Server) -> None:
    response = httpx2.get(f"{qwen_server.url}/tei/info")
    assert (response.status_code, response.content) == (401, b"")


# Paths of several dialects.


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/", "/tei", "/invocations"])
def test_the_key_texts_is_tei_on_the_shared_paths(path: str, qwen_server: Server) -> None:
    expected = qwen_server.post(TEI.path, TEI.body(return_text=True)).json()
    response = qwen_server.post(path, TEI.body(return_text=True))
    assert response.json() == expected and "x-compute-tokens" in response.headers
    assert qwen_server.post(path, TEI.body(documents=[])).json()["error_type"] == "Empty"


@pytest.mark.parametrize("path", ["/predict", "/", "/tei"])
def test_the_key_inputs_is_predict(path: str, qwen_server: Server) -> None:
    expected = qwen_server.post("/tei/predict", {"inputs": PAIRS}).json()
    assert qwen_server.post(path, {"inputs": PAIRS}).json() == expected


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_documents_are_not_tei_on_the_shared_paths(path: str, qwen_server: Server) -> None:
    for body in (RERANK.body(), RERANK.body(texts=None)):
        assert len(qwen_server.post(path, body).json()["results"]) == 3


def test_invocations_goes_by_the_body(qwen_server: Server) -> None:
    assert "results" in qwen_server.post("/invocations", RERANK.body()).json()
    assert "data" in qwen_server.post("/invocations", {"queries": QUERY, "documents": list(DOCUMENTS)}).json()
    assert "data" in qwen_server.post("/invocations", {"text_1": QUERY, "text_2": DOCUMENTS[0]}).json()
    assert set(qwen_server.post("/invocations", {}).json()) == {"error"}  # vLLM score's


@pytest.mark.parametrize(("path", "keys"), [("/", {"error", "error_type"}), ("/tei", {"error", "error_type"})])
def test_what_nobody_claims_is_told_in_the_words_of_tei(path: str, keys: set[str], qwen_server: Server) -> None:
    response = qwen_server.post(path, {"query": "a"})
    assert response.status_code == 422 and set(response.json()) == keys
    assert "texts" in json.dumps(response.json())
