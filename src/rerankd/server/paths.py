"""Maps a request's path to a route: removes a proxy's prefix and surplus slashes, and answers HEAD as GET.

Other servers redirect instead. Many clients do not follow a redirect of a POST, and its address would come from the
`Host` header, which a caller chooses.
"""

from __future__ import annotations

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Paths:
    """ASGI middleware that rewrites the path, and passes the prefix on as ASGI's root path.

    Args:
        router: of the application. A route that begins like the prefix takes precedence.
        root_path: the prefix; '' if a proxy sends it (`Forwarded`).
    """

    def __init__(self, app: ASGIApp, router: Router, root_path: str) -> None:
        self._app, self._router, self._root_path = app, router, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["method"] == "POST":  # `//v1/rerank`: a base address with a slash. Proxies may restrict GETs by path.
            scope = {**scope, "path": "/" + scope["path"].lstrip("/")}
        root = self._root_path or scope.get("root_path", "")
        path = self._own_path(scope, root)
        rewritten = {**scope, "root_path": root, "path": root + path}
        if root:
            send = _with_root(send, root.encode())
        if scope["method"] == "HEAD":
            rewritten["method"], send = "GET", _without_body(send)
        await self._app(rewritten, receive, send)

    def _own_path(self, scope: Scope, root: str) -> str:
        """The path without the prefix, which some proxies have removed already."""
        path = _without_slash(scope["path"])
        inner = scope["path"].removeprefix(root)
        if not root or inner == scope["path"] or (inner and not inner.startswith("/")):
            return path
        is_stripped = self._has(scope, path)
        return path if is_stripped else _without_slash(inner)

    def _has(self, scope: Scope, path: str) -> bool:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        asked = {**scope, "root_path": "", "path": path, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in self._router.routes)


def _without_slash(path: str) -> str:
    return path.rstrip("/") or "/"


def _with_root(send: Send, root: bytes) -> Send:
    """Adds the prefix to redirects, which lead to our own paths."""

    async def send_there(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, root + value if name == b"location" and value.startswith(b"/") else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return send_there


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
