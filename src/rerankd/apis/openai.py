"""How the routes about the server itself refuse, in the shape of OpenAI's errors. Knows no HTTP library."""

from __future__ import annotations

from typing import Any, NamedTuple

from rerankd.apis.base import ErrorTable
from rerankd.apis.errors import BodyTooLarge
from rerankd.apis.fields import JSON
from rerankd.apis.status import meaning
from rerankd.errors import InvalidRequest, ModelNotFound, RerankdError

UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = {404: {"description": meaning(404)}}
LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}
READING: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning(status)} for status in (400, 401, 408, 413, 415, 503)
}
"""For the API's description: the statuses of routes that load, ask for a key, or read a body."""


class _Words(NamedTuple):
    type: str
    code: str


ERRORS = ErrorTable(
    {BodyTooLarge: 413},
    {
        400: _Words("invalid_request_error", "invalid_parameter"),
        401: _Words("invalid_request_error", "invalid_api_key"),
        404: _Words("invalid_request_error", "model_not_found"),
        408: _Words("invalid_request_error", "request_timeout"),
        413: _Words("invalid_request_error", "request_too_large"),
        415: _Words("invalid_request_error", "unsupported_encoding"),
        503: _Words("server_error", "unavailable"),
    },
)


def refusal(error: RerankdError) -> tuple[int, JSON]:
    """Status and body."""
    message = error.details if isinstance(error, InvalidRequest) else str(error)
    body: JSON = {"error": {"message": message, **ERRORS.word(error)._asdict()}}
    if isinstance(error, ModelNotFound):
        body["detail"] = message  # Xinference's client reads it
    return ERRORS.status(error), body
