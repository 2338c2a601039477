"""A ranker that splits documents as a model does, and scores each passage by a function."""

from __future__ import annotations

from collections.abc import Callable

from rerankd.arguments import Documents, checked
from rerankd.ranking import prepare
from rerankd.testing import INFO, FakeModel, FakeRanker, shared_words
from rerankd.types import Logits, Passages, Ranking


class SplittingRanker(FakeRanker):
    """A token is a word, and a logit is the function's value."""

    def __init__(self, score: Callable[[str, str], float] = shared_words) -> None:
        super().__init__(score)
        self._of = score

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        deadline_s: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """See `Reranker.rank`."""
        prepared = prepare(checked(query, documents, top_n, instruct, passages).request(), FakeModel(), INFO)
        return prepared.finish(Logits([self._of(prompt.query, prompt.document) for prompt in prepared.prompts]))
