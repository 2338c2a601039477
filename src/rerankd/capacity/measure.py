"""The speed of a replica, from a few calls to the engine of this process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

from rerankd.capacity.assumptions import Replica
from rerankd.ranking import Submits
from rerankd.types import RerankRequest

WORDS = ("air", "bank", "cake", "day", "earth", "fire", "gold", "hill", "ice", "king", "lake", "moon", "night", "oil")
"""Each is one token after a space."""

SHORT_TOKENS = 8
BATCHES = 8
"""In the long call."""

TIMES = 3


def measured_replica(scorer: Submits, document_tokens: int, max_batch_tokens: int) -> Replica:
    """Fits the seconds of a batch and of a token to calls of one short document and of several batches.

    Args:
        document_tokens: of the documents of the long call.
        max_batch_tokens: of the engine.
    """
    rng = random.Random(0)
    number = max(2, math.ceil(BATCHES * max_batch_tokens / (document_tokens + SHORT_TOKENS)))
    _timed(scorer, rng, [SHORT_TOKENS])  # warms up
    short_s, short = min(_timed(scorer, rng, [SHORT_TOKENS]) for _ in range(2 * TIMES))
    long_s, long = min(_timed(scorer, rng, [document_tokens] * number) for _ in range(TIMES))
    batches = max(1, long / max_batch_tokens)
    if long <= batches * short:
        return Replica(long_s / long, 0.0, max_batch_tokens)
    token_s = max(0.0, long_s - batches * short_s) / (long - batches * short) or long_s / long
    return Replica(token_s, max(0.0, short_s - short * token_s), max_batch_tokens)


def _timed(scorer: Submits, rng: random.Random, documents: Sequence[int]) -> tuple[float, int]:
    """(seconds, tokens computed) of a call like no other."""
    query = " ".join(rng.choices(WORDS, k=12))
    texts = tuple(" ".join(rng.choices(WORDS, k=tokens)) for tokens in documents)
    prepared = scorer.prepare(RerankRequest((query,), texts))
    began = time.perf_counter()
    scorer.submit(prepared).result()
    seconds = time.perf_counter() - began
    shared = prepared.prompts[0].shared_len * (len(documents) - 1)
    return seconds, prepared.usage.prompt_tokens - shared
