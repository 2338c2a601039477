"""Prompts of random tokens that share a prefix."""

from __future__ import annotations

import random

from rerankd.engine.qwen3.shared_prefix import Prompt


def tokens(count: int, seed: object) -> list[int]:
    rng = random.Random(repr(seed))
    return [rng.randrange(100_000) for _ in range(count)]


def prompts(prefix_len: int, own_lens: list[int], seed: int = 0) -> list[Prompt]:
    prefix = tokens(prefix_len, (seed, "prefix"))
    return [Prompt(prefix + tokens(own, (seed, i)), prefix_len) for i, own in enumerate(own_lens)]
