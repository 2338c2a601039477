"""Reads what a trusted proxy reports: the caller's address, the scheme, and the path prefix."""

from __future__ import annotations

import os
import re
from typing import Any

from starlette.datastructures import Headers
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

PREFIX = re.compile(r"(/[\w.~-]+){1,8}", re.ASCII)


class Forwarded(ProxyHeadersMiddleware):
    """uvicorn's middleware for X-Forwarded-For and -Proto, which also makes X-Forwarded-Prefix ASGI's root path.

    It trusts the addresses in the variable FORWARDED_ALLOW_IPS.

    Args:
        is_local_only: the server listens on a socket file. Its callers have no address, and are trusted: the file's
            mode decides who may connect.
    """

    def __init__(self, app: Any, *, is_local_only: bool) -> None:
        super().__init__(app, "*" if is_local_only else os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            peer = scope["client"]
            if (peer[0] if peer else None) in self.trusted_hosts:
                headers = Headers(raw=list(scope["headers"]))
                prefix = headers.get("x-forwarded-prefix", "").partition(",")[0].strip().rstrip("/")
                if PREFIX.fullmatch(prefix):
                    scope["root_path"] = prefix
        await super().__call__(scope, receive, send)
