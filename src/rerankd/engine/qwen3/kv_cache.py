"""The keys and values of recent prefixes: what many prompts begin with is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from rerankd.types import CacheStats

if TYPE_CHECKING:
    from torch import Tensor

PrefixKey = tuple[str, tuple[int, ...]]
"""Whose it is, and its token ids."""


class PrefixCache:
    """Recently used prefixes, up to a number of bytes. What one owner's prompts left is of no use to another's.

    The tensors are (num_layers, 2, num_tokens, num_kv_heads, head_dim): keys and values after RoPE.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[PrefixKey, Tensor] = {}  # the most recently used last
        self._hits = 0
        self._misses = 0
        self._tokens = 0

    def get(self, key: PrefixKey) -> Tensor | None:
        """The prefix's keys and values, if they are kept; counts a hit or a miss."""
        entry = self._entries.pop(key, None)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries[key] = entry
        return entry

    def longest_head(self, key: PrefixKey) -> Tensor | None:
        """What a kept prefix has in common with this one: keys and values do not depend on what comes later."""
        best: Tensor | None = None
        length = 0
        owner, prefix = key
        for (other, tokens), entry in self._entries.items():
            shared = num_shared(tokens, prefix) if other == owner else 0
            if shared > length:
                best, length = entry, shared
        return None if best is None else best[:, :, :length]

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    def put(self, key: PrefixKey, entry: Tensor) -> None:
        """Keeps an entry (a copy, where it is part of a larger one), and drops the least recently used ones that no
        longer fit; itself if it is too large."""
        if entry.nbytes > self._max_bytes:
            return
        self._entries[key] = entry.clone() if entry.nbytes < entry.untyped_storage().nbytes() else entry
        self._bytes += entry.nbytes
        while self._bytes > self._max_bytes:
            oldest = next(iter(self._entries))
            self._bytes -= self._entries.pop(oldest).nbytes

    def saved(self, tokens: int) -> None:
        """Counts tokens that did not have to be computed."""
        self._tokens += tokens

    @property
    def stats(self) -> CacheStats:
        """Look-ups, tokens and bytes so far."""
        return CacheStats(self._hits, self._misses, self._tokens, self._bytes)


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many elements both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
