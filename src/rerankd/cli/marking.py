"""The sentence of each text that answers a query best, for a terminal. Knows no index."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rerankd.rankers import Ranker

Span = tuple[int, int]

MOST_SENTENCES = 64
"""Of a text; the others are not scored."""


def best_sentences(ranker: Ranker, query: str, texts: Sequence[str], instruct: str | None) -> list[Span | None]:
    """Start and end of the best sentence of each text, by one call; None for a text of one sentence."""
    spans = [_sentences(text) for text in texts]
    places = [(number, span) for number, some in enumerate(spans) if len(some) > 1 for span in some]
    best: list[Span | None] = [None] * len(texts)
    if not places:
        return best
    ranking = ranker.rank(query, [texts[number][slice(*span)] for number, span in places], instruct=instruct)
    for score in ranking.ranked:  # best first
        number, span = places[score.index]
        best[number] = best[number] or span
    return best


def _sentences(text: str) -> list[Span]:
    try:
        from rerankd.passages import sentences
    except ImportError:  # its library comes with what scores here; a server may score instead
        return []
    found = (span for span in sentences(text) if not text[slice(*span)].isspace())
    return list(islice(found, MOST_SENTENCES))
