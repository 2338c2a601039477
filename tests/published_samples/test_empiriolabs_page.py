"""EmpirioLabs' page: its curl sample, its table of parameters, and its limits.

The sample sends only `prompt`, which the page's own table does not know; query and documents are what it documents.
Limits in tokens are tested on a Qwen3-Reranker (small, random), because the embedded model counts its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.server import Server

SAMPLE = Path(__file__).parent / "empiriolabs/reranks.sh"
PROMPT = '"prompt": "Your input here."'
PATH = "/v1/reranks"
DEFAULT_INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query."
SIMILARITY = "Retrieve semantically similar text."

QUERY = "What is the capital of China?"
DOCUMENTS = ["Paris is the capital of France.", "The capital of China is Beijing.", "Gravity attracts two bodies."]
BODY = {"model": "qwen3-rerank", "query": QUERY, "documents": DOCUMENTS}


def _curl(server: Server, text: str, folder: Path) -> tuple[int, Any]:
    """(status, reply) of the sample, with the base URL replaced and the key in the variable that it names."""
    headers = folder / "headers.txt"
    (folder / ".curlrc").write_text(f'silent\nshow-error\ndump-header = "{headers}"\n')
    environment = {**os.environ, "EMPIRIOLABS_API_KEY": server.key, "CURL_HOME": str(folder)}
    text = text.replace("https://api.empiriolabs.ai", server.url)
    ended = subprocess.run(["bash", "-eu", "-c", text], capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return int(headers.read_text().split()[1]), json.loads(ended.stdout)


def _words(count: int) -> str:
    """As many tokens as words, in the vocabularies of Qwen3 and of the embedded model."""
    return " ".join(["cat"] * count)


def _total_tokens(reply: Any) -> int:
    return int(reply["usage"]["total_tokens"])


def test_the_curl_sample_is_told_what_it_lacks_and_what_it_sends_in_vain(
    embedded_server: Server, tmp_path: Path
) -> None:
    status, reply = _curl(embedded_server, SAMPLE.read_text(), tmp_path)
    assert status == 400
    message = "Field required: query & Field required: documents & Unknown field: prompt"
    assert reply["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": "query",
        "code": "invalid_parameter_error",
    }
    assert (reply["code"], reply["message"]) == ("InvalidParameter", message)
    assert reply["request_id"]


def test_the_curl_sample_works_with_the_parameters_of_the_table(embedded_server: Server, tmp_path: Path) -> None:
    parameters = {
        "query": QUERY,
        "documents": DOCUMENTS,
        "top_n": 2,
        "instruct": DEFAULT_INSTRUCT,
        "return_documents": True,
    }
    sample = SAMPLE.read_text().replace(PROMPT, json.dumps(parameters)[1:-1])
    status, reply = _curl(embedded_server, sample, tmp_path)
    assert status == 200
    assert reply["model"] == "qwen3-rerank"
    assert [(result["index"], result["document"]) for result in reply["results"]] == [
        (1, {"text": DOCUMENTS[1]}),
        (0, {"text": DOCUMENTS[0]}),
    ]
    assert _total_tokens(reply) > 0
    assert "meta" not in reply  # no warning


@pytest.mark.parametrize("field", ["query", "documents"])
def test_query_and_documents_have_no_default(embedded_server: Server, field: str) -> None:
    reply = embedded_server.post(PATH, {name: value for name, value in BODY.items() if name != field})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == f"Field required: {field}"
    assert reply.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("top_n", "results"),
    # The cell says 10, the text beside it "Defaults to all", as Alibaba's own pages do: all 12 come back.
    [(None, 12), (1, 1), (11, 11), (12, 12), (500, 12), (2.0, 2)],
)
def test_top_n_from_1_to_500_and_all_by_default(embedded_server: Server, top_n: float | None, results: int) -> None:
    body: dict[str, Any] = {**BODY, "documents": [f"Sentence {number}." for number in range(12)]}
    if top_n is not None:
        body["top_n"] = top_n
    reply = embedded_server.post(PATH, body)
    assert reply.status_code == 200
    assert len(reply.json()["results"]) == results


@pytest.mark.parametrize("top_n", [0, -1, 2.5, "many"])
def test_top_n_out_of_range_is_refused(embedded_server: Server, top_n: Any) -> None:
    reply = embedded_server.post(PATH, {**BODY, "top_n": top_n})
    assert reply.status_code == 400
    assert "top_n" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "echoed"), [({}, False), ({"return_documents": False}, False), ({"return_documents": True}, True)]
)
def test_return_documents_is_false_by_default(embedded_server: Server, sent: dict[str, bool], echoed: bool) -> None:
    results = embedded_server.post(PATH, {**BODY, **sent}).json()["results"]
    assert [result.get("document") for result in results] == [
        {"text": DOCUMENTS[result["index"]]} if echoed else None for result in results
    ]
    assert all(("document" in result) == echoed for result in results)


def _scores(server: Server, **more: str) -> list[float]:
    reply = server.post(PATH, {**BODY, **more}).json()
    return [result["relevance_score"] for result in sorted(reply["results"], key=lambda result: result["index"])]


def test_the_default_instruct_is_the_documented_one(qwen_server: Server) -> None:
    assert _scores(qwen_server) == pytest.approx(_scores(qwen_server, instruct=DEFAULT_INSTRUCT), abs=1e-6)


@pytest.mark.parametrize("instruct", [SIMILARITY, DEFAULT_INSTRUCT.rstrip("."), "Find the capital of a country."])
def test_another_instruct_gives_other_scores(qwen_server: Server, instruct: str) -> None:
    default, other = _scores(qwen_server), _scores(qwen_server, instruct=instruct)
    assert max(abs(one - another) for one, another in zip(default, other, strict=True)) > 1e-4


def test_tokens_are_counted_by_the_documented_formula(qwen_server: Server, reference_tokenizer: Any) -> None:
    """query_tokens × n_docs + sum_of_doc_tokens, which top_n does not change."""

    def count(text: str) -> int:
        return len(reference_tokenizer(text, add_special_tokens=False)["input_ids"])

    expected = count(QUERY) * len(DOCUMENTS) + sum(map(count, DOCUMENTS))
    for more in ({}, {"top_n": 1}, {"instruct": SIMILARITY}):
        assert _total_tokens(qwen_server.post(PATH, {**BODY, **more}).json()) == expected


def test_500_documents_are_ranked_and_501_refused(embedded_server: Server) -> None:
    documents = [f"Number {number}." for number in range(501)]
    reply = embedded_server.post(PATH, {**BODY, "documents": documents[:500]})
    assert reply.status_code == 200
    assert sorted(result["index"] for result in reply.json()["results"]) == list(range(500))
    reply = embedded_server.post(PATH, {**BODY, "documents": documents})
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    assert "501 documents" in message and "larger than 500" in message


def test_no_documents_are_refused(embedded_server: Server) -> None:
    reply = embedded_server.post(PATH, {**BODY, "documents": []})
    assert reply.status_code == 400
    assert "documents" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "document", "warning"),
    [
        ("cat", _words(4000), None),
        ("cat", _words(4001), "document 0 truncated from 4001 to 4000 tokens"),
        (_words(4000), "cat", None),
        (_words(4001), "cat", "query truncated from 4001 to 4000 tokens"),
    ],
    ids=["document of 4000", "document of 4001", "query of 4000", "query of 4001"],
)
def test_a_text_over_4000_tokens_is_truncated_with_a_warning(
    qwen_server: Server, query: str, document: str, warning: str | None
) -> None:
    reply = qwen_server.post(PATH, {**BODY, "query": query, "documents": [document]})
    assert reply.status_code == 200
    assert reply.json().get("meta") == ({"warnings": [warning]} if warning else None)
    assert reply.headers.get("x-rerankd-warning") == warning
    assert _total_tokens(reply.json()) == 4001  # 4000 + 1


def test_120000_tokens_are_ranked_and_120001_refused(embedded_server: Server) -> None:
    """200 × 500 + 500 × 40; the embedded model computes equal texts once."""
    documents = [_words(40)] * 500
    body = {**BODY, "query": _words(200), "documents": documents}
    reply = embedded_server.post(PATH, body)
    assert reply.status_code == 200
    assert _total_tokens(reply.json()) == 120_000
    reply = embedded_server.post(PATH, {**body, "documents": [*documents[1:], _words(41)]})
    assert reply.status_code == 400
    assert reply.json()["code"] == "InvalidParameter"
    assert "120001 tokens" in reply.json()["message"] and "120000" in reply.json()["message"]
