"""The playground's sample texts, and their rankings, which the server makes once and shows to everybody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from anyio import to_thread

from rerankd.server.models import Models
from rerankd.types import DEFAULT_INSTRUCT, Ranking, RerankRequest


@dataclass(frozen=True, slots=True)
class Sample:
    """A query with documents. task: what the query does, for the menu. instruct: None for the default."""

    id: str
    title: str
    task: str
    language: str
    query: str
    documents: tuple[str, ...]
    instruct: str | None = None


@cache
def samples() -> Mapping[str, Sample]:
    """All of them by id; the page opens with the first."""
    text = files("rerankd.web").joinpath("static", "samples.json").read_text(encoding="utf-8")
    found = [Sample(**{**fields, "documents": tuple(fields["documents"])}) for fields in json.loads(text)]
    return {sample.id: sample for sample in found}


class SampleRankings:
    """Ranks each sample once with each default model. Visitors without a key see what a ranking is; nobody pays."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._made: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = asyncio.Lock()

    async def ranking(self, name: str) -> dict[str, Any]:
        """The ranking as JSON: `model`, `results`, `usage`, `meta`.

        Raises:
            KeyError: there is no such sample.
            RerankdError: the model loads, is busy, or fails.
        """
        sample = samples()[name]
        with self._models.default.lease() as scorer:
            at = sample.id, scorer.info.name
            async with self._lock:  # one at a time: the work is small, and nobody can multiply it
                if at not in self._made:
                    request = RerankRequest((sample.query,), sample.documents, sample.instruct or DEFAULT_INSTRUCT)
                    started = time.monotonic()
                    ranking = await scorer.rank(await to_thread.run_sync(scorer.prepare, request))
                    self._made[at] = _as_json(ranking, scorer.info.name, time.monotonic() - started)
                return self._made[at]


def samples_for_page() -> list[dict[str, Any]]:
    """Their texts, for the page's script."""
    return [asdict(sample) for sample in samples().values()]


def _as_json(ranking: Ranking, model: str, seconds: float) -> dict[str, Any]:
    results = [{"index": score.index, "score": score.score} for score in ranking.ranked]
    return {
        "model": model,
        "results": results,
        "usage": {"total_tokens": ranking.usage.text_tokens},
        "meta": {"warnings": list(ranking.warnings)},
        "seconds": seconds,
    }
