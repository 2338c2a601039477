"""A model whose scores are the documents' numbers, for tests of what is around a model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.testing import INFO, FakeModel
from rerankd.types import ModelInfo, Prompt


class NumberedModel(FakeModel):
    """Each prompt fills a batch, and its logit is its document's number.

    seen: the documents that it was given. fault: what it does with a document, before its number is read.
    """

    def __init__(self, fault: Callable[[str], None] = lambda document: None, info: ModelInfo = INFO) -> None:
        super().__init__(self._number, _full_batch, info)
        self.fault = fault

    def _number(self, prompt: Prompt) -> float:
        self.fault(prompt.document)
        return float(prompt.document)

    @property
    def seen(self) -> list[str]:
        return [prompt.document for batch in self.batches for prompt in batch]


def _full_batch(query: str, document: str) -> Sequence[int]:
    first = zlib.crc32(document.encode()) % 1_000_000  # no prompt begins as another
    return range(first, first + MAX_BATCH_TOKENS)


def scorer_of(model: FakeModel, **options: Any) -> EngineScorer:
    return EngineScorer(Engine(model, **options), model)
