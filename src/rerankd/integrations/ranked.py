"""What the integrations share: asking a server or the model in this process, whichever is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from rerankd.client.client import AsyncClient, Client
from rerankd.reranker import Reranker
from rerankd.results import AnyScore, Results

logger = logging.getLogger(__name__)


def checked_client(client: object) -> Client | AsyncClient | Reranker:
    """What was given to ask, unless it is something else.

    Raises:
        ValueError: it is; frameworks turn this into the error that they have for a wrong field.
    """
    if isinstance(client, Client | AsyncClient | Reranker):
        return client
    given = f"the class {client.__name__}" if isinstance(client, type) else f"of type {type(client).__name__}"
    advice = f": rerankd.Client({client!r})" if isinstance(client, str) else ""
    raise ValueError(f"client is {given}; give a rerankd.Client, AsyncClient or Reranker{advice}.")


def ranked(
    client: Client | AsyncClient | Reranker, query: str, texts: Sequence[str], top_n: int | None, instruct: str | None
) -> Sequence[AnyScore]:
    """The results, best first; warnings go to the log, as the frameworks have no place for them.

    Raises:
        RerankdError: see `Client.rerank` and `Reranker.rank`.
        TypeError: the client is one for asyncio.
    """
    if isinstance(client, AsyncClient):
        raise TypeError("An AsyncClient can only be awaited: call the asynchronous method, or give a rerankd.Client.")
    return _told(client.rank(query, texts, top_n=top_n, instruct=instruct, **_options(client))) if texts else ()


async def aranked(
    client: Client | AsyncClient | Reranker, query: str, texts: Sequence[str], top_n: int | None, instruct: str | None
) -> Sequence[AnyScore]:
    """The same for asyncio; a `Client` is asked on another thread."""
    if not texts:
        return ()
    if isinstance(client, Client):
        return await asyncio.to_thread(ranked, client, query, texts, top_n, instruct)
    return _told(await client.arank(query, texts, top_n=top_n, instruct=instruct, **_options(client)))


def _options(client: Client | AsyncClient | Reranker) -> dict[str, Any]:
    """The frameworks hold the texts; a server's client need not return them."""
    return {} if isinstance(client, Reranker) else {"return_documents": False}


def _told(ranking: Results[AnyScore]) -> Sequence[AnyScore]:
    for warning in ranking.warnings:
        logger.warning("%s", warning)
    return ranking.ranked
