"""Writes one line to the log for each HTTP request. Knows no API, and logs no text of a caller.

    2026-11-25T21:40:01+0100 INFO id=req-42 method=POST path=/v2/rerank dialect=cohere-v2 key="search page"
    model=Qwen3-Reranker-0.6B documents=100 tokens=10512 warnings=1 status=200 seconds=0.913 client=192.0.2.1

The path is the only text that a caller chooses: it is truncated. The query string is left out. The record carries the
fields as `fields`, for a log in JSON.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

MAX_VALUE_CHARS = 200
PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)

QUIET_PATHS = ("/health", "/readyz", "/livez", "/startupz", "/ping", "/metrics", "/load", "/admin/status")
"""Machines ask for these every few seconds: they are logged at the level `debug`."""

_FIELDS = "rerankd.log"
"""Key of a request's scope."""


def describe(scope: Scope, **fields: object) -> None:
    """Adds fields to a request's line, in this order, except those that are None."""
    scope.setdefault(_FIELDS, {}).update({name: value for name, value in fields.items() if value is not None})


class AccessLog:
    """ASGI middleware that writes the lines."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        level = logging.DEBUG if scope.get("path") in QUIET_PATHS else logging.INFO
        if scope["type"] != "http" or not logger.isEnabledFor(level):
            await self._app(scope, receive, send)
            return
        scope[_FIELDS] = {}  # one dict, also for middleware that copies the scope
        started = time.monotonic()
        answered: dict[str, Any] = {}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                request_id = Headers(raw=message["headers"]).get("x-request-id")
                answered.update(status=message["status"], id=request_id)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = round(time.monotonic() - started, 3)
            fields = _fields(scope, answered.get("id"), answered.get("status", 500), seconds)
            logger.log(level, "%s", _line(fields), extra={"fields": fields})


def _fields(scope: Scope, request_id: str | None, status: int, seconds: float) -> dict[str, Any]:
    about = {"method": scope["method"], "path": scope["path"], **scope.get(_FIELDS, {})}
    client = (scope.get("client") or (None,))[0]
    fields = {"id": request_id, **about, "status": status, "seconds": seconds, "client": client}
    return {name: _bounded(value) for name, value in fields.items() if value is not None}


def _bounded(value: object) -> int | float | str:
    return value if isinstance(value, int | float) else str(value)[:MAX_VALUE_CHARS]


def _line(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: float | str) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)
