"""What a trusted proxy says of a request: its caller, its scheme, and the path under which it serves us."""

from __future__ import annotations

import os
import re
from typing import Any

from starlette.datastructures import Headers
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

PREFIX = re.compile(r"(/[\w.~-]+){1,8}", re.ASCII)


class Forwarded(ProxyHeadersMiddleware):
    """uvicorn's own, which reads X-Forwarded-For and -Proto from the addresses in FORWARDED_ALLOW_IPS; with them,
    X-Forwarded-Prefix, which becomes ASGI's root path.

    Args:
        is_local_only: on a socket file, whose callers have no address, all are trusted: they were let in by its mode.
    """

    def __init__(self, app: Any, *, is_local_only: bool) -> None:
        super().__init__(app, "*" if is_local_only else os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            peer = scope["client"]
            if (peer[0] if peer else None) in self.trusted_hosts:
                prefix = (
                    Headers(raw=list(scope["headers"]))
                    .get("x-forwarded-prefix", "")
                    .partition(",")[0]
                    .strip()
                    .rstrip("/")
                )
                if PREFIX.fullmatch(prefix):
                    scope["root_path"] = prefix
        await super().__call__(scope, receive, send)
