"""The reply of a route about the server itself to an error."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from rerankd.apis import openai
from rerankd.errors import RerankdError
from rerankd.server.reply_headers import error_headers


def refusal(error: RerankdError) -> Response:
    """The error in the shape of OpenAI's."""
    status, body = openai.refusal(error)
    return JSONResponse(body, status, error_headers(error, status))
