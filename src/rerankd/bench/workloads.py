"""The prompts that are timed. Speed depends on their lengths, not on what they say."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass

from rerankd.types import EncodedPair, Pair

PREFIX_TOKENS = 77  # system prompt, default instruct, a query of 12 tokens
SUFFIX_TOKENS = 9
ORDINARY_TOKENS = 100_000  # of Qwen's vocabulary, all below its control tokens


@dataclass(frozen=True, slots=True)
class Workload:
    """One call: `num_documents` of about `document_tokens` tokens each, for one query."""

    name: str
    num_documents: int
    document_tokens: int
    spread: float  # standard deviation of the lengths, as a share of the mean

    def pairs(self, seed: int) -> list[EncodedPair]:
        """Prompts of random tokens; the same for the same seed. The first PREFIX_TOKENS are shared."""
        rng = random.Random(f"{self.name}-{seed}")
        prefix = self._tokens(rng, PREFIX_TOKENS)
        suffix = self._tokens(rng, SUFFIX_TOKENS)
        pairs = []
        for _ in range(self.num_documents):
            length = max(1, round(rng.gauss(self.document_tokens, self.spread * self.document_tokens)))
            token_ids = prefix + self._tokens(rng, length) + suffix
            pairs.append(EncodedPair(Pair("", ""), token_ids, 12, length, shared_len=PREFIX_TOKENS))
        return pairs

    @staticmethod
    def _tokens(rng: random.Random, count: int) -> array[int]:
        return array("i", (rng.randrange(ORDINARY_TOKENS) for _ in range(count)))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("A", num_documents=100, document_tokens=105, spread=0.3),
        Workload("B", num_documents=20, document_tokens=532, spread=0.3),
        Workload("C", num_documents=100, document_tokens=30, spread=0.3),
    )
}
