"""What the integrations share: asking a server or the model in this process, whichever is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rerankd.client.client import Client
from rerankd.client.ranking import RemoteScore
from rerankd.types import DEFAULT_INSTRUCT, Score

if TYPE_CHECKING:
    from rerankd.reranker import Reranker  # needs torch, a Client does not

logger = logging.getLogger(__name__)


def ranked(
    client: Client | Reranker, query: str, texts: Sequence[str], top_n: int | None, instruct: str | None
) -> Sequence[Score | RemoteScore]:
    """The results, best first; warnings go to the log, as the frameworks have no place for them.

    Raises:
        RerankdError: see `Client.rerank` and `Reranker.rank`.
    """
    if not texts:
        return ()
    ranking = (
        client.rerank(query, texts, top_n=top_n, instruct=instruct, return_documents=False)
        if isinstance(client, Client)
        else client.rank(query, texts, top_n=top_n, instruct=instruct or DEFAULT_INSTRUCT)
    )
    for warning in ranking.warnings:
        logger.warning("%s", warning)
    return ranking.ranked
