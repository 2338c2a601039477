"""An LRU cache of the keys and values of recent prefixes, so that a shared prefix is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from cachetools import LRUCache

from rerankd.stats import CacheStats

if TYPE_CHECKING:
    from torch import Tensor

PrefixKey = tuple[str, tuple[int, ...]]
"""The owner and the token ids of a prefix."""


class PrefixCache:
    """Recently used prefixes, up to a number of bytes. Owners do not share entries.

    The tensors are (num_layers, 2, num_tokens, num_kv_heads, head_dim): keys and values after RoPE.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[PrefixKey, Tensor] = LRUCache(max_bytes, getsizeof=lambda entry: entry.nbytes)
        self._hits = 0
        self._misses = 0
        self._tokens = 0

    def get(self, key: PrefixKey) -> Tensor | None:
        """The cached keys and values of the prefix, or None; counts a hit or a miss."""
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry

    def longest_head(self, key: PrefixKey) -> Tensor | None:
        """The longest beginning that a cached prefix shares with this one; later tokens do not change it."""
        owner, prefix = key
        shared = {other: num_shared(other[1], prefix) for other in self._entries if other[0] == owner}
        best = max(shared, key=shared.__getitem__, default=key)
        length = shared.get(best, 0)
        return self._entries[best][:, :, :length] if length else None

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    def put(self, key: PrefixKey, entry: Tensor) -> None:
        """Caches an entry unless it is larger than the cache; copies it if it is a view of a larger tensor."""
        if entry.nbytes <= self._entries.maxsize:
            self._entries[key] = entry.clone() if entry.nbytes < entry.untyped_storage().nbytes() else entry

    def saved(self, tokens: int) -> None:
        """Counts tokens that the cache saved."""
        self._tokens += tokens

    @property
    def stats(self) -> CacheStats:
        """Look-ups, saved tokens and bytes so far."""
        return CacheStats(self._hits, self._misses, self._tokens, int(self._entries.currsize))


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
