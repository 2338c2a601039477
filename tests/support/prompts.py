"""Prompts of random tokens that share a prefix."""

from __future__ import annotations

import random

from rerankd.engine.protocols import LastChunk
from rerankd.types import Prompt


def tokens(count: int, seed: object) -> list[int]:
    rng = random.Random(repr(seed))
    return [rng.randrange(100_000) for _ in range(count)]


def prompts(prefix_len: int, own_lens: list[int], seed: int = 0) -> list[LastChunk]:
    prefix = tokens(prefix_len, (seed, "prefix"))
    own = [tokens(length, (seed, i)) for i, length in enumerate(own_lens)]
    return [LastChunk(Prompt("", "", prefix + ids, 0, 0, prefix=tuple(prefix))) for ids in own]
