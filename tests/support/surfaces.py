"""The rerank surfaces as a caller sees them: how to ask, what an answer says, where an error is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

JSON = dict[str, Any]

QUERY = "What is the capital of China?"
DOCUMENTS = ("The capital of China is Beijing.", "Gravity is a force.", "Bread is baked.")

# status: (DashScope's code, its compatible code, its compatible type, vLLM's type)
CODES: dict[int, tuple[str, str, str, tuple[str, ...]]] = {
    400: ("InvalidParameter", "invalid_parameter_error", "invalid_request_error", ("BadRequestError", "Bad Request")),
    401: ("InvalidApiKey", "invalid_api_key", "invalid_request_error", ("Unauthorized",)),
    404: ("ModelNotFound", "model_not_found", "invalid_request_error", ("NotFoundError",)),
    405: ("InvalidParameter", "", "", ("BadRequestError",)),
    415: (
        "InvalidParameter",
        "invalid_parameter_error",
        "invalid_request_error",
        ("BadRequestError", "InvalidParameter"),
    ),
    408: ("RequestTimeOut", "request_timeout", "invalid_request_error", ("BadRequestError",)),
    429: ("Throttling.RateQuota", "limit_requests", "requests", ("Too Many Requests",)),
    500: ("InternalError", "internal_error", "server_error", ("InternalServerError",)),
    503: ("ServiceUnavailable", "service_unavailable", "server_error", ("Service Unavailable",)),
}


# Where a dialect has other statuses for what most of them tell with the first one.
STATUSES = {
    ("tei", 400): (400, 413, 422),
    ("tei", 500): (424,),
    ("tei", 503): (429, 503),
    ("infinity", 400): (413, 422),
    ("infinity", 503): (429, 503),
    ("llamacpp", 400): (400, 413),
}

# dialect: status: its words for the kind of error
TYPES: dict[str, dict[int, tuple[str, ...]]] = {
    "tei": {
        400: ("Empty", "Validation"),
        405: ("Validation",),
        408: ("Validation",),
        415: ("Validation",),
        413: ("Validation",),
        422: ("Validation",),
        424: ("Backend",),
        429: ("Overloaded",),
        503: ("Unhealthy",),
    },
    "infinity": {
        429: ("too_many_requests",),
        500: ("internal_server_error",),
        503: ("service_unavailable",),
    },
    "sglang": {
        400: ("BadRequestError",),
        401: ("Unauthorized",),
        405: ("BadRequestError",),
        408: ("BadRequestError",),
        415: ("BadRequestError",),
        429: ("TooManyRequestsError",),
        500: ("InternalServerError",),
        503: ("ServiceUnavailableError",),
    },
    "llamacpp": {
        400: ("invalid_request_error", "exceed_context_size_error"),
        401: ("authentication_error",),
        405: ("invalid_request_error",),
        408: ("invalid_request_error",),
        415: ("invalid_request_error",),
        413: ("invalid_request_error",),
        429: ("unavailable_error",),
        500: ("server_error",),
        503: ("unavailable_error",),
    },
}


@dataclass(frozen=True)
class Surface:
    """One path and the dialect it speaks."""

    path: str
    dialect: Literal["native", "compatible", "rerank", "score", "tei", "infinity", "sglang", "llamacpp"]

    def __str__(self) -> str:
        return self.path

    @property
    def is_dashscope(self) -> bool:
        return self.dialect in ("native", "compatible")

    @property
    def is_vllm(self) -> bool:
        return self.dialect in ("rerank", "score")

    @property
    def tells_names(self) -> bool:
        """Whether a model that is not served is refused; elsewhere every name is answered, with a warning."""
        return self.is_dashscope or self.is_vllm

    @property
    def tells_keys(self) -> bool:
        """Whether the error for a key says more than that it is not authorized."""
        return self.is_dashscope or self.dialect in ("rerank", "llamacpp", "sglang")

    @property
    def cuts(self) -> bool:
        """Whether a prompt over the served context is cut without being asked to."""
        return not self.is_vllm and self.dialect != "llamacpp"

    def body(self, query: Any = QUERY, documents: Any = DOCUMENTS, **options: Any) -> JSON:
        """A request; `options` are fields beside query and documents, wherever the dialect has them."""
        if isinstance(documents, tuple):
            documents = list(documents)
        if not self.is_dashscope:
            return {self.field("query"): query, self.field("documents"): documents, **options}
        model = {"model": options.pop("model", "qwen3-rerank")}
        if self.dialect == "compatible":
            return {**model, "query": query, "documents": documents, **options}
        return {**model, "input": {"query": query, "documents": documents}, "parameters": options}

    def field(self, name: str) -> str:
        """Where a field of `body` is, as an error calls it."""
        if self.dialect == "native" and name != "model":
            return f"input.{name}" if name in ("query", "documents") else f"parameters.{name}"
        return {("score", "query"): "queries", ("tei", "documents"): "texts"}.get((self.dialect, name), name)

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

    def scores(self, response: httpx2.Response) -> list[tuple[int, float]]:
        """(index, score) of each result in the reply's order."""
        assert response.status_code == 200, response.text[:1000]
        reply = response.json()
        if self.dialect in ("tei", "sglang"):
            return [(row["index"], row["score"]) for row in reply]
        if self.dialect == "score":
            return [(row["index"], row["score"]) for row in reply["data"]]
        results = reply["output"]["results"] if self.dialect == "native" else reply["results"]
        return [(row["index"], row["relevance_score"]) for row in results]

    def tokens(self, response: httpx2.Response) -> int:
        """What the reply says was computed; SGLang's says so only where it is to be explained."""
        if self.dialect == "tei":
            return int(response.headers["x-compute-tokens"])
        if self.dialect == "sglang":
            return sum(row["explain"]["prompt_tokens"] for row in response.json())
        return int(response.json()["usage"]["total_tokens"])

    def warnings(self, response: httpx2.Response) -> str:
        """What the reply warns of, in the header that every surface has; also in the body where there is room."""
        header = response.headers.get("x-rerankd-warning", "")
        if self.dialect in ("compatible", "rerank"):
            listed = response.json().get("meta", {}).get("warnings", [])
            assert "; ".join(listed)[:200] == header[:200]
        return str(header)

    def error(self, response: httpx2.Response, status: int) -> str:
        """The error's text, after checking that each kind of client finds it where it looks."""
        spoken = STATUSES.get((self.dialect, status), (status,))
        assert response.status_code in spoken, f"{response.status_code} instead of {spoken}: {response.text[:1000]}"
        assert "Traceback" not in response.text
        assert response.headers["x-request-id"]
        if status == 401:
            assert response.headers["www-authenticate"] == "Bearer"
        if status in (429, 503):
            assert int(response.headers["retry-after"]) >= 1
        if self.dialect == "tei" and status == 401:
            assert response.content == b""
            return ""
        assert response.headers["content-type"].startswith("application/json")
        checks: dict[str, Callable[[JSON, int, str], str]] = {
            "native": _check_flat,
            "compatible": _check_compatible,
            "rerank": _check_union,
            "score": _check_vllm,
            "tei": _check_tei,
            "infinity": _check_infinity,
            "sglang": _check_sglang,
            "llamacpp": _check_llamacpp,
        }
        return checks[self.dialect](response.json(), response.status_code, response.headers["x-request-id"])


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


