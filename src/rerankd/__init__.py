"""rerankd: Qwen3-Reranker on your own hardware.

    from rerankd import Reranker
    Reranker("Qwen/Qwen3-Reranker-0.6B").rank("capital of China?", ["Beijing is …", "Gravity is …"])

    from rerankd import Client
    Client("http://127.0.0.1:8000").rank("capital of China?", ["Beijing is …", "Gravity is …"])

    from rerankd import Index
    Index("docs").search("how are keys rotated?")

Code that takes either is written against `Ranker`, for asyncio against `AsyncRanker`.

Importing the package imports nothing heavy: torch comes with the first `Reranker`, httpx2 with the first `Client`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rerankd.client.errors import (
    RemoteError,
    RemoteModelNotFound,
    RemoteOutOfCredit,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnauthorized,
    RemoteUnavailable,
    RemoteUnreachable,
)
from rerankd.deprecation import warn_renamed
from rerankd.errors import Closed, InvalidRequest, MadeBeforeFork, RerankdError, SettingsError
from rerankd.rankers import AsyncRanker, Ranker
from rerankd.types import Passage, Passages, Ranking, Score, Usage
from rerankd.version import __version__

if TYPE_CHECKING:
    from rerankd.calibration.profile import Calibration
    from rerankd.client.async_client import AsyncClient
    from rerankd.client.client import Client
    from rerankd.embedder import Embedder
    from rerankd.local import Reranker
    from rerankd.search.hit import Hit
    from rerankd.search.index import Index

__all__ = [
    "AsyncClient",
    "AsyncRanker",
    "Calibration",
    "Client",
    "Closed",
    "Embedder",
    "Hit",
    "Index",
    "InvalidRequest",
    "MadeBeforeFork",
    "Passage",
    "Passages",
    "Ranker",
    "Ranking",
    "RemoteError",
    "RemoteModelNotFound",
    "RemoteOutOfCredit",
    "RemoteRateLimited",
    "RemoteRefused",
    "RemoteReplyInvalid",
    "RemoteTimeout",
    "RemoteUnauthorized",
    "RemoteUnavailable",
    "RemoteUnreachable",
    "RerankdError",
    "Reranker",
    "Score",
    "SettingsError",
    "Usage",
    "__version__",
]

_ON_FIRST_USE = {
    "AsyncClient": "rerankd.client.async_client",
    "Calibration": "rerankd.calibration.profile",
    "Client": "rerankd.client.client",
    "Embedder": "rerankd.embedder",
    "Hit": "rerankd.search.hit",
    "Index": "rerankd.search.index",
    "Reranker": "rerankd.local",
}

_RENAMED = {"RemoteRanking": Ranking, "RemoteScore": Score, "RemoteUsage": Usage}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return getattr(import_module(_ON_FIRST_USE[name]), name)
    if name in _RENAMED:
        warn_renamed(f"rerankd.{name}", f"rerankd.{_RENAMED[name].__name__}")
        return _RENAMED[name]
    raise AttributeError(f"module 'rerankd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
