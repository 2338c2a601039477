"""Refuses calls by web pages of other sites to a server without a key.

Such a server trusts every program on its machine, and a browser there runs scripts of any site. A script can send a
call without reading the reply (`Sec-Fetch-Site: cross-site`), or its site's name can be made to point to 127.0.0.1 (DNS
rebinding), after which the browser takes both for the same site. Headers that no script can change reveal both.
Requests of programs and proxies pass.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".test")
"""Suffixes of names that nobody can register."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class ForeignPages:
    """ASGI middleware that refuses calls (methods that change something) by pages of other sites.

    Args:
        origins: sites whose pages may call; '*' for all.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app, self._origins = app, frozenset(origins)
        self._own_names = {socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            if origin and not self._is_allowed(origin, headers):
                return await _refusal(origin)(scope, receive, send)
        await self._app(scope, receive, send)

    def _is_allowed(self, origin: str, headers: Headers) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        if headers.get("sec-fetch-site") == "cross-site":
            return False
        return not self._may_be_rebound(origin, headers.get("host", ""))

    def _may_be_rebound(self, origin: str, host: str) -> bool:
        """Whether the owner of the page's name can point it to this machine. Not with https: no certificate here, ours
        or a proxy's, would match the name."""
        parts = urlsplit(origin)
        name = (parts.hostname or "").rstrip(".")
        if parts.scheme != "http" or parts.netloc.lower() != host.lower():
            return False
        return "." in name and not (_is_address(name) or name.endswith(PRIVATE_NAMES) or name in self._own_names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(origin: str) -> JSONResponse:
    detail = (
        f"Pages of {origin[:200]} may not call this server, which asks for no key. Allow it with --cors-origin "
        f"{origin[:200]}, or give the server a key (--api-key)."
    )
    return JSONResponse({"detail": detail}, 403)
