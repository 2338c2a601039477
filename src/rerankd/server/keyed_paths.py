"""Demands a key for pages and figures about the server that are otherwise public."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.admission.identity import Authenticator
from rerankd.apis.base import ErrorTable
from rerankd.errors import Unauthorized, Unavailable
from rerankd.server.reply_headers import error_headers


class KeyedPaths:
    """ASGI middleware over PATHS."""

    PATHS = ("/metrics", "/tei/metrics", "/load", "/v1/rates", "/rates", "/openapi.json", "/docs")

    def __init__(self, app: ASGIApp, auth: Authenticator) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_keyed(scope):
            try:
                await self._auth.identify(Request(scope))
            except (Unauthorized, Unavailable) as error:
                await _refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_keyed(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return (path.rstrip("/") or "/") in self.PATHS


def _refusal(error: Unauthorized | Unavailable) -> JSONResponse:
    status = ErrorTable[str]().status(error)
    return JSONResponse({"detail": str(error)}, status, error_headers(error, status))
