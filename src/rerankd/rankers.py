"""The protocols `Ranker` and `AsyncRanker`, for code that takes a model or a server. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rerankd.arguments import Documents
from rerankd.types import Passages, Ranking


class Ranker(Protocol):
    """Anything that ranks: a `Reranker` (a model in this process), a `Client` (a server), or a fake in a test."""

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first. instruct: None for the default of the model or server."""
        ...


class PassageRanker(Ranker, Protocol):
    """A `Ranker` that also splits documents, as `Reranker` and `Client` do."""

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Scores every document for the query by its best passage, best first."""
        ...


class AsyncRanker(Protocol):
    """Anything that ranks without blocking an event loop: a `Reranker`, an `AsyncClient`, a `Client` on a thread."""

    async def arank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first. instruct: None for the default of the model or server."""
        ...
