"""The dialects that are spoken purely under a folder of their own: how to ask, what an answer says, how errors look."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx2

from support.surfaces import DOCUMENTS, JSON, QUERY


@dataclass(frozen=True)
class Folder:
    """One dialect on its own path.

    documents, top, echo, results, score: its names of these fields. wrong, unknown_model: its statuses for a mistake
    in the body, and for a model that is not served. decimals: of its scores.
    """

    dialect: str
    path: str
    documents: str = "documents"
    top: str = "top_n"
    echo: str = "return_documents"
    results: str = "results"
    score: str = "relevance_score"
    wrong: int = 400
    unknown_model: int = 404
    decimals: int | None = None

    def __str__(self) -> str:
        return self.path

    def body(self, query: Any = QUERY, documents: Any = DOCUMENTS, **options: Any) -> JSON:
        """A request; the options `top_n` and `return_documents` are written as the dialect calls them."""
        names = {"top_n": self.top, "return_documents": self.echo}
        named = {names.get(name, name): value for name, value in options.items()}
        documents = list(documents) if isinstance(documents, tuple) else documents
        return {"model": "qwen3-rerank", "query": query, self.documents: documents, **named}

    def scores(self, response: httpx2.Response) -> list[tuple[int, float]]:
        """(index, score) of each result in the reply's order."""
        assert response.status_code == 200, response.text[:1000]
        return [(row["index"], row[self.score]) for row in response.json()[self.results]]

    def error(self, response: httpx2.Response, status: int) -> str:
        """The error's text, after checking the body's shape."""
        assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text[:1000]}"
        assert response.headers["content-type"].startswith("application/json")
        body = response.json()
        request_id = response.headers["x-request-id"]
        if self.dialect == "jina":
            return _jina_error(body, status, request_id)
        if self.dialect == "cohere":
            assert set(body) == {"id", "message"} and body["id"] == request_id
            return str(body["message"])
        if self.dialect == "mixedbread":
            assert set(body) == {"type", "url", "message", "details"} and body["url"] is None
            assert body["type"] == MIXEDBREAD_TYPES[status]
            return str(body["message"])
        if self.dialect == "nim":
            assert set(body) == {"object", "message", "type", "title", "status", "detail"}
            assert body["detail"] == body["message"] and body["status"] == status
            return str(body["message"])
        assert set(body) == {"detail"} and isinstance(body["detail"], str)  # Voyage, Xinference
        return str(body["detail"])


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


def _jina_error(body: JSON, status: int, request_id: str) -> str:
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


COHERE_V1 = Folder("cohere", "/cohere/v1/rerank")
COHERE_V2 = Folder("cohere", "/cohere/v2/rerank")
JINA = Folder("jina", "/jina/v1/rerank", wrong=422, unknown_model=400, decimals=8)
VOYAGE = Folder("voyage", "/voyage/v1/rerank", top="top_k", results="data", unknown_model=400)
MIXEDBREAD = Folder(
    "mixedbread",
    "/mixedbread/v1/reranking",
    documents="input",
    top="top_k",
    echo="return_input",
    results="data",
    score="score",
    wrong=422,
)
NIM = Folder("nim", "/nim/v1/ranking", documents="passages", top="top_k", results="rankings", score="logit")
XINFERENCE = Folder("xinference", "/xinference/v1/rerank", unknown_model=400)

FOLDERS = (COHERE_V1, COHERE_V2, JINA, VOYAGE, MIXEDBREAD, XINFERENCE)
FOLDERS_AND_NIM = (*FOLDERS, NIM)
