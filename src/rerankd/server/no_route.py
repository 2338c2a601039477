"""Answers requests that no route answers: an unknown path, or another method of a known path."""

from __future__ import annotations

import uuid

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from rerankd.apis.errors import MethodNotAllowed
from rerankd.server.api_errors import error_response
from rerankd.server.context import ServerContext

PAGES = ("/",)
"""Paths of APIs that are a page, too."""

SEARCH = "/v1/search"
SEARCH_IS_OFF = "This server has no index: start it with --index DIR, of `rerankd index PATH --index DIR`."


async def no_such_route(request: Request, error: Exception) -> Response:
    """The handler of Starlette's HTTPException."""
    assert isinstance(error, HTTPException)
    context: ServerContext = request.app.state.context
    path = get_route_path(request.scope)
    if error.status_code == 405 and (refused := _method_not_allowed(request, path, context)):
        return refused
    detail = error.detail
    if error.status_code == 404 and "text/html" in request.headers.get("accept", ""):
        return PlainTextResponse("There is no such page: the playground is at /, the API at /docs.", 404)
    if error.status_code == 404:
        paths = ", ".join(dict.fromkeys(path for _, path in context.routes))
        way_out = SEARCH_IS_OFF if path == SEARCH else f"Rerank here: POST {paths}"
        detail = f"Not Found: {request.method} {path[:200]}. {way_out}"
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


def _method_not_allowed(request: Request, path: str, context: ServerContext) -> Response | None:
    """The refusal in the words of the path's API; None if no API has this path."""
    route = request.scope.get("route")
    template = getattr(route, "path", path)  # a path may hold a model's name
    apis = {method: apis for (method, known), apis in context.routes.items() if known == template}
    if not apis:
        return None
    api = apis["POST"][-1]
    refusal = MethodNotAllowed(request.method, (*apis, *(("GET", "HEAD") if path in PAGES else ())))
    response = error_response(api, refusal, str(uuid.uuid4()))
    context.metrics.observe(api=api.name, status=response.status_code, seconds=0.0, error=refusal)
    return response
