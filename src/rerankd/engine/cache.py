"""An LRU cache of logits. Each engine has its own, so all its entries are of one model and dtype. Knows no prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cachetools import LRUCache

from rerankd.stats import CacheStats

BYTES_PER_ENTRY = 240  # digest, float and their slots in LRUCache, as tracemalloc measures them


class ScoreCache:
    """Prompt → logit, an LRU cache. Not thread-safe.

    Args:
        max_bytes: 0 disables the cache.
    """

    def __init__(self, max_bytes: int) -> None:
        self._logits: LRUCache[bytes, float] = LRUCache(max_bytes // BYTES_PER_ENTRY)
        self._hits = 0
        self._misses = 0
        self._tokens = 0

    def known(self, keys: Sequence[bytes], lengths: Sequence[int]) -> dict[bytes, float]:
        """The cached logits of a request's prompts. Looks up a repeated prompt once.

        Args:
            lengths: tokens of each prompt.
        """
        distinct = dict(zip(keys, lengths, strict=True))
        known = {key: logit for key in distinct if (logit := self.get(key)) is not None}
        self._tokens += sum(lengths) - sum(length for key, length in distinct.items() if key not in known)
        return known

    def get(self, key: bytes) -> float | None:
        """The cached logit, or None; counts a hit or a miss."""
        logit = self._logits.get(key)
        if logit is None:
            self._misses += 1
            return None
        self._hits += 1
        return logit

    def put_all(self, logits: Iterable[tuple[bytes, float]]) -> None:
        """Caches finite logits only: the next computation of a NaN may succeed."""
        if self._logits.maxsize:
            self._logits.update((key, logit) for key, logit in logits if math.isfinite(logit))

    @property
    def stats(self) -> CacheStats:
        """Look-ups, saved tokens and bytes so far; tokens include those of prompts repeated in a request."""
        return CacheStats(self._hits, self._misses, self._tokens, len(self._logits) * BYTES_PER_ENTRY)
