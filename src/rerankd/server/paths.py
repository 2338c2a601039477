"""Which of our paths a request means: behind a proxy's prefix, with a slash at its end, or asked with HEAD.

Answers directly where others redirect: a redirect is not followed by many clients for a POST, and would have to
trust `Host`.
"""

from __future__ import annotations

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Paths:
    """Writes a request's path as the routes have it, the prefix before it as ASGI's root path.

    Args:
        router: of the application. Its own path of the same name as the prefix goes before it.
        root_path: the prefix, '' where a proxy may tell it (`Forwarded`).
    """

    def __init__(self, app: ASGIApp, router: Router, root_path: str) -> None:
        self._app, self._router, self._root_path = app, router, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        root = self._root_path or scope.get("root_path", "")
        path = self._own_path(scope, root)
        told = {**scope, "root_path": root, "path": root + path}
        if root:
            send = _with_root(send, root.encode())
        if scope["method"] == "HEAD":
            told["method"], send = "GET", _without_body(send)
        await self._app(told, receive, send)

    def _own_path(self, scope: Scope, root: str) -> str:
        """Without the prefix, which the proxy may have taken away or not."""
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
    """Redirects lead to our own paths: the prefix goes before them."""

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
