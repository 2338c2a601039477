"""An error as a reply of the API that was called."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from rerankd.apis.base import Api
from rerankd.errors import RerankdError
from rerankd.server.reply_headers import error_headers


def error_response(api: Api[Any], error: RerankdError, request_id: str) -> Response:
    """The error in the words of the API."""
    status, body = api.error(error, request_id)
    headers = {"x-request-id": request_id, **error_headers(error, status)}
    return Response(None, status, headers) if body is None else JSONResponse(body, status, headers)
