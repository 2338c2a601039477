"""An LRU cache of logits. Each engine has its own, so all its entries are of one model and dtype."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence

from cachetools import LRUCache

from rerankd.types import CacheStats, Prompt

BYTES_PER_ENTRY = 240  # digest, float and their slots in LRUCache, as tracemalloc measures them


def keys_of(prompts: Sequence[Prompt], owner: str = "") -> list[bytes]:
    """The key of each prompt: 16 bytes of BLAKE2b over its token ids and the length of its query.

    The length distinguishes two prompts of an encoder if a text contains a separator. The shared prefix of a query is
    hashed once.

    Args:
        owner: see `types.RerankRequest`. Keys differ between owners: a hit would reveal another owner's request.
    """
    heads: dict[tuple[int, tuple[int, ...]], hashlib.blake2b] = {}
    keys = []
    for prompt in prompts:
        common = prompt.query_tokens, prompt.prefix
        if common not in heads:
            first = array("i", (prompt.query_tokens, *prompt.prefix)).tobytes()
            heads[common] = hashlib.blake2b(first, digest_size=16)
        hashed = heads[common].copy()
        hashed.update(array("i", prompt.token_ids[prompt.shared_len :]).tobytes())
        if owner:
            hashed.update(b"owner" + owner.encode())
        keys.append(hashed.digest())
    return keys


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

    def known(self, keys: Sequence[bytes], prompts: Sequence[Prompt]) -> dict[bytes, float]:
        """The cached logits of a request's prompts. Looks up a repeated prompt once."""
        distinct = dict(zip(keys, prompts, strict=True))
        known = {key: logit for key in distinct if (logit := self.get(key)) is not None}
        left = sum(len(prompt.token_ids) for key, prompt in distinct.items() if key not in known)
        self._tokens += sum(len(prompt.token_ids) for prompt in prompts) - left
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
