"""Workloads: prompts for the engine, texts for a server. Their lengths matter for speed, their contents do not."""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Iterator
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
    """A call with one query and `num_documents` documents of about `document_tokens` tokens each.

    Attributes:
        spread: standard deviation of the lengths, as a share of the mean.
        passage_tokens: the longest of the equal passages into which documents are split; None: they are not split.
    """

    name: str
    num_documents: int
    document_tokens: int
    spread: float
    passage_tokens: int | None = None

    def prompts(self, seed: int) -> list[Prompt]:
        """Prompts of random tokens, determined by the seed. They share the first PREFIX_TOKENS.

        One for each document, or for each passage.
        """
        rng = random.Random(f"{self.name}-{seed}")
        prefix = self._tokens(rng, PREFIX_TOKENS)
        suffix = self._tokens(rng, SUFFIX_TOKENS)
        shared = tuple(prefix)
        prompts = []
        for length in self._lengths(rng):
            token_ids = prefix + self._tokens(rng, length) + suffix
            prompts.append(Prompt("", "", token_ids, QUERY_TOKENS, length, prefix=shared))
        return prompts

    def texts(self, rng: random.Random) -> tuple[str, list[str]]:
        """(query, documents) of random words, of the same lengths in tokens as `prompts`."""
        query = " ".join(rng.choices(WORDS, k=QUERY_TOKENS))
        return query, [" ".join(rng.choices(WORDS, k=self._length(rng))) for _ in range(self.num_documents)]

    def _lengths(self, rng: random.Random) -> Iterator[int]:
        """The tokens of each document, or of each passage."""
        for _ in range(self.num_documents):
            length = self._length(rng)
            num = -(-length // (self.passage_tokens or length))
            yield from (length * (place + 1) // num - length * place // num for place in range(num))

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
    """A workload by name, by `documents x tokens`, as in `20x532`, or split into passages, as in `20x8000/512`.

    Raises:
        ValueError: the name is none of them.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:/([1-9]\d*))?", name, re.ASCII)):
        raise ValueError(
            f"{name!r} is none of {', '.join(WORKLOADS)}, nor documents x tokens as in 20x532, nor passages as in "
            "20x8000/512"
        )
    documents, tokens, passage = (int(number) if number else None for number in found.groups())
    assert documents is not None and tokens is not None, "This is a bug."
    return Workload(name, documents, tokens, 0.3, passage)
