"""Errors of an HTTP request before its fields are read. Knows no status and no API.

InvalidRequest
├── NotJSON              the body cannot be read as JSON
├── UnsupportedMedia     the body is not declared as JSON where the API demands it
├── UnsupportedEncoding  the server does not read this Content-Encoding
├── BodyTooLarge         the body has more bytes than the server reads
├── BodyTimeout          the body did not arrive in time
└── MethodNotAllowed     the path answers other methods
"""

from __future__ import annotations

from rerankd.errors import InvalidRequest


class NotJSON(InvalidRequest):
    """The body cannot be read as JSON. `position`: the byte or character where reading ended, if it is known."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class UnsupportedMedia(InvalidRequest):
    """The body is not declared as JSON where the API demands it."""


class UnsupportedEncoding(InvalidRequest):
    """The server does not read this Content-Encoding. `read`: those that it reads."""

    def __init__(self, name: str, read: tuple[str, ...]) -> None:
        way_out = f"send the body as it is, or packed with {' or '.join(read)}"
        super().__init__(f"Content-Encoding '{name[:40]}' is not read here: {way_out}.")
        self.read = read


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than the server reads."""


class BodyTimeout(InvalidRequest):
    """The body did not arrive in time."""


class MethodNotAllowed(InvalidRequest):
    """A rerank path answers other methods (`allowed`)."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not answered here: send the request with {' or '.join(allowed)}.")
        self.method = method
        self.allowed = allowed