def _check_tei(body: JSON, status: int, request_id: str) -> str:
    """Haystack's ranker reads both."""
    assert set(body) == {"error", "error_type"}
    assert body["error_type"] in TYPES["tei"][status] and body["error"]
    return str(body["error"])


def _check_infinity(body: JSON, status: int, request_id: str) -> str:
    """FastAPI's `detail` for what the caller did, OpenAI's `error` for the server's own troubles."""
    if status >= 429:
        nested = body["error"]
        assert set(body) == {"error"} and set(nested) == {"message", "type", "param", "code"}
        assert nested["type"] in TYPES["infinity"][status]
        assert (nested["param"], nested["code"]) == (None, status)
        return str(nested["message"])
    assert set(body) == {"detail"}
    if status != 422:
        assert isinstance(body["detail"], str) and body["detail"]
        return str(body["detail"])
    for mistake in body["detail"]:
        assert set(mistake) == {"type", "loc", "msg", "input"} and mistake["loc"][0] == "body"
    return "; ".join(f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in body["detail"])


def _check_sglang(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"object", "message", "type", "param", "code"}
    assert (body["object"], body["code"]) == ("error", status) and body["type"] in TYPES["sglang"][status]
    assert body["param"] is None or isinstance(body["param"], str)
    return str(body["message"])


def _check_llamacpp(body: JSON, status: int, request_id: str) -> str:
    nested = body["error"]
    assert set(body) == {"error"} and set(nested) == {"code", "message", "type"}
    assert nested["code"] == status and nested["type"] in TYPES["llamacpp"][status]
    return str(nested["message"])


NATIVE = Surface("/api/v1/services/rerank/text-rerank/text-rerank", "native")
COMPATIBLE = Surface("/compatible-api/v1/reranks", "compatible")
RESELLER = Surface("/v1/reranks", "compatible")
RERANK = Surface("/v1/rerank", "rerank")
RERANK_BARE = Surface("/rerank", "rerank")
RERANK_V2 = Surface("/v2/rerank", "rerank")
SCORE = Surface("/v1/score", "score")
SCORE_BARE = Surface("/score", "score")
TEI = Surface("/tei/rerank", "tei")
INFINITY = Surface("/infinity/rerank", "infinity")
SGLANG = Surface("/sglang/v1/rerank", "sglang")
LLAMA_CPP = Surface("/llamacpp/rerank", "llamacpp")

DASHSCOPE = (NATIVE, COMPATIBLE, RESELLER)
VLLM = (RERANK, RERANK_BARE, RERANK_V2, SCORE, SCORE_BARE)
OTHERS = (TEI, INFINITY, SGLANG, LLAMA_CPP)
ALL = DASHSCOPE + VLLM + OTHERS
ONE_EACH: Sequence[Surface] = (NATIVE, COMPATIBLE, RERANK, SCORE, *OTHERS)
"""One path of each dialect, for cases that are the same on all its paths."""
