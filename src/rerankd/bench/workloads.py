"""Workloads: prompts for the engine, texts for a server. Their lengths matter for speed, their contents do not."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass

from rerankd.types import Prompt

QUERY_TOKENS = 12
PREFIX_TOKENS = 77  # system prompt, default instruct, the query
SUFFIX_TOKENS = 9
ORDINARY_TOKENS = 100_000  # of Qwen's vocabulary, all below its control tokens

WORDS = (
    "air animal art bank bird black blue board boat body book bread bridge building business cake camera capital car "
    "cat chair child church city cloud club coffee cold color company computer country dance dark day doctor dog door "
    "dream earth east energy engine eye face family farm father field film fire fish floor flower food forest fruit "
    "game glass gold grass green ground group hair hall hand health heart heat hill history home horse hospital hotel "
    "hour house ice judge lake land language law leaf letter light lion market metal mind money month moon mother "
    "mouth music name night north office oil orange page paper park party people phone picture plant power price "
    "queen radio rain red ring river road rock room salt sand school science sea season shop silver sky snow song "
    "south spring square star station stone storm story street student summer sun table tea teacher time town train "
    "tree voice wall war water weather week west"
).split()
"""Each word after a space is one token of Qwen's tokenizer and of BERT's."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A call with one query and `num_documents` documents of about `document_tokens` tokens each."""

    name: str
    num_documents: int
    document_tokens: int
    spread: float  # standard deviation of the lengths, as a share of the mean

    def prompts(self, seed: int) -> list[Prompt]:
        """Prompts of random tokens, determined by the seed. They share the first PREFIX_TOKENS."""
        rng = random.Random(f"{self.name}-{seed}")
        prefix = self._tokens(rng, PREFIX_TOKENS)
        suffix = self._tokens(rng, SUFFIX_TOKENS)
        shared = tuple(prefix)
        prompts = []
        for _ in range(self.num_documents):
            length = self._length(rng)
            token_ids = prefix + self._tokens(rng, length) + suffix
            prompts.append(Prompt("", "", token_ids, QUERY_TOKENS, length, prefix=shared))
        return prompts

    def texts(self, rng: random.Random) -> tuple[str, list[str]]:
        """(query, documents) of random words, of the same lengths in tokens as `prompts`."""
        query = " ".join(rng.choices(WORDS, k=QUERY_TOKENS))
        return query, [" ".join(rng.choices(WORDS, k=self._length(rng))) for _ in range(self.num_documents)]

    def _length(self, rng: random.Random) -> int:
        return max(1, round(rng.gauss(self.document_tokens, self.spread * self.document_tokens)))

    @staticmethod
    def _tokens(rng: random.Random, count: int) -> array[int]:
        return array("i", (rng.randrange(ORDINARY_TOKENS) for _ in range(count)))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("A", num_documents=100, document_tokens=105, spread=0.3),
        Workload("B", num_documents=20, document_tokens=532, spread=0.3),
        Workload("C", num_documents=100, document_tokens=30, spread=0.3),
        Workload("short", num_documents=5, document_tokens=60, spread=0.3),
        Workload("long", num_documents=100, document_tokens=300, spread=0.3),
    )
}


def workload_of(name: str) -> Workload:
    """A workload by name, or by `documents x tokens`, as in `20x532`.

    Raises:
        ValueError: the name is neither.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    documents, _, tokens = name.partition("x")
    if not (documents.isdecimal() and tokens.isdecimal() and int(documents) and int(tokens)):
        raise ValueError(f"{name!r} is none of {', '.join(WORKLOADS)}, nor documents x tokens as in 20x532")
    return Workload(name, int(documents), int(tokens), spread=0.3)
