"""Reads a server's address and completes it to the path of an API. Knows no API by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx2

from rerankd.errors import SettingsError

COMPLETE = frozenset({"rerank", "reranks", "reranking", "ranking", "text-rerank"})
"""A path that ends in one of these, in any case, is complete and is used as it is."""

DASHSCOPE_PREFIX = ("services", "rerank")
"""An incomplete path: two more segments follow."""

OTHER_ENDPOINTS = (
    ("chat", "completions"),
    ("completions",),
    ("embeddings",),
    ("embed",),
    ("score",),
    ("predict",),
    ("models",),
    ("health",),
    ("docs",),
)
"""Other endpoints of these servers. They are removed from the end of a copied address before it is completed."""

VERSION = re.compile(r"v\d+(beta|alpha)?\d*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens.

    Attributes:
        url: its host is `localhost` if there is a socket.
        socket: the file of its Unix domain socket, else None.
    """

    url: httpx2.URL
    socket: str | None = None


def read_address(text: str) -> Address:
    """Reads `http://…`, `https://…`, `unix:/run/rerankd.sock` or `unix:///run/rerankd.sock`.

    A path on a socket follows a colon, as in nginx: `unix:/run/rerankd.sock:/v1/rerank`.

    Raises:
        SettingsError: the text is none of these.
    """
    text = text.strip()
    if text.lower().startswith("unix:"):
        return _socket_address(text)
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise SettingsError(f"{_shown(text)} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(
            f"{_shown(text)} is not an address: it should begin with http:// or https:// (or unix: and a file)."
        )
    return Address(url)


def _socket_address(text: str) -> Address:
    file, _, path = text[len("unix:") :].partition(":")
    file = re.sub("^//+", "/", file)
    if not file:
        raise SettingsError(
            f"{text!r} is not an address: the file of the socket is missing, as in unix:/run/rerankd.sock."
        )
    return Address(httpx2.URL(f"http://localhost/{path.lstrip('/')}"), file)


def _shown(text: str) -> str:
    """The address without user and password."""
    return repr(re.sub(r"(://)[^/]*@", r"\1***@", text))


def is_complete(segments: Sequence[str]) -> bool:
    """Whether a path already ends in a rerank endpoint."""
    return bool(segments) and segments[-1].lower() in COMPLETE and not _same(segments[-2:], DASHSCOPE_PREFIX)


def segments_of(url: httpx2.URL) -> list[str]:
    """The path's segments as written, escapes included."""
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return [segment for segment in path.split("/") if segment]


def with_path(url: httpx2.URL, segments: Sequence[str]) -> httpx2.URL:
    """The address with another path and without a fragment."""
    path = "/" + "/".join(segments)
    query = b"?" + url.query if url.query else b""
    return url.copy_with(raw_path=path.encode("ascii") + query, fragment=None)


def completed(base: Sequence[str], path: str, bases: Mapping[str, str]) -> list[str]:
    """Completes the path of a base address to the API's rerank endpoint.

    A complete path stays, and another endpoint at its end is removed. Then the first rule that fits applies:

    1. An overlap comes once: `/x/v1` + `/v1/rerank` is `/x/v1/rerank`.
    2. An ending in `bases` is replaced by its path.
    3. A version replaces the path's: `/v4` + `/v1/rerank` is `/v4/rerank`.
    4. Otherwise the path is appended.

    Args:
        path: of the API, from the server's root.
        bases: the server's roots for other APIs (`/compatible-mode/v1`), with the path to use instead.
    """
    if is_complete(base):
        return list(base)
    have, want = _without_endpoint(base), path_segments(path)
    for length in range(min(len(have), len(want)), 0, -1):
        if _same(have[-length:], want[:length]):
            return have + want[length:]
    for ending in sorted(map(path_segments, bases), key=len, reverse=True):
        if _same(have[-len(ending) :], ending):
            return have[: -len(ending)] + path_segments(bases["/" + "/".join(ending)])
    if have and VERSION.fullmatch(have[-1]) and VERSION.fullmatch(want[0]):
        return have + want[1:]
    return have + want


def path_segments(path: str) -> list[str]:
    """The segments of `/v1/rerank`."""
    return [segment for segment in path.split("/") if segment]


def _without_endpoint(segments: Sequence[str]) -> list[str]:
    for ending in OTHER_ENDPOINTS:
        if _same(segments[-len(ending) :], ending):
            return list(segments[: -len(ending)])
    return list(segments)


def _same(some: Sequence[str], others: Sequence[str]) -> bool:
    return [segment.lower() for segment in some] == [segment.lower() for segment in others]
