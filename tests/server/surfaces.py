"""The rerank surfaces as a caller sees them: how to ask, what an answer says, where an error is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

JSON = dict[str, Any]

QUERY = "What is the capital of China?"
DOCUMENTS = ("The capital of China is Beijing.", "Gravity is a force.", "Bread is baked.")

# status: (DashScope's code, its compatible code, its compatible type, vLLM's type)
CODES = {
    400: ("InvalidParameter", "invalid_parameter_error", "invalid_request_error", ("BadRequestError", "Bad Request")),
    401: ("InvalidApiKey", "invalid_api_key", "invalid_request_error", ("Unauthorized",)),
    404: ("ModelNotFound", "model_not_found", "invalid_request_error", ("NotFoundError",)),
    405: ("InvalidParameter", "", "", ("BadRequestError",)),
    408: ("RequestTimeOut", "request_timeout", "invalid_request_error", ("BadRequestError",)),
    500: ("InternalError", "internal_error", "server_error", ("InternalServerError",)),
    503: ("ServiceUnavailable", "service_unavailable", "server_error", ("Service Unavailable",)),
}


@dataclass(frozen=True)
class Surface:
    """One path and the dialect it speaks."""

    path: str
    dialect: Literal["native", "compatible", "rerank", "score"]

    def __str__(self) -> str:
        return self.path

    @property
    def is_dashscope(self) -> bool:
        return self.dialect in ("native", "compatible")

    def body(self, query: Any = QUERY, documents: Any = DOCUMENTS, **options: Any) -> JSON:
        """A request; `options` are fields beside query and documents, wherever the dialect has them."""
        if isinstance(documents, tuple):
            documents = list(documents)
        if self.dialect == "score":
            return {"queries": query, "documents": documents, **options}
        if self.dialect == "rerank":
            return {"query": query, "documents": documents, **options}
        model = {"model": options.pop("model", "qwen3-rerank")}
        if self.dialect == "compatible":
            return {**model, "query": query, "documents": documents, **options}
        return {**model, "input": {"query": query, "documents": documents}, "parameters": options}

    def field(self, name: str) -> str:
        """Where a field of `body` is, as an error calls it."""
        if self.dialect == "native" and name != "model":
            return f"input.{name}" if name in ("query", "documents") else f"parameters.{name}"
        return "queries" if self.dialect == "score" and name == "query" else name

    def with_field(self, name: str, *value: Any) -> JSON:
        """A good body with one field set to a value, or, without a value, left out."""
        body = self.body()
        *parents, key = self.field(name).split(".")
        holder = body
        for parent in parents:
            holder = holder[parent]
        holder.pop(key, None)
        if value:
            holder[key] = value[0]
        return body

    def scores(self, response: httpx.Response) -> list[tuple[int, float]]:
        """(index, score) of each result in the reply's order."""
        assert response.status_code == 200, response.text[:1000]
        reply = response.json()
        if self.dialect == "score":
            return [(row["index"], row["score"]) for row in reply["data"]]
        results = reply["output"]["results"] if self.dialect == "native" else reply["results"]
        return [(row["index"], row["relevance_score"]) for row in results]

    def warnings(self, response: httpx.Response) -> str:
        """What the reply warns of, in the header that every surface has; also in the body where there is room."""
        header = response.headers.get("x-rerankd-warning", "")
        if self.dialect in ("compatible", "rerank"):
            listed = response.json().get("meta", {}).get("warnings", [])
            assert "; ".join(listed)[:200] == header[:200]
        return str(header)

    def error(self, response: httpx.Response, status: int) -> str:
        """The error's text, after checking that each kind of client finds it where it looks."""
        assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text[:1000]}"
        assert response.headers["content-type"].startswith("application/json")
        assert "Traceback" not in response.text
        assert response.headers["x-request-id"]
        if status == 401:
            assert response.headers["www-authenticate"] == "Bearer"
        if status == 503:
            assert int(response.headers["retry-after"]) >= 1
        body = response.json()
        checks: dict[str, Callable[[JSON, int, str], str]] = {
            "native": _check_flat,
            "compatible": _check_compatible,
            "rerank": _check_union,
            "score": _check_vllm,
        }
        return checks[self.dialect](body, status, response.headers["x-request-id"])


def _check_flat(body: JSON, status: int, request_id: str) -> str:
    """The classic dashscope SDK, Spring AI Alibaba and LiteLLM read these three at the top."""
    assert set(body) == {"code", "message", "request_id"}
    assert body["code"] == CODES[status][0]
    assert body["request_id"] == request_id
    assert isinstance(body["message"], str) and body["message"]
    return str(body["message"])


def _check_compatible(body: JSON, status: int, request_id: str) -> str:
    """The openai SDK reads `error`, LiteLLM and the classic dashscope SDK the top."""
    nested = body.pop("error")
    assert set(nested) == {"message", "type", "param", "code"}
    assert (nested["code"], nested["type"]) == CODES[status][1:3]
    assert nested["param"] is None or isinstance(nested["param"], str)
    assert nested["message"] == body["message"]
    return _check_flat(body, status, request_id)


def _check_union(body: JSON, status: int, request_id: str) -> str:
    """vLLM-aware clients read `error`, Cohere's `message`, Voyage's, LangChain's and Haystack's `detail`."""
    message = _check_vllm_object(body["error"], status)
    assert set(body) == {"error", "message", "detail", "code", "request_id", "id"}
    assert body["message"] == body["detail"] == message
    assert body["code"] == CODES[status][0]
    assert body["request_id"] == body["id"] == request_id
    return message


def _check_vllm(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"error"}
    if status == 401:
        assert body["error"] == "Unauthorized"
        return "Unauthorized"
    return _check_vllm_object(body["error"], status)


def _check_vllm_object(nested: JSON, status: int) -> str:
    assert set(nested) == {"message", "type", "param", "code"}
    assert nested["code"] == status
    assert nested["type"] in CODES[status][3]
    assert nested["param"] is None or isinstance(nested["param"], str)
    assert isinstance(nested["message"], str) and nested["message"]
    return str(nested["message"])


NATIVE = Surface("/api/v1/services/rerank/text-rerank/text-rerank", "native")
COMPATIBLE = Surface("/compatible-api/v1/reranks", "compatible")
RESELLER = Surface("/v1/reranks", "compatible")
RERANK = Surface("/v1/rerank", "rerank")
RERANK_BARE = Surface("/rerank", "rerank")
RERANK_V2 = Surface("/v2/rerank", "rerank")
SCORE = Surface("/v1/score", "score")
SCORE_BARE = Surface("/score", "score")

DASHSCOPE = (NATIVE, COMPATIBLE, RESELLER)
VLLM = (RERANK, RERANK_BARE, RERANK_V2, SCORE, SCORE_BARE)
ALL = DASHSCOPE + VLLM
ONE_EACH: Sequence[Surface] = (NATIVE, COMPATIBLE, RERANK, SCORE)
"""One path of each dialect, for cases that are the same on all its paths."""
