"""The dialects, one file each. Adding one: its file, and its line in `all_dialects`."""

from __future__ import annotations

from typing import Any

from rerankd.config import ServerSettings
from rerankd.server.wire.dashscope import CompatibleReranks, NativeRerank
from rerankd.server.wire.dialect import Dialect
from rerankd.server.wire.vllm import Rerank, ScorePairs


def all_dialects(settings: ServerSettings) -> tuple[Dialect[Any], ...]:
    """Every surface that the server speaks, each path once."""
    return (
        NativeRerank(settings, "/api/v1/services/rerank/text-rerank/text-rerank"),
        CompatibleReranks(settings, "/compatible-api/v1/reranks", documents_by_default=True),
        CompatibleReranks(settings, "/v1/reranks", documents_by_default=False),
        Rerank(settings, "/v1/rerank", "/rerank", "/v2/rerank"),
        ScorePairs(settings, "/v1/score", "/score"),
    )
