"""Ranks for the integrations with any ranker, and logs its warnings. Knows no framework."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence

from rerankd.rankers import AsyncRanker, Ranker
from rerankd.types import Ranking, Score

logger = logging.getLogger(__name__)


def checked_ranker(ranker: object) -> object:
    """The argument, if it is a ranker.

    Raises:
        ValueError: it is none. Frameworks turn this into their own error for an invalid field.
    """
    if not isinstance(ranker, type) and callable(getattr(ranker, "arank", None)):
        return ranker
    given = f"the class {ranker.__name__}" if isinstance(ranker, type) else f"of type {type(ranker).__name__}"
    advice = f": rerankd.Client({ranker!r})" if isinstance(ranker, str) else ""
    raise ValueError(f"client is {given}; give a rerankd.Client, AsyncClient or Reranker{advice}.")


def ranked(
    ranker: Ranker, query: str, texts: Sequence[str], top_n: int | None, instruct: str | None
) -> Sequence[Score]:
    """The results, best first. Warnings go to the log, because the frameworks have no place for them.

    Raises:
        RerankdError: see `Client.rank` and `Reranker.rank`.
        TypeError: the ranker is an `AsyncClient`.
    """
    if inspect.iscoroutinefunction(getattr(ranker, "rank", None)):
        raise TypeError("An AsyncClient can only be awaited: call the asynchronous method, or give a rerankd.Client.")
    return _logged(ranker.rank(query, texts, top_n=top_n, instruct=instruct)) if texts else ()


async def aranked(
    ranker: AsyncRanker, query: str, texts: Sequence[str], top_n: int | None, instruct: str | None
) -> Sequence[Score]:
    """The same for asyncio. A `Client` works on another thread."""
    return _logged(await ranker.arank(query, texts, top_n=top_n, instruct=instruct)) if texts else ()


def _logged(ranking: Ranking) -> Sequence[Score]:
    for warning in ranking.warnings:
        logger.warning("%s", warning)
    return ranking.ranked
