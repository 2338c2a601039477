"""Refusals of the status routes, in the shape of OpenAI's errors."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response

from rerankd.apis.base import ErrorTable
from rerankd.apis.errors import BodyTooLarge
from rerankd.apis.status import meaning
from rerankd.errors import InvalidRequest, ModelNotFound, RerankdError
from rerankd.server.reply_headers import error_headers

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


def refusal(error: RerankdError) -> Response:
    """The reply to an error."""
    words, status = ERRORS.word(error), ERRORS.status(error)
    message = error.details if isinstance(error, InvalidRequest) else str(error)
    body: dict[str, Any] = {"error": {"message": message, **words._asdict()}}
    if isinstance(error, ModelNotFound):
        body["detail"] = message  # Xinference's client reads it
    return JSONResponse(body, status, error_headers(error, status))
