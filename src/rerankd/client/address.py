"""Addresses as people have them, and the path of an API that they are completed to. Knows no dialect by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx2

from rerankd.errors import SettingsError

COMPLETE = frozenset({"rerank", "reranks", "reranking", "ranking", "text-rerank"})
"""A path that ends in one of these, in any case, is the full one and is taken as it is."""

DASHSCOPE_FOLDER = ("services", "rerank")
"""Not complete: two more folders follow."""

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
"""What else the servers of these APIs answer: an address that was copied from there is completed without it."""

VERSION = re.compile(r"v\d+(beta|alpha)?\d*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. socket: the file of a Unix domain socket that it listens on, else None.

    url: with the host `localhost` where there is a socket.
    """

    url: httpx2.URL
    socket: str | None = None


def read_address(text: str) -> Address:
    """`http://…`, `https://…`, `unix:/run/rerankd.sock` or `unix:///run/rerankd.sock`; a path on a socket follows a
    colon, as in nginx: `unix:/run/rerankd.sock:/v1/rerank`.

    Raises:
        SettingsError: it is none of these.
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
    """The address without a user's password."""
    return repr(re.sub(r"(://)[^/]*@", r"\1***@", text))


def is_complete(folders: Sequence[str]) -> bool:
    """Whether a path is that of a rerank already."""
    return bool(folders) and folders[-1].lower() in COMPLETE and not _same(folders[-2:], DASHSCOPE_FOLDER)


def folders_of(url: httpx2.URL) -> list[str]:
    """The path's folders as they are written, escapes included."""
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return [folder for folder in path.split("/") if folder]


def with_folders(url: httpx2.URL, folders: Sequence[str]) -> httpx2.URL:
    """The address with another path, and without a fragment."""
    path = "/" + "/".join(folders)
    query = b"?" + url.query if url.query else b""
    return url.copy_with(raw_path=path.encode("ascii") + query, fragment=None)


def completed(base: Sequence[str], path: str, bases: Mapping[str, str]) -> list[str]:
    """The folders of an API's rerank, given those that somebody wrote.

    The first rule that fits: a full path stays. Another endpoint at its end goes. What the base ends with and the path
    begins with comes once (`/x/v1` + `/v1/rerank` is `/x/v1/rerank`). An ending in `bases` is replaced by what stands
    there. A version takes the place of the path's (`/v4` + `/v1/rerank` is `/v4/rerank`). Else the path is appended.

    Args:
        path: of the API, from the server's root.
        bases: other roots that a server has for other APIs (`/compatible-mode/v1`), each with the path that belongs in
            its place.
    """
    if is_complete(base):
        return list(base)
    have, want = _without_endpoint(base), folders_of_path(path)
    for length in range(min(len(have), len(want)), 0, -1):
        if _same(have[-length:], want[:length]):
            return have + want[length:]
    for ending in sorted(map(folders_of_path, bases), key=len, reverse=True):
        if _same(have[-len(ending) :], ending):
            return have[: -len(ending)] + folders_of_path(bases["/" + "/".join(ending)])
    if have and VERSION.fullmatch(have[-1]) and VERSION.fullmatch(want[0]):
        return have + want[1:]
    return have + want


def folders_of_path(path: str) -> list[str]:
    """`/v1/rerank` as its folders."""
    return [folder for folder in path.split("/") if folder]


def _without_endpoint(folders: Sequence[str]) -> list[str]:
    for ending in OTHER_ENDPOINTS:
        if _same(folders[-len(ending) :], ending):
            return list(folders[: -len(ending)])
    return list(folders)


def _same(some: Sequence[str], others: Sequence[str]) -> bool:
    return [folder.lower() for folder in some] == [folder.lower() for folder in others]
