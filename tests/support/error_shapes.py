"""The shapes of the APIs' error bodies: each check returns the error's text, where each kind of client looks for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

JSON = dict[str, Any]

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


# The statuses of an API for an error that most APIs answer with the first one.
STATUSES = {
    ("tei", 400): (400, 413, 422),
    ("tei", 500): (424,),
    ("tei", 503): (429, 503),
    ("infinity", 400): (413, 422),
    ("infinity", 503): (429, 503),
    ("llamacpp", 400): (400, 413),
}

# API: status: its words for the kind of error
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

MIXEDBREAD_TYPES = {
    401: "unauthorized_error",
    404: "not_found_error",
    405: "bad_request_error",
    422: "validation_error",
    429: "too_many_requests_error",
    500: "server_error",
    503: "server_error",
}

JINA_CODES = {
    400: ("INPUT_MODEL_NOT_FOUND", "INPUT_TOKEN_LIMIT_EXCEEDED"),
    401: ("AUTH_MISSING_API_KEY", "AUTH_INVALID_API_KEY"),
    405: ("METHOD_NOT_ALLOWED",),
    413: ("PAYLOAD_TOO_LARGE",),
    429: ("RATE_REQUEST_LIMIT_EXCEEDED",),
    500: ("INTERNAL_ERROR",),
    503: ("SERVICE_UNAVAILABLE",),
}


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


def _check_jina(body: JSON, status: int, request_id: str) -> str:
    """Flat for a key, with a list for a mistake in a field, nested for all else; `detail` is always there."""
    flat = body if status in (401, 422) else body["detail"]
    assert flat["request_id"] == uuid.UUID(request_id).hex
    if status == 422:
        assert set(body) == {"detail", "request_id", "errors"}
        for mistake in body["errors"]:
            assert set(mistake) == {"field", "message", "type", "input"}
            assert mistake["field"].startswith("body") and mistake["message"] and mistake["type"]
        return str(body["detail"])
    assert flat["code"] in JINA_CODES[status]
    if status == 401:
        assert set(body) == {"detail", "request_id", "code"}
        return str(body["detail"])
    assert set(body) == {"detail"} and set(flat) == {"message", "request_id", "code"}
    return str(flat["message"])


def _check_cohere(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"id", "message"} and body["id"] == request_id
    return str(body["message"])


def _check_mixedbread(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"type", "url", "message", "details"} and body["url"] is None
    assert body["type"] == MIXEDBREAD_TYPES[status]
    return str(body["message"])


def _check_nim(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"object", "message", "type", "title", "status", "detail"}
    assert body["detail"] == body["message"] and body["status"] == status
    return str(body["message"])


def _check_detail(body: JSON, status: int, request_id: str) -> str:
    assert set(body) == {"detail"} and isinstance(body["detail"], str)
    return str(body["detail"])


CHECKS: dict[str, Callable[[JSON, int, str], str]] = {
    "dashscope-native": _check_flat,
    "dashscope-compatible": _check_compatible,
    "vllm-rerank": _check_union,
    "vllm-score": _check_vllm,
    "cohere-v1": _check_cohere,
    "cohere-v2": _check_cohere,
    "jina": _check_jina,
    "voyage": _check_detail,
    "tei": _check_tei,
    "infinity": _check_infinity,
    "sglang": _check_sglang,
    "llamacpp": _check_llamacpp,
    "mixedbread": _check_mixedbread,
    "xinference": _check_detail,
    "nim": _check_nim,
}
"""By the name of the API in `rerankd.apis.facts`: of (body, status, request id)."""
