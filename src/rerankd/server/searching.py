"""The server's index: opened at the start, its embedder loaded beside the model."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from rerankd.config import ServerSettings
from rerankd.embedder import EmbedderChoice
from rerankd.errors import RerankdError

if TYPE_CHECKING:
    from rerankd.search.index import Index

logger = logging.getLogger(__name__)


def opened_index(settings: ServerSettings) -> Index | None:
    """The index of the settings; None where they name none.

    Raises:
        InvalidRequest: the folder holds no index.
        MissingExtra: tantivy is not installed.
    """
    if settings.index is None:
        return None
    from rerankd.search.index import Index  # its library is an extra

    embedder = EmbedderChoice(settings.embedder, None, settings.device, settings.offline)
    return Index.open(settings.index, embedder=embedder)


def load_embedder(index: Index, settings: ServerSettings) -> None:
    """Loads the embedder on a thread of its own, where the index has vectors, so that no search waits for it."""
    threading.Thread(target=_load, args=(index, settings), name="rerankd-embedder", daemon=True).start()


def _load(index: Index, settings: ServerSettings) -> None:
    try:
        if index.made_by is not None:
            logger.info("Ready: %s finds by meaning", index.load_embedder())
        elif settings.embedder is not None:
            logger.warning("--embedder is not used: the index in %s has no vectors", settings.index)
    except RerankdError as error:
        logger.error("Searches by meaning will fail: %s", error)
