"""What a reranker of each dialect answers: the shapes of the captures and of the vendors' documentation. No sockets.

The scores are made up but known: `logit_of` gives the published logits for the known-answer check and, for any other
pair, a number that depends on its two texts alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rerankd.client.dialects import DIALECTS
from rerankd.selftest import PUBLISHED_0_6B
from rerankd.selftest import QUERY as KNOWN_QUERY
from rerankd.types import sigmoid

JSON = dict[str, Any]

MODEL = "Qwen/Qwen3-Reranker-0.6B"

REQUEST_ID = "5b6ab4a0-0000-4000-8000-000000000001"


def logit_of(query: str, document: str) -> float:
    """In [-10, 10], in steps of 0.01."""
    if query == KNOWN_QUERY and document in PUBLISHED_0_6B:
        return PUBLISHED_0_6B[document]
    return zlib.crc32(f"{query}\0{document}".encode()) % 2001 / 100 - 10


def texts_of(dialect: str, body: JSON) -> tuple[str, list[str]]:
    """(query, documents) of a request."""
    spoken = DIALECTS[dialect]
    fields = body["input"] if spoken.nested else body
    query, documents = fields[spoken.query], fields[spoken.documents]
    if spoken.wrapped:
        return query["text"], [document["text"] for document in documents]
    return query, documents


def tokens_of(query: str, documents: Sequence[str]) -> int:
    """query × documents + Σ documents, a token for each word."""
    return len(query.split()) * len(documents) + sum(len(document.split()) for document in documents)


def reply_of(dialect: str, body: JSON, scores: Sequence[tuple[int, float]]) -> Any:
    """The reply to a request. scores: (index, score) in the reply's order."""
    spoken = DIALECTS[dialect]
    results = [{"index": index, spoken.score: score, **OF_A_RESULT.get(dialect, {})} for index, score in scores]
    return AROUND[dialect](results, tokens_of(*texts_of(dialect, body)), body.get("model") or MODEL)


def scores_of(dialect: str, body: JSON) -> list[tuple[int, float]]:
    """(index, score) of every document, best first; NIM's score is the logit."""
    query, documents = texts_of(dialect, body)
    logits = [(index, logit_of(query, document)) for index, document in enumerate(documents)]
    logits.sort(key=lambda one: -one[1])
    return logits if DIALECTS[dialect].score == "logit" else [(index, sigmoid(logit)) for index, logit in logits]


OF_A_RESULT: Mapping[str, JSON] = {
    "vllm": {"document": {"text": "", "multi_modal": None}},
    "sglang": {"document": "", "meta_info": None},
    "infinity": {"document": None},
    "mixedbread": {"input": None, "object": "rank_result"},
    "xinference": {"document": None},
}
"""Further fields of a result."""

Around = Callable[[list[JSON], int, str], Any]


def _vllm(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"id": "score-b1d1213f007177cd", "model": model, "usage": _usage(tokens), "results": results}


def _dashscope(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": REQUEST_ID}


def _dashscope_compatible(results: list[JSON], tokens: int, model: str) -> JSON:
    usage = {"total_tokens": tokens}
    return {"object": "list", "results": results, "model": model, "id": REQUEST_ID, "usage": usage}


def _cohere(results: list[JSON], tokens: int, model: str) -> JSON:
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": -(-len(results) // 100)}}
    return {"id": REQUEST_ID, "results": results, "meta": meta}


def _jina(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"model": model, "object": "list", "usage": {"total_tokens": tokens}, "results": results}


def _voyage(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"object": "list", "data": results, "model": model, "usage": {"total_tokens": tokens}}


def _bare(results: list[JSON], tokens: int, model: str) -> list[JSON]:
    return results


def _infinity(results: list[JSON], tokens: int, model: str) -> JSON:
    around = {"object": "rerank", "results": results, "model": model, "usage": _usage(tokens)}
    return {**around, "id": "infinity-3ba9517a", "created": 1795162288}


def _llamacpp(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"model": model, "object": "list", "usage": _usage(tokens), "results": results}


def _mixedbread(results: list[JSON], tokens: int, model: str) -> JSON:
    around = {"usage": _usage(tokens), "model": model, "data": results, "object": "list"}
    return {**around, "top_k": len(results), "return_input": False}


def _xinference(results: list[JSON], tokens: int, model: str) -> JSON:
    meta = {"api_version": None, "billed_units": None, "tokens": None, "warnings": None}
    return {"id": REQUEST_ID, "results": results, "meta": meta}


def _nim(results: list[JSON], tokens: int, model: str) -> JSON:
    return {"rankings": results, "usage": _usage(tokens)}


def _usage(tokens: int) -> JSON:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


AROUND: Mapping[str, Around] = {
    "vllm": _vllm,
    "dashscope": _dashscope,
    "dashscope-compatible": _dashscope_compatible,
    "cohere": _cohere,
    "jina": _jina,
    "voyage": _voyage,
    "tei": _bare,
    "infinity": _infinity,
    "sglang": _bare,
    "llamacpp": _llamacpp,
    "mixedbread": _mixedbread,
    "xinference": _xinference,
    "nim": _nim,
}


def error_of(dialect: str, status: int, message: str, code: str = "") -> Any:
    """The body of an error."""
    return ERRORS.get(dialect, _detail)(status, message, code)


def _detail(status: int, message: str, code: str) -> JSON:
    return {"detail": message}


def _flat(status: int, message: str, code: str) -> JSON:
    return {"code": code or "InvalidParameter", "message": message, "request_id": REQUEST_ID}


def _openai(status: int, message: str, code: str) -> JSON:
    return {"error": {"message": message, "type": code or "BadRequestError", "param": None, "code": status}}


def _cohere_error(status: int, message: str, code: str) -> JSON:
    return {"id": REQUEST_ID, "message": message}


def _tei(status: int, message: str, code: str) -> JSON:
    return {"error": message, "error_type": code or "Validation"}


def _sglang(status: int, message: str, code: str) -> JSON:
    return {"object": "error", "message": message, "type": code or "BadRequestError", "param": None, "code": status}


def _jina_error(status: int, message: str, code: str) -> JSON:
    return {"detail": {"message": message, "request_id": REQUEST_ID, "code": code}} if code else {"detail": message}


ERRORS: Mapping[str, Callable[[int, str, str], JSON]] = {
    "vllm": _openai,
    "dashscope": _flat,
    "dashscope-compatible": _flat,
    "cohere": _cohere_error,
    "jina": _jina_error,
    "tei": _tei,
    "sglang": _sglang,
    "llamacpp": _openai,
    "nim": _sglang,
}
